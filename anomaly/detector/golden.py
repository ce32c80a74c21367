"""Golden samples: synthetic pictures by an integer formula, and the scores that a detector must
give them anywhere.

They are part of the card. A foreign file says how many there are, how large and how exact: all of
that is bounded here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from anomaly.errors import DetectorError
from anomaly.statistics.calibration import Calibration

MAX_GOLDEN_SAMPLES = 32
# of all of them together; those of a finely tiled detector have some 70 million
MAX_TOTAL_PIXELS = 200_000_000
MAX_SIDE_PIXELS = 10_000  # pixels a side
# of the way from the median calibration score to the threshold: what a tolerance may be
MAX_TOLERANCE = 0.1
MAX_KEPT_TOLERANCE = 0.01  # the same of a tolerance that is kept when the threshold changes


class Sample(NamedTuple):
    """One synthetic picture and its score."""

    height: int
    width: int
    a: int
    b: int
    score: float


@dataclass(frozen=True)
class Golden:
    """The golden samples of a card, and by how much a score may differ from theirs."""

    tolerance: float
    samples: tuple[Sample, ...]

    @classmethod
    def from_json(cls, stored: object, calibration: Calibration | None) -> Golden:
        """Returns what a card stores; DetectorError where there is none, or too much, or it proves
        nothing.
        """
        try:
            found = cls(_number(stored["tolerance"]), tuple(map(_sample, _list(stored["samples"]))))  # type: ignore[index]
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise DetectorError(
                f"no golden samples in the card, or damaged ones ({type(error).__name__}: "
                f"{str(error)[:80]}): train or copy it again"
            ) from error
        found._check(calibration)
        return found

    def _check(self, calibration: Calibration | None) -> None:
        pixels = sum(sample.height * sample.width for sample in self.samples)
        if pixels > MAX_TOTAL_PIXELS:
            raise DetectorError(
                f"golden samples of {pixels:,} pixels found in the card, at most "
                f"{MAX_TOTAL_PIXELS:,} expected: not loaded"
            )
        most = MAX_TOLERANCE * _unit(calibration, [sample.score for sample in self.samples])
        if not 0 < self.tolerance <= most:
            raise DetectorError(
                "no golden samples in the card, or damaged ones: a tolerance of "
                f"{self.tolerance:.3g} found, above 0 and at most {most:.3g} expected (a tenth of "
                "the way from a typical good image to the threshold)"
            )


def kept_tolerance(tolerance: float, calibration: Calibration) -> float:
    """Returns the tolerance of a detector's golden samples where its threshold is now another one:
    the same or less.
    """
    return min(tolerance, MAX_KEPT_TOLERANCE * _unit(calibration, []))


def _unit(calibration: Calibration | None, scores: list[float]) -> float:
    """Returns threshold - median, by which differences are judged, or what floating point holds
    where both are equal.
    """
    if calibration is None:
        return max(max(scores) - min(scores), *map(abs, scores), 1e-6)
    threshold = float(calibration.threshold)
    return max(threshold - float(calibration.median), 1e-4 * abs(threshold), 1e-6)


def golden_picture(height: int, width: int, a: int, b: int) -> npt.NDArray[np.uint8]:
    """Returns a synthetic picture by an integer formula, uint8 (height, width, 3), the same in
    every language.

    pixel[y, x, c] = (a x + b y + (x y >> 4) + 64 c) mod 256
    """
    y, x = np.ogrid[:height, :width]
    grey = ((a * x + b * y + ((x * y) >> 4)) & 255).astype(np.uint8)
    return np.stack([grey + np.uint8(64 * c) for c in range(3)], axis=2)  # uint8: modulo 256


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list) or not 0 < len(value) <= MAX_GOLDEN_SAMPLES:
        found = len(value) if isinstance(value, list) else type(value).__name__
        raise ValueError(f"{found} samples, 1 to {MAX_GOLDEN_SAMPLES} expected")
    return value


def _sample(stored: Mapping[str, Any]) -> Sample:
    height, width = (_whole(stored[side], 1, MAX_SIDE_PIXELS) for side in ("height", "width"))
    a, b = (_whole(stored[step], 0, 0xFFFF) for step in ("a", "b"))
    return Sample(height, width, a, b, _number(stored["score"]))


def _whole(value: object, least: int, most: int) -> int:
    if type(value) is not int or not least <= value <= most:
        raise ValueError(f"{str(value)[:40]!r}, {least} to {most} expected")
    return value


def _number(value: object) -> float:
    if type(value) not in (int, float) or not abs(float(value)) < 2.0**128:  # type: ignore[arg-type]  # NaN too
        raise ValueError(f"{str(value)[:40]!r}, a number expected")
    return float(value)  # type: ignore[arg-type]
