"""What several commands share: arguments and their types, how an answer is printed."""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from anomaly.errors import AnomalyError


def command(
    commands: Any,
    name: str,
    run: Callable[[argparse.Namespace], int | None],
    help: str,
    example: str,
    description: str | None = None,
) -> argparse.ArgumentParser:
    """Adds a command with its one-line help and an example that can be typed as it is."""
    added: argparse.ArgumentParser = commands.add_parser(
        name,
        help=help,
        description=description or help,
        epilog=f"example:  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    added.set_defaults(run=run)
    return added


def rate(text: str) -> float:
    """Reads a false-alarm rate; 0.01 and 1% are the same."""
    try:
        value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        value = -1.0
    if not 0 < value <= 0.5:
        raise argparse.ArgumentTypeError(
            f"{text!r} found, a rate such as 0.01 or 1% expected (above 0, at most 0.5)"
        )
    return value


def share(text: str) -> float:
    """A number from 0 to 0.9, as argparse takes it."""
    try:
        found = float(text)
    except ValueError:
        found = -1.0
    if not 0 <= found <= 0.9:
        raise argparse.ArgumentTypeError(f"{text!r} found, a share from 0 to 0.9 expected")
    return found


def review_rate(text: str) -> float:
    """Reads a second false-alarm rate; 0 is none."""
    return 0.0 if text == "0" else rate(text)


def finite(text: str) -> float:
    """Reads a score."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text!r} found, a score such as 0.31 expected")
    return value


def number(least: int) -> Callable[[str], int]:
    """Returns a reader of whole numbers from ``least`` on (and below 2^32, which every generator
    takes as a seed).
    """

    def read(text: str) -> int:
        value = int(text) if text.isascii() and text.isdecimal() else -1
        if not least <= value < 2**32:
            raise argparse.ArgumentTypeError(
                f"{text!r} found, a whole number from {least} on expected"
            )
        return value

    return read


def shard_of(text: str) -> tuple[int, int]:
    """Reads which of how many shards: 2/4 is the second of four."""
    match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text, re.ASCII)
    shard, of = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= shard <= of:
        raise argparse.ArgumentTypeError(f"{text!r} found, one of 1/N, 2/N ... N/N expected")
    return shard, of


def check_folders(*files: Path | None) -> None:
    """Raises AnomalyError where the folder of a file to write is not there: before the work, not
    after it.
    """
    for file in files:
        if file is not None and not file.parent.is_dir():
            raise AnomalyError(
                f"{file.parent}: no such folder; make it first, or choose another name for "
                f"{file.name}"
            )


def answer(figures: dict[str, Any], text: str, file: Path | None) -> None:
    """Prints the text, and writes the figures as JSON where a file is given; ``-`` prints the
    figures alone.
    """
    written = json.dumps(figures, indent=2)
    if file is not None and file != Path("-"):
        from anomaly.files.atomic import errors_naming

        with errors_naming(file):
            file.write_text(written + "\n", encoding="utf-8")
    print(written if file == Path("-") else text)


def say(line: str) -> None:
    """Prints news and warnings where they do not mix with the answer."""
    print(line, file=sys.stderr)


def add_good(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "--good",
        action="append",
        default=[],
        metavar="NAME",
        help="folder name or label of good images, if it is not a usual one (may be repeated, or "
        "separated by commas)",
    )


def add_unit_arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "--by-unit",
        metavar="REGEX",
        help="guarantee per unit: images with the same match (first group) are its views",
    )
    p.add_argument(
        "--views",
        type=number(1),
        metavar="N",
        help="with --by-unit: use only units of N images",
    )


def add_independent(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "--independent",
        action="store_true",
        help="similar images show different parts: join only those with the same pixels",
    )


def add_rate(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "--false-alarm-rate",
        type=rate,
        metavar="R",
        help="target rate of good images flagged (default 0.01)",
    )


def add_group_by(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "--group-by",
        metavar="REGEX",
        help="images with the same match (first group) in their path are one part or lot",
    )


def add_target(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "--target",
        choices=("ort", "portable"),
        default="ort",
        help="portable: also exact in OpenVINO, but slower",
    )


def add_draw_seed(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "--seed",
        type=number(0),
        default=0,
        metavar="N",
        help="seed for drawing one image from each group",
    )


def add_device(p: argparse.ArgumentParser) -> None:
    p.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
