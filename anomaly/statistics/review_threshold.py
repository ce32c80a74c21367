"""A second, lower threshold: a person looks at the images whose score lies above it and is not
flagged.

It is the k-th largest of the same calibration scores for a rate of its own, with the same guarantee
(see calibration.py): at most this share of good images is flagged or looked at. Where a person
names a score instead, k is 1 + the number of calibration scores above it: the rate is then an
estimate, and the bound that of Clopper and Pearson, which holds if the score was chosen without
looking at these images.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anomaly.errors import CalibrationError
from anomaly.statistics.intervals import beta_binomial_limit, rate_of, upper_bound_of

NONE = "add good images, or give --review-rate 0 for none"


@dataclass(frozen=True)
class ReviewThreshold:
    """The score above which a person looks at an image that is not flagged. ``k`` of ``n``
    calibration scores set it; all rates count flagged images and those to look at together.

    ``target_rate``: None where a score was named. ``is_guaranteed``: whether the rate is more than
    an estimate.
    """

    threshold: np.float32
    k: int
    n: int
    target_rate: float | None
    is_guaranteed: bool

    @property
    def rate(self) -> float:
        """k / (n + 1): the chance that a new normal image is flagged or looked at is at most
        this.
        """
        return rate_of(self.k, self.n)

    @property
    def upper_bound(self) -> float:
        """With 95 % confidence the long-run share of this one detector is at most this."""
        return upper_bound_of(self.k, self.n)

    def expected(self, images: int) -> float:
        """Number of ``images`` new normal images above it on average, at most."""
        return images * self.rate

    def ordinary_up_to(self, images: int, level: float = 0.95) -> int:
        """The beta-binomial limit: at most so many of ``images`` normal ones are above it with
        probability ``level``.
        """
        return beta_binomial_limit(images, self.k, self.n + 1 - self.k, level)

    def to_json(self) -> dict[str, Any]:
        """What a card and a program's answer say of it."""
        return {
            "threshold": float(self.threshold),
            "k": self.k,
            "target_rate": self.target_rate,
            "guaranteed_rate": self.rate if self.is_guaranteed else None,
            "estimated_rate": None if self.is_guaranteed else self.rate,
            "upper_bound": self.upper_bound,
        }


def at_rate(
    scores: NDArray[np.float32], first: int, k: int, target_rate: float, is_guaranteed: bool
) -> ReviewThreshold:
    """Returns the k-th largest of ascending scores (n,); CalibrationError unless it is below the
    ``first``-th largest, the threshold.
    """
    n = len(scores)
    if k <= first or scores[n - k] == scores[n - first]:
        again = next(
            (r for r in range(first + 1, n // 2 + 1) if scores[n - r] < scores[n - first]), 0
        )
        todo = f"give --review-rate {lowest_rate(again, n)}" if again else NONE
        left = "1 calibration score leaves" if n == 1 else f"{n:,} calibration scores leave"
        raise CalibrationError(
            f"a review rate of {100 * target_rate:.6g} % found, but the threshold itself flags "
            f"{first:,} in {n + 1:,} good images and {left} no lower one for that rate: {todo}"
        )
    return ReviewThreshold(np.float32(scores[n - k]), k, n, target_rate, is_guaranteed)


def at_score(scores: NDArray[np.float32], first: int, score: float) -> ReviewThreshold:
    """Returns a named score; CalibrationError unless it is below the ``first``-th largest of
    ascending scores (n,), and above half of them.
    """
    n, low = len(scores), np.float32(score)
    threshold = scores[n - first]
    k = 1 + n - int(np.searchsorted(scores, low, side="right"))
    if not low < threshold or 2 * k > n + 1:
        least = float(scores[n - (n + 1) // 2])
        found = f"a review threshold of {score:.6g} found"
        if not low < threshold:
            raise CalibrationError(
                f"{found}, one below the threshold {threshold:.6g} expected: choose another, or "
                "--review-rate 0 for none"
            )
        raise CalibrationError(
            f"{found}: a person would look at {k:,} in {n + 1:,} good images; one of at least "
            f"{least:.6g} expected"
        )
    return ReviewThreshold(low, k, n, None, is_guaranteed=False)


def asked_in(card: Mapping[str, Any]) -> tuple[float | None, float | None]:
    """What a card's calibration says was asked for: a rate, or a score; at most one is not None."""
    review = card.get("review")
    if review is None:
        return None, None
    said = review if isinstance(review, Mapping) else {}
    rate, score = said.get("target_rate"), said.get("threshold")
    if score is None or not all(value is None or _is_number(value) for value in (rate, score)):
        raise CalibrationError(
            "the card's review threshold is not a number with its rate: the file is damaged"
        )
    return (None, float(score)) if rate is None else (float(rate), None)


def _is_number(value: Any) -> bool:
    # false for NaN
    return type(value) in (int, float) and abs(value) < 2.0**128


def lowest_rate(k: int, n: int) -> float:
    """The lowest rate to ask of n calibration scores for rank k, rounded up to so few digits that
    they can keep it.
    """
    places = math.ceil(math.log10(n + 1))
    return float(Fraction(math.ceil(Fraction(10**places * k, n + 1)), 10**places))
