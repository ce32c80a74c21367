"""What another threshold would flag, and histograms of scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from anomaly.errors import AnomalyError
from anomaly.review.estimates import precision_at, recall_at
from anomaly.review.verdicts import Sample, flagged_at
from anomaly.statistics.calibration import Calibration
from anomaly.statistics.intervals import Estimate, beta_quantile


@dataclass(frozen=True)
class Preview:
    """What a threshold would do: images of the run that it flags, and what can be said of it.

    ``k`` of ``n`` calibration scores set it; ``rate`` and ``upper_bound`` as in Calibration, or
    None. Where it is not the detector's own threshold the guarantee is a preview,
    since it was chosen after seeing results.
    """

    threshold: float
    flagged: int
    images: int
    k: int | None
    n: int | None
    rate: float | None
    upper_bound: float | None
    own: bool
    precision: Estimate
    recall: Estimate


def preview(
    sample: Sample, scores: ArrayLike, calibration: Calibration | None, threshold: float
) -> Preview:
    """Returns what ``threshold`` would do in a run with ``scores`` (n,), of images that were
    judged.
    """
    values = np.asarray(scores, dtype=np.float32)
    k = n = rate = upper_bound = None
    if calibration is not None:
        n = calibration.n
        k = 1 + int(np.count_nonzero(flagged_at(calibration.scores, threshold)))
        rate, upper_bound = (
            k / (n + 1),
            beta_quantile(0.95, k, n + 1 - k) if k <= n else 1.0,
        )
    return Preview(
        threshold=threshold,
        flagged=int(np.count_nonzero(flagged_at(values, threshold))),
        images=len(values),
        k=k,
        n=n,
        rate=rate,
        upper_bound=upper_bound,
        own=calibration is not None and np.float32(threshold) == calibration.threshold,
        precision=precision_at(sample, threshold),
        recall=recall_at(sample, threshold),
    )


class Band(NamedTuple):
    """Two thresholds: images at or below the lower pass, those above the upper are flagged, a
    person looks at the rest.
    """

    passed: int
    looked_at: int
    flagged: int


def band(scores: ArrayLike, low: float, high: float) -> Band:
    """Returns how many of ``scores`` (n,) fall on each side of the thresholds ``low``
    and ``high``.
    """
    if not low <= high:
        raise AnomalyError(f"thresholds {low} and {high} found, the lower one first expected")
    values = np.asarray(scores, dtype=np.float32)
    above, flagged = int(flagged_at(values, low).sum()), int(flagged_at(values, high).sum())
    return Band(len(values) - above, above - flagged, flagged)


@dataclass(frozen=True, eq=False)
class Histograms:
    """``edges``: float64 (bins + 1,). ``counts``: int64 (bins,) of each set; the outer bins hold
    what lies beyond.
    """

    edges: NDArray[np.float64]
    counts: dict[str, NDArray[np.int64]]


def histograms(sets: Mapping[str, ArrayLike], bins: int = 60) -> Histograms:
    """Returns histograms of several sets of scores over the same bins, which span all but the last
    0.1 % of each.
    """
    values = {name: np.asarray(scores, dtype=np.float64) for name, scores in sets.items()}
    ends = [np.quantile(scores, (0.001, 0.999)) for scores in values.values() if len(scores)] or [
        np.array([0.0, 1.0])
    ]
    low, high = float(min(e[0] for e in ends)), float(max(e[1] for e in ends))
    edges = np.linspace(low, high if high > low else low + 1, bins + 1)
    counts = {
        name: np.histogram(np.clip(scores, low, edges[-1]), edges)[0]
        for name, scores in values.items()
    }
    return Histograms(edges, {name: found.astype(np.int64) for name, found in counts.items()})
