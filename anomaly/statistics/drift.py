"""Do new images still look like those that set the threshold? Quantiles over time, and three
alarms.

    change      the scores ceased to be like the calibration scores: see
                anomaly/statistics/change_point.py for what is proven of it
    flagged     of the newest images more are flagged than is ordinary for good ones (beta-binomial)
    not judged  of the newest images more were not judged than is ordinary: nobody has inspected
                them

What it takes: one image of each group, in the order they were taken, and nothing left out. A series
with many more defects than before raises alarms too, and should.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anomaly.errors import AnomalyError
from anomaly.statistics.calibration import Calibration
from anomaly.statistics.change_point import RUN_LENGTH, Change, follow
from anomaly.statistics.intervals import binomial_limit

LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)
NEWEST_IMAGES = (200, 2000)  # images, over which the flagged ones and those not judged are counted
WINDOWS, LEAST_IN_WINDOW = 60, 20  # on a chart; images
ORDINARY_PROBABILITY = 0.95  # probability that none of the counts of good images is above its limit
NOT_JUDGED = 0.02  # share of good images that may be unlike the training images by themselves


@dataclass(frozen=True, eq=False)
class Series:
    """Scores of one folder or camera in the order of time, one of each group: float32 (n,), not
    finite where not judged.

    ``times``: their n moments, text, UTC; ``what``: an image or a unit; ``not_judged_share``: of
    good ones, at the most.
    """

    name: str
    scores: NDArray[np.float32]
    times: Sequence[str]
    what: str = "image"
    not_judged_share: float = NOT_JUDGED

    def __post_init__(self) -> None:
        # None becomes NaN
        object.__setattr__(self, "scores", np.asarray(self.scores, dtype=np.float32))
        if len(self.scores) != len(self.times):
            raise AnomalyError(
                f"{len(self.scores)} scores and {len(self.times)} times found: one of each expected"
            )

    @property
    def judged(self) -> NDArray[np.int64]:
        """The indices of those that were judged."""
        return np.flatnonzero(np.isfinite(self.scores))


@dataclass(frozen=True)
class Count:
    """``found`` of the newest ``images`` are flagged or not judged (``kind``); of good ones up to
    ``ordinary_up_to``.
    """

    kind: str
    found: int
    images: int
    ordinary_up_to: int

    @property
    def alarm(self) -> bool:
        return self.found > self.ordinary_up_to


@dataclass(frozen=True, eq=False)
class Window:
    """``images`` consecutive images, of which ``not_judged`` have no score: quantiles of the
    others' scores at LEVELS, float64 (5,), NaN where there are none, and how many were flagged.

    ``ordinary_up_to``: the most that is ordinary among good images; None without a threshold.
    """

    start: str
    end: str
    images: int
    not_judged: int
    quantiles: NDArray[np.float64]
    flagged: int | None
    ordinary_up_to: int | None


def calibration_quantiles(calibration: Calibration) -> NDArray[np.float64]:
    """The quantiles at LEVELS of the calibration scores, float64 (5,): what windows are compared
    with.
    """
    return np.asarray(np.quantile(calibration.scores.astype(np.float64), LEVELS))


def window_images(images: int) -> int:
    """How many of a series' ``images`` make a window that a person can compare with its
    neighbours: about 60 windows, and 20 images or more for their quantiles.
    """
    return max(LEAST_IN_WINDOW, -(-images // WINDOWS))


def windows(
    series: Series,
    calibration: Calibration | None,
    images: int = NEWEST_IMAGES[0],
    level: float = ORDINARY_PROBABILITY,
) -> list[Window]:
    """The series cut into windows of ``images``, counted from the newest; the first one may be
    shorter.

    ``level``: of what is ordinary in one window; that of ``count_level`` makes the newest one agree
    with its alarm.
    """
    if images < 1:
        raise AnomalyError(f"windows of {images} images: expected 1 or more")
    ends = list(range(len(series.scores), 0, -images))[::-1]
    return [
        _window(series, calibration, window, level)
        for window in zip([0, *ends], ends, strict=False)
    ]


def _window(
    series: Series, calibration: Calibration | None, window: tuple[int, int], level: float
) -> Window:
    start, end = window
    scores = series.scores[start:end]
    judged = scores[np.isfinite(scores)]
    return Window(
        start=series.times[start],
        end=series.times[end - 1],
        images=len(scores),
        not_judged=len(scores) - len(judged),
        quantiles=np.quantile(judged.astype(np.float64), LEVELS)
        if len(judged)
        else np.full(len(LEVELS), math.nan),
        flagged=None if calibration is None else int(calibration.is_anomaly(judged).sum()),
        ordinary_up_to=None
        if calibration is None
        else ordinary_flagged(calibration, len(judged), level),
    )


def ordinary_flagged(calibration: Calibration, images: int, level: float) -> int:
    """How many of ``images`` good ones are flagged at the most, with probability ``level``; one
    alone is always ordinary.
    """
    return max(1, calibration.ordinary_up_to(images, level))


@dataclass(frozen=True, eq=False)
class ScoreWatch:
    """What was found of one series of ``images``, of which ``not_judged`` have no score.

    ``log10_evidence``: float64, after each judged image, an alarm at ``limit``; ``changes``: its
    alarms, which count judged images; ``changed_time``: when the last one seems to have begun;
    ``counts``: the plain alarms' counts.
    """

    name: str
    what: str
    images: int
    not_judged: int
    log10_evidence: NDArray[np.float64]
    limit: float
    changes: Sequence[Change]
    changed_time: str | None
    counts: Sequence[Count]

    @property
    def change(self) -> Change | None:
        """The change that goes on; None where there is none, or where it has ended."""
        return self.changes[-1] if self.changes and self.changes[-1].ended_at is None else None

    @property
    def alarm(self) -> bool:
        return self.change is not None or any(count.alarm for count in self.counts)

    def worst_counts(self) -> list[Count]:
        """Returns of each kind of alarm the count over the fewest images, the newest."""
        found = {count.kind: count for count in reversed(self.counts) if count.alarm}
        return [found[kind] for kind in ("not judged", "flagged") if kind in found]


def watch(
    series: Sequence[Series],
    calibration: Calibration | None,
    run_length: float = RUN_LENGTH,
    seed: int = 0,
) -> list[ScoreWatch]:
    """What each series says. Without a calibration (a detector that only ranks) those not judged
    are counted alone.

    While nothing changes, among n images of all series together a change is found by mistake with
    probability at most n / ``run_length``; each look at the counts has one above its limit with
    probability at most 5 % (Bonferroni), so the number of series must not depend on what their
    scores are.
    """
    if not 1 < run_length < math.inf:
        raise AnomalyError(
            f"a run length of {run_length} found, a number of images above 1 expected"
        )
    generators = np.random.default_rng(seed).spawn(len(series))
    level = count_level(series, calibration)
    return [
        _watch(one, calibration, run_length, level, random)
        for one, random in zip(series, generators, strict=True)
    ]


def count_level(series: Sequence[Series], calibration: Calibration | None) -> float:
    """The level of each count, such that all of them together keep to ORDINARY."""
    kinds = 1 if calibration is None else 2
    return 1 - (1 - ORDINARY_PROBABILITY) / max(1, kinds * sum(len(_newest(one)) for one in series))


def _newest(series: Series) -> list[int]:
    """How many of the newest images are counted: one number, or two where the series is longer."""
    return sorted({min(images, len(series.scores)) for images in NEWEST_IMAGES} - {0})


def _watch(
    series: Series,
    calibration: Calibration | None,
    run_length: float,
    level: float,
    random: np.random.Generator,
) -> ScoreWatch:
    judged = series.judged if calibration is not None else np.empty(0, dtype=np.int64)
    path = follow(
        [] if calibration is None else calibration.scores, series.scores[judged], random, run_length
    )
    with np.errstate(divide="ignore"):
        evidence = np.maximum(np.log10(path.evidence), -1.0)
    return ScoreWatch(
        name=series.name,
        what=series.what,
        images=len(series.scores),
        not_judged=len(series.scores) - len(series.judged),
        log10_evidence=evidence,
        limit=math.log10(run_length),
        changes=path.changes,
        changed_time=series.times[judged[path.changes[-1].changed_at]] if path.changes else None,
        counts=list(_counts(series, calibration, level)),
    )


def _counts(series: Series, calibration: Calibration | None, level: float) -> Iterator[Count]:
    for images in _newest(series):
        newest = series.scores[-images:]
        judged = newest[np.isfinite(newest)]
        limit = max(1, binomial_limit(images, series.not_judged_share, level))
        yield Count("not judged", images - len(judged), images, limit)
        if calibration is not None:
            flagged = int(calibration.is_anomaly(judged).sum())
            yield Count(
                "flagged", flagged, len(judged), ordinary_flagged(calibration, len(judged), level)
            )
