"""The command `anomaly check`: keep, recalibrate or retrain?"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from anomaly.commands.arguments import (
    add_draw_seed,
    add_good,
    add_group_by,
    add_independent,
    command,
    say,
)
from anomaly.errors import FOUND_ANOMALY
from anomaly.training_options import given_names


def add_check(commands: Any) -> None:
    """Adds `check` to the command line."""
    p = command(
        commands,
        "check",
        run_check,
        "recommend from new good images to keep, recalibrate or retrain a detector",
        "anomaly check run photos/good_today",
    )
    p.add_argument("detector", type=Path, metavar="RUN")
    p.add_argument(
        "normal",
        type=Path,
        metavar="NEW_GOOD",
        help="new good images, not used in training",
    )
    add_group_by(p)
    add_good(p)
    add_independent(p)
    add_draw_seed(p)
    p.add_argument("--json", action="store_true", help="print the figures as JSON")
    p.add_argument(
        "--fail-unless-keep", action="store_true", help="exit with 4 unless the result is keep"
    )


def run_check(options: argparse.Namespace) -> int:
    from anomaly.detector.file import read_card
    from anomaly.files.left_out import left_out_lines
    from anomaly.quality.audit import note_check
    from anomaly.quality.check import check
    from anomaly.reporting.quality import check_text

    found = check(
        options.detector,
        options.normal,
        group_by=options.group_by,
        seed=options.seed,
        independent=options.independent,
        good=given_names(options.good),
        say=say,
    )
    for line in left_out_lines(found.left_out):
        say(line)
    text = check_text(found, str(options.detector), str(options.normal))
    note_check(options.detector, options.command_line, read_card(options.detector), found.to_json())
    print(json.dumps(found.to_json(), indent=2) if options.json else text)
    return FOUND_ANOMALY if options.fail_unless_keep and found.advice != "keep" else 0
