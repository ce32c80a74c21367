"""The command `anomaly sample`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from anomaly.commands.arguments import (
    check_folders,
    command,
    import_training,
    number,
)
from anomaly.reporting.lines import line_of


def add_sample(commands: Any) -> None:
    p = command(
        commands,
        "sample",
        run_sample,
        "draw new images from a generative model",
        "anomaly sample run --out samples.png",
    )
    p.add_argument("detector", type=Path, metavar="RUN")
    p.add_argument("--out", type=Path, required=True, metavar="PNG")
    p.add_argument("--count", type=number(1), default=16, metavar="N")
    p.add_argument("--seed", type=number(0), default=0, metavar="N")


def run_sample(options: argparse.Namespace) -> None:
    import_training()
    from anomaly.imaging.overlay import grid, save_png
    from training.restore import sample

    check_folders(options.out)
    pictures = sample(options.detector, options.count, options.seed)
    save_png(options.out, grid(pictures, columns=max(1, round(len(pictures) ** 0.5))))
    drawn = f"{len(pictures)} images drawn from the model, none of them is real"
    print(line_of("written", f"{options.out}   {drawn}"))
