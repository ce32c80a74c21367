"""The command `anomaly compare`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from anomaly.commands.arguments import add_device, add_good, check_folders, command, say
from anomaly.errors import NOT_ALL_JUDGED
from anomaly.training_options import given_names


def add_compare(commands: Any) -> None:
    """Adds `compare` to the command line."""
    p = command(
        commands,
        "compare",
        run_compare,
        "list the images on which two detectors disagree",
        "anomaly compare run run2 photos --report flips.html",
    )
    p.add_argument("old", type=Path, metavar="OLD")
    p.add_argument("new", type=Path, metavar="NEW")
    p.add_argument(
        "images",
        type=Path,
        metavar="IMAGES",
        help="folder or manifest; with labels, the better detector is named",
    )
    p.add_argument("--json", action="store_true", help="print the figures as JSON")
    p.add_argument(
        "--report",
        type=Path,
        metavar="FILE",
        help="write an HTML report with pictures of these images",
    )
    add_good(p)
    add_device(p)


def run_compare(options: argparse.Namespace) -> int:
    from anomaly.quality.audit import note_check
    from anomaly.quality.compare import compare
    from anomaly.reporting.comparison import comparison_text
    from anomaly.scorer import Scorer

    check_folders(options.report)
    old, new = (Scorer(path, device=options.device) for path in (options.old, options.new))
    found = compare(
        old, new, options.images, report=options.report, good=given_names(options.good), say=say
    )
    print(json.dumps(found.to_json(), indent=2) if options.json else comparison_text(found))
    note_check(options.new, options.command_line, new.card, found.to_json())
    return NOT_ALL_JUDGED if found.not_judged else 0
