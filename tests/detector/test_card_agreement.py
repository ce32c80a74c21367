from __future__ import annotations

from typing import Any

import pytest

from anomaly.detector.card_agreement import check_agreement
from anomaly.detector.training_facts import TrainingFacts
from anomaly.statistics.calibration import calibrate

# The facts of a whole card against each other: tests/attacks/test_card_facts.py.
FACTS: dict[str, Any] = {
    "images": 30,
    "groups": 30,
    "sets": {"fit": 15, "validation": 5, "calibration": 10},
    "grouped": False,
}


def test_counts_that_add_up_agree() -> None:
    check_agreement(TrainingFacts.from_json(FACTS), calibrate(range(10), 0.1), 64)
    check_agreement(TrainingFacts(), None, 64)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"groups": 31}, "31 groups of 30 images found"),
        (
            {"sets": {"fit": 15, "calibration": 10}},
            "25 images in all sets found, the 30 images of training expected",
        ),
        ({"grouped": True}, "True with 30 groups of 30 images found"),
        ({"recalibrated": "2026-11-30"}, "only one of date and number of images found"),
        ({"threshold_moved_from": 3.0}, "who moved the threshold, or where from found"),
        (
            {"target_rate": 0.2},
            "a target rate of 0.2 found, that of the calibration, 0.1, expected",
        ),
    ],
)
def test_facts_that_contradict_each_other_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_agreement(TrainingFacts.from_json(FACTS | change), calibrate(range(10), 0.1), 64)


def test_all_images_of_training_set_the_threshold_by_cross_calibration() -> None:
    facts = FACTS | {"sets": {"fit": 24, "validation": 6, "calibration": 0}}
    calibration = calibrate(range(30), 0.1, "cross")
    check_agreement(TrainingFacts.from_json(facts), calibration, 64)
    with pytest.raises(ValueError, match="10 found, none where all images calibrate expected"):
        check_agreement(TrainingFacts.from_json(FACTS), calibration, 64)
    fresh = facts | {"recalibrated": "2026-11-30", "recalibrated_on": 30}
    with pytest.raises(ValueError, match="30 found, a calibration of the kind split"):
        check_agreement(TrainingFacts.from_json(fresh), calibration, 64)
