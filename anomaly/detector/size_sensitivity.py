"""What a threshold flags of the synthetic defects that training drew, and what the images that set
it cost.

Their scores lie in the card (``size_sensitivity``), so that another threshold is tried without
scoring anything again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np

from anomaly.detector.card_checks import every, is_text, number, or_none, whole
from anomaly.detector.card_facts import Facts, fact
from anomaly.statistics.calibration import DEFAULT_RATE, Calibration, rank
from anomaly.statistics.intervals import rate_of

MAX_NAMED_IMAGES = 5  # images at most that are named to be looked at first
SCORE = number(-3e38, 3e38)  # a float32


@dataclass(frozen=True)
class SizeRow(Facts):
    """How many synthetic defects of one diameter (``pixels``) are flagged, ``of`` how many, and
    their scores (None: infinite).

    ``met``: how many are flagged at the place where they are; None where that is not known.
    """

    place: ClassVar[str] = "training.size_sensitivity.sizes."
    pixels: int = field(metadata={"check": whole(1)})
    flagged: int = field(metadata={"check": whole(0)})
    of: int = field(metadata={"check": whole(1)})
    met: int | None = fact(or_none(whole(0)))
    scores: tuple[float | None, ...] | None = fact(every(or_none(SCORE)))

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.met or 0) <= self.flagged <= self.of:
            raise ValueError(f"{self.met} met and {self.flagged} flagged of {self.of} found")
        if self.scores is not None and len(self.scores) != self.of:
            raise ValueError(f"{len(self.scores)} scores of {self.of} found")

    def at_threshold(self, threshold: float) -> SizeRow:
        """Returns the row with the count of another threshold, ``met`` unknown."""
        counted = _count_above(self.scores or (), threshold)
        return replace(self, stated=self.stating("met"), flagged=counted, met=None)


def _are_rows(value: Any) -> bool:
    """Whether they are rows by ascending size of the synthetic defects."""
    return every(lambda row: isinstance(row, SizeRow), 1000)(value) and all(
        small.pixels < large.pixels for small, large in pairwise(value)
    )


@dataclass(frozen=True)
class SizeSensitivity(Facts):
    """Which synthetic defects are flagged, by their size; ``pixel``: pixels of the images a side
    that one pixel of the model is.
    """

    place: ClassVar[str] = "training.size_sensitivity."
    pixel: float = field(metadata={"check": number(1e-9, 1e9)})
    sizes: tuple[SizeRow, ...] = field(metadata={"check": _are_rows, "kind": SizeRow})

    def flagged(self, threshold: float) -> tuple[int, int] | None:
        """Returns how many synthetic defects a threshold flags, of how many; None without scores of
        them all.
        """
        if not self.sizes or any(row.scores is None for row in self.sizes):
            return None
        scores = [score for row in self.sizes for score in row.scores or ()]
        return _count_above(scores, threshold), len(scores)

    def at_threshold(self, threshold: float) -> SizeSensitivity | None:
        """Returns the same with the counts of another threshold, ``met`` unknown; None where the
        card has no scores.
        """
        if self.flagged(threshold) is None:
            return None
        return replace(self, sizes=tuple(row.at_threshold(threshold) for row in self.sizes))


def _count_above(scores: Sequence[float | None], threshold: float) -> int:
    values = np.array([math.nan if score is None else score for score in scores], np.float32)
    return int((~(values <= np.float32(threshold))).sum())


@dataclass(frozen=True)
class Cost(Facts):
    """What the images that set a threshold cost if they are defects: threshold and rate of the
    others alone at the same target rate.

    ``without``: the names of those left out, up to k and five. ``flagged``: how many synthetic
    defects the others' threshold flags, ``flagged_now`` this one, ``of`` how many; None where their
    scores are not known.
    """

    place: ClassVar[str] = "training.cost."
    without: tuple[str, ...] = field(metadata={"check": every(is_text, MAX_NAMED_IMAGES)})
    threshold: float = field(metadata={"check": SCORE})
    rate: float = field(metadata={"check": number(0, 1)})
    flagged: int | None = field(metadata={"check": or_none(whole(0))})
    flagged_now: int | None = field(metadata={"check": or_none(whole(0))})
    of: int | None = field(metadata={"check": or_none(whole(0))})

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.without:
            raise ValueError("the cost of no image found")
        counts = [count for count in (self.flagged, self.flagged_now, self.of) if count is not None]
        if counts and (len(counts) < 3 or max(counts) != self.of):
            raise ValueError(f"{self.flagged} and {self.flagged_now} of {self.of} flagged found")

    @classmethod
    def of_highest(
        cls,
        calibration: Calibration,
        highest: Sequence[str],
        size_sensitivity: SizeSensitivity | None,
    ) -> Cost | None:
        """Returns the cost of the images with the highest scores; None where no calibration score
        would be left.

        ``highest``: names of the calibration images, the highest score first.
        """
        names = tuple(highest[: min(calibration.k, MAX_NAMED_IMAGES)])
        rest = calibration.scores[: calibration.n - len(names)]
        if not names or not len(rest):
            return None
        k = max(1, rank(calibration.target_rate or DEFAULT_RATE, len(rest)))
        threshold = float(rest[len(rest) - k])
        found = now = None
        if size_sensitivity is not None:
            found = size_sensitivity.flagged(threshold)
            now = size_sensitivity.flagged(float(calibration.threshold))
        return cls(
            without=names,
            threshold=threshold,
            rate=rate_of(k, len(rest)),
            flagged=found and found[0],
            flagged_now=now and now[0],
            of=now and now[1],
        )
