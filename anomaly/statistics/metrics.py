"""Labels and scores -> figures with intervals. Needs scikit-learn and scipy (extra ``evaluate``), when called.

Higher score = more anomalous; scores are used as they are, unclamped; a score that is not a number ranks highest and
counts as flagged. Images of one group are not independent, so every interval is by group:

- rates (recall, false alarms): one image drawn from each group, seeded, and the exact interval of Clopper and Pearson;
- ranking figures (AUROC, average precision, AUPRO): all images, the standard error from a bootstrap of whole groups,
  Student's t on the logit scale. (Plain percentiles of few groups are too narrow, most of all near 1.) Where there is
  nothing to resample (a figure of exactly 0 or 1, a single group, no spread) the bootstrap would shrink to a point: an
  exact bound takes its place, and (0, 1) where there is none.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from anomaly.errors import DatasetError, RuntimeMissing
from anomaly.statistics.calibration import Calibration, Rate, clopper_pearson, one_per_group

NORMAL = "good"  # the label of normal images; every other one names a class of defects
DRAWS = 1000
LEVEL = 0.95
FPR_LIMIT = 0.3  # AUPRO is integrated to this false-positive rate of pixels (Bergmann et al., CVPR 2019)


@dataclass(frozen=True)
class Interval:
    """A figure in [0, 1] with its 95 % interval."""

    value: float
    low: float
    high: float

    def to_json(self) -> dict[str, float]:
        return {"value": self.value, "low": self.low, "high": self.high}


@dataclass(frozen=True)
class FalseAlarms:
    """Good test images that were flagged, beside what the calibration guaranteed.

    ``flagged``: one image of each group, with its exact interval. ``ordinary_up_to``: the beta-binomial 95 % limit of that
    count. ``images_flagged`` of ``images``: every good image counted.
    """

    guaranteed_rate: float
    upper_bound: float
    ordinary_up_to: int
    flagged: Rate
    images_flagged: int
    images: int

    def to_json(self) -> dict[str, float | int]:
        return {
            "guaranteed_rate": self.guaranteed_rate,
            "upper_bound": self.upper_bound,
            "n": self.flagged.n,
            "flagged": self.flagged.flagged,
            "ordinary_up_to": self.ordinary_up_to,
        }


@dataclass(frozen=True)
class ClassFigures:
    """One class of defects against all good images. ``n`` counts images, ``recall`` one image of each group."""

    image_auroc: Interval | None
    recall: Rate | None
    n: int

    def to_json(self) -> dict[str, Any]:
        return {"image_auroc": _json(self.image_auroc), "recall": _json(self.recall), "n": self.n}


@dataclass(frozen=True)
class Roc:
    """Points of the ROC curve, each (points,), false-positive rate ascending; a point flags score >= threshold."""

    fpr: NDArray[np.float64]
    tpr: NDArray[np.float64]
    threshold: NDArray[np.float32]


@dataclass(frozen=True)
class PixelMap:
    """What the pixel figures need of one image.

    ``heatmap``: float32 (h, w), higher = more anomalous; None where the image was not judged. ``mask``: (H, W) of the
    original image, true on the defect; None: no mask. ``size``: (H, W) of the original image.
    """

    heatmap: NDArray[np.float32] | None
    mask: NDArray[Any] | None
    size: tuple[int, int]


@dataclass(frozen=True)
class PixelFigures:
    """Localisation: ``regions`` connected defects in ``images`` images; ``without_mask`` defective ones left out."""

    auroc: Interval
    aupro: Interval
    images: int
    regions: int
    without_mask: int


@dataclass(frozen=True)
class Evaluation:
    """How good a detector is on labelled images. ``to_json`` is what programs read; the rest is for the report.

    ``n_normal`` and ``n_anomalous`` count images that were judged, ``not_inspected`` those that were not (of them
    ``not_inspected_normal`` good). Figures that the images cannot give are None.
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
        }


