"""The command `anomaly train`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any, cast, get_args

from anomaly.commands.arguments import (
    add_device,
    add_good,
    add_group_by,
    add_independent,
    add_rate,
    add_target,
    add_unit_arguments,
    command,
    number,
    rate,
    say,
    share,
)
from anomaly.learning import import_training, options_for, train_run
from anomaly.reporting.lines import line_of
from anomaly.training_options import (
    Calibrate,
    Depth,
    Frame,
    Model,
    Quality,
    Space,
    TrainingOptions,
    given_names,
)


def add_train(commands: Any) -> None:
    p = command(
        commands,
        "train",
        run_train,
        "fit a model on good images, set the threshold, write RUN/detector.onnx",
        "anomaly train photos/good --out run",
    )
    p.add_argument(
        "images",
        type=Path,
        help="folder of good images, a train/test folder, or a manifest (.csv, .tsv, .parquet)",
    )
    p.add_argument("--out", type=Path, required=True, metavar="RUN", help="folder to write")
    add_model_arguments(p)
    p.add_argument(
        "--epochs",
        type=number(1),
        metavar="N",
        help="number of epochs, for models without a closed form",
    )
    p.add_argument(
        "--seed",
        type=number(0),
        default=0,
        metavar="N",
        help="the same seed gives the same detector",
    )
    add_rate(p)
    p.add_argument(
        "--review-rate",
        type=rate,
        metavar="R",
        help="second threshold: at most this rate of good images is flagged or for review (such "
        "as 0.05)",
    )
    p.add_argument(
        "--calibrate",
        choices=get_args(Calibrate),
        default="auto",
        help="split: part of the good images sets the threshold, the rate is guaranteed; cross: "
        "all train and set it, the rate is estimated; auto: cross up to 300 groups, where the "
        "model is fitted in seconds",
    )
    add_device(p)
    add_image_arguments(p)
    p.add_argument(
        "--rank-only",
        action="store_true",
        help="rank images without a guarantee (for very few images)",
    )
    add_target(p)
    p.add_argument(
        "--decode",
        choices=("full", "reduced"),
        default="full",
        help="reduced: decode large JPEG files faster, at a smaller scale",
    )
    p.add_argument(
        "--depth",
        type=int,
        choices=get_args(Depth),
        help="true bit depth of 16-bit files (default: found from all files)",
    )
    p.add_argument(
        "--no-expected-picture",
        dest="expected_picture",
        action="store_false",
        help="do not write RUN/explain.onnx: reports and dashboard then show no picture of what "
        "the model expected",
    )
    p.add_argument("--resume", action="store_true", help="resume from RUN/checkpoint.safetensors")
    p.add_argument(
        "--dry-run",
        action="store_true",
        help="print what these images can guarantee and what training would do, then exit",
    )
    p.add_argument("--json", action="store_true", help="with --dry-run: print the figures as JSON")


def add_model_arguments(p: argparse.ArgumentParser) -> None:
    """Adds what is learnt, and how it is scored."""
    p.add_argument(
        "--model",
        choices=get_args(Model),
        default="auto",
        help="auto: the closed-form linear autoencoder",
    )
    p.add_argument(
        "--space",
        choices=get_args(Space),
        default="auto",
        help="what is modelled; auto: features and filters (both)",
    )
    p.add_argument(
        "--backbone",
        metavar="NAME",
        help="frozen network of features: timm:NAME, torchvision:NAME, transformers:NAME, "
        "hub:FOLDER:ENTRY (runs its hubconf.py), each also NAME=FILE with its weights "
        "(.safetensors, .pth); nothing is downloaded",
    )
    p.add_argument(
        "--stages",
        metavar="A,B",
        type=lambda names: given_names([names]),
        help="modules of the backbone to read, such as layer2,layer3, or numbers of a "
        "transformer's blocks",
    )
    p.add_argument(
        "--quality",
        choices=get_args(Quality),
        default="default",
        help="trade speed for detection",
    )
    p.add_argument(
        "--size",
        type=number(1),
        metavar="N",
        help="model input size in pixels (256; in pixel space 128)",
    )
    p.add_argument(
        "--frame",
        choices=get_args(Frame),
        default="auto",
        help="what is looked at: whole image; part: cropped to it; axis: its axis level; match: "
        "turned to match the others",
    )
    p.add_argument(
        "--error",
        choices=("l2", "ssim", "gradient"),
        help="reconstruction error of an autoencoder of pixels",
    )
    p.add_argument(
        "--dropout",
        type=share,
        metavar="P",
        help="share of its channels that a GAN's discriminator leaves out of each training step",
    )
    p.add_argument(
        "--score",
        metavar="NAME",
        help="image score: hottest, mean, typicality, or one of the model's own",
    )


def add_image_arguments(p: argparse.ArgumentParser) -> None:
    """Adds which images are learnt from, and what of them."""
    add_group_by(p)
    add_unit_arguments(p)
    add_good(p)
    add_independent(p)
    p.add_argument(
        "--exclude",
        type=Path,
        metavar="FILE",
        help="list of images to leave out, one path per line",
    )
    p.add_argument(
        "--defects",
        type=Path,
        metavar="DIR",
        help="images of known defects to learn from, a folder for each type (or a manifest)",
    )
    p.add_argument(
        "--independent-defects",
        action="store_true",
        help="--defects were found without a detector: say how many of them are missed",
    )
    p.add_argument(
        "--tile",
        type=number(32),
        metavar="N",
        help="cut large images into tiles of N pixels a side (such as 512)",
    )
    p.add_argument(
        "--mask",
        type=Path,
        metavar="PNG",
        help="image of any size; black regions are ignored",
    )
    p.add_argument(
        "--min-area",
        type=number(1),
        metavar="N",
        help="ignore high regions smaller than N pixels of the original",
    )


def run_train(options: argparse.Namespace) -> None:
    from anomaly.reporting.detector import card_text

    given = {name: getattr(options, name) for name in TrainingOptions.__annotations__}
    asked = cast("TrainingOptions", given | {"good": given_names(options.good)})
    if options.dry_run:
        chosen = options_for(options.images, options.out, options.command_line, asked)
        plan = import_training("plan").dry_run(chosen, say)
        print(json.dumps(plan.to_json(), indent=2) if options.json else plan.text())
        return
    card = train_run(options.images, options.out, None, options.command_line, say, asked)
    if card is None:  # another process of a data-parallel run writes the detector
        return
    print(line_of("written", f"{options.out / 'detector.onnx'}   {card.identity}"))
    print(card_text(card, str(options.out)))
