"""The command `anomaly gallery`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from anomaly.commands.arguments import add_good, command, number, say
from anomaly.learning import import_training
from anomaly.reporting.lines import line_of
from anomaly.training_options import given_names


def add_gallery(commands: Any) -> None:
    """Adds `gallery` to the command line."""
    p = command(
        commands,
        "gallery",
        run_gallery,
        "train a model of each family on the same images and show them side by side",
        "anomaly gallery photos --out gallery",
    )
    p.add_argument(
        "images", type=Path, help="folder of good images, or a train/test folder or manifest"
    )
    p.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write")
    p.add_argument(
        "--models",
        metavar="A,B",
        type=lambda names: given_names([names]),
        help="models to train, names of train --model (default: one of each family)",
    )
    p.add_argument(
        "--minutes",
        type=minutes,
        default=5.0,
        metavar="M",
        help="minutes of training, all models together (5)",
    )
    p.add_argument(
        "--size",
        type=number(1),
        default=32,
        metavar="N",
        help="model input size in pixels, for every model (32)",
    )
    p.add_argument(
        "--seed",
        type=number(0),
        default=0,
        metavar="N",
        help="seed of the split and of the trainings",
    )
    add_good(p)


def minutes(text: str) -> float:
    """Reads a number of minutes above 0."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value <= 10_000:
        raise argparse.ArgumentTypeError(f"{text!r} found, a number of minutes above 0 expected")
    return value


def run_gallery(options: argparse.Namespace) -> None:
    import_training()
    from training.gallery import ONE_OF_EACH_FAMILY, GalleryOptions, gallery

    asked = GalleryOptions(
        images=options.images,
        out=options.out,
        models=tuple(dict.fromkeys(options.models or ONE_OF_EACH_FAMILY)),
        minutes=options.minutes,
        size=options.size,
        seed=options.seed,
        good=given_names(options.good),
        command=options.command_line,
    )
    page = gallery(asked, say)
    count = len(asked.models)
    print(line_of("written", f"{page}   {count} model{'s' * (count > 1)}"))
