from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from anomaly.statistics.calibration import calibrate
from anomaly.statistics.change_point import RUN_LENGTH, bets, follow, online_p_values

CALIBRATION = calibrate(np.random.default_rng(0).normal(size=300))
steps = st.lists(st.sampled_from([k / 4 for k in range(8)]), max_size=40)


@given(steps, steps, st.integers(0, 9))
def test_p_values_are_ranks_among_all_that_came_before(
    bag: list[float], new: list[float], seed: int
) -> None:
    found = online_p_values(bag, new, np.random.default_rng(seed))
    u = 1 - np.random.default_rng(seed).random(len(new))
    for i, score in enumerate(new):
        before = [*bag, *new[: i + 1]]
        above, equal = sum(s > score for s in before), sum(s == score for s in before)
        assert found[i] == pytest.approx((above + u[i] * equal) / len(before))
        assert 0 < found[i] <= 1


def test_where_the_stream_is_cut_into_blocks_does_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = np.random.default_rng(1).integers(0, 30, 400).astype(np.float32)
    scores[200:300] += 40
    whole = online_p_values(CALIBRATION.scores, scores, np.random.default_rng(2))
    path = follow(CALIBRATION.scores, scores, np.random.default_rng(2), 1000)
    monkeypatch.setattr("anomaly.statistics.change_point.BLOCK", 7)
    assert (online_p_values(CALIBRATION.scores, scores, np.random.default_rng(2)) == whole).all()
    again = follow(CALIBRATION.scores, scores, np.random.default_rng(2), 1000)
    assert (again.evidence == path.evidence).all()
    assert [(c.alarm_at, c.changed_at, c.ended_at) for c in again.changes] == [
        (c.alarm_at, c.changed_at, c.ended_at) for c in path.changes
    ]


@pytest.mark.parametrize("ties", [False, True])
def test_p_values_are_uniform_and_independent_while_nothing_changes(ties: bool) -> None:
    stats = pytest.importorskip("scipy.stats", reason="SciPy is not installed")
    random = np.random.default_rng(3)
    scores = random.normal(size=5050)
    scores = np.round(2 * scores) if ties else scores
    p = online_p_values(scores[:50], scores[50:], random)
    assert stats.kstest(p, "uniform").pvalue > 0.01
    assert abs(np.corrcoef(p[:-1], p[1:])[0, 1]) < 3 / math.sqrt(5000)


def test_a_bet_pays_1_on_average_and_never_more_than_is_written() -> None:
    p = (np.arange(100_000) + 0.5) / 100_000
    for one in bets(p):
        assert one.mean() == pytest.approx(1, abs=1e-8)
        assert one.min() > 0 and one.max() <= 3.4


def test_evidence_by_hand() -> None:
    """One calibration score below, u drawn: p = u / 2 for the first; each bet (0 + 1) b(p), then
    (M + 1) b(p).
    """
    found = follow([0.0], [1.0, 2.0], np.random.default_rng(5)).evidence
    u = 1 - np.random.default_rng(5).random(2)
    first, second = (np.array(bets(p)) for p in (u[0] / 2, u[1] / 3))
    assert found == pytest.approx([first.mean(), ((first + 1) * second).mean()])


@given(st.lists(st.floats(0.01, 0.99), max_size=40))
def test_evidence_less_the_number_of_images_is_a_martingale(p_values: list[float]) -> None:
    """Whatever came before, one more uniform p-value adds 1 on average: from that all that is
    guaranteed follows.
    """
    state = np.zeros(4)
    for p in p_values:
        state = (state + 1) * np.array(bets(np.array(p)))
    grid = (np.arange(1000) + 0.5) / 1000
    after = ((state[:, None] + 1) * np.array(bets(grid))).mean(0).mean()
    assert after == pytest.approx(state.mean() + 1, rel=1e-5)


@pytest.mark.parametrize("n", [20, 300])
def test_false_alarms_are_as_rare_as_stated(n: int) -> None:
    """Among 500 images one at run length 5,000 in at most a tenth of the series; the mean length is
    at least 1,000 at 1,000.
    """
    random = np.random.default_rng(4)
    early, lengths = 0, []
    for seed in range(200):
        good = random.gamma(2.0, size=n + 4000)
        changes = follow(good[:n], good[n:], np.random.default_rng(seed), 1000).changes
        # too short where there was none: on the safe side
        lengths.append(changes[0].alarm_at + 1 if changes else 4000)
        early += bool(
            follow(good[:n], good[n : n + 500], np.random.default_rng(seed), 5000).changes
        )
    assert early / 200 <= 0.1 + 2.5 * math.sqrt(0.09 / 200)
    assert np.mean(lengths) >= 1000


