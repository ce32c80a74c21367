"""Precision and recall from verdicts, with exact intervals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from anomaly.review.verdicts import (
    MIN_ANSWERS,
    NO_AUDIT,
    NO_THRESHOLD,
    Sample,
    flagged_at,
    import_extra,
)
from anomaly.statistics.intervals import Estimate, clopper_pearson


def precision(sample: Sample) -> Estimate:
    """Returns which share of the flagged images are anomalous, by the verdicts on them."""
    return (
        Estimate(None, None, None, 0, note=NO_THRESHOLD)
        if sample.threshold is None
        else precision_at(sample, sample.threshold)
    )


def recall(sample: Sample) -> Estimate:
    """Returns which share of the run's anomalous images was flagged, by flagged images and audit
    sample together.
    """
    return (
        Estimate(None, None, None, 0, note=NO_THRESHOLD)
        if sample.threshold is None
        else recall_at(sample, sample.threshold)
    )


def escape(sample: Sample) -> Estimate:
    """Returns which share of the images that passed are defects (missed), by the audit sample's
    core, which holds each image with the same probability; the interval is exact.
    """
    passed = _answered_core(sample) & (sample.stratum != 0)
    return _exact(passed & (sample.states == "anomalous"), passed)


def overkill(sample: Sample) -> Estimate:
    """Returns which share of the good images was flagged (false alarms), by the core too."""
    good = _answered_core(sample) & (sample.states == "normal")
    return _exact(good & (sample.stratum == 0), good)


def _answered_core(sample: Sample) -> NDArray[np.bool_]:
    """The core's images with an answer, drawn before the first that nobody has looked at."""
    waiting = sample.lot[sample.core & (sample.states == "open")]
    before = sample.lot < (waiting.min() if len(waiting) else np.inf)
    return sample.core & before & np.isin(sample.states, ("anomalous", "normal"))


def _exact(hits: NDArray[np.bool_], of: NDArray[np.bool_]) -> Estimate:
    n, found = int(of.sum()), int(hits.sum())
    if n < MIN_ANSWERS:
        return Estimate(None, None, None, n, MIN_ANSWERS - n, EXACT, GO_ON if n else NO_AUDIT)
    return Estimate(found / n, *clopper_pearson(found, n), n, 0, EXACT)


NOTHING_FOUND = "No defect has been found above this threshold yet."


GO_ON = "Go on with the audit sample."


EXACT = "exact (Clopper-Pearson)"


WEIGHTED = "weighted by inverse sampling probability; gamma interval (Fay and Feuer 1997)"


def precision_at(sample: Sample, threshold: float) -> Estimate:
    """Returns which share of the images above ``threshold`` are anomalous.

    At or above the run's own threshold from the verdicts on flagged images, with the exact
    interval; below it with the audit sample, weighted.
    """
    if sample.threshold is not None and threshold >= sample.threshold:
        return _precision_of_flagged(sample, threshold)
    if problem := _not_yet(sample):
        return problem
    n = int(np.count_nonzero(sample.usable & flagged_at(sample.scores, threshold)))
    if n < MIN_ANSWERS:
        return Estimate(None, None, None, n, MIN_ANSWERS - n, WEIGHTED, GO_ON)
    hits, others = (
        _count(sample, verdict, threshold, above=True) for verdict in ("anomalous", "normal")
    )
    return Estimate(*_ratio(hits, others), n, 0, WEIGHTED)


def recall_at(sample: Sample, threshold: float) -> Estimate:
    """Returns which share of the anomalous images of the run lies above ``threshold``.

    It takes a verdict on every flagged image and an audit sample; else ``value`` is None and
    ``note`` says what to do.
    """
    if problem := _not_yet(sample):
        return problem
    n = int(sample.usable.sum())
    found, missed = (_count(sample, "anomalous", threshold, above=above) for above in (True, False))
    most = found.total(0.95)[0]
    if not most:
        return Estimate(None, None, None, n, 0, WEIGHTED, NOTHING_FOUND)
    none_missed = replace(missed, hits=np.zeros_like(missed.hits))
    effort = _smallest(lambda sixteenths: none_missed.after(sixteenths / 16).total(0.95)[2] <= most)
    needed = int((none_missed.after(effort / 16).answered - missed.answered).sum())
    if needed:
        in_hand = int((missed.drawn - missed.answered).sum())
        go_on = (
            f"Draw {needed - in_hand:,} more images for the audit sample."
            if needed > in_hand
            else GO_ON
        )
        return Estimate(None, None, None, n, needed, WEIGHTED, go_on)
    return Estimate(*_ratio(found, missed), n, 0, WEIGHTED)


def _not_yet(sample: Sample) -> Estimate | None:
    """What is missing before anything can be said of the whole run."""
    n = int(sample.usable.sum())
    if sample.waiting:
        are = "is" if sample.waiting == 1 else "are"
        note = f"{sample.waiting:,} of the flagged images {are} still to be judged."
        return Estimate(None, None, None, n, sample.waiting, WEIGHTED, note)
    if not any(stratum.drawn for stratum in sample.strata if stratum.number):
        return Estimate(None, None, None, n, 0, WEIGHTED, NO_AUDIT)
    return None


