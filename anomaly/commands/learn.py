"""The command `anomaly learn`: a new detector from a run and what inspectors found since."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from anomaly.commands.arguments import command, say
from anomaly.errors import AnomalyError
from anomaly.learning import import_training


def add_learn(commands: Any) -> None:
    """Adds `learn` to the command line."""
    p = command(
        commands,
        "learn",
        run_learn,
        "learn from verdicts, known defects and more good images: a new detector from a run",
        "anomaly learn run --review review.db --out run2",
        "a new detector from a run's images and new ones: defects that inspectors found, good "
        "images of the audit sample, more good images",
    )
    p.add_argument("detector", type=Path, metavar="RUN")
    p.add_argument("--out", type=Path, required=True, metavar="NEW", help="folder to write")
    p.add_argument(
        "--review",
        metavar="DB",
        help="review database: images judged anomalous are known defects, and good images of the "
        "audit sample are good images",
    )
    p.add_argument(
        "--defects",
        type=Path,
        metavar="DIR",
        help="images of known defects, a folder for each type (or a manifest)",
    )
    p.add_argument("--normal", type=Path, metavar="DIR", help="more good images")


def run_learn(options: argparse.Namespace) -> None:
    """Learns, and says before and after."""
    from anomaly.commands.retrain import say_change

    if options.review is None and options.defects is None and options.normal is None:
        raise AnomalyError(
            "nothing to learn from found: give --review DB, --defects DIR or --normal DIR"
        )
    import_training()
    from anomaly.detector.file import read_card
    from training.learn_again import learn_again, news_of

    group_by = read_card(options.detector).training.group_by
    news = news_of(options.normal, options.defects, options.review, say, group_by)
    old, new = learn_again(
        options.detector, options.out, news, command=options.command_line, say=say
    )
    say_change(old, new, options.out)
