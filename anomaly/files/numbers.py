"""Numbers as text: percent, one in so many, what count is ordinary."""

from __future__ import annotations


def ordinary_text(
    flagged: int, judged: int, expected: float, up_to: int, what: str = "image"
) -> str:
    """How many of the images or units judged were flagged, beside how many would be if all were
    good.
    """
    count = f"{judged:,} {what}{'' if judged == 1 else 's'} judged"
    if not judged:
        return f"0 of {count}"
    return (
        f"{flagged:,} of {count} ({percent(flagged / judged)}); if all are good expect "
        f"{count_text(expected)}, up to {up_to:,} is ordinary, {up_to + 1:,} or more: anomaly check"
    )


def percent(rate: float) -> str:
    """A rate as a reader wants it: whole percent from 5 % on, two digits below."""
    return f"{rounded_percent(rate)} %"


def one_in(rate: float) -> str:
    """``1 in 100`` for 0.00995; rates above 0.1, where the rounding would show, out of 100."""
    return f"1 in {round(1 / rate):,}" if rate <= 0.1 else f"{100 * rate:.0f} in 100"


def rounded_percent(rate: float) -> str:
    return f"{100 * rate:.0f}" if 100 * rate >= 5 else f"{100 * rate:.2g}"


def count_text(expected: float) -> str:
    return f"{expected:,.0f}" if expected >= 3 else f"{expected:.2g}"