def evaluate(
    scores: ArrayLike,
    labels: Sequence[str],
    groups: Sequence[str],
    flagged: ArrayLike | None,
    calibration: Calibration | None,
    *,
    names: Sequence[str] | None = None,
    inspected: ArrayLike | None = None,
    maps: Iterable[PixelMap] | None = None,
    detector: str = "",
    seed: int = 0,
) -> Evaluation:
    """The figures of N labelled images, each argument in the same order.

    ``scores``: float32 (N,), raw. ``labels``: "good" or a class of defects. ``groups``: images that are not
    independent share one. ``flagged``: bool (N,), and None for a detector that only ranks. ``names``: paths, which
    make the draw from a group the same in any order. ``inspected``: bool (N,), false where an image could not be
    judged (its score is not looked at). ``maps``: one PixelMap for each image, read once, one at a time.
    Raises DatasetError where they do not fit together and RuntimeMissing without scikit-learn.
    """
    _sklearn()
    test = _TestSet.of(scores, labels, groups, flagged, inspected, names, seed)
    ranking = _ranking(test)
    return Evaluation(
        image_auroc=ranking.auroc,
        average_precision=ranking.average_precision,
        false_alarms=_false_alarms(test, calibration),
        recall=_rate(test, test.anomalous),
        pixels=None if maps is None else _pixel_figures(maps, labels, groups, seed),
        per_class={
            name: ClassFigures(ranking.classes[name], _rate(test, test.of_class(name)), int(test.of_class(name).sum()))
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
    )


@dataclass(frozen=True)
class _TestSet:
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
    ) -> _TestSet:
        given = {"scores": scores, "groups": groups, "flagged": flagged, "inspected": inspected, "names": names}
        for what, values in given.items():
            if values is not None and np.shape(values) != (len(labels),):
                raise DatasetError(f"{what} of shape {np.shape(values)} for {len(labels)} labels: expected one for each image")
        judged = np.ones(len(labels), dtype=bool) if inspected is None else np.asarray(inspected, dtype=bool)
        kept = np.asarray(scores, dtype=np.float32)[judged]
        return cls(
            scores=kept,
            ranks=np.unique(kept, return_inverse=True)[1].astype(np.int64),
            labels=np.asarray(labels, dtype=np.str_)[judged],
            groups=np.asarray(groups, dtype=np.str_)[judged],
            names=None if names is None else np.asarray(names, dtype=np.str_)[judged],
            flagged=None if flagged is None else np.asarray(flagged, dtype=bool)[judged] | np.isnan(kept),
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


# Rates: one image of each group


def _rate(test: _TestSet, which: NDArray[np.bool_]) -> Rate | None:
    if test.flagged is None or not which.any():
        return None
    names = None if test.names is None else test.names[which].tolist()
    _, drawn = one_per_group(test.scores[which], test.groups[which].tolist(), test.seed, names)
    return Rate.of(int(test.flagged[which][drawn].sum()), len(drawn))


def _counts(test: _TestSet, which: NDArray[np.bool_]) -> tuple[int, int] | None:
    return None if test.flagged is None or not which.any() else (int(test.flagged[which].sum()), int(which.sum()))


def _false_alarms(test: _TestSet, calibration: Calibration | None) -> FalseAlarms | None:
    flagged, counts = _rate(test, test.normal), _counts(test, test.normal)
    if calibration is None or flagged is None or counts is None:
        return None
    up_to = calibration.ordinary_up_to(flagged.n)
    return FalseAlarms(calibration.guaranteed_rate, calibration.upper_bound, up_to, flagged, *counts)


# Ranking: all images, resampled by group


@dataclass(frozen=True)
class _Ranking:
    auroc: Interval | None
    average_precision: Interval | None
    classes: dict[str, Interval | None]


def _ranking(test: _TestSet) -> _Ranking:
    classes: dict[str, Interval | None] = dict.fromkeys(test.classes)
    if not test.normal.any() or not test.anomalous.any():
        return _Ranking(None, None, classes)
    auroc, precision, by_class = _resampled(test)
    for name, draws in by_class.items():
        classes[name] = _auroc(test, test.of_class(name), draws)
    return _Ranking(_auroc(test, test.anomalous, auroc), _average_precision(test, precision), classes)


def _auroc(test: _TestSet, positive: NDArray[np.bool_], draws: NDArray[np.float64]) -> Interval:
    kept = positive | test.normal
    value = float(_sklearn().roc_auc_score(positive[kept], test.ranks[kept]))
    return _interval(value, draws, _Groups.of(test.groups, positive, test.normal))


def _average_precision(test: _TestSet, draws: NDArray[np.float64]) -> Interval:
    value = float(_sklearn().average_precision_score(test.anomalous, test.ranks))
    groups = _Groups.of(test.groups, test.anomalous, test.normal)
    if test.ranks[test.anomalous].min() > test.ranks[test.normal].max():
        return Interval(1.0, _perfect_precision_bound(groups, test.normal.sum() / test.anomalous.sum()), 1.0)
    if groups.fewest < 2:
        return Interval(value, 0.0, 1.0)
    return _interval(value, draws, groups)


def _roc(test: _TestSet) -> Roc | None:
    if not test.normal.any() or not test.anomalous.any():
        return None
    fpr, tpr, ranks = _sklearn().roc_curve(test.anomalous, test.ranks)
    by_rank = np.unique(test.scores)
    # the first point flags nothing: its threshold is above every score
    threshold = np.concatenate([[np.inf], by_rank[ranks[1:].astype(np.int64)]]).astype(np.float32)
    return Roc(fpr, tpr, threshold)


def _resampled(test: _TestSet) -> tuple[NDArray[np.float64], NDArray[np.float64], dict[str, NDArray[np.float64]]]:
    """AUROC, average precision and the AUROC of each class in every bootstrap draw, each (DRAWS,).

    One sort serves all draws: a draw only gives every image a weight, how often its group was drawn.
    """
    order = np.argsort(test.ranks, kind="stable")
    ranks, positive = test.ranks[order], test.anomalous[order]
    names, classes = np.unique(test.labels[order], return_inverse=True)
    auroc, precision = np.empty(DRAWS), np.empty(DRAWS)
    by_class = np.empty((DRAWS, len(names)))
    for draw, weights in enumerate(_group_draws(test.groups[order], positive, test.seed)):
        placed = _placements(weights, ranks, positive)
        auroc[draw] = np.average(placed[positive], weights=weights[positive])
        precision[draw] = _weighted_precision(weights, ranks, positive)
        drawn = np.bincount(classes, weights)
        with np.errstate(invalid="ignore"):  # a class that was not drawn: NaN, left out later
            by_class[draw] = np.bincount(classes, weights * placed) / drawn
    return auroc, precision, {str(name): by_class[:, i] for i, name in enumerate(names) if name != NORMAL}


def _placements(weights: NDArray[np.float64], ranks: NDArray[np.int64], positive: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Share of normal weight that ranks below each image, ties by half; their mean over positives is the AUROC."""
    at = np.bincount(ranks, weights * ~positive)
    below = np.cumsum(at) - at
    return np.asarray(((below + at / 2) / at.sum())[ranks], dtype=np.float64)


def _weighted_precision(weights: NDArray[np.float64], ranks: NDArray[np.int64], positive: NDArray[np.bool_]) -> float:
    """Average precision of weighted images: the sum of precision times the step in recall, highest rank first."""
    hits = np.bincount(ranks, weights * positive)[::-1]
    found, seen = np.cumsum(hits), np.cumsum(np.bincount(ranks, weights)[::-1])
    return float(np.sum(hits * found / np.maximum(seen, 1)) / found[-1])


def _group_draws(groups: NDArray[Any], positive: NDArray[np.bool_], seed: int) -> Iterator[NDArray[np.float64]]:
    """How often each image's group was drawn, float64 (n,), DRAWS times.

    Groups with defects only, without and with both are drawn apart, so that every draw holds both kinds.
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
class _Groups:
    """``fewest``: the smaller of the numbers of groups with and without defects. ``pairs``: how many pairs of a group
    with and another group without defects can be formed, none used twice."""

    positive: int
    normal: int
    pairs: int

    @classmethod
    def of(cls, groups: NDArray[Any], positive: NDArray[np.bool_], normal: NDArray[np.bool_]) -> _Groups:
        with_defects, without = set(groups[positive].tolist()), set(groups[normal].tolist())
        pairs = min(len(with_defects), len(without), len(with_defects | without) // 2)
        return cls(len(with_defects), len(without), pairs)

    @property
    def fewest(self) -> int:
        return min(self.positive, self.normal)


def _interval(value: float, draws: NDArray[np.float64], groups: _Groups) -> Interval:
    """From the spread of the draws by Student's t on the logit scale, or the exact bound where there is none."""
    spread = float(np.nanstd(draws, ddof=1))
    if groups.fewest < 2 or not 0 < value < 1 or spread < 1e-12:
        return _exact_interval(value, groups.pairs)
    special = importlib.import_module("scipy.special")
    unbiased = spread * math.sqrt(groups.fewest / (groups.fewest - 1))  # resampling n groups shows the spread of n - 1
    margin = special.stdtrit(groups.fewest - 1, (1 + LEVEL) / 2) * unbiased / (value * (1 - value))
    centre = special.logit(value)
    return Interval(value, float(special.expit(centre - margin)), float(special.expit(centre + margin)))


def _exact_interval(value: float, pairs: int) -> Interval:
    """The interval of a mean of independent pairs, each in order or not: Clopper-Pearson, counts rounded outward.

    An AUROC is the mean of such pairs over every way to form them, and spreads no wider than one way (Hoeffding 1963).
    """
    low = clopper_pearson(math.floor(value * pairs), pairs, LEVEL)[0]
    high = clopper_pearson(math.ceil(value * pairs), pairs, LEVEL)[1]
    return Interval(value, low, high)


def _perfect_precision_bound(groups: _Groups, normal_per_positive: float) -> float:
    """The lowest average precision that a perfect ranking of so few groups leaves possible.

    Up to a share x of all defects may lie below a threshold above which there is a share y of good images; at worst those
    y rank above all defects: the integral of r / (r + c) over recall r to 1 - x, c = y * normal_per_positive.
    """
    tail = (1 - LEVEL) / 4  # two ways to be wrong, on one side
    recall: float = tail ** (1 / groups.positive)
    c = (1 - tail ** (1 / groups.normal)) * normal_per_positive
    return max(0.0, float(recall - c * math.log((recall + c) / c)))


# Pixels: histograms of heatmap values, so that memory does not grow with the number of pixels

_BITS = 18  # a bin holds the values that agree in sign, exponent and 9 bits: 0.2 % of their distance from the centre
_COARSE = 16  # what is kept of each group for the bootstrap: 0.8 %
_STRIPE = 1 << 22  # pixels of an enlarged heatmap at a time
_HUGE = 1e38  # stands for infinity; differences of two stay finite


@dataclass
class _PixelCounts:
    """Normal pixels, defective pixels and shares of regions in each bin, from the lowest value to the highest."""

    centre: float | None = None  # a typical pixel, from which distances are measured: the first map's median
    total: NDArray[np.float64] = field(default_factory=lambda: np.zeros((3, 1 << _BITS)))
    groups: dict[str, list[tuple[NDArray[np.int64], NDArray[np.float32]]]] = field(default_factory=dict)
    defective: set[str] = field(default_factory=set)  # groups
    images: int = 0
    regions: int = 0
    without_mask: int = 0

    def add(self, group: str, heatmap: NDArray[np.float32], mask: NDArray[np.bool_]) -> None:
        if self.centre is None:
            self.centre = _typical(heatmap)
        counts, regions = _binned(heatmap, mask, self.centre)
        self.total += counts
        coarse = counts.reshape(3, 1 << _COARSE, -1).sum(axis=2)
        used = np.flatnonzero(coarse.any(axis=0))
        self.groups.setdefault(group, []).append((used, coarse[:, used].astype(np.float32)))
        if regions:
            self.defective.add(group)
        self.images += 1
        self.regions += regions


def _pixel_figures(maps: Iterable[PixelMap], labels: Sequence[str], groups: Sequence[str], seed: int) -> PixelFigures | None:
    counts = _PixelCounts()
    for image, label, group in zip(maps, labels, groups, strict=True):
        if image.heatmap is None:
            continue
        mask = _mask(image, label, group)
        if mask is None:
            counts.without_mask += 1
        else:
            counts.add(group, np.asarray(image.heatmap, dtype=np.float32), mask)
    normal, defective, shares = counts.total
    if not normal.any() or not defective.any():
        return None
    bins = np.arange(len(normal))
    auroc = _sklearn().roc_auc_score(
        np.repeat([False, True], len(bins)), np.tile(bins, 2), sample_weight=np.concatenate([normal, defective])
    )
    drawn = _resampled_pixels(counts, seed)
    with_defects, all_groups = len(counts.defective), len(counts.groups)
    independent = _Groups(with_defects, all_groups, min(with_defects, all_groups // 2))
    return PixelFigures(
        auroc=_interval(float(auroc), drawn[:, 0], independent),
        aupro=_interval(_aupro(normal, shares), drawn[:, 1], independent),
        images=counts.images,
        regions=counts.regions,
        without_mask=counts.without_mask,
    )


def _mask(image: PixelMap, label: str, group: str) -> NDArray[np.bool_] | None:
    """The defect's pixels, bool (H, W): none on a good image; None where a defective one has none marked."""
    marked = None if image.mask is None else np.asarray(image.mask) > 0
    if label != NORMAL:
        return marked if marked is not None and marked.any() else None
    if marked is not None and marked.any():
        raise DatasetError(
            f"an image of group {group} is labelled {NORMAL} but its mask marks {int(marked.sum())} pixels: "
            "correct the label or the mask"
        )
    return np.zeros(image.size, dtype=bool)


def _binned(heatmap: NDArray[np.float32], mask: NDArray[np.bool_], centre: float) -> tuple[NDArray[np.float64], int]:
    """Counts of one image, float64 (3, bins), and its number of regions."""
    counts = np.zeros((3, 1 << _BITS))
    regions, weights = _regions(mask)
    for rows, values in _enlarged(heatmap, mask.shape):
        bins, defect = _bins(values, centre), mask[rows]
        counts[0] += np.bincount(bins[~defect], minlength=1 << _BITS)
        if defect.any():
            counts[1] += np.bincount(bins[defect], minlength=1 << _BITS)
            counts[2] += np.bincount(bins[defect], weights[regions[rows][defect]], minlength=1 << _BITS)
    return counts, len(weights) - 1


def _regions(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """Number of the connected region (8 neighbours) of each pixel, 0 outside, and 1 / pixels of each region."""
    if not mask.any():
        return np.zeros((0, 0), dtype=np.int32), np.zeros(1)
    numbers, _ = importlib.import_module("scipy.ndimage").label(mask, structure=np.ones((3, 3)))
    return numbers, 1 / np.maximum(1, np.bincount(numbers.ravel()))


def _enlarged(heatmap: NDArray[np.float32], size: tuple[int, ...]) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """The heatmap at the image's size, bilinear between pixel centres, some rows at a time."""
    left, right, across = _neighbours(heatmap.shape[1], size[1])
    top, bottom, down = _neighbours(heatmap.shape[0], size[0])
    step = max(1, _STRIPE // size[1])
    # what is not finite would spread to its neighbours; NaN is the highest
    finite = np.clip(np.nan_to_num(heatmap, nan=_HUGE), -_HUGE, _HUGE)
    wide = finite[:, left] + (finite[:, right] - finite[:, left]) * across
    for start in range(0, size[0], step):
        rows = slice(start, start + step)
        upper, lower = wide[top[rows]], wide[bottom[rows]]
        yield rows, upper + (lower - upper) * down[rows, None]


def _neighbours(small: int, large: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """For each of ``large`` pixels the two of ``small`` whose centres it lies between, and how far along."""
    at = np.clip((np.arange(large) + 0.5) * small / large - 0.5, 0, small - 1)
    first = np.floor(at).astype(np.int64)
    return first, np.minimum(first + 1, small - 1), (at - first).astype(np.float32)


def _typical(heatmap: NDArray[np.float32]) -> float:
    finite = heatmap[np.abs(heatmap) <= _HUGE]
    return float(np.median(finite)) if len(finite) else 0.0


def _bins(values: NDArray[np.float32], centre: float) -> NDArray[np.int64]:
    """Bin of each value, ascending. The bits of a positive float32 are in the order of its values, of a negative one
    in the opposite order: the leading ones are a scale as fine near the centre as far from it."""
    distance = values - np.float32(centre) + np.float32(0)  # + 0: no negative zero
    bits = distance.view(np.uint32)
    ascending = np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))
    return (ascending >> (32 - _BITS)).astype(np.int64)


def _aupro(normal: NDArray[np.float64], shares: NDArray[np.float64]) -> float:
    """Mean share of a region found at false-positive rates of pixels up to 30 %, from counts in ascending bins."""
    fpr = np.concatenate([[0.0], np.cumsum(normal[::-1]) / normal.sum()])
    found = np.concatenate([[0.0], np.cumsum(shares[::-1]) / shares.sum()])
    beyond = int(np.searchsorted(fpr, FPR_LIMIT, side="right"))  # the first point above the limit: 1 or more
    along = (FPR_LIMIT - fpr[beyond - 1]) / (fpr[beyond] - fpr[beyond - 1])
    x = np.append(fpr[:beyond], FPR_LIMIT)
    y = np.append(found[:beyond], found[beyond - 1] + along * (found[beyond] - found[beyond - 1]))
    return float(np.sum(np.diff(x) * (y[1:] + y[:-1]) / 2) / FPR_LIMIT)


def _resampled_pixels(counts: _PixelCounts, seed: int) -> NDArray[np.float64]:
    """Pixel AUROC and AUPRO of every bootstrap draw of whole groups, (DRAWS, 2), in about 1000 bins of equal weight."""
    names = np.array(sorted(counts.groups))
    coarse = counts.total.reshape(3, 1 << _COARSE, -1).sum(axis=2)
    weight = np.cumsum((coarse / coarse.sum(axis=1, keepdims=True)).sum(axis=0))
    bins = np.minimum(weight / weight[-1] * 1000, 999).astype(np.int64)
    by_group = np.zeros((len(names), 3, 1000), dtype=np.float32)
    for index, name in enumerate(names):
        for used, values in counts.groups[name]:
            by_group[index] += [np.bincount(bins[used], kind, minlength=1000) for kind in values]
    defective = np.array([name in counts.defective for name in names])
    figures = np.empty((DRAWS, 2))
    for draw, weights in enumerate(_group_draws(names, defective, seed)):
        normal, found, shares = np.tensordot(weights.astype(np.float32), by_group, axes=1).astype(np.float64)
        with np.errstate(invalid="ignore"):  # a draw without normal pixels: NaN, left out later
            placed = (np.cumsum(normal) - normal / 2) / normal.sum()
            figures[draw] = np.average(placed, weights=found), _aupro(normal, shares)
    return figures


def _sklearn() -> ModuleType:
    try:
        return importlib.import_module("sklearn.metrics")
    except ImportError as error:
        raise RuntimeMissing.extra("scikit-learn", "evaluate", "anomaly evaluate") from error


def _json(figure: Interval | FalseAlarms | Rate | None) -> dict[str, Any] | None:
    return None if figure is None else dict(figure.to_json())
