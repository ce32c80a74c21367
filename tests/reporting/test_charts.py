"""Scores as places on a chart."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anomaly.reporting.charts import Place, Scale, calibration_scale, place
from anomaly.reporting.result import rank_text
from anomaly.statistics.calibration import calibrate

scores = st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=60).map(
    lambda values: np.array(values, np.float32)
)


@given(scores, st.floats(-1e6, 1e6, width=32))
def test_every_mark_lies_on_the_scale_and_order_is_kept(values, mark):
    scale = Scale.over(values, marks=[mark])
    assert scale.low < scale.high and scale.holds(mark)
    places = [scale.at(float(value)) for value in np.sort(values)]
    assert places == sorted(places) and min(places) >= 0 and max(places) <= 1


@given(scores, st.integers(1, 50))
def test_bars_are_between_0_and_1_and_the_highest_is_1(values, bins):
    bars = Scale.over(values).bars(values, bins)
    assert len(bars) == bins and max(bars) == 1 and min(bars) >= 0


def test_bars_show_the_roots_of_the_counts():
    assert Scale(0, 4).bars(np.array([0.5, 0.5, 0.5, 0.5, 2.5, 9, np.nan], np.float32), 4) == [
        1.0,
        0.0,
        0.5,
        0.5,
    ]


def test_one_odd_score_does_not_flatten_the_chart():
    ordinary = np.linspace(0, 1, 1000, dtype=np.float32)
    scale = Scale.over(np.append(ordinary, np.float32(1e9)))
    assert scale.high < 20


def test_a_scale_of_equal_scores_has_a_width():
    scale = Scale.over(np.full(5, 2, np.float32))
    assert (scale.low, scale.high, scale.at(2)) == (1, 3, 0.5)


def test_a_scale_of_nothing():
    assert Scale.over(np.array([], np.float32)) == Scale(0, 1)


def test_what_is_not_a_number_lies_at_the_anomalous_end():
    assert Scale(0, 1).at(float("nan")) == 1


def test_ticks_are_round_and_in_their_places():
    assert list(Scale(0.1, 0.9).ticks(4)) == [
        (pytest.approx(0.125), "0.2"),
        (pytest.approx(0.375), "0.4"),
        (pytest.approx(0.625), "0.6"),
        (pytest.approx(0.875), "0.8"),
    ]
    assert [text for _, text in Scale(-250, 1000).ticks(5)] == ["0", "500", "1000"]


def test_the_place_of_a_score_among_good_images():
    calibration = calibrate(np.arange(1, 100), 0.02)
    assert place(calibration, 99.5, bins=2) == Place(
        bars=[1.0, pytest.approx(0.6, abs=0.3)],
        threshold=calibration_scale(calibration).at(98),
        here=calibration_scale(calibration).at(99.5),
        beyond=False,
        label="higher than all 99 good images that set the threshold",
    )
    assert place(calibration, 1e6).beyond


def test_the_same_score_stands_at_the_same_place_whatever_else_is_shown():
    calibration = calibrate(np.arange(1, 100), 0.02)
    assert place(calibration, 50).threshold == place(calibration, 5000).threshold


@pytest.mark.parametrize(
    ("score", "said"),
    [
        (0.0, "higher than none of the 4 good images that set the threshold"),
        (2.0, "higher than 1 of the 4 good images that set the threshold"),
        (5.0, "higher than all 4 good images that set the threshold"),
        (float("nan"), "higher than all 4 good images that set the threshold"),
    ],
)
def test_rank_in_words(score, said):
    assert rank_text(calibrate([1, 2, 3, 4]), score) == said


def test_rank_among_parts():
    assert (
        rank_text(calibrate([1, 2, 3, 4]), 2.0, "unit")
        == "higher than 1 of the 4 good units that set the threshold"
    )
    assert (
        place(calibrate([1, 2, 3, 4]), 2.0, what="unit").label
        == "higher than 1 of the 4 good units that set the threshold"
    )


def test_rank_among_a_single_image():
    assert rank_text(calibrate([1]), 2) == "higher than the good image that set the threshold"
    assert rank_text(calibrate([1]), 1) == "not higher than the good image that set the threshold"
