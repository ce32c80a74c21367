"""What a new threshold changes: threshold, guaranteed rate and upper bound before and after, and
what of it is worse.

A detector may guarantee nothing: it only ranks, or its threshold was moved by hand after results
were seen (a preview).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from anomaly.detector.card import Card
from anomaly.errors import CalibrationError
from anomaly.statistics.calibration import DEFAULT_RATE, Calibration

# times the upper bound of before: what about half as many images make of it
WORSE_UPPER_BOUND_RATIO = 1.15
_COLUMNS = (24, 28)

Row = tuple[str, str, str]


@dataclass(frozen=True)
class Guarantee:
    """What a detector guarantees. ``calibration``: None where it only ranks. ``preview``: its
    threshold was moved by hand, so that its rate holds no more. ``what``: what the rate counts,
    ``image`` or ``unit``."""

    calibration: Calibration | None
    preview: bool = False
    what: str = "image"

    @classmethod
    def of(cls, card: Card) -> Guarantee:
        """Returns what a detector guarantees by its card."""
        what = "image" if card.training.by_unit is None else "unit"
        return cls(card.calibration, is_preview(card), what)

    @property
    def holds(self) -> bool:
        """Whether there is a guaranteed rate."""
        return self.calibration is not None and not self.preview

    def to_json(self) -> dict[str, Any]:
        """The figures as plain data; rate and bound are null where nothing is guaranteed."""
        c = self.calibration
        return {
            "threshold": None if c is None else float(c.threshold),
            "guaranteed_rate": c.guaranteed_rate if c is not None and self.holds else None,
            "upper_bound": c.upper_bound if c is not None and self.holds else None,
            "n": None if c is None else c.n,
            "k": None if c is None else c.k,
            "counts": self.what,
            "preview": self.preview,
        }

    def said(self) -> tuple[str, str, str, str]:
        """Threshold, guaranteed rate, upper bound, and what set the threshold, in words."""
        c = self.calibration
        if c is None:
            return "none", "none: it only ranks", "none", "nothing"
        threshold, images = (
            f"{c.threshold:.4g}",
            f"{c.n:,} good {self.what}{'' if c.n == 1 else 's'}",
        )
        if self.preview:
            return threshold, "none: a preview", "none", f"by hand, on {images}"
        return (
            threshold,
            f"{_percent(c.guaranteed_rate)} ({c.k:,} of {c.n + 1:,})",
            _percent(c.upper_bound),
            images,
        )


def is_preview(card: Card) -> bool:
    """Whether a detector's threshold was moved by hand and not calibrated since."""
    return card.calibration is not None and card.training.threshold_moved is not None


def worse(before: Guarantee, after: Guarantee) -> list[str]:
    """Returns what gets worse from ``before`` to ``after``, each in a few words; empty where
    nothing does.

    The first threshold of a detector that only ranked is no change for the worse. A preview is
    compared by the rate that its rank would have, so that a moved threshold is no way round. A rate
    that rises within the target rate, because as many or more images allow a higher rank, is what
    was asked for.
    """
    old, new = before.calibration, after.calibration
    if old is None:
        return []
    if new is None or not after.holds:
        return ["no guaranteed rate: a threshold moved after looking at results is a preview"]
    found = []
    if before.what == "unit" and after.what == "image":
        found.append("the rate would be guaranteed per image, no longer per unit")
    target = old.target_rate or DEFAULT_RATE
    as_asked = new.n >= old.n and new.guaranteed_rate <= target
    if new.k * (old.n + 1) > old.k * (new.n + 1) and not as_asked:
        found.append(
            f"guaranteed rate {_percent(new.guaranteed_rate)} instead of "
            f"{_percent(old.guaranteed_rate)}"
        )
    if new.upper_bound > WORSE_UPPER_BOUND_RATIO * old.upper_bound and not as_asked:
        found.append(
            f"upper bound {_percent(new.upper_bound)} instead of {_percent(old.upper_bound)}"
        )
    return (
        [*found, f"{new.n:,} calibration images instead of {old.n:,}"]
        if found and new.n < old.n
        else found
    )


def refuse_worse(before: Guarantee, after: Guarantee) -> None:
    """Raises CalibrationError where ``after`` is worse than ``before``."""
    found = worse(before, after)
    if found:
        raise CalibrationError(
            f"the guarantee would get worse: {'; '.join(found)}. Nothing was written: give more "
            "good images, or --accept-worse to write it all the same"
        )


def rows(before: Guarantee, after: Guarantee) -> list[Row]:
    """Returns rows of a label, the figure before and the figure after."""
    labels = ("threshold", "guaranteed rate", "upper bound (95 %)", "set by")
    return list(zip(labels, before.said(), after.said(), strict=True))


def table(found: list[Row]) -> str:
    """Returns rows as lines with a heading."""
    first, second = _COLUMNS
    lines = [("", "before", "after"), *found]
    return "\n".join(f"{label:<{first}}{old:<{second}}{new}".rstrip() for label, old, new in lines)


def _percent(rate: float) -> str:
    return f"{100 * rate:.3g} %"
