"""What photographs of known parts show of a detector: bad parts that it misses, and parts that do
not always get the same result.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from anomaly.statistics.intervals import upper_limit


@dataclass(frozen=True)
class Challenge:
    """Known bad parts under a detector: ``missed`` are those not flagged, ``not_judged`` had no
    result.
    """

    images: int
    missed: tuple[str, ...]
    not_judged: tuple[str, ...]
    passed_over: dict[str, int] = field(default_factory=dict)

    @property
    def judged(self) -> int:
        return self.images - len(self.not_judged)

    @property
    def upper_bound(self) -> float:
        """With 95 % confidence at most this share of such parts is missed (Clopper-Pearson,
        one-sided).
        """
        return upper_limit(len(self.missed), self.judged)


@dataclass(frozen=True)
class Repeat:
    """Photographs of the same parts, several of each: a gauge study.

    ``flipping``: parts that were flagged in some photographs and passed in others; ``odd``:
    photographs whose result is not that of most of their part; ``spread``: standard deviation of a
    part's scores, pooled, as a share of threshold - typical.
    """

    parts: int
    images: int
    flipping: tuple[str, ...]
    odd: int
    spread: float
    not_judged: int
    passed_over: dict[str, int] = field(default_factory=dict)