def _precision_of_flagged(sample: Sample, threshold: float) -> Estimate:
    flagged = (sample.stratum == 0) & flagged_at(sample.scores, threshold)
    n = int(np.count_nonzero(flagged & sample.usable))
    hits = int(np.count_nonzero(flagged & (sample.states == "anomalous")))
    if n < MIN_ANSWERS:
        return Estimate(
            None, None, None, n, MIN_ANSWERS - n, EXACT, "Too few flagged images have been judged."
        )
    waiting = int(np.count_nonzero(flagged & (sample.states == "open")))
    more = (
        f"{waiting:,} more are not judged yet; the highest scores come first, so of all of them it "
        "is likely less."
    )
    return Estimate(hits / n, *clopper_pearson(hits, n), n, 0, EXACT, more if waiting else "")


@dataclass(frozen=True, eq=False)
class _Count:
    """How many images of the run have a property: by stratum, float64 (strata,), ``images`` in all,
    how many of them ``drawn``, ``answered``, and ``hits`` that have it; ``reaches``: whether an
    image of the stratum can have it at all.
    """

    images: NDArray[np.float64]
    drawn: NDArray[np.float64]
    answered: NDArray[np.float64]
    hits: NDArray[np.float64]
    reaches: NDArray[np.bool_]

    @property
    def sampled(self) -> bool:
        return bool((self.reaches & (self.answered < self.images)).any())

    def total(self, level: float) -> tuple[float, float, float]:
        """The estimate with its interval: weighted hits, as a weighted sum of Poisson counts (Fay
        and Feuer 1997).

        Conservative, and valid at 0 hits. Strata that are answered whole are known exactly; of one
        without any answer every image may have the property.
        """
        seen = self.answered > 0
        weights = np.divide(self.images, self.answered, out=np.zeros_like(self.images), where=seen)
        parts = self.reaches & seen & (self.answered < self.images)
        known = float(self.hits[seen & ~parts].sum())
        y, v = (
            float((weights * self.hits)[parts].sum()),
            float((weights**2 * self.hits)[parts].sum()),
        )
        low, high = _gamma_interval(y, v, float(weights[parts].max(initial=0.0)), level)
        fewest = float(self.hits[parts].sum())
        most = float((self.images - self.answered + self.hits)[parts].sum())
        blind = float(self.images[self.reaches & ~seen].sum())
        return known + y, known + max(low, fewest), known + min(high, most) + blind

    def after(self, effort: float) -> _Count:
        """What it would be with ``effort`` times the drawn images answered (1: all of them), hits
        in proportion.
        """
        answered = np.minimum(
            self.images, np.maximum(self.answered, np.ceil(effort * np.maximum(self.drawn, 1)))
        )
        hits = self.hits * answered / np.maximum(self.answered, 1)
        return replace(self, answered=answered, hits=hits)


def _gamma_interval(y: float, v: float, widest: float, level: float) -> tuple[float, float]:
    if widest == 0:
        return 0.0, 0.0
    quantile = import_extra("scipy.special", "SciPy").gammaincinv
    tail = (1 - level) / 2
    low = v / y * float(quantile(y * y / v, tail)) if y > 0 else 0.0
    y, v = y + widest, v + widest**2
    return low, v / y * float(quantile(y * y / v, 1 - tail))


def _count(sample: Sample, verdict: str, threshold: float, *, above: bool) -> _Count:
    """How many images above (or not above) the threshold have this verdict."""
    usable, side = sample.usable, flagged_at(sample.scores, threshold) == above
    edges = np.array([s.high if above else s.low for s in sample.strata], dtype=np.float32)

    def by_stratum(rows: NDArray[np.bool_]) -> NDArray[np.float64]:
        counts = [np.count_nonzero(rows & (sample.stratum == s.number)) for s in sample.strata]
        return np.array(counts, dtype=np.float64)

    return _Count(
        images=np.array([s.images for s in sample.strata], dtype=np.float64),
        drawn=np.array(
            [s.drawn if s.number else s.images for s in sample.strata], dtype=np.float64
        ),
        answered=by_stratum(usable),
        hits=by_stratum(usable & side & (sample.states == verdict)),
        reaches=flagged_at(edges, threshold) == above,
    )


def _ratio(hits: _Count, others: _Count) -> tuple[float, float, float]:
    """hits / (hits + others) with the interval from those of both (Bonferroni, where both are
    uncertain).
    """
    level = 0.975 if hits.sampled and others.sampled else 0.95
    (a, a_low, a_high), (b, b_low, b_high) = hits.total(level), others.total(level)
    low, high = (
        x / (x + y) if x + y else end for x, y, end in ((a_low, b_high, 0.0), (a_high, b_low, 1.0))
    )
    return a / (a + b), low, high


def _smallest(enough: Callable[[int], bool]) -> int:
    """Returns the smallest whole number from 0 up that is ``enough``, which must hold from there
    on.
    """
    low, high = -1, 1
    while not enough(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
