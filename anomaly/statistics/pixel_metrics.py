"""Pixel AUROC and area under the per-region overlap, by histogram."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anomaly.errors import DatasetError
from anomaly.statistics.resampling import (
    DRAWS,
    NORMAL,
    Interval,
    TestGroups,
    group_draws,
    import_metrics,
    interval_of,
)

# AUPRO is integrated to this false-positive rate of pixels (Bergmann et al., CVPR 2019)
FPR_LIMIT = 0.3


@dataclass(frozen=True)
class PixelMap:
    """What the pixel figures need of one image.

    ``heatmap``: float32 (h, w), higher = more anomalous; None where the image was not judged.
    ``mask``: (H, W) of the original image, true on the defect; None: no mask. ``size``: (H, W) of
    the original image.
    """

    heatmap: NDArray[np.float32] | None
    mask: NDArray[Any] | None
    size: tuple[int, int]


@dataclass(frozen=True)
class PixelFigures:
    """Localisation: ``regions`` connected defects in ``images`` images; ``without_mask`` defective
    ones left out.
    """

    auroc: Interval
    aupro: Interval
    images: int
    regions: int
    without_mask: int


# a bin holds the values that agree in sign, exponent and 9 bits: 0.2 % of their distance from the
# centre
_BITS = 18


_COARSE = 16  # what is kept of each group for the bootstrap: 0.8 %


_STRIPE = 1 << 22  # pixels of an enlarged heatmap at a time


_HUGE = 1e38  # stands for infinity; differences of two stay finite


@dataclass
class _PixelCounts:
    """Normal pixels, defective pixels and shares of regions in each bin, from the lowest value to
    the highest.
    """

    # a typical pixel, from which distances are measured: the first map's median
    centre: float | None = None
    total: NDArray[np.float64] = field(default_factory=lambda: np.zeros((3, 1 << _BITS)))
    groups: dict[str, list[tuple[NDArray[np.int64], NDArray[np.float32]]]] = field(
        default_factory=dict
    )
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


def pixel_figures(
    maps: Iterable[PixelMap], labels: Sequence[str], groups: Sequence[str], seed: int
) -> PixelFigures | None:
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
    auroc = import_metrics().roc_auc_score(
        np.repeat([False, True], len(bins)),
        np.tile(bins, 2),
        sample_weight=np.concatenate([normal, defective]),
    )
    drawn = _resampled_pixels(counts, seed)
    with_defects, all_groups = len(counts.defective), len(counts.groups)
    independent = TestGroups(with_defects, all_groups, min(with_defects, all_groups // 2))
    return PixelFigures(
        auroc=interval_of(float(auroc), drawn[:, 0], independent),
        aupro=interval_of(_aupro(normal, shares), drawn[:, 1], independent),
        images=counts.images,
        regions=counts.regions,
        without_mask=counts.without_mask,
    )


def _mask(image: PixelMap, label: str, group: str) -> NDArray[np.bool_] | None:
    """The defect's pixels, bool (H, W): none on a good image; None where a defective one has none
    marked.
    """
    marked = None if image.mask is None else np.asarray(image.mask) > 0
    if label != NORMAL:
        return marked if marked is not None and marked.any() else None
    if marked is not None and marked.any():
        raise DatasetError(
            f"an image of group {group} is labelled {NORMAL} but its mask marks "
            f"{int(marked.sum())} pixels: correct the label or the mask"
        )
    return np.zeros(image.size, dtype=bool)


def _binned(
    heatmap: NDArray[np.float32], mask: NDArray[np.bool_], centre: float
) -> tuple[NDArray[np.float64], int]:
    """Counts of one image, float64 (3, bins), and its number of regions."""
    counts = np.zeros((3, 1 << _BITS))
    regions, weights = _regions(mask)
    for rows, values in _enlarged(heatmap, mask.shape):
        bins, defect = _bins(values, centre), mask[rows]
        counts[0] += np.bincount(bins[~defect], minlength=1 << _BITS)
        if defect.any():
            counts[1] += np.bincount(bins[defect], minlength=1 << _BITS)
            counts[2] += np.bincount(
                bins[defect], weights[regions[rows][defect]], minlength=1 << _BITS
            )
    return counts, len(weights) - 1


def _regions(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """Number of the connected region (8 neighbours) of each pixel, 0 outside, and 1 / pixels of
    each region.
    """
    if not mask.any():
        return np.zeros((0, 0), dtype=np.int32), np.zeros(1)
    numbers, _ = importlib.import_module("scipy.ndimage").label(mask, structure=np.ones((3, 3)))
    return numbers, 1 / np.maximum(1, np.bincount(numbers.ravel()))


def _enlarged(
    heatmap: NDArray[np.float32], size: tuple[int, ...]
) -> Iterator[tuple[slice, NDArray[np.float32]]]:
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


def _neighbours(
    small: int, large: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """For each of ``large`` pixels the two of ``small`` whose centres it lies between, and how far
    along.
    """
    at = np.clip((np.arange(large) + 0.5) * small / large - 0.5, 0, small - 1)
    first = np.floor(at).astype(np.int64)
    return first, np.minimum(first + 1, small - 1), (at - first).astype(np.float32)


def _typical(heatmap: NDArray[np.float32]) -> float:
    finite = heatmap[np.abs(heatmap) <= _HUGE]
    return float(np.median(finite)) if len(finite) else 0.0


def _bins(values: NDArray[np.float32], centre: float) -> NDArray[np.int64]:
    """Bin of each value, ascending. The bits of a positive float32 are in the order of its values,
    of a negative one in the opposite order: the leading ones are a scale as fine near the centre as
    far from it."""
    distance = values - np.float32(centre) + np.float32(0)  # + 0: no negative zero
    bits = distance.view(np.uint32)
    ascending = np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))
    return (ascending >> (32 - _BITS)).astype(np.int64)


def _aupro(normal: NDArray[np.float64], shares: NDArray[np.float64]) -> float:
    """Mean share of a region found at false-positive rates of pixels up to 30 %, from counts in
    ascending bins.
    """
    fpr = np.concatenate([[0.0], np.cumsum(normal[::-1]) / normal.sum()])
    found = np.concatenate([[0.0], np.cumsum(shares[::-1]) / shares.sum()])
    # the first point above the limit: 1 or more
    beyond = int(np.searchsorted(fpr, FPR_LIMIT, side="right"))
    along = (FPR_LIMIT - fpr[beyond - 1]) / (fpr[beyond] - fpr[beyond - 1])
    x = np.append(fpr[:beyond], FPR_LIMIT)
    y = np.append(found[:beyond], found[beyond - 1] + along * (found[beyond] - found[beyond - 1]))
    return float(np.sum(np.diff(x) * (y[1:] + y[:-1]) / 2) / FPR_LIMIT)


def _resampled_pixels(counts: _PixelCounts, seed: int) -> NDArray[np.float64]:
    """Pixel AUROC and AUPRO of every bootstrap draw of whole groups, (DRAWS, 2), in about 1000 bins
    of equal weight.
    """
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
    for draw, weights in enumerate(group_draws(names, defective, seed)):
        normal, found, shares = np.tensordot(weights.astype(np.float32), by_group, axes=1).astype(
            np.float64
        )
        with np.errstate(invalid="ignore"):  # a draw without normal pixels: NaN, left out later
            placed = (np.cumsum(normal) - normal / 2) / normal.sum()
            figures[draw] = np.average(placed, weights=found), _aupro(normal, shares)
    return figures
