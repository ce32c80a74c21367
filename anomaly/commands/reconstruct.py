"""The command `anomaly reconstruct`."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from anomaly.commands.arguments import (
    check_folders,
    command,
    number,
    say,
)
from anomaly.errors import NOT_ALL_JUDGED, AnomalyError
from anomaly.reporting.lines import line_of


def add_reconstruct(commands: Any) -> None:
    p = command(
        commands, "reconstruct", run_reconstruct, "show images beside the expected images",
        "anomaly reconstruct run photos/new --out pairs.png",
    )  # fmt: skip
    p.add_argument("detector", type=Path, metavar="RUN")
    p.add_argument("images", type=Path, help="image, folder or manifest")
    p.add_argument("--out", type=Path, required=True, metavar="PNG")
    p.add_argument(
        "--count", type=number(1), default=8, metavar="N", help="at most this number of images (8)"
    )


def run_reconstruct(options: argparse.Namespace) -> int:
    from anomaly.imaging.captions import captioned, save_with_facts
    from anomaly.quality.reconstructions import reconstructions
    from anomaly.reporting.pictures import picture_facts, reconstruction_lines
    from anomaly.scorer import Scorer

    check_folders(options.out)
    if options.images.is_dir() and Path(os.path.realpath(options.out)).is_relative_to(
        os.path.realpath(options.images)
    ):
        raise AnomalyError(
            f"--out {options.out}: lies among the images, and would be judged as one; choose "
            "another folder"
        )
    scorer = Scorer(options.detector)
    picture, shown, errors = reconstructions(scorer, options.images, options.count)
    lines = reconstruction_lines(scorer.card)
    for line in errors:
        say(line)
    save_with_facts(options.out, captioned(picture, lines), picture_facts(scorer.card, lines))
    print(line_of("written", f"{options.out}   {shown} images: original, expected, heatmap"))
    return NOT_ALL_JUDGED if errors else 0
