"""The connected region around a cell of a mask, in time that grows with the mask alone, whatever
the region's shape.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.intp]


def connected_region(
    mask: npt.NDArray[np.bool_], row: int, column: int
) -> tuple[int, int, int, int, int]:
    """Returns top, left, bottom, right (the last two exclusive) and the number of the cells
    connected with one that is set.

    ``mask`` is bool (h, w); cells that share a side are connected. A cell that is not set is a
    region of its own.
    """
    if not mask[row, column]:
        return row, column, row + 1, column + 1, 1
    width = mask.shape[1] + 1
    starts, ends = _runs(mask)
    labels = _labels(len(starts), *_touching(starts, ends, width))
    here = labels == labels[np.searchsorted(starts, row * width + column, "right") - 1]
    starts, ends = starts[here], ends[here]
    return (
        int(starts[0]) // width,
        int((starts % width).min()),
        int(starts[-1]) // width + 1,
        int((ends % width).max()),
        int((ends - starts).sum()),
    )


def _runs(mask: npt.NDArray[np.bool_]) -> tuple[Ints, Ints]:
    """Start and end (exclusive) of every unbroken run of set cells, row by row: places among rows
    that are one cell longer, which is not set.
    """
    height, width = mask.shape
    cells = np.zeros(1 + height * (width + 1), np.bool_)
    cells[1:].reshape(height, width + 1)[:, :-1] = mask
    changes = np.flatnonzero(cells[1:] != cells[:-1])
    return changes[::2], changes[1::2]


def _touching(starts: Ints, ends: Ints, width: int) -> tuple[Ints, Ints]:
    """Pairs of runs of neighbouring rows that share a column; a run's place is its row times
    ``width`` plus its column.
    """
    first = np.searchsorted(ends, starts + width, "right")
    counts = np.maximum(np.searchsorted(starts, ends + width, "left") - first, 0)
    upper = np.repeat(np.arange(len(starts)), counts)
    offsets = np.arange(len(upper)) - np.repeat(np.cumsum(counts) - counts, counts)
    return upper, first[upper] + offsets


def _labels(runs: int, one: Ints, other: Ints) -> Ints:
    """A number for each run, the same for runs that are connected: each takes the smaller of its
    neighbours' numbers.
    """
    labels = np.arange(runs)
    while True:
        low, high = np.minimum(labels[one], labels[other]), np.maximum(labels[one], labels[other])
        apart = low != high
        if not apart.any():
            return labels
        np.minimum.at(labels, high[apart], low[apart])
        while (labels[labels] != labels).any():
            labels = labels[labels]


def hottest_region(
    heatmap: npt.NDArray[np.float32], width: int, height: int, normal: float | None
) -> tuple[tuple[int, int, int, int], int]:
    """Returns box (x, y, w, h) and area, in pixels of the original, of the region around the
    hottest cell.

    The region holds the cells connected with the hottest one that are nearer to it than to
    ``normal``, what is hottest in a typical good image (without one: the heatmap's own median).
    """
    y, x = divmod(int(heatmap.argmax()), heatmap.shape[1])
    typical = float(np.median(heatmap)) if normal is None else normal
    high = heatmap >= (float(heatmap[y, x]) + typical) / 2
    first_row, first_column, last_row, last_column, cells = connected_region(high, y, x)
    sy, sx = height / heatmap.shape[0], width / heatmap.shape[1]
    top, left = int(first_row * sy), int(first_column * sx)
    bottom, right = -int(-last_row * sy // 1), -int(-last_column * sx // 1)
    box = (left, top, max(1, min(right, width) - left), max(1, min(bottom, height) - top))
    return box, max(1, round(cells * sy * sx))
