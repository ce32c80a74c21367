"""What a detector guarantees, by its card. It may be nothing: it only ranks, its threshold was
moved by hand after results were seen (a preview), or its rate is estimated by cross-calibration.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from anomaly.detector.card import Card
from anomaly.statistics.calibration import Calibration, named_rate

RATES = ("guaranteed_rate", "estimated_rate", "upper_bound")


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
        """Whether there is a rate, guaranteed or estimated."""
        return self.calibration is not None and not self.preview

    def to_json(self) -> dict[str, Any]:
        """The figures as plain data; rates and bound are null where nothing is said of them."""
        c = self.calibration
        rates = (
            named_rate(c.rate, c.kind)
            if c is not None and self.holds
            else {"guaranteed_rate": None, "estimated_rate": None}
        )
        return {
            "threshold": None if c is None else float(c.threshold),
            **rates,
            "upper_bound": c.upper_bound if c is not None and self.holds else None,
            "n": None if c is None else c.n,
            "k": None if c is None else c.k,
            "review": self._review(),
            "counts": self.what,
            "preview": self.preview,
        }

    def _review(self) -> dict[str, Any] | None:
        review = None if self.calibration is None else self.calibration.review
        if review is None:
            return None
        said = review.to_json()
        return said if self.holds else {**said, **dict.fromkeys(RATES)}


def is_preview(card: Card) -> bool:
    """Whether a detector's threshold was moved by hand and not calibrated since."""
    return card.calibration is not None and card.training.threshold_moved is not None
