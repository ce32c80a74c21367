"""What the images that set a threshold cost: the threshold of the others, and what it flags of the
synthetic defects.
"""

from __future__ import annotations

import numpy as np
import pytest

from anomaly.detector.size_sensitivity import at_threshold, cost_of, cost_text, flagged
from anomaly.statistics.calibration import calibrate

SIZE_SENSITIVITY = {
    "pixel": 1.0,
    "sizes": [
        {"pixels": 2, "of": 3, "flagged": 0, "met": 0, "scores": [0.2, 0.4, None]},
        {"pixels": 4, "of": 2, "flagged": 1, "met": 1, "scores": [0.58, 0.9]},
    ],
}


def test_a_score_that_is_no_number_is_flagged_and_one_at_the_threshold_is_not() -> None:
    assert [flagged(SIZE_SENSITIVITY, t) for t in (0.1, 0.4, 0.58, 2.0)] == [
        (5, 5),
        (3, 5),
        (2, 5),
        (1, 5),
    ]
    for damaged in (
        None,
        {},
        {"sizes": 3},
        {"sizes": [{"of": 1}]},
        {"sizes": []},
        {"sizes": [{"scores": ["a"]}]},
    ):
        assert flagged(damaged, 0.1) is None and at_threshold(damaged, 0.1) is None
    assert [row["flagged"] for row in at_threshold(SIZE_SENSITIVITY, 0.3)["sizes"]] == [2, 2]


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
    cost = cost_of(calibration, ["a", "b", "c", "d", "e"], SIZE_SENSITIVITY)
    assert (cost["without"], cost["guaranteed_rate"]) == (without, rate)
    assert cost["threshold"] == pytest.approx(threshold, abs=1e-6)
    assert (cost["flagged"], cost["flagged_now"]) == (
        flagged(SIZE_SENSITIVITY, cost["threshold"])[0],
        flagged(SIZE_SENSITIVITY, float(calibration.threshold))[0],
    )


def test_one_image_alone_has_no_others() -> None:
    assert cost_of(calibrate([0.5]), ["a"], SIZE_SENSITIVITY) is None
    assert cost_of(calibrate([0.1, 0.5]), [], SIZE_SENSITIVITY) is None


def test_what_is_said() -> None:
    cost = cost_of(calibrate([*np.linspace(0.1, 0.31, 60), 0.58]), ["a"], SIZE_SENSITIVITY)
    assert (
        cost_text(cost, 0.58)
        == "threshold 0.31 instead of 0.58; flags 4 instead of 2 of 5 synthetic defects"
    )
    assert cost_text(cost | {"of": None}, 0.58) == "threshold 0.31 instead of 0.58"
    for damaged in (None, {}, {"threshold": "a"}, {"threshold": 1.0, "of": 3}, 7):
        assert cost_text(damaged, 0.58) == ""
