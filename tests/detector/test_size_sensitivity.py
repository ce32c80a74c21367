"""What the images that set a threshold cost: the threshold of the others, and what it flags of the
synthetic defects.
"""

from __future__ import annotations

import numpy as np
import pytest

from anomaly.detector.size_sensitivity import Cost, SizeSensitivity
from anomaly.detector.training_facts import TrainingFacts
from anomaly.reporting.detector import cost_text
from anomaly.statistics.calibration import calibrate

ROWS = [
    {"pixels": 2, "of": 3, "flagged": 0, "met": 0, "scores": [0.2, 0.4, None]},
    {"pixels": 4, "of": 2, "flagged": 1, "met": 1, "scores": [0.58, 0.9]},
]
SIZE_SENSITIVITY = SizeSensitivity.from_json({"pixel": 1.0, "sizes": ROWS})


def test_a_score_that_is_no_number_is_flagged_and_one_at_the_threshold_is_not() -> None:
    assert [SIZE_SENSITIVITY.flagged(t) for t in (0.1, 0.4, 0.58, 2.0)] == [
        (5, 5),
        (3, 5),
        (2, 5),
        (1, 5),
    ]
    moved = SIZE_SENSITIVITY.at_threshold(0.3)
    assert moved is not None
    assert [(row.flagged, row.met) for row in moved.sizes] == [(2, None), (2, None)]
    assert [list(row.to_json()) for row in moved.sizes] == [list(row) for row in ROWS]


def test_without_the_scores_of_all_nothing_is_counted() -> None:
    unscored = [{"pixels": 8, "of": 3, "flagged": 0}]
    for rows in ([], unscored, ROWS + unscored):
        sizes = SizeSensitivity.from_json({"pixel": 1.0, "sizes": rows})
        assert sizes.flagged(0.1) is None and sizes.at_threshold(0.1) is None


@pytest.mark.parametrize(
    "damaged", [{}, {"sizes": 3}, {"sizes": [{"of": 1}]}, {"sizes": [{"scores": ["a"]}]}, 7]
)
def test_what_is_damaged_is_refused(damaged: object) -> None:
    for name in ("size_sensitivity", "cost"):
        with pytest.raises(ValueError, match=rf"^training\.{name}: .* found, which it cannot be$"):
            TrainingFacts.from_json({name: damaged})


@pytest.mark.parametrize(
    ("scores", "target_rate", "without", "threshold", "rate"),
    [
        ([*np.linspace(0.1, 0.31, 60), 0.58], None, ["a"], 0.31, 1 / 61),
        ([*np.linspace(0.1, 0.31, 197), 0.5, 0.58], None, ["a", "b"], 0.31, 1 / 198),  # k = 2
        # fewer than the target rate needs
        ([*np.linspace(0.1, 0.31, 98), 0.58], 0.01, ["a"], 0.31, 1 / 99),
        (
            [*np.linspace(0.1, 0.31, 32), *np.linspace(0.5, 0.58, 8)],
            0.2,
            ["a", "b", "c", "d", "e"],
            0.31 - 3 * 0.21 / 31,
            7 / 36,
        ),
        ([0.3] * 60, None, ["a"], 0.3, 1 / 60),  # identical images
        # a tie: one of two changes nothing
        ([*np.linspace(0.1, 0.2, 20), 0.58, 0.58], None, ["a"], 0.58, 1 / 22),
        ([0.1, 0.58], None, ["a"], 0.1, 1 / 2),
    ],
)
def test_what_the_first_images_cost(
    scores: list[float],
    target_rate: float | None,
    without: list[str],
    threshold: float,
    rate: float,
) -> None:
    calibration = calibrate(scores, target_rate)
    cost = Cost.of_highest(calibration, ["a", "b", "c", "d", "e"], SIZE_SENSITIVITY)
    assert cost is not None
    assert (list(cost.without), cost.rate) == (without, rate)
    assert cost.threshold == pytest.approx(threshold, abs=1e-6)
    assert (cost.flagged, cost.of) == SIZE_SENSITIVITY.flagged(cost.threshold)
    assert (cost.flagged_now, cost.of) == SIZE_SENSITIVITY.flagged(float(calibration.threshold))


def test_one_image_alone_has_no_others() -> None:
    assert Cost.of_highest(calibrate([0.5]), ["a"], SIZE_SENSITIVITY) is None
    assert Cost.of_highest(calibrate([0.1, 0.5]), [], SIZE_SENSITIVITY) is None


def test_what_is_said() -> None:
    calibration = calibrate([*np.linspace(0.1, 0.31, 60), 0.58])
    cost = Cost.of_highest(calibration, ["a"], SIZE_SENSITIVITY)
    assert (
        cost_text(cost, 0.58)
        == "threshold 0.31 instead of 0.58; flags 4 instead of 2 of 5 synthetic defects"
    )
    unknown = Cost.of_highest(calibration, ["a"], None)
    assert cost_text(unknown, 0.58) == "threshold 0.31 instead of 0.58"
    assert cost_text(None, 0.58) == ""
