"""What a detector guarantees, by its card."""

from __future__ import annotations

import numpy as np

from anomaly.detector.guarantee import Guarantee
from anomaly.statistics.calibration import calibrate

CALIBRATION = calibrate(np.arange(60))


def test_only_a_threshold_that_was_calibrated_guarantees_a_rate() -> None:
    assert Guarantee(CALIBRATION).holds
    assert not Guarantee(None).holds and not Guarantee(CALIBRATION, preview=True).holds


def test_the_rate_of_a_preview_is_null() -> None:
    found, moved = (Guarantee(CALIBRATION, preview=preview).to_json() for preview in (False, True))
    assert (found["guaranteed_rate"], found["k"], found["n"]) == (1 / 61, 1, 60)
    assert found["threshold"] == moved["threshold"] == 59
    assert (moved["guaranteed_rate"], moved["upper_bound"]) == (None, None)


def test_a_rate_by_cross_calibration_is_estimated() -> None:
    found = Guarantee(calibrate(np.arange(60), kind="cross")).to_json()
    assert (found["guaranteed_rate"], found["estimated_rate"]) == (None, 1 / 61)
