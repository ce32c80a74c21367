"""What a threshold can guarantee, before there are scores: from how many groups there are."""

from __future__ import annotations

import math
from dataclasses import dataclass

from anomaly.statistics.calibration import (
    DEFAULT_RATE,
    exact_rate,
    guaranteed_rate_of,
    needed,
    rank,
    upper_bound_of,
)


@dataclass(frozen=True)
class Prospect:
    """What ``groups`` independent good images can guarantee before one is scored; ``n`` set the
    threshold, at rank k.
    """

    groups: int
    n: int
    k: int

    @classmethod
    def of(cls, groups: int, target_rate: float | None = None, n: int | None = None) -> Prospect:
        """What training makes of them (``n``: another number sets the threshold); as in
        ``calibrate`` k is at least 1.
        """
        n = set_aside(groups, target_rate) if n is None else n
        return cls(groups, n, max(1, rank(DEFAULT_RATE if target_rate is None else target_rate, n)))

    @classmethod
    def lowest(cls, groups: int) -> Prospect:
        """The lowest guaranteed rate there is: half of them set the threshold, at the highest
        score.
        """
        return cls(groups, groups // 2, 1)

    @property
    def guaranteed_rate(self) -> float:
        return guaranteed_rate_of(self.k, self.n)

    @property
    def upper_bound(self) -> float:
        return upper_bound_of(self.k, self.n)

    def to_json(self) -> dict[str, float | int]:
        return {
            "groups": self.groups,
            "n": self.n,
            "k": self.k,
            "guaranteed_rate": self.guaranteed_rate,
            "upper_bound": self.upper_bound,
        }


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


def more_groups(groups: int, target_rate: float | None = None, share: int = 2) -> list[int]:
    """Larger numbers of groups worth asking about: twice and five times as many, and the fewest
    that can keep the target rate.

    One in ``share`` sets the threshold at the most: 2 in training, 1 in recalibration, which fits
    nothing.
    """
    fewest = share * needed(DEFAULT_RATE if target_rate is None else target_rate)
    return sorted({number for number in (2 * groups, 5 * groups, fewest) if number > groups})[:3]
