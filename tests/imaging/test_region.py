"""The connected region around a cell: the same as by growing it a cell at a time, in time that its
shape does not set.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from anomaly.imaging.region import connected_region

Mask = npt.NDArray[np.bool_]


def grown(mask: Mask, row: int, column: int) -> tuple[int, int, int, int, int]:
    """The region, grown by the cells around it until it grows no more."""
    region, waiting = {(row, column)}, [(row, column)]
    while waiting:
        y, x = waiting.pop()
        for near in ((y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)):
            if (
                near not in region
                and 0 <= near[0] < mask.shape[0]
                and 0 <= near[1] < mask.shape[1]
                and mask[near]
            ):
                region.add(near)
                waiting.append(near)
    rows, columns = zip(*region, strict=True)
    return min(rows), min(columns), max(rows) + 1, max(columns) + 1, len(region)


@given(
    st.tuples(st.integers(1, 12), st.integers(1, 12)).flatmap(
        lambda shape: arrays(np.bool_, shape)
    ),
    st.integers(0, 11),
    st.integers(0, 11),
)
def test_it_is_what_growing_finds(mask: Mask, row: int, column: int) -> None:
    row, column = row % mask.shape[0], column % mask.shape[1]
    mask[row, column] = True
    assert connected_region(mask, row, column) == grown(mask, row, column)


def test_a_cell_that_is_not_set_stands_alone() -> None:
    assert connected_region(np.zeros((3, 4), bool), 1, 2) == (1, 2, 2, 3, 1)
    assert connected_region(np.array([[True, False]]), 0, 1) == (0, 1, 1, 2, 1)


def snake(size: int) -> Mask:
    """A corridor that runs through every second row, from side to side."""
    mask = np.zeros((size, size), bool)
    mask[::2] = True
    mask[1::4, -1] = mask[3::4, 0] = True
    return mask


def test_long_ways_and_large_maps_end() -> None:
    """Grown by a cell a turn, the corridor of two million cells would take two million turns over
    four million cells.
    """
    size = 2000
    for mask in (snake(size), snake(size).T):
        assert connected_region(mask, 0, 0) == (
            0,
            0,
            size,
            size,
            int(mask[:-1, :-1].sum() + mask[-1].sum() + mask[:-1, -1].sum()),
        )