@pytest.mark.parametrize("calm", [0, 1_000, 100_000])
@pytest.mark.parametrize("shift", [2.0, -2.0])
def test_the_delay_does_not_grow_with_the_calm_before(calm: int, shift: float) -> None:
    random = np.random.default_rng(7)
    for seed in range(2 if calm > 1_000 else 20):
        scores = random.normal(size=300 + calm + 60)
        scores[300 + calm :] += shift
        change = follow(scores[:300], scores[300:], np.random.default_rng(seed)).changes[-1]
        assert change.ended_at is None
        assert calm - 10 < change.alarm_at < calm + 30
        assert abs(change.changed_at - calm) < 40
        assert change.direction == ("higher" if shift > 0 else "lower")


@pytest.mark.parametrize(("shift", "within"), [(1.0, 60), (-1.0, 60), (0.5, 300)])
def test_a_small_shift_is_found_and_dated(shift: float, within: int) -> None:
    random = np.random.default_rng(8)
    delays, dates = [], []
    for seed in range(40):
        scores = random.normal(size=500 + 1300)
        scores[500 + 300 :] += shift
        change = follow(scores[:500], scores[500:], np.random.default_rng(seed)).changes[-1]
        delays.append(change.alarm_at - 300)
        dates.append(change.changed_at - 300)
    assert np.median(delays) < within
    assert abs(np.median(dates)) < within / 2


def test_a_lasting_change_stays_an_alarm_and_a_mended_one_ends() -> None:
    """However many changed images come, they do not become what is usual; after they end so does
    the alarm.
    """
    random = np.random.default_rng(9)
    scores = random.normal(size=300 + 12_000)
    scores[300 + 1_000 : 300 + 11_000] += 1
    changes = follow(scores[:300], scores[300:], np.random.default_rng(0)).changes
    assert len(changes) == 1 and changes[0].ended_at is not None
    assert 11_000 < changes[0].ended_at < 11_500
    lasting = follow(scores[:300], scores[300 : 300 + 11_000], np.random.default_rng(0))
    assert len(lasting.changes) == 1 and lasting.changes[0].ended_at is None
    assert lasting.evidence[-1] > math.sqrt(RUN_LENGTH)


def test_a_slow_drift_is_found_although_each_image_becomes_part_of_the_past() -> None:
    random = np.random.default_rng(10)
    scores = random.normal(size=300 + 20_000)
    scores[300:] += np.linspace(0, 2, 20_000)
    change = follow(scores[:300], scores[300:], np.random.default_rng(0)).changes[-1]
    assert change.ended_at is None and change.alarm_at < 10_000


def test_rare_defects_among_good_images_raise_no_alarm() -> None:
    random = np.random.default_rng(11)
    alarms = 0
    for seed in range(40):
        scores = random.normal(size=2300)
        scores[300:][random.random(2000) < 0.02] += 6
        alarms += bool(follow(scores[:300], scores[300:], np.random.default_rng(seed)).changes)
    assert alarms <= 2


@pytest.mark.parametrize("scores", [[], [1.0], [1.0] * 500, [0.0] * 3])
def test_tiny_and_constant_series(scores: list[float]) -> None:
    """Ties are broken at random, so a constant score is no change from the same constant."""
    found = follow([1.0] * 50, scores, np.random.default_rng(0))
    assert len(found.evidence) == len(scores) and np.isfinite(found.evidence).all()
    assert found.changes == []


def follow_fixed(
    calibration: NDArray[np.float32], scores: NDArray[np.float64], random: np.random.Generator
) -> bool:
    """The same bets on p-values against the calibration alone."""
    p = calibrate(calibration).p_value(scores) - random.random(len(scores)) / (len(calibration) + 1)
    state = np.zeros(4)
    for payoff in np.array(bets(p)).T:
        state = (state + 1) * payoff
        if state.mean() >= RUN_LENGTH:
            return True
    return False


def test_p_values_against_the_calibration_alone_would_raise_false_alarms() -> None:
    """They share its luck: what looks like a change is that 50 images were drawn, and more images
    only make it surer.
    """
    random = np.random.default_rng(6)
    fixed = online = 0
    for seed in range(40):
        good = random.normal(size=50 + 3000)
        fixed += follow_fixed(good[:50].astype(np.float32), good[50:], random)
        online += bool(follow(good[:50], good[50:], np.random.default_rng(seed)).changes)
    assert fixed / 40 > 0.1  # at most 0.03 would be right
    assert online / 40 <= 0.03 + 2.5 * math.sqrt(0.03 / 40)
