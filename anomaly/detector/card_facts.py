"""What a detector's card says of its training, checked: every fact that is read anywhere has its
type and range here.

A fact that is not there is unknown, and one with a name that is not known here is kept and never
read.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Callable, Mapping
from datetime import datetime
from itertools import pairwise
from typing import Any, TypeAlias

from anomaly.detector.size_sensitivity import MAX_NAMED_IMAGES
from anomaly.detector.unit_rule import UnitRule
from anomaly.errors import AnomalyError

Check: TypeAlias = Callable[[Any], bool]

MAX_DEPTH = 20  # objects and lists in each other
MAX_TEXT_CHARACTERS = 100_000  # characters of one text, but for a mask
MAX_INTEGER = 2**64  # of an integer; a seed may be large
MOST_MASK = 1 << 20  # characters of a mask's PNG: of 1,024 x 1,024 cells of one bit


def check_facts(training: Mapping[str, Any]) -> None:
    """Raises ValueError where a fact about the training is not of its kind."""
    for name, check in FACTS.items():
        if name in training and not check(training[name]):
            raise ValueError(f"training.{name}: {_shown(training[name])} found, which it cannot be")


def check_json(value: Any, depth: int = 0) -> None:
    """Raises ValueError unless JSON holds finite numbers, texts that can be written, and is not
    nested too deeply.
    """
    if depth > MAX_DEPTH:
        raise ValueError(f"nested deeper than {MAX_DEPTH}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} found, a finite number expected")
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > MAX_INTEGER:
        raise ValueError(f"an integer of {value.bit_length()} bits found, at most 64 expected")
    if isinstance(value, str) and len(value) > MOST_MASK:
        raise ValueError(f"a text of {len(value)} characters found, at most {MOST_MASK} expected")
    for inner in _inside(value):
        check_json(inner, depth + 1)


def is_text(value: Any, most: int = MAX_TEXT_CHARACTERS) -> bool:
    return isinstance(value, str) and len(value) <= most


def is_line(value: Any, most: int = MAX_TEXT_CHARACTERS) -> bool:
    """Whether it is one line that a terminal can print, of at least one character."""
    return is_text(value, most) and bool(value) and value.isprintable()


def is_digest(value: Any) -> bool:
    return isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef")


def check_quality(quality: Mapping[str, Any]) -> None:
    """Raises ValueError where a figure of labelled images is none: a share from 0 to 1, or a rate
    with its interval.

    None: not known. Names that are not known here are kept and never read, as in ``training``.
    """
    for name in FIGURES:
        if name in quality and not _or_none(_is_figure)(quality[name]):
            raise ValueError(
                f"quality.{name}: {_shown(quality[name])} found, a share from 0 to 1 expected"
            )


def texts_by_name(value: Any) -> bool:
    return isinstance(value, dict) and all(
        is_text(name) and is_text(text) for name, text in value.items()
    )


def _inside(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [*value, *value.values()]
    return value if isinstance(value, list) else []


def _shown(value: Any) -> str:
    shown = repr(value)
    return f"{shown[:60]}..." if len(shown) > 60 else shown


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _number(least: float, most: float = math.inf) -> Check:
    return lambda value: _is_number(value) and least <= value <= most


def _whole(least: int, most: int = MAX_INTEGER) -> Check:
    return lambda value: type(value) is int and least <= value <= most


def _flag(value: Any) -> bool:
    return isinstance(value, bool)


def _or_none(check: Check) -> Check:
    return lambda value: value is None or check(value)


def _all(check: Check, most: int = 100_000) -> Check:
    return lambda value: isinstance(value, list) and len(value) <= most and all(map(check, value))


def _named(check: Check) -> Check:
    """An object whose names are free."""
    return lambda value: (
        isinstance(value, dict) and all(is_text(n) and check(inner) for n, inner in value.items())
    )


def _object(**checks: Check) -> Check:
    """An object that has these names; others are not read."""
    return lambda value: (
        isinstance(value, dict)
        and all(n in value and check(value[n]) for n, check in checks.items())
    )


def _span(check: Check) -> Check:
    return lambda value: _all(check)(value) and len(value) == 2 and value[0] <= value[1]


def _ranges(value: Any) -> bool:
    optional = {
        "aspect": _span(_number(1e-9, 1e9)),
        "pixels": _span(_whole(1)),
        "bits": _are_bits,
        "grey": _flag,
    }
    return isinstance(value, dict) and all(
        name not in value or check(value[name]) for name, check in optional.items()
    )


def _is_mask(value: Any) -> bool:
    """A picture that can be decoded is asked of ``mask.mask_of``, which is used where the mask is
    shown.
    """
    if not _object(
        file=is_text, sha256=is_digest, share=_number(0, 1), png=lambda v: is_text(v, MOST_MASK)
    )(value):
        return False
    try:
        data = base64.b64decode(value["png"], validate=True)
    except (binascii.Error, ValueError):
        return False
    return data.startswith(b"\x89PNG\r\n\x1a\n")


def _are_options(value: Any) -> bool:
    """What training was asked for, by which it is repeated."""
    return isinstance(value, dict) and all(
        OPTIONS[name](inner) for name, inner in value.items() if name in OPTIONS
    )


def _is_unit_rule(value: Any) -> bool:
    if not _object(pattern=is_text, least=_whole(1), most=_whole(1))(value):
        return False
    try:
        return UnitRule.of({"by_unit": value}) is not None
    except AnomalyError:
        return False


def _is_size_row(value: Any) -> bool:
    if (
        not _object(pixels=_whole(1), flagged=_whole(0), of=_whole(1))(value)
        or value["flagged"] > value["of"]
    ):
        return False
    scores = value.get("scores", [])
    whole = _all(_or_none(_SCORE))(scores) and ("scores" not in value or len(scores) == value["of"])
    return whole and _or_none(_whole(0, value["flagged"]))(value.get("met"))


def _is_size_sensitivity(value: Any) -> bool:
    """Rows by ascending size of the synthetic defects."""
    if not _object(pixel=_number(1e-9, 1e9), sizes=_all(_is_size_row, 1000))(value):
        return False
    pixels = [row["pixels"] for row in value["sizes"]]
    return all(small < large for small, large in pairwise(pixels))


def _is_cost(value: Any) -> bool:
    if not _COST(value) or not 1 <= len(value["without"]) <= MAX_NAMED_IMAGES:
        return False
    counts = [value[name] for name in ("flagged", "flagged_now", "of")]
    return counts == [None] * 3 or (None not in counts and max(counts) == counts[2])


def _is_date(value: Any) -> bool:
    """A date of ISO 8601, with or without the time."""
    try:
        return is_line(value, 64) and value.isascii() and bool(datetime.fromisoformat(value))
    except ValueError:
        return False


def _is_name(value: Any) -> bool:
    return is_line(value, 1000) and value.strip() == value


def _are_bits(value: Any) -> bool:
    return _all(_whole(1, 64), 64)(value) and bool(value) and value == sorted(set(value))


def _is_figure(value: Any) -> bool:
    if not isinstance(value, dict):
        return _number(0, 1)(value)
    share = _number(0, 1)
    if not _object(value=share, low=share, high=share)(value) or value["low"] > value["high"]:
        return False
    counted = "flagged" not in value or _object(flagged=_whole(0), n=_whole(1))(value)
    if not counted or "flagged" not in value:
        return counted
    return value["flagged"] <= value["n"] and math.isclose(
        value["value"], value["flagged"] / value["n"], rel_tol=1e-6
    )


FIGURES = (
    "auroc",
    "image_auroc",
    "average_precision",
    "recall",
    "false_alarm_rate",
    "pixel_auroc",
    "aupro",
)
_SCORE = _number(-3e38, 3e38)  # a float32
_COST = _object(
    without=_all(is_text), threshold=_SCORE, guaranteed_rate=_number(0, 1),
    flagged=_or_none(_whole(0)), flagged_now=_or_none(_whole(0)), of=_or_none(_whole(0)),
)  # fmt: skip

OPTIONS: dict[str, Check] = {
    **dict.fromkeys(
        (
            "images",
            "model",
            "space",
            "quality",
            "device",
            "target",
            "decode",
            "command",
            "marked_by",
        ),
        is_text,
    ),
    **dict.fromkeys(
        ("error", "score", "group_by", "by_unit", "exclude", "mask"), _or_none(is_text)
    ),
    **dict.fromkeys(("size", "epochs", "views", "tile", "min_area", "depth"), _or_none(_whole(0))),
    **dict.fromkeys(("rank_only", "resume"), _flag),
    "seed": _whole(-MAX_INTEGER),
    "false_alarm_rate": _or_none(_number(0, 0.5)),
    "good": _all(is_text),
}
FACTS: dict[str, Check] = {
    "images": _whole(1),
    "groups": _whole(1),
    "grouped": _flag,
    "group_by": _or_none(is_text),
    "sets": _named(_whole(0)),
    "digest": is_digest,
    "ranges": _ranges,
    "seed": _whole(-MAX_INTEGER),
    "versions": texts_by_name,
    "command": is_text,
    "created": _is_date,
    "by": _is_name,
    "warnings": _all(is_text),
    "target": is_text,
    "target_rate": _or_none(_number(0, 0.5)),
    "highest": _all(is_text),
    "choice": _or_none(_named(_number(0, 1))),
    "mask": _or_none(_is_mask),
    "min_area": _or_none(_whole(0)),
    "min_cells": _whole(1),
    "size_sensitivity": _or_none(_is_size_sensitivity),
    "cost": _or_none(_is_cost),
    "options": _or_none(_are_options),
    "guard": _or_none(_object(refused=_number(0, 1), noticed=_named(_number(0, 1)))),
    "parity": _number(0),
    "tiles": _or_none(_object(tile=_whole(1), down=_whole(1), across=_whole(1))),
    "by_unit": _or_none(_is_unit_rule),
    "recalibrated": _is_date,
    "recalibrated_by": _is_name,
    "recalibrated_on": _whole(1),
    "accepted_worse": _all(is_text),
    "threshold_moved": _or_none(_is_date),
    "threshold_moved_by": _or_none(_is_name),
    "threshold_moved_from": _or_none(_SCORE),
}
