"""Laws of the second threshold: it lies below the first, and its guarantee is kept as the first
one's is.
"""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anomaly.errors import CalibrationError
from anomaly.statistics.calibration import Calibration, calibrate
from anomaly.statistics.intervals import clopper_pearson

finite = st.floats(-1e6, 1e6, width=32) | st.sampled_from([0.0, 1.0, 2.0])  # ties are common
many_scores = st.lists(finite, min_size=20, max_size=80)
SCORES = np.arange(1, 200)  # 199 of them: the threshold at 1 % is 198, the second at 5 % is 190


@given(many_scores, st.integers(60, 500).map(lambda thousandths: thousandths / 1000))
def test_a_person_looks_where_the_p_value_is_between_the_two_rates(scores, rate):
    first = calibrate(scores)
    try:
        found = replace(first, review_rate=rate)
    except CalibrationError as error:  # equal scores: there is no lower one for that rate
        assert "no lower one for that rate" in str(error)
        return
    assert found.review.threshold < found.threshold and found.review.rate <= rate
    new = [*scores, *(score + 0.5 for score in scores), -np.inf, np.inf, np.nan]
    p = found.p_value(new)
    assert (found.is_anomaly(new) | found.is_review(new)).tolist() == (
        p <= found.review.rate
    ).tolist()
    assert not (found.is_anomaly(new) & found.is_review(new)).any()
    assert found.is_anomaly(new).tolist() == first.is_anomaly(new).tolist()


def test_new_good_images_are_flagged_or_looked_at_no_more_often_than_guaranteed():
    generator = np.random.default_rng(0)
    shares = []
    for _ in range(2000):
        found = replace(calibrate(generator.random(199), 0.01), review_rate=0.05)
        shares.append(1 - float(found.review.threshold))  # of uniform scores
    assert np.mean(shares) == pytest.approx(found.review.rate, rel=0.03) and found.review.k == 10
    assert np.mean(np.array(shares) > found.review.upper_bound) == pytest.approx(0.05, abs=0.015)


def test_a_named_score_is_kept_and_its_rate_is_an_estimate():
    review = replace(calibrate(SCORES), review_score=150.5).review
    assert (float(review.threshold), review.k, review.target_rate) == (150.5, 50, None)
    assert not review.is_guaranteed and review.rate == 50 / 200
    assert review.upper_bound == pytest.approx(clopper_pearson(49, 199, 0.9)[1])
    # a score that no float32 is, as a card gives it back
    found = replace(calibrate(np.linspace(0, 1, 99)), review_score=0.7)
    assert Calibration.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_without_a_second_threshold_nobody_is_asked():
    found = calibrate(SCORES)
    assert found.review is None and not found.is_review(SCORES).any()
    assert found.review_threshold == found.threshold
    assert replace(found, review_rate=0.05).review.is_guaranteed
    cross = replace(calibrate(SCORES, kind="cross"), review_rate=0.05).review
    assert not cross.is_guaranteed


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (
            {"review_rate": 0.01},
            r"review rate of 1 % found.* flags 2 in 200 .*: give --review-rate 0.015",
        ),
        ({"review_rate": 0.9}, "expected above 0 and at most 0.5"),
        ({"review_score": 198.0}, "one below the threshold 198 expected"),
        ({"review_score": float("nan")}, "one below the threshold 198 expected"),
        ({"review_score": 1e39}, "one below the threshold 198 expected"),
        ({"review_score": 20.0}, "a person would look at 180 in 200 .* at least 100 expected"),
    ],
)
def test_what_cannot_be_a_second_threshold(asked, message):
    with pytest.raises(CalibrationError, match=message):
        replace(calibrate(SCORES), **asked)


def test_the_rate_that_an_error_names_is_one_that_works():
    for n in (19, 20, 99, 100, 487):
        first = calibrate(np.arange(n))
        with pytest.raises(CalibrationError) as error:
            replace(first, review_rate=first.rate)
        named = float(str(error.value).rsplit("--review-rate ", 1)[1])
        assert replace(first, review_rate=named).review.k == first.k + 1
    with pytest.raises(CalibrationError, match="add good images, or give --review-rate 0 for none"):
        replace(calibrate(np.zeros(50)), review_rate=0.2)


def test_json_of_a_second_threshold_and_damage_to_it():
    card = replace(calibrate(SCORES), review_rate=0.05).to_json()
    assert card["review"] == {
        "threshold": 190.0,
        "k": 10,
        "target_rate": 0.05,
        "guaranteed_rate": 0.05,
        "estimated_rate": None,
        "upper_bound": pytest.approx(0.07759, abs=1e-5),
    }
    assert Calibration.from_json(card).to_json() == card
    for change in (
        {"threshold": 180.0},
        {"threshold": None},
        {"threshold": True},
        {"k": 9},
        {"target_rate": 0.06},
        {"target_rate": "5 %"},
        {"guaranteed_rate": 0.01},
        {"upper_bound": 0.01},
    ):
        with pytest.raises(CalibrationError, match="review"):
            Calibration.from_json(card | {"review": card["review"] | change})
    for wrong in ([], "0.3", 0.3, {}):
        with pytest.raises(CalibrationError, match="review"):
            Calibration.from_json(card | {"review": wrong})
