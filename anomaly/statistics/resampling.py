"""Intervals of ranking figures: by group, resampled."""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from anomaly.errors import DatasetError, RuntimeMissing
from anomaly.statistics.intervals import clopper_pearson

NORMAL = "good"  # the label of normal images; every other one names a class of defects


DRAWS = 1000


LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """A figure in [0, 1] with its 95 % interval."""

    value: float
    low: float
    high: float

    def to_json(self) -> dict[str, float]:
        return {"value": self.value, "low": self.low, "high": self.high}


@dataclass(frozen=True)
class TestSet:
    """The judged images, each array (n,)."""

    scores: NDArray[np.float32]
    ranks: NDArray[np.int64]  # 0, 1, 2 ...: equal scores share one, NaN has the highest
    labels: NDArray[np.str_]
    groups: NDArray[np.str_]
    names: NDArray[np.str_] | None
    flagged: NDArray[np.bool_] | None
    classes: list[str]  # of all images, judged or not
    seed: int

    @classmethod
    def of(
        cls,
        scores: ArrayLike,
        labels: Sequence[str],
        groups: Sequence[str],
        flagged: ArrayLike | None,
        inspected: ArrayLike | None,
        names: Sequence[str] | None,
        seed: int,
    ) -> TestSet:
        given = {
            "scores": scores,
            "groups": groups,
            "flagged": flagged,
            "inspected": inspected,
            "names": names,
        }
        for what, values in given.items():
            if values is not None and np.shape(values) != (len(labels),):
                raise DatasetError(
                    f"{what} of shape {np.shape(values)} for {len(labels)} labels: expected one "
                    "for each image"
                )
        judged = (
            np.ones(len(labels), dtype=bool)
            if inspected is None
            else np.asarray(inspected, dtype=bool)
        )
        kept = np.asarray(scores, dtype=np.float32)[judged]
        return cls(
            scores=kept,
            ranks=np.unique(kept, return_inverse=True)[1].astype(np.int64),
            labels=np.asarray(labels, dtype=np.str_)[judged],
            groups=np.asarray(groups, dtype=np.str_)[judged],
            names=None if names is None else np.asarray(names, dtype=np.str_)[judged],
            flagged=None
            if flagged is None
            else np.asarray(flagged, dtype=bool)[judged] | np.isnan(kept),
            classes=sorted({label for label in labels if label != NORMAL}),
            seed=seed,
        )

    @property
    def normal(self) -> NDArray[np.bool_]:
        return self.of_class(NORMAL)

    @property
    def anomalous(self) -> NDArray[np.bool_]:
        return ~self.normal

    def of_class(self, label: str) -> NDArray[np.bool_]:
        return np.asarray(self.labels == label)


def resampled_values(
    test: TestSet,
) -> tuple[NDArray[np.float64], NDArray[np.float64], dict[str, NDArray[np.float64]]]:
    """AUROC, average precision and the AUROC of each class in every bootstrap draw, each (DRAWS,).

    One sort serves all draws: a draw only gives every image a weight, how often its group was
    drawn.
    """
    order = np.argsort(test.ranks, kind="stable")
    ranks, positive = test.ranks[order], test.anomalous[order]
    names, classes = np.unique(test.labels[order], return_inverse=True)
    auroc, precision = np.empty(DRAWS), np.empty(DRAWS)
    by_class = np.empty((DRAWS, len(names)))
    for draw, weights in enumerate(group_draws(test.groups[order], positive, test.seed)):
        placed = _placements(weights, ranks, positive)
        auroc[draw] = np.average(placed[positive], weights=weights[positive])
        precision[draw] = _weighted_precision(weights, ranks, positive)
        drawn = np.bincount(classes, weights)
        with np.errstate(invalid="ignore"):  # a class that was not drawn: NaN, left out later
            by_class[draw] = np.bincount(classes, weights * placed) / drawn
    return (
        auroc,
        precision,
        {str(name): by_class[:, i] for i, name in enumerate(names) if name != NORMAL},
    )


