"""Colours of heatmaps: anchored by the threshold, the same on every image."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from anomaly.imaging.colours import difference, heatmap_colours, heatmap_scale, over

values = st.floats(-1e3, 1e3, width=32)


def test_colours_of_a_typical_good_image_the_threshold_and_far_beyond():
    heatmap = np.array([[0.2, 0.3, 0.4], [0.6, 1.0, np.nan]], np.float32)
    assert heatmap_colours(heatmap, median=0.2, threshold=0.4).tolist() == [
        [[255, 240, 120, 0], [255, 240, 120, 0], [255, 221, 51, 153]],
        [[230, 60, 30, 230], [120, 10, 100, 255], [120, 10, 100, 255]],
    ]


@given(values, st.lists(values, min_size=1, max_size=9))
def test_a_cell_has_the_same_colour_whatever_the_others_are(cell, others):
    alone = heatmap_colours(np.array([[cell]], np.float32), 1, 2)[0, 0]
    among = heatmap_colours(np.array([[cell, *others]], np.float32), 1, 2)[0, 0]
    assert alone.tolist() == among.tolist()


@given(values, values)
def test_hotter_is_never_clearer(a, b):
    low, high = sorted((a, b))
    alpha = heatmap_colours(np.array([[low, high]], np.float32), 0, 1)[0, :, 3]
    assert alpha[0] <= alpha[1]


def test_equal_calibration_scores_still_give_a_scale():
    assert heatmap_scale(np.array([[1.0, 2.0]], np.float32), 1, 1).tolist() == [[0, 1e9]]


def test_an_overlay_without_opacity_changes_nothing():
    picture = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    overlay = np.full((2, 2, 4), 255, np.uint8)
    assert over(picture, overlay, 0).tolist() == picture.tolist()
    assert over(picture, overlay).tolist() == np.full((2, 2, 3), 255).tolist()


def test_difference_is_the_largest_channel_times_a_fixed_gain():
    picture = np.full((8, 8, 3), (100, 100, 100), np.uint8)
    expected = np.full((4, 4, 3), (100, 110, 95), np.uint8)
    assert difference(picture, expected).tolist() == [[30] * 4] * 4


@given(st.integers(0, 255), st.integers(0, 255))
def test_difference_does_not_depend_on_the_sign(a, b):
    one, other = np.full((2, 2, 3), a, np.uint8), np.full((2, 2, 3), b, np.uint8)
    assert difference(one, other).tolist() == difference(other, one).tolist()
