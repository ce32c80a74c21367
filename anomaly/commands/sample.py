"""The command `anomaly sample`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from anomaly.commands.arguments import check_folders, command, number
from anomaly.learning import import_training
from anomaly.reporting.lines import rows_text


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
    p.add_argument(
        "--prior",
        choices=("fitted", "standard"),
        help="where a VAE's latents come from: a Gaussian fitted to those of the good images (the "
        "default), or the standard normal prior",
    )


def run_sample(options: argparse.Namespace) -> None:
    import_training()
    from anomaly.detector.file import read_card
    from anomaly.imaging.captions import captioned, enlarged, save_with_facts
    from anomaly.imaging.overlay import grid
    from anomaly.reporting.pictures import picture_facts, sample_lines
    from training.restore import sample

    check_folders(options.out)
    pictures = sample(options.detector, options.count, options.seed, options.prior)
    card = read_card(options.detector)
    lines = sample_lines(card, len(pictures), options.seed, options.prior)
    large = [enlarged(picture) for picture in pictures]
    sheet = captioned(grid(large, columns=max(1, round(len(large) ** 0.5))), lines)
    save_with_facts(options.out, sheet, picture_facts(card, lines))
    print(rows_text([("written", f"{options.out}   {lines[1]}"), *(("", x) for x in lines[2:])]))