def _placements(
    weights: NDArray[np.float64], ranks: NDArray[np.int64], positive: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Share of normal weight that ranks below each image, ties by half; their mean over positives
    is the AUROC.
    """
    at = np.bincount(ranks, weights * ~positive)
    below = np.cumsum(at) - at
    return np.asarray(((below + at / 2) / at.sum())[ranks], dtype=np.float64)


def _weighted_precision(
    weights: NDArray[np.float64], ranks: NDArray[np.int64], positive: NDArray[np.bool_]
) -> float:
    """Average precision of weighted images: the sum of precision times the step in recall, highest
    rank first.
    """
    hits = np.bincount(ranks, weights * positive)[::-1]
    found, seen = np.cumsum(hits), np.cumsum(np.bincount(ranks, weights)[::-1])
    return float(np.sum(hits * found / np.maximum(seen, 1)) / found[-1])


def group_draws(
    groups: NDArray[Any], positive: NDArray[np.bool_], seed: int
) -> Iterator[NDArray[np.float64]]:
    """How often each image's group was drawn, float64 (n,), DRAWS times.

    Groups with defects only, without and with both are drawn apart, so that every draw holds both
    kinds.
    """
    generator = np.random.default_rng(seed)
    names, index = np.unique(groups, return_inverse=True)
    has_positive = np.bincount(index, positive, minlength=len(names)) > 0
    has_normal = np.bincount(index, ~positive, minlength=len(names)) > 0
    kinds = [np.flatnonzero(has_positive + 2 * has_normal == kind) for kind in (1, 2, 3)]
    for _ in range(DRAWS):
        drawn = np.concatenate([generator.choice(kind, len(kind)) for kind in kinds if len(kind)])
        yield np.bincount(drawn, minlength=len(names)).astype(np.float64)[index]


@dataclass(frozen=True)
class TestGroups:
    """``fewest``: the smaller of the numbers of groups with and without defects. ``pairs``: how
    many pairs of a group with and another group without defects can be formed, none used twice."""

    positive: int
    normal: int
    pairs: int

    @classmethod
    def of(
        cls, groups: NDArray[Any], positive: NDArray[np.bool_], normal: NDArray[np.bool_]
    ) -> TestGroups:
        with_defects, without = set(groups[positive].tolist()), set(groups[normal].tolist())
        pairs = min(len(with_defects), len(without), len(with_defects | without) // 2)
        return cls(len(with_defects), len(without), pairs)

    @property
    def fewest(self) -> int:
        return min(self.positive, self.normal)


def interval_of(value: float, draws: NDArray[np.float64], groups: TestGroups) -> Interval:
    """From the spread of the draws by Student's t on the logit scale, or the exact bound where
    there is none.
    """
    spread = float(np.nanstd(draws, ddof=1))
    if groups.fewest < 2 or not 0 < value < 1 or spread < 1e-12:
        return _exact_interval(value, groups.pairs)
    special = importlib.import_module("scipy.special")
    # resampling n groups shows the spread of n - 1
    unbiased = spread * math.sqrt(groups.fewest / (groups.fewest - 1))
    margin = special.stdtrit(groups.fewest - 1, (1 + LEVEL) / 2) * unbiased / (value * (1 - value))
    centre = special.logit(value)
    return Interval(
        value, float(special.expit(centre - margin)), float(special.expit(centre + margin))
    )


def _exact_interval(value: float, pairs: int) -> Interval:
    """The interval of a mean of independent pairs, each in order or not: Clopper-Pearson, counts
    rounded outward.

    An AUROC is the mean of such pairs over every way to form them, and spreads no wider than one
    way (Hoeffding 1963).
    """
    low = clopper_pearson(math.floor(value * pairs), pairs, LEVEL)[0]
    high = clopper_pearson(math.ceil(value * pairs), pairs, LEVEL)[1]
    return Interval(value, low, high)


def perfect_precision_bound(groups: TestGroups, normal_per_positive: float) -> float:
    """The lowest average precision that a perfect ranking of so few groups leaves possible.

    Up to a share x of all defects may lie below a threshold above which there is a share y of good
    images; at worst those y rank above all defects: the integral of r / (r + c) over recall r to
    1 - x, c = y * normal_per_positive.
    """
    tail = (1 - LEVEL) / 4  # two ways to be wrong, on one side
    recall: float = tail ** (1 / groups.positive)
    c = (1 - tail ** (1 / groups.normal)) * normal_per_positive
    return max(0.0, float(recall - c * math.log((recall + c) / c)))


def import_metrics() -> ModuleType:
    try:
        return importlib.import_module("sklearn.metrics")
    except ImportError as error:
        raise RuntimeMissing.extra("scikit-learn", "evaluate", "anomaly evaluate") from error
