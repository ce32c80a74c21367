"""The command `anomaly run`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from anomaly.commands.arguments import command, say
from anomaly.errors import FAILED


def add_run(commands: Any) -> None:
    """Adds `run` to the command line."""
    p = command(
        commands, "run", run_run, "judge what cameras and triggers bring, for a controller",
        "anomaly run station.toml",
    )  # fmt: skip
    p.add_argument(
        "station",
        type=Path,
        metavar="STATION.toml",
        help="file that names the detector, the sources of images and the sinks of results",
    )
    p.add_argument(
        "--check",
        action="store_true",
        help="try the detector, every source and every sink, and judge nothing",
    )


def run_run(options: argparse.Namespace) -> int:
    from anomaly.station.reading import read_station

    station = read_station(options.station)
    if options.check:
        from anomaly.reporting.lines import line_of
        from anomaly.station.check import check_station

        works = True
        for label, good, found in check_station(station):
            print(line_of(label, found if good else f"FAILED: {found}"), flush=True)
            works = works and good
        return 0 if works else FAILED
    from anomaly.station.run import run_station

    run_station(station, say)
    return 0
