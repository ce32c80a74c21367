"""The command `anomaly show`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from anomaly.commands.arguments import command


def add_show(commands: Any) -> None:
    p = command(
        commands,
        "show",
        run_show,
        "describe a detector and what it guarantees",
        "anomaly show run",
    )
    p.add_argument("detector", type=Path, metavar="RUN")
    p.add_argument("--json", action="store_true", help="print the whole card")


def run_show(options: argparse.Namespace) -> None:
    from anomaly.detector.file import read_card
    from anomaly.reporting.detector import detector_lines

    card = read_card(options.detector)
    if options.json:
        print(json.dumps({**card.to_json(), "digest": card.digest}, indent=2))
        return
    # a card from elsewhere may hold what moves a terminal's cursor
    for line in detector_lines(card, str(options.detector)):
        print("".join(char if char.isprintable() else "?" for char in line))
