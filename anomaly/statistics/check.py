"""Do new good images still look like those that set the threshold? Keep, recalibrate or retrain.

Three tests, together at 5 % (a third for each: Bonferroni): whether more images than a few in a
hundred are unlike the training images, so that they are not judged; whether more are flagged than
is ordinary (the beta-binomial of the guaranteed rate); and whether the scores are distributed like
those that set the threshold (Cramer and von Mises; Anderson 1962). So of detectors that are as good
as ever 95 in 100 are kept. If more are flagged than is ordinary the guaranteed rate no longer
holds, and a new threshold mends it; so it does if the scores changed but are about as widely spread
as before. If the images are unlike the training images, or the scores so spread that the threshold
would have to rise by much, defects would pass below it: train again.
"""

from __future__ import annotations

import importlib
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anomaly.errors import RuntimeMissing
from anomaly.statistics.calibration import Calibration, Kind

LEVEL = 0.05 / 3  # of each of the three tests
# share of good images that may be unlike the training images by themselves
ORDINARY_OUTSIDE_SHARE = 0.02
# times the spread of the scores from which on a new threshold would let defects pass
RETRAIN_SPREAD_RATIO = 1.5


@dataclass(frozen=True)
class Check:
    """What a check found. ``advice``: ``keep``, ``recalibrate`` or ``retrain``.

    ``images``: good images judged, one of each group (``what``: or units, by the worst view of
    each); ``outside``: of these unlike the training images, at most ``outside_up_to`` are ordinary;
    ``flagged``: above the threshold, at most ``ordinary_up_to`` are in 95 of 100 cases, and at most
    ``flagged_up_to`` at the level of this test; ``p_value``: of the scores being distributed as
    before; ``spread``: how many times as widely spread they are, by the middle half; ``kind``: of
    the calibration.
    """

    advice: str
    images: int
    outside: int
    outside_up_to: int
    flagged: int
    expected: float
    ordinary_up_to: int
    flagged_up_to: int
    p_value: float
    spread: float
    target_rate: float
    left_out: tuple[str, ...]
    what: str = "image"
    kind: Kind = "split"

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "left_out": list(self.left_out)}


def decide(
    calibration: Calibration,
    scores: NDArray[np.float32],
    outside: int,
    left_out: tuple[str, ...] = (),
) -> Check:
    """Returns the advice on new scores float32 (n,), ``outside`` of whose images are unlike the
    training images.
    """
    stats = _stats()
    outside_up_to = int(stats.binom.ppf(1 - LEVEL, len(scores), ORDINARY_OUTSIDE_SHARE))
    p_value = (
        float(stats.cramervonmises_2samp(calibration.scores, scores).pvalue)
        if len(scores) > 1
        else 1.0
    )
    spread = _spread(scores) / max(_spread(calibration.scores), 1e-12)
    flagged = int(calibration.is_anomaly(scores).sum())
    # one image tells nothing
    flagged_up_to = max(1, calibration.ordinary_up_to(len(scores), 1 - LEVEL))
    changed = p_value < LEVEL
    if outside > outside_up_to or (changed and spread > RETRAIN_SPREAD_RATIO):
        advice = "retrain"
    else:
        advice = "recalibrate" if changed or flagged > flagged_up_to else "keep"
    return Check(
        advice=advice,
        images=len(scores),
        outside=outside,
        outside_up_to=outside_up_to,
        flagged=flagged,
        expected=calibration.expected(len(scores)),
        ordinary_up_to=calibration.ordinary_up_to(len(scores)),
        flagged_up_to=flagged_up_to,
        p_value=p_value,
        spread=spread,
        target_rate=calibration.target_rate or calibration.rate,
        kind=calibration.kind,
        left_out=left_out,
    )


def _spread(scores: NDArray[np.float32]) -> float:
    """Returns the width of the middle half, which a defect among the good images does not move."""
    low, high = np.quantile(scores.astype(np.float64), (0.25, 0.75))
    return float(high - low)


def _stats() -> Any:
    try:
        return importlib.import_module("scipy.stats")
    except ImportError as error:
        raise RuntimeMissing.extra("SciPy", "evaluate", "anomaly check") from error
