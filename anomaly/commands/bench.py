"""The command `anomaly bench`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from anomaly.commands.arguments import (
    add_device,
    answer,
    check_folders,
    command,
    number,
)


def add_bench(commands: Any) -> None:
    p = command(
        commands,
        "bench",
        run_bench,
        "measure the speed of a detector on this machine, and find the bottleneck",
        "anomaly bench run photos/new",
    )
    p.add_argument("detector", type=Path, metavar="RUN")
    p.add_argument(
        "inputs",
        nargs="+",
        metavar="IMAGES",
        help="inputs as for score; up to 64 of the first 1,000 images are used",
    )
    p.add_argument(
        "--seconds",
        type=number(1),
        default=30,
        metavar="N",
        help="seconds of measuring throughput (30)",
    )
    add_device(p)
    p.add_argument(
        "--json",
        type=Path,
        metavar="FILE",
        help="write the figures as JSON (- for standard output)",
    )


def run_bench(options: argparse.Namespace) -> None:
    from anomaly.inputs.sources import list_sources
    from anomaly.quality.bench import bench
    from anomaly.reporting.quality import bench_text

    check_folders(options.json)
    found = bench(
        options.detector,
        list_sources(options.inputs),
        device=options.device,
        seconds=options.seconds,
    )
    answer(found.to_json(), bench_text(found), options.json)
