"""Laws of calibration: ranks decide, the guarantee is kept, the distributions are scipy's."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from anomaly.errors import CalibrationError
from anomaly.statistics.calibration import (
    DEFAULT_RATE,
    Calibration,
    Rate,
    calibrate,
    lowest_target_rate,
    needed,
    rank,
)
from anomaly.statistics.groups import one_per_group
from anomaly.statistics.intervals import (
    beta_binomial_limit,
    beta_quantile,
    clopper_pearson,
    joint_limits,
)
from anomaly.statistics.prospect import Prospect, more_groups

finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
few_values = st.sampled_from([0.0, -0.0, 1.0, 1.0000001, 2.0, -3.0])  # so that ties are common
calibration_scores = st.lists(finite | few_values, min_size=1, max_size=60)
new_scores = st.lists(st.floats(width=32) | few_values, max_size=20)  # NaN and infinities too
requested = st.integers(1, 500).map(lambda thousandths: thousandths / 1000)


@given(calibration_scores, new_scores, requested)
def test_flagged_exactly_where_the_p_value_is_at_most_the_guarantee(scores, new, target_rate):
    found = calibrate(scores, max(target_rate, lowest_target_rate(len(scores))))
    assert found.is_anomaly(new).tolist() == (found.p_value(new) <= found.rate).tolist()
    assert found.is_anomaly(scores).tolist() == (found.p_value(scores) <= found.rate).tolist()


@given(calibration_scores, new_scores)
def test_p_value_counts_the_calibration_scores_that_are_as_high(scores, new):
    expected = [(1 + sum(s >= x for s in scores)) / (len(scores) + 1) for x in new]
    assert calibrate(scores).p_value(new).tolist() == expected


@given(calibration_scores, requested)
def test_threshold_is_the_kth_largest_and_the_guarantee_never_exceeds_the_target_rate(
    scores, target_rate
):
    target_rate = max(target_rate, lowest_target_rate(len(scores)))
    found = calibrate(scores, target_rate)
    assert found.threshold == sorted(np.float32(scores))[-found.k]
    assert found.rate <= target_rate
    assert (
        Fraction(found.k, found.n + 1)
        <= Fraction(str(target_rate))
        < Fraction(found.k + 1, found.n + 1)
    )
    assert found.is_anomaly(scores).sum() < found.k  # those above the k-th largest: fewer with ties


@given(calibration_scores, st.randoms())
def test_the_order_of_calibration_scores_does_not_matter(scores, random):
    shuffled = random.sample(scores, len(scores))
    assert calibrate(shuffled) == calibrate(scores)


@given(calibration_scores, finite, finite)
def test_a_higher_score_is_never_less_anomalous(scores, a, b):
    found = calibrate(scores)
    low, high = sorted([a, b])
    assert found.p_value(high) <= found.p_value(low)
    assert found.is_anomaly(high) >= found.is_anomaly(low)


def test_not_a_number_is_never_good():
    found = calibrate(np.arange(200.0))
    assert found.is_anomaly([math.nan, math.inf, -math.inf]).tolist() == [True, True, False]
    assert found.p_value([math.nan, math.inf, -math.inf]).tolist() == [1 / 201, 1 / 201, 1.0]


def test_the_shape_of_the_scores_is_kept():
    found = calibrate(np.arange(200.0))
    assert found.p_value(3.5).shape == found.is_anomaly(3.5).shape == ()
    assert found.p_value(np.zeros((2, 3))).shape == (2, 3)
    assert found.p_value([]).dtype == np.float64 and found.is_anomaly([]).dtype == bool


@pytest.mark.parametrize(
    ("target_rate", "n", "k"),
    [(0.29, 99, 29), (0.07, 99, 7), (0.01, 99, 1), (0.01, 98, 0), (0.5, 1, 1), (1e-5, 99_999, 1)],
)
def test_rank_of_the_decimal_that_was_written(target_rate, n, k):
    assert rank(target_rate, n) == k


@given(requested)
def test_needed_is_the_smallest_number_that_keeps_the_target_rate(target_rate):
    assert rank(target_rate, needed(target_rate)) >= 1 > rank(target_rate, needed(target_rate) - 1)


@given(st.integers(1, 5000))
def test_the_lowest_target_rate_can_be_kept_and_has_one_digit(n):
    assert rank(lowest_target_rate(n), n) >= 1
    assert float(f"{lowest_target_rate(n):.0e}") == lowest_target_rate(n)
    assert lowest_target_rate(n) < 1 / (n + 1) + 10 ** -math.floor(math.log10(n + 1))


def test_too_few_without_a_target_rate_makes_the_lowest_guarantee():
    found = calibrate(np.arange(10.0))
    assert (found.k, found.target_rate, found.rate, found.too_few) == (
        1,
        None,
        1 / 11,
        True,
    )
    assert found.threshold == 9
    assert not calibrate(np.arange(99.0)).too_few


@given(calibration_scores, st.integers(0, 7))
def test_exchangeable_images_are_flagged_no_more_often_than_guaranteed(scores, which):
    # every one of n + 1 images is the new one once: at most k of them are flagged by the others,
    # ties or not
    images = [*scores, scores[which % len(scores)]]
    for target_rate in (0.1, 0.25, 0.5):
        if rank(target_rate, len(scores)):
            flagged = [
                calibrate(images[:i] + images[i + 1 :], target_rate).is_anomaly(x)
                for i, x in enumerate(images)
            ]
            assert sum(flagged) <= rank(target_rate, len(scores))


def test_long_run_rate_follows_the_beta_law():
    generator = np.random.default_rng(0)
    limits = [calibrate(generator.random(199), 0.05).threshold for _ in range(3000)]
    rates = 1 - np.array(limits, dtype=np.float64)  # the scores are uniform
    assert stats.kstest(rates, stats.beta(10, 190).cdf).pvalue > 0.01
    assert rates.mean() <= 0.05 + 3 * rates.std() / math.sqrt(3000)
    upper_bound = calibrate(generator.random(199), 0.05).upper_bound
    assert np.mean(rates <= upper_bound) == pytest.approx(0.95, abs=0.012)


def test_flagged_test_images_keep_to_the_ordinary_limit():
    generator = np.random.default_rng(1)
    counts = [
        (calibrate(row[:300]).is_anomaly(row[300:])).sum() for row in generator.random((3000, 602))
    ]
    assert calibrate(np.arange(300.0)).ordinary_up_to(302) == 8
    assert np.mean(np.array(counts) <= 8) >= 0.95 - 3 * math.sqrt(0.05 * 0.95 / 3000)
    assert np.mean(np.array(counts) <= 7) < 0.95


def test_several_counts_keep_to_their_joint_limits():
    assert joint_limits([(300, 3, 302)]) == [8]
    assert joint_limits([(300, 3, 302), (200, 2, 400), (20, 1, 50)]) == [10, 14, 11]
    assert joint_limits([]) == []


CORNERS = [
    (1, 1),
    (1, 10),
    (2, 199),
    (3, 298),
    (1, 100_000),
    (1000, 99_001),
    (5000, 95_001),
    (50_000, 50_001),
    (99, 1),
]


@pytest.mark.parametrize(("a", "b"), CORNERS)
@pytest.mark.parametrize("level", [0.95, 0.025, 0.975, 0.0001, 0.99999])
def test_beta_quantile_is_scipys(a, b, level):
    assert beta_quantile(level, a, b) == pytest.approx(stats.beta.ppf(level, a, b), rel=1e-9)


def test_the_largest_calls_are_fast():
    took = []
    for _ in range(5):
        started = time.perf_counter()
        beta_quantile(0.95, 5000, 95_001)
        beta_binomial_limit(100_000, 1000, 99_001, 0.95)
        took.append(time.perf_counter() - started)
    assert min(took) < 0.04  # about 6 ms together; the rest is for a busy machine


@given(st.integers(1, 400), st.integers(1, 400), st.floats(0.001, 0.999))
def test_beta_quantile_is_scipys_anywhere(a, b, level):
    assert beta_quantile(level, a, b) == pytest.approx(stats.beta.ppf(level, a, b), rel=1e-9)


@pytest.mark.parametrize(
    ("images", "a", "b"),
    [(302, 3, 298), (400, 2, 199), (100_000, 1000, 99_001), (19, 1, 1), (1, 1, 99), (0, 1, 1)],
)
def test_beta_binomial_threshold_is_scipys(images, a, b):
    expected = stats.betabinom.ppf(0.95, images, a, b) if images else 0
    assert beta_binomial_limit(images, a, b, 0.95) == expected


@given(
    st.integers(1, 300),
    st.integers(1, 50),
    st.integers(1, 300),
    st.sampled_from([0.5, 0.9, 0.95, 0.99]),
)
def test_beta_binomial_threshold_is_the_smallest_that_reaches_the_level(images, a, b, level):
    threshold = beta_binomial_limit(images, a, b, level)
    assert stats.betabinom.cdf(threshold, images, a, b) >= level - 1e-9
    assert stats.betabinom.cdf(threshold - 1, images, a, b) < level + 1e-9


@given(st.integers(1, 500), st.floats(0, 1))
def test_clopper_pearson_is_scipys(n, share):
    flagged = round(share * n)
    expected = stats.binomtest(flagged, n).proportion_ci(0.95, method="exact")
    assert clopper_pearson(flagged, n) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_clopper_pearson_of_nothing_and_of_too_much():
    assert clopper_pearson(0, 0) == (0.0, 1.0)
    with pytest.raises(CalibrationError, match="4 flagged of 3: expected a count between 0 and 3"):
        clopper_pearson(4, 3)


def test_rate_as_json():
    assert Rate.of(0, 10).to_json() == {
        "value": 0.0,
        "low": 0.0,
        "high": pytest.approx(0.3084971078187608),
        "flagged": 0,
        "n": 10,
    }


@given(calibration_scores, st.none() | st.just(0.5))
def test_json_round_trips_exactly(scores, target_rate):
    found = calibrate(scores, target_rate)
    again = Calibration.from_json(json.loads(json.dumps(found.to_json())))
    assert again == found
    assert again.scores.dtype == np.float32 and again.scores.tobytes() == found.scores.tobytes()


@pytest.mark.parametrize("scores", [[-0.0, 0.0, -0.0], [0.0, -0.0, 0.0], [-0.0] * 40 + [0.0] * 40])
def test_a_negative_zero_is_a_zero(scores):
    found = calibrate(scores, 0.4)
    assert found.scores.tobytes() == bytes(4 * len(scores))
    assert math.copysign(1, found.threshold) == math.copysign(1, found.median) == 1
    assert math.copysign(1, one_per_group([-0.0], ["a"], 0)[0][0]) == 1
    assert found.p_value([-0.0, 0.0]).tolist() == [1.0, 1.0]


def test_json_of_a_small_calibration():
    assert calibrate([3.0, 0.5, 1.0, 0.25], 0.4).to_json() == {
        "n": 4,
        "k": 2,
        "target_rate": 0.4,
        "kind": "split",
        "guaranteed_rate": 0.4,
        "estimated_rate": None,
        "upper_bound": pytest.approx(0.7513953742698181),
        "threshold": 1.0,
        "m": 0.75,
        "review": None,
        "scores": [0.25, 0.5, 1.0, 3.0],
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scores": None}, "calibration scores are not a list of float32 numbers"),
        ({"scores": [1.0, "2"]}, "calibration scores are not a list of float32 numbers"),
        ({"scores": [1.0, math.nan]}, "calibration scores are not a list of float32 numbers"),
        ({"scores": [1.0, 10**400]}, "calibration scores are not a list of float32 numbers"),
        (
            {"scores": []},
            (
                r"calibration scores of shape \(0,\): expected one score for each good image, at "
                r"least 1"
            ),
        ),
        (
            {"scores": [3.0, 1.0, 0.5, 0.25]},
            "calibration scores is not what its sorted scores give",
        ),
        (
            {"k": 3},
            (
                r"rank k = 3 of 4 calibration scores does not keep the false-alarm rate of 40 %: "
                r"expected 1 to 2"
            ),
        ),
        (
            {"k": 0},
            (
                "rank k = 0 of 4 calibration scores does not keep the false-alarm rate of 40 %: "
                "expected 1 to 2"
            ),
        ),
        ({"k": True}, "the card says k = True, target rate = 0.4; expected an integer and a rate"),
        (
            {"target_rate": "1 %"},
            "the card says k = 2, target rate = '1 %'; expected an integer and a rate",
        ),
        ({"target_rate": 0.9}, "a false-alarm rate of 0.9 was asked for"),
        (
            {"threshold": 99.0},
            (
                "the card's calibration threshold is not what its sorted scores give: the file is "
                "damaged"
            ),
        ),
        (
            {"guaranteed_rate": 0.01},
            (
                "the card's calibration guaranteed_rate is not what its sorted scores give: the "
                "file is damaged"
            ),
        ),
        (
            {"kind": "loo"},
            "the card's calibration is of kind 'loo', split or cross expected: the file is damaged",
        ),
        (
            {"kind": "cross"},  # an estimate that is called guaranteed
            (
                "the card's calibration guaranteed_rate is not what its sorted scores give: the "
                "file is damaged"
            ),
        ),
    ],
)
def test_a_damaged_card_is_refused(change, message):
    card = calibrate([3.0, 0.5, 1.0, 0.25], 0.4).to_json()
    with pytest.raises(CalibrationError, match=message):
        Calibration.from_json(card | change)


def test_a_card_that_is_no_object_is_refused():
    with pytest.raises(
        CalibrationError, match="the card's calibration is list, expected an object"
    ):
        Calibration.from_json([])


def test_a_calibration_cannot_be_changed():
    found = calibrate([1.0, 2.0])
    with pytest.raises(ValueError, match="read-only"):
        found.scores[0] = 5


@pytest.mark.parametrize("target_rate", [0, -0.1, 0.51, 1, math.nan, math.inf])
def test_a_rate_outside_the_range_is_an_error(target_rate):
    with pytest.raises(
        CalibrationError, match=r"expected above 0 and at most 0.5 \(0.01 is 1 in 100 good images\)"
    ):
        calibrate(np.arange(500.0), target_rate)


def test_a_target_rate_that_cannot_be_kept_says_what_it_needs():
    with pytest.raises(CalibrationError) as error:
        calibrate(np.arange(10.0), 0.01)
    assert str(error.value) == (
        "10 good images set the threshold and can guarantee 1 false alarm in 11, not 1 %, which "
        "needs 99: add images, or --false-alarm-rate 0.1"
    )


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf, 1e39])
def test_scores_that_are_not_finite_cannot_calibrate(wrong):
    with pytest.raises(
        CalibrationError, match=r"1 of 3 calibration scores are not finite float32 .* number 2, is"
    ):
        calibrate([1.0, wrong, 2.0])


@pytest.mark.parametrize("scores", [[], [[1.0, 2.0]], 3.0])
def test_scores_must_be_a_list(scores):
    with pytest.raises(
        CalibrationError, match="expected one score for each good image, at least 1"
    ):
        calibrate(scores)


members = st.lists(st.tuples(st.sampled_from("abcde"), finite), min_size=1, max_size=30)


@given(members, st.integers(0, 5), st.randoms())
def test_one_of_each_group_in_any_order(images, seed, random):
    named = [(group, score, f"{i}.png") for i, (group, score) in enumerate(images)]
    shuffled = random.sample(named, len(named))
    drawn = []
    for order in (named, shuffled):
        groups, scores, names = zip(*order, strict=True)
        values, indices = one_per_group(scores, groups, seed, names)
        assert values.tolist() == np.float32(scores)[indices].tolist()
        assert [groups[i] for i in indices] == sorted(set(groups))
        drawn.append([names[i] for i in indices])
    assert drawn[0] == drawn[1]


@given(members, st.integers(0, 5), st.randoms())
def test_one_of_each_group_without_names_draws_the_same_scores(images, seed, random):
    groups, scores = zip(*images, strict=True)
    again, values = zip(*random.sample(images, len(images)), strict=True)
    assert (
        one_per_group(scores, groups, seed)[0].tolist()
        == one_per_group(values, again, seed)[0].tolist()
    )


def test_the_draw_depends_on_the_seed_and_is_uniform():
    scores, groups = (
        np.tile(np.arange(4.0), 2000),
        np.repeat([f"part {i}" for i in range(2000)], 4).tolist(),
    )
    first, second = (one_per_group(scores, groups, seed)[0] for seed in (0, 1))
    assert stats.chisquare(np.bincount(first.astype(int))).pvalue > 0.01
    assert np.mean(first == second) == pytest.approx(0.25, abs=0.04)


def test_another_group_does_not_change_the_draw():
    alone = one_per_group([1.0, 2.0, 3.0], ["a", "a", "a"], 7)[0]
    both = one_per_group([9.0, 1.0, 2.0, 3.0], ["b", "a", "a", "a"], 7)[0]
    assert both.tolist() == [*alone.tolist(), 9.0]


def test_groups_must_match_scores():
    with pytest.raises(CalibrationError, match="3 scores for 2 groups"):
        one_per_group([1.0, 2.0, 3.0], ["a", "b"], 0)


def test_scoring_needs_neither_scipy_nor_scikit_learn():
    code = (
        "import sys, anomaly.reporting.guarantee, anomaly.statistics.metrics; print({'scipy', "
        "'sklearn', 'torch'} & set(sys.modules))"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout
        == "set()\n"
    )


@given(groups=st.integers(5, 3000), target_rate=st.sampled_from([None, 0.5, 0.1, 0.01, 0.003]))
def test_a_prospect_is_what_scores_will_guarantee(groups: int, target_rate: float | None) -> None:
    prospect, lowest = Prospect.of(groups, target_rate), Prospect.lowest(groups)
    scores = np.arange(prospect.n)
    if target_rate is None or rank(target_rate, prospect.n):
        found = calibrate(scores, target_rate)
        assert (prospect.k, prospect.rate, prospect.upper_bound) == (
            found.k,
            found.rate,
            found.upper_bound,
        )
    assert lowest.rate <= prospect.rate and lowest.n <= groups / 2
    assert all(more > groups for more in more_groups(groups, target_rate))
    if 2 * needed(target_rate or DEFAULT_RATE) <= groups:
        assert prospect.rate <= (target_rate or DEFAULT_RATE)
