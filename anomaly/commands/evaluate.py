"""The command `anomaly evaluate`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from anomaly.commands.arguments import (
    add_device,
    add_good,
    add_group_by,
    answer,
    check_folders,
    command,
    say,
)
from anomaly.errors import NOT_ALL_JUDGED
from anomaly.learning import Detector
from anomaly.training_options import given_names


def add_evaluate(commands: Any) -> None:
    p = command(
        commands, "evaluate", run_evaluate, "measure a detector on labelled images",
        "anomaly evaluate run photos --report report.html",
    )  # fmt: skip
    p.add_argument("detector", type=Path, metavar="RUN")
    p.add_argument("labelled", type=Path, help="train/test folder, or manifest with a label column")
    p.add_argument(
        "--json",
        type=Path,
        metavar="FILE",
        help="write the figures as JSON (- for standard output)",
    )
    p.add_argument("--report", type=Path, metavar="FILE", help="write an HTML report with pictures")
    add_group_by(p)
    add_good(p)
    add_device(p)


def run_evaluate(options: argparse.Namespace) -> int:
    from anomaly.quality.audit import note_check
    from anomaly.reporting.evaluation import figures_text

    check_folders(options.json, options.report)
    detector = Detector.load(options.detector, device=options.device)
    judged = detector.evaluate(
        options.labelled,
        group_by=options.group_by,
        report=options.report,
        good=given_names(options.good),
        say=say,
    )
    figures = {**judged.to_json(), "passed_over": judged.passed_over}
    note_check(options.detector, options.command_line, detector.card, figures)
    answer(figures, figures_text(judged), options.json)
    return NOT_ALL_JUDGED if judged.evaluation.not_inspected else 0
