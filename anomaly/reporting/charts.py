"""Scores as places on a chart: what pages and reports draw is worked out here, as fractions of its
width and height.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from anomaly.reporting.result import rank_text
from anomaly.statistics.calibration import Calibration

Scores = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Scale:
    """The values from ``low`` to ``high`` that a chart is wide; low < high.

    ``bend`` makes an axis of roots or logarithms: distances on the chart are those of what it
    returns.
    """

    low: float
    high: float
    bend: Callable[[float], float] = float

    @classmethod
    def over(cls, *series: Scores, marks: Sequence[float] = ()) -> Scale:
        """Returns the scale that shows every finite score and every mark, with a little room on
        both sides.

        The highest of very many scores may be outliers: what is beyond ten times the width of the
        middle 98 % is left to the edge, so that one odd image does not flatten the chart.
        """
        values = np.concatenate(
            [np.asarray(marks, np.float64), *(s[np.isfinite(s)].astype(np.float64) for s in series)]
        )
        if len(values) == 0:
            return cls(0.0, 1.0)
        low, high = float(values.min()), float(values.max())
        first, last = np.percentile(values, [1, 99])
        reach = 10 * float(last - first)
        if reach > 0:
            low, high = max(low, float(first) - reach), min(high, float(last) + reach)
        low, high = min([low, *marks]), max([high, *marks])
        room = 0.03 * (high - low) or max(abs(high), 1.0) * 0.5
        return cls(low - room, high + room)

    def at(self, score: float) -> float:
        """Returns where a score lies, 0 at the left and 1 at the right edge; what is beyond lies on
        the edge.
        """
        if math.isnan(score):
            return 1.0
        low, high = self.bend(self.low), self.bend(self.high)
        here = self.bend(min(self.high, max(self.low, score)))
        return (here - low) / (high - low)

    def holds(self, score: float) -> bool:
        """Whether a score lies within the scale."""
        return self.low <= score <= self.high

    def bars(self, scores: Scores, bins: int) -> list[float]:
        """Returns the heights of a histogram, ``bins`` numbers from 0 to 1: square roots of the
        counts.

        Roots, since the few images above the threshold matter as much as the thousands below it.
        """
        finite = scores[~np.isnan(scores)].astype(np.float64).clip(self.low, self.high)
        counts = np.histogram(finite, bins, (self.low, self.high))[0]
        return [round(math.sqrt(count / max(1, counts.max())), 4) for count in counts.tolist()]

    def ticks(self, about: int = 6, *, whole: bool = False) -> Iterator[tuple[float, str]]:
        """Yields round values along the scale, as (place, text); ``whole``: no fractions."""
        raw = (self.high - self.low) / about
        if whole:
            raw = max(raw, 1.0)
        size = 10.0 ** math.floor(math.log10(raw))
        step = next(size * m for m in (1, 2, 5, 10) if size * m >= raw)
        decimals = max(0, -math.floor(math.log10(step) + 1e-9))
        first = math.ceil(self.low / step)
        for i in range(first, math.floor(self.high / step) + 1):
            yield self.at(i * step), f"{i * step:.{decimals}f}"


@dataclass(frozen=True)
class Place:
    """One score among the calibration scores: a histogram with the threshold and the score on it,
    and how it is said.
    """

    bars: list[float]
    threshold: float
    here: float
    beyond: bool
    label: str


def place(calibration: Calibration, score: float, bins: int = 40, what: str = "image") -> Place:
    """Returns where ``score`` stands among the good images (or units: ``what``) that set the
    threshold.
    """
    threshold = float(calibration.threshold)
    scale = calibration_scale(calibration)
    return Place(
        bars=scale.bars(calibration.scores, bins),
        threshold=scale.at(threshold),
        here=scale.at(score),
        beyond=not scale.holds(score),
        label=rank_text(calibration, score, what),
    )


def calibration_scale(calibration: Calibration) -> Scale:
    """Returns the scale for single scores: from the lowest calibration score to one and a half
    times as far as the highest.

    It does not depend on the score shown: the same score stands at the same place on every image.
    """
    low, high = float(calibration.scores[0]), float(calibration.scores[-1])
    threshold = float(calibration.threshold)
    wide = max(high, threshold) - low or max(abs(high), 1.0)
    return Scale(low - 0.05 * wide, low + 1.5 * wide)
