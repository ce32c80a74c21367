"""What a value in a detector's card may be: its type, its range, its length."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, TypeAlias

Check: TypeAlias = Callable[[Any], bool]

MAX_DEPTH = 20  # objects and lists in each other
MAX_TEXT_CHARACTERS = 100_000  # characters of one text, but for a mask
MAX_INTEGER = 2**64  # of an integer; a seed may be large
MAX_MASK_CHARACTERS = 1 << 20  # characters of a mask's PNG: of 1,024 x 1,024 cells of one bit

FIGURES = (
    "auroc",
    "image_auroc",
    "average_precision",
    "recall",
    "false_alarm_rate",
    "pixel_auroc",
    "aupro",
)


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
    if isinstance(value, str) and len(value) > MAX_MASK_CHARACTERS:
        raise ValueError(
            f"a text of {len(value)} characters found, at most {MAX_MASK_CHARACTERS} expected"
        )
    for inner in _inside(value):
        check_json(inner, depth + 1)


def check_quality(quality: Mapping[str, Any]) -> None:
    """Raises ValueError where a figure of labelled images is none: a share from 0 to 1, or a rate
    with its interval.

    None: not known. Names that are not known here are kept and never read, as in ``training``.
    """
    for name in FIGURES:
        if name in quality and not or_none(_is_figure)(quality[name]):
            raise ValueError(
                f"quality.{name}: {shown(quality[name])} found, a share from 0 to 1 expected"
            )


def shown(value: Any) -> str:
    """Returns how a value is written in Python, at most 60 characters of it."""
    text = repr(value)
    return f"{text[:60]}..." if len(text) > 60 else text


def is_text(value: Any, most: int = MAX_TEXT_CHARACTERS) -> bool:
    """Returns whether it is a text of at most so many characters."""
    return isinstance(value, str) and len(value) <= most


def is_line(value: Any, most: int = MAX_TEXT_CHARACTERS) -> bool:
    """Returns whether it is one line that a terminal can print, of at least one character."""
    return is_text(value, most) and bool(value) and value.isprintable()


def is_name(value: Any) -> bool:
    """Returns whether it is the name of a person, without blanks around it."""
    return is_line(value, 1000) and value.strip() == value


def is_digest(value: Any) -> bool:
    """Returns whether it is a sha256 in hexadecimal digits."""
    return isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef")


def is_date(value: Any) -> bool:
    """Returns whether it is a date of ISO 8601, with or without the time."""
    try:
        return is_line(value, 64) and value.isascii() and bool(datetime.fromisoformat(value))
    except ValueError:
        return False


def is_flag(value: Any) -> bool:
    """Returns whether it is true or false."""
    return isinstance(value, bool)


def number(least: float, most: float = math.inf) -> Check:
    """Returns the check of a finite number in a range."""
    return lambda value: _is_number(value) and least <= value <= most


def whole(least: int, most: int = MAX_INTEGER) -> Check:
    """Returns the check of an integer in a range."""
    return lambda value: type(value) is int and least <= value <= most


def or_none(check: Check) -> Check:
    """Returns the check of a value that may be null."""
    return lambda value: value is None or check(value)


def every(check: Check, most: int = 100_000) -> Check:
    """Returns the check of a list of at most so many values."""
    return lambda value: (
        isinstance(value, list | tuple) and len(value) <= most and all(map(check, value))
    )


def by_name(check: Check) -> Check:
    """Returns the check of an object whose names are free."""
    return lambda value: (
        isinstance(value, dict) and all(is_text(n) and check(inner) for n, inner in value.items())
    )


def span(check: Check) -> Check:
    """Returns the check of the two ends of a range."""
    return lambda value: every(check)(value) and len(value) == 2 and value[0] <= value[1]


def _inside(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [*value, *value.values()]
    return value if isinstance(value, list) else []


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_figure(value: Any) -> bool:
    share = number(0, 1)
    if not isinstance(value, dict):
        return share(value)
    if not all(share(value.get(name)) for name in ("value", "low", "high")):
        return False
    if value["low"] > value["high"]:
        return False
    if "flagged" not in value:
        return True
    flagged, of = value["flagged"], value.get("n")
    if not whole(0)(flagged) or not whole(1)(of):
        return False
    return bool(flagged <= of) and math.isclose(value["value"], flagged / of, rel_tol=1e-6)
