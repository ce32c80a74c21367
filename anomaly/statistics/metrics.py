"""Labels and scores -> figures with intervals. Needs scikit-learn and scipy (extra ``evaluate``),
when called.

Higher score = more anomalous; scores are used as they are, unclamped; a score that is not a number
ranks highest and counts as flagged. Images of one group are not independent, so every interval is
by group:

- rates (recall, false alarms): one image drawn from each group, seeded, and the exact interval of
  Clopper and Pearson;
- ranking figures (AUROC, average precision, AUPRO): all images, the standard error from a bootstrap
  of whole groups, Student's t on the logit scale. (Plain percentiles of few groups are too narrow,
  most of all near 1.) Where there is nothing to resample (a figure of exactly 0 or 1, a single
  group, no spread) the bootstrap would shrink to a point: an exact bound takes its place, and
  (0, 1) where there is none.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from anomaly.statistics.calibration import Calibration, Kind, Rate, named_rate
from anomaly.statistics.groups import one_per_group
from anomaly.statistics.intervals import upper_limit
from anomaly.statistics.pixel_metrics import PixelFigures, PixelMap, pixel_figures
from anomaly.statistics.resampling import (
    NORMAL,
    Interval,
    TestGroups,
    TestSet,
    import_metrics,
    interval_of,
    perfect_precision_bound,
    resampled_values,
)
from anomaly.statistics.review_threshold import ReviewThreshold


@dataclass(frozen=True)
class FalseAlarms:
    """Good test images that were flagged, beside the rate that the calibration guaranteed, or
    estimated (``kind`` cross).

    ``flagged``: one image of each group, with its exact interval. ``ordinary_up_to``: the
    beta-binomial 95 % limit of that count. ``images_flagged`` of ``images``: every good image
    counted.
    """

    rate: float
    upper_bound: float
    ordinary_up_to: int
    flagged: Rate
    images_flagged: int
    images: int
    kind: Kind = "split"

    def to_json(self) -> dict[str, float | int | None]:
        return {
            **named_rate(self.rate, self.kind),
            "upper_bound": self.upper_bound,
            "n": self.flagged.n,
            "flagged": self.flagged.flagged,
            "ordinary_up_to": self.ordinary_up_to,
        }


@dataclass(frozen=True)
class ClassFigures:
    """One class of defects against all good images. ``n`` counts images, ``recall`` one image of
    each group.
    """

    image_auroc: Interval | None
    recall: Rate | None
    n: int

    def to_json(self) -> dict[str, Any]:
        return {
            "image_auroc": _json(self.image_auroc),
            "recall": _json(self.recall),
            "n": self.n,
            "missed_at_most": self.missed_at_most,
        }

    @property
    def missed_at_most(self) -> float | None:
        """The share of such defects that is missed, 95 % confident; None without a threshold."""
        if self.recall is None:
            return None
        return upper_limit(self.recall.n - self.recall.flagged, self.recall.n)


@dataclass(frozen=True)
class Roc:
    """Points of the ROC curve, each (points,), false-positive rate ascending; a point flags
    score >= threshold.
    """

    fpr: NDArray[np.float64]
    tpr: NDArray[np.float64]
    threshold: NDArray[np.float32]


@dataclass(frozen=True)
class AboveReview:
    """What is flagged or for review of the good images, and of those with defects: as
    ``false_alarms`` and ``recall`` of an Evaluation, at the review ``threshold``.
    """

    threshold: float
    false_alarms: FalseAlarms | None
    recall: Rate | None

    def to_json(self) -> dict[str, Any]:
        return {
            "threshold": self.threshold,
            "false_alarms": _json(self.false_alarms),
            "recall": _json(self.recall),
        }


@dataclass(frozen=True)
class Evaluation:
    """How good a detector is on labelled images. ``to_json`` is what programs read; the rest is for
    the report.

    ``n_normal`` and ``n_anomalous`` count images that were judged, ``not_inspected`` those that
    were not (of them ``not_inspected_normal`` good). Figures that the images cannot give are None.
    """

    image_auroc: Interval | None
    average_precision: Interval | None
    false_alarms: FalseAlarms | None
    recall: Rate | None
    pixels: PixelFigures | None
    per_class: dict[str, ClassFigures]
    n_normal: int
    n_anomalous: int
    detector: str
    recall_images: tuple[int, int] | None  # flagged, of: every defective image counted
    not_inspected: int
    not_inspected_normal: int
    roc: Roc | None
    scores: dict[str, NDArray[np.float32]]  # of judged images, by label
    review: AboveReview | None = None  # None: the detector has one threshold

    def to_json(self) -> dict[str, Any]:
        return {
            "image_auroc": _json(self.image_auroc),
            "average_precision": _json(self.average_precision),
            "false_alarms": _json(self.false_alarms),
            "recall": _json(self.recall),
            "pixel_auroc": self.pixels.auroc.value if self.pixels else None,
            "aupro": self.pixels.aupro.value if self.pixels else None,
            "per_class": {name: figures.to_json() for name, figures in self.per_class.items()},
            "n_normal": self.n_normal,
            "n_anomalous": self.n_anomalous,
            "detector": self.detector,
            "review": None if self.review is None else self.review.to_json(),
        }


@dataclass(frozen=True, eq=False)
class LabelledScores:
    """N labelled images, each field in the same order.

    ``scores``: float32 (N,), raw. ``labels``: "good" or a class of defects. ``groups``: images that
    are not independent share one. ``flagged``: bool (N,), and None for a detector that only ranks.
    ``names``: paths, which make the draw from a group the same in any order. ``inspected``: bool
    (N,), false where an image could not be judged (its score is not looked at).
    """

    scores: ArrayLike
    labels: Sequence[str]
    groups: Sequence[str]
    flagged: ArrayLike | None
    names: Sequence[str] | None = None
    inspected: ArrayLike | None = None


def evaluate(
    images: LabelledScores,
    calibration: Calibration | None,
    *,
    maps: Iterable[PixelMap] | None = None,
    detector: str = "",
    seed: int = 0,
) -> Evaluation:
    """The figures of labelled images.

    ``maps``: one PixelMap for each image, read once, one at a time. Raises DatasetError where they
    do not fit together and RuntimeMissing without scikit-learn.
    """
    import_metrics()
    labels, groups = images.labels, images.groups
    test = TestSet.of(
        images.scores, labels, groups, images.flagged, images.inspected, images.names, seed
    )
    ranking = _ranking(test)
    return Evaluation(
        image_auroc=ranking.auroc,
        average_precision=ranking.average_precision,
        false_alarms=None
        if calibration is None
        else _false_alarms(test, calibration, calibration.kind),
        recall=_rate(test, test.anomalous),
        pixels=None if maps is None else pixel_figures(maps, labels, groups, seed),
        per_class={
            name: ClassFigures(
                ranking.classes[name],
                _rate(test, test.of_class(name)),
                int(test.of_class(name).sum()),
            )
            for name in test.classes
        },
        n_normal=int(test.normal.sum()),
        n_anomalous=int(test.anomalous.sum()),
        detector=detector,
        recall_images=_counts(test, test.anomalous),
        not_inspected=len(labels) - len(test.labels),
        not_inspected_normal=sum(label == NORMAL for label in labels) - int(test.normal.sum()),
        roc=_roc(test),
        scores={str(label): test.scores[test.of_class(label)] for label in np.unique(test.labels)},
        review=None if calibration is None else _above_review(test, calibration.review),
    )


# Rates: one image of each group


def _rate(test: TestSet, which: NDArray[np.bool_]) -> Rate | None:
    if test.flagged is None or not which.any():
        return None
    names = None if test.names is None else test.names[which].tolist()
    _, drawn = one_per_group(test.scores[which], test.groups[which].tolist(), test.seed, names)
    return Rate.of(int(test.flagged[which][drawn].sum()), len(drawn))


def _counts(test: TestSet, which: NDArray[np.bool_]) -> tuple[int, int] | None:
    return (
        None
        if test.flagged is None or not which.any()
        else (int(test.flagged[which].sum()), int(which.sum()))
    )


def _false_alarms(
    test: TestSet, threshold: Calibration | ReviewThreshold, kind: Kind
) -> FalseAlarms | None:
    flagged, counts = _rate(test, test.normal), _counts(test, test.normal)
    if flagged is None or counts is None:
        return None
    up_to = threshold.ordinary_up_to(flagged.n)
    return FalseAlarms(threshold.rate, threshold.upper_bound, up_to, flagged, *counts, kind)


def _above_review(test: TestSet, review: ReviewThreshold | None) -> AboveReview | None:
    if review is None:
        return None
    above = replace(test, flagged=~(test.scores <= review.threshold))
    kind: Kind = "split" if review.is_guaranteed else "cross"  # an estimate, as of cross
    return AboveReview(
        float(review.threshold),
        _false_alarms(above, review, kind),
        _rate(above, above.anomalous),
    )


# Ranking: all images, resampled by group


@dataclass(frozen=True)
class _Ranking:
    auroc: Interval | None
    average_precision: Interval | None
    classes: dict[str, Interval | None]


def _ranking(test: TestSet) -> _Ranking:
    classes: dict[str, Interval | None] = dict.fromkeys(test.classes)
    if not test.normal.any() or not test.anomalous.any():
        return _Ranking(None, None, classes)
    auroc, precision, by_class = resampled_values(test)
    for name, draws in by_class.items():
        classes[name] = _auroc(test, test.of_class(name), draws)
    return _Ranking(
        _auroc(test, test.anomalous, auroc), _average_precision(test, precision), classes
    )


def _auroc(test: TestSet, positive: NDArray[np.bool_], draws: NDArray[np.float64]) -> Interval:
    kept = positive | test.normal
    value = float(import_metrics().roc_auc_score(positive[kept], test.ranks[kept]))
    return interval_of(value, draws, TestGroups.of(test.groups, positive, test.normal))


def _average_precision(test: TestSet, draws: NDArray[np.float64]) -> Interval:
    value = float(import_metrics().average_precision_score(test.anomalous, test.ranks))
    groups = TestGroups.of(test.groups, test.anomalous, test.normal)
    if test.ranks[test.anomalous].min() > test.ranks[test.normal].max():
        return Interval(
            1.0, perfect_precision_bound(groups, test.normal.sum() / test.anomalous.sum()), 1.0
        )
    if groups.fewest < 2:
        return Interval(value, 0.0, 1.0)
    return interval_of(value, draws, groups)


def _roc(test: TestSet) -> Roc | None:
    if not test.normal.any() or not test.anomalous.any():
        return None
    fpr, tpr, ranks = import_metrics().roc_curve(test.anomalous, test.ranks)
    by_rank = np.unique(test.scores)
    # the first point flags nothing: its threshold is above every score
    threshold = np.concatenate([[np.inf], by_rank[ranks[1:].astype(np.int64)]]).astype(np.float32)
    return Roc(fpr, tpr, threshold)


# Pixels: histograms of heatmap values, so that memory does not grow with the number of pixels


def _json(figure: Interval | FalseAlarms | Rate | None) -> dict[str, Any] | None:
    return None if figure is None else dict(figure.to_json())
