"""Numbers as text: percent, one in so many, what count is ordinary."""

from __future__ import annotations


def percent(rate: float) -> str:
    """A rate as a reader wants it: whole percent from 5 % on, two digits below."""
    return f"{rounded_percent(rate)} %"


def one_in(rate: float) -> str:
    """``1 in 100`` for 0.00995; rates above 0.1, where the rounding would show, out of 100."""
    return f"1 in {round(1 / rate):,}" if rate <= 0.1 else f"{100 * rate:.0f} in 100"


def exact_percent(rate: float) -> str:
    """A guaranteed rate, to three digits."""
    return f"{100 * rate:.3g} %"


def between(low: float, high: float) -> str:
    """An interval: ``0.2 to 3 %``."""
    return f"{rounded_percent(low)} to {percent(high)}"


def good_text(count: int, what: str = "image") -> str:
    """``1 good image``, ``1,200 good units``."""
    return f"{count:,} good {what}{'' if count == 1 else 's'}"


def images_text(count: int) -> str:
    """``1 image``, ``1,200 images``."""
    return f"{count:,} image{'' if count == 1 else 's'}"


def rounded_percent(rate: float) -> str:
    return f"{100 * rate:.0f}" if 100 * rate >= 5 else f"{100 * rate:.2g}"


def count_text(expected: float) -> str:
    return f"{expected:,.0f}" if expected >= 3 else f"{expected:.2g}"
