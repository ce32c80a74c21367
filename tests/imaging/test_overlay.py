"""Heatmaps over images, grids and small pictures."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from anomaly.imaging.overlay import grid, overlay, shrink

RNG = np.random.default_rng(0)
GREY = np.full((40, 60, 3), 128, np.uint8)


def test_a_normal_image_stays_as_it_is() -> None:
    calm = np.full((8, 8), 0.4, np.float32)  # a typical good image all over
    assert np.array_equal(overlay(GREY, calm, 0.4, 0.6), GREY)
    assert np.array_equal(overlay(GREY, calm - 5, 0.4, 0.6), GREY)


def test_the_threshold_is_yellow_twice_is_red_and_the_edge_is_drawn() -> None:
    heatmap = np.full((40, 60), 0.4, np.float32)
    heatmap[:, 20:] = 0.6
    heatmap[:, 40:] = 0.8
    colours = overlay(GREY, heatmap, 0.4, 0.6)[5, [5, 18, 25, 50]].tolist()
    assert colours == [[128, 128, 128], [20, 28, 36], [189, 173, 91], [202, 79, 57]]


@given(
    arrays.arrays(np.float32, (6, 6), elements=st.floats(-2, 2, width=32)),
    st.floats(-2, 2, width=32),
)
def test_a_colour_does_not_depend_on_the_rest_of_the_image(
    heatmap: np.ndarray, value: float
) -> None:
    heatmap[:3, :3] = value
    alone = overlay(GREY[:6, :6], np.full((6, 6), value, np.float32), 0.0, 1.0)
    edges_away = overlay(GREY[:6, :6], heatmap, 0.0, 1.0)[0, 0]
    assert edges_away.tolist() in (alone[0, 0].tolist(), [20, 28, 36])


@pytest.mark.parametrize("odd", [np.nan, np.inf])
def test_what_is_not_a_number_is_high(odd: float) -> None:
    hot = overlay(GREY, np.full((8, 8), odd, np.float32), 0.4, 0.6)
    assert np.array_equal(hot, overlay(GREY, np.full((8, 8), 1e6, np.float32), 0.4, 0.6))


def test_equal_calibration_scores_do_not_break_the_colours() -> None:
    heatmap = np.full((40, 60), 0.5, np.float32)
    heatmap[:, 30:] = 0.75
    laid = overlay(GREY, heatmap, 0.5, 0.5)
    assert [laid[5, 10].tolist(), laid[5, 50].tolist()] == [[128, 128, 128], [122, 34, 106]]


def test_a_grid_goes_row_by_row() -> None:
    images = [
        np.full((1, 2, 3), 10, np.uint8),
        np.full((1, 2, 3), 20, np.uint8),
        np.full((1, 1, 3), 30, np.uint8),
    ]
    assert grid(images, columns=2, gap=1)[..., 0].tolist() == [
        [255, 255, 255, 255, 255, 255, 255],
        [255, 10, 10, 255, 20, 20, 255],
        [255, 255, 255, 255, 255, 255, 255],
        [255, 30, 255, 255, 255, 255, 255],
        [255, 255, 255, 255, 255, 255, 255],
    ]
    assert np.array_equal(grid(np.stack([GREY, GREY]), 2), grid([GREY, GREY], 2))


def test_pictures_are_shrunk_and_never_enlarged() -> None:
    assert shrink(np.zeros((4000, 1000, 3), np.uint8)).shape == (320, 80, 3)
    assert shrink(np.zeros((1, 9999, 3), np.uint8)).shape == (1, 320, 3)
    assert shrink(GREY).shape == GREY.shape
