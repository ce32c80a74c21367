"""Which false-alarm rate a threshold will have, before there are scores: from how many groups
there are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from anomaly.errors import CalibrationError
from anomaly.statistics.calibration import (
    DEFAULT_RATE,
    Kind,
    exact_rate,
    named_rate,
    needed,
    rank,
)
from anomaly.statistics.intervals import rate_of, upper_bound_of
from anomaly.statistics.review_threshold import lowest_rate

# groups of good images up to which --calibrate auto lets all of them train and calibrate: a split
# of more costs little
MOST_CROSS_GROUPS = 300
# what --calibrate says, and ``fresh``: of recalibration, where all images set the threshold and
# none is learnt from
Calibrating = Literal["split", "cross", "auto", "fresh"]


@dataclass(frozen=True)
class Prospect:
    """The rate that ``groups`` independent good images allow before one is scored; ``n`` set the
    threshold, at rank k. ``kind``: whether it will be guaranteed (split) or estimated (cross).
    """

    groups: int
    n: int
    k: int
    kind: Kind = "split"

    @classmethod
    def of(
        cls, groups: int, target_rate: float | None = None, calibrating: Calibrating = "split"
    ) -> Prospect:
        """What training makes of them; as in ``calibrate`` k is at least 1."""
        n = set_aside(groups, target_rate) if splits(groups, calibrating) else groups
        k = max(1, rank(DEFAULT_RATE if target_rate is None else target_rate, n))
        return cls(groups, n, k, kind_for(groups, calibrating))

    @classmethod
    def lowest(cls, groups: int, calibrating: Calibrating = "split") -> Prospect:
        """The lowest rate there is, at the highest score: half of them set the threshold, or all
        where none is set aside.
        """
        n = groups // 2 if splits(groups, calibrating) else groups
        return cls(groups, n, 1, kind_for(groups, calibrating))

    @property
    def rate(self) -> float:
        return rate_of(self.k, self.n)

    @property
    def upper_bound(self) -> float:
        return upper_bound_of(self.k, self.n)

    def check_review_rate(self, review_rate: float | None) -> None:
        """Raises CalibrationError where the rate of a second threshold is not above that of the
        first.
        """
        if review_rate is not None and rank(review_rate, self.n) <= self.k:
            raise CalibrationError(
                f"a review rate of {100 * review_rate:.6g} % found, but the threshold itself flags "
                f"{self.k:,} in {self.n + 1:,} good images: give --review-rate "
                f"{lowest_rate(self.k + 1, self.n)} or more, or more good images"
            )

    def to_json(self) -> dict[str, float | int | str | None]:
        return {
            "groups": self.groups,
            "n": self.n,
            "k": self.k,
            "kind": self.kind,
            **named_rate(self.rate, self.kind),
            "upper_bound": self.upper_bound,
        }


def kind_for(groups: int, calibrating: Calibrating) -> Kind:
    """The kind of calibration of so many groups: ``auto`` takes cross where they are few."""
    if calibrating == "auto":
        return "cross" if groups <= MOST_CROSS_GROUPS else "split"
    return "cross" if calibrating == "cross" else "split"


def splits(groups: int, calibrating: Calibrating) -> bool:
    """Whether training sets groups aside for the threshold alone."""
    return calibrating != "fresh" and kind_for(groups, calibrating) == "split"


def fewest_groups(target_rate: float, calibrating: Calibrating) -> int:
    """How many groups a target rate takes in all: twice as many as set the threshold where half of
    them train only.
    """
    fewest = needed(target_rate)
    return 2 * fewest if splits(fewest, calibrating) else fewest


def set_aside(groups: int, target_rate: float | None = None) -> int:
    """How many groups of good images set the threshold: a fifth, and up to half where the target
    rate (None: 1 %) needs it.

    Of the numbers near a fifth it is one that keeps the target rate exactly, k / (n + 1): with a
    few more the threshold is higher than was asked for, and flags fewer defects. k = 2 is worth a
    third of the groups: with k = 1 one odd image sets it.
    """
    rate = exact_rate(DEFAULT_RATE if target_rate is None else target_rate)
    n = max(round(0.20 * groups), min(needed(float(rate)), groups // 2))
    if rate * (n + 1) < 1:
        return n
    k = round(rate * (n + 1))
    if k == 1 and math.ceil(2 / rate) - 1 <= groups // 3:
        k = 2
    return math.ceil(k / rate) - 1


def more_groups(
    groups: int, target_rate: float | None = None, calibrating: Calibrating = "split"
) -> list[int]:
    """Larger numbers of groups worth asking about: twice and five times as many, and the fewest
    that can keep the target rate.
    """
    fewest = fewest_groups(DEFAULT_RATE if target_rate is None else target_rate, calibrating)
    return sorted({number for number in (2 * groups, 5 * groups, fewest) if number > groups})[:3]
