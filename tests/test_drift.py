from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from anomaly.calibrate import calibrate
from anomaly.drift import LEVELS, Series, calibration_quantiles, online_p_values, simple_jumper, watch, windows
from anomaly.errors import AnomalyError

CALIBRATION = calibrate(np.random.default_rng(0).normal(size=300))


def series(scores: NDArray[np.float64], name: str = "cam1", outside: int = 0) -> Series:
    times = [f"2026-01-01T{i // 3600:02}:{i // 60 % 60:02}:{i % 60:02}.000Z" for i in range(len(scores))]
    return Series(name, scores.astype(np.float32), times, outside)


steps = st.lists(st.sampled_from([k / 4 for k in range(8)]), max_size=40)


@given(steps, steps, st.integers(0, 9))
def test_p_values_are_ranks_among_all_that_came_before(bag: list[float], new: list[float], seed: int) -> None:
    found = online_p_values(bag, new, np.random.default_rng(seed))
    u = 1 - np.random.default_rng(seed).random(len(new))
    for i, score in enumerate(new):
        before = [*bag, *new[: i + 1]]
        above, equal = sum(s > score for s in before), sum(s == score for s in before)
        assert found[i] == pytest.approx((above + u[i] * equal) / len(before))
        assert 0 < found[i] <= 1


def test_where_the_stream_is_cut_into_blocks_does_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = np.random.default_rng(1).integers(0, 30, 200)
    whole = online_p_values(CALIBRATION.scores, scores, np.random.default_rng(2))
    monkeypatch.setattr("anomaly.drift.BLOCK", 7)
    assert (online_p_values(CALIBRATION.scores, scores, np.random.default_rng(2)) == whole).all()


@pytest.mark.parametrize("ties", [False, True])
def test_p_values_are_uniform_and_independent_while_nothing_changes(ties: bool) -> None:
    stats = pytest.importorskip("scipy.stats", reason="SciPy is not installed")
    random = np.random.default_rng(3)
    scores = random.normal(size=5050)
    scores = np.round(2 * scores) if ties else scores
    p = online_p_values(scores[:50], scores[50:], random)
    assert stats.kstest(p, "uniform").pvalue > 0.01
    assert abs(np.corrcoef(p[:-1], p[1:])[0, 1]) < 3 / math.sqrt(5000)


@given(st.lists(st.floats(0, 1), max_size=60))
def test_wealth_is_a_martingale(p_values: list[float]) -> None:
    """Whatever came before, one more uniform p-value leaves it the same on average: then Ville's inequality holds."""
    before = 10 ** simple_jumper(np.array(p_values)).log10_wealth[-1] if p_values else 1.0
    grid = (np.arange(16) + 0.5) / 16
    after = [10 ** simple_jumper(np.array([*p_values, p])).log10_wealth[-1] for p in grid]
    assert np.mean(after) == pytest.approx(before)
    assert min(after) > 0


def test_wealth_by_hand() -> None:
    """Three thirds bet -1, 0 and 1 on p = 0.1: 1.4/3 + 1/3 + 0.6/3 = 1; then each share moves a hundredth to the rest."""
    found = simple_jumper(np.array([0.1, 0.1]))
    shares = np.array([1.4, 1.0, 0.6]) / 3
    moved = 0.99 * shares + 0.01 / 3
    assert 10**found.log10_wealth == pytest.approx([1.0, (moved * [1.4, 1.0, 0.6]).sum()])
    assert found.on_higher[0] == pytest.approx(0.7)


@pytest.mark.parametrize("images", [50, 2000])
def test_false_alarms_are_as_rare_as_promised(images: int) -> None:
    """At 5 %, over as many images as one likes and a calibration that is drawn anew each time."""
    runs = 1000 if images < 100 else 300
    random = np.random.default_rng(4)
    alarms = 0
    for seed in range(runs):
        good = random.gamma(2.0, size=100 + images)
        found = watch([series(good[100:])], calibrate(good[:100]), 0.05, seed)
        alarms += found[0].alarm_at is not None
    assert alarms / runs <= 0.05 + 2.5 * math.sqrt(0.05 * 0.95 / runs)


def test_the_rate_holds_over_all_folders_together() -> None:
    random = np.random.default_rng(5)
    alarms = 0
    for seed in range(150):
        good = random.normal(size=100 + 5 * 200)
        folders = [series(part) for part in np.split(good[100:], 5)]
        found = watch(folders, calibrate(good[:100]), 0.05, seed)
        assert found[0].limit == pytest.approx(2.0)  # 5 folders, 1 in 20: each may alarm once in 100
        alarms += any(one.alarm_at is not None for one in found)
    assert alarms / 150 <= 0.05 + 2.5 * math.sqrt(0.05 * 0.95 / 150)


def test_p_values_against_the_calibration_alone_would_raise_false_alarms() -> None:
    """They share its luck: what looks like a change is that 100 images were drawn, and more images only make it surer."""
    random = np.random.default_rng(6)
    alarms = 0
    for _ in range(60):
        good = random.normal(size=100 + 3000)
        p = calibrate(good[:100]).p_value(good[100:]) - random.random(3000) / 101
        alarms += bool(simple_jumper(p).log10_wealth.max() >= 2)
    assert alarms / 60 > 0.05  # at 1 %


@pytest.mark.parametrize(("shift", "direction", "within"), [(1.0, "higher", 120), (-1.0, "lower", 120), (0.5, "higher", 500)])
def test_a_shift_is_found_and_dated(shift: float, direction: str, within: int) -> None:
    random = np.random.default_rng(7)
    delays, dates = [], []
    for seed in range(40):
        good = random.normal(size=500 + 1000)
        good[500 + 300 :] += shift  # from the 301st image on
        found = watch([series(good[500:])], calibrate(good[:500]), 0.01, seed)[0]
        assert found.alarm_at is not None and found.changed_at is not None
        assert found.direction == direction
        delays.append(found.alarm_at - 300)
        dates.append(found.changed_at - 300)
    assert np.median(delays) < within
    assert abs(np.median(dates)) < within / 2


def test_rare_defects_among_good_images_raise_no_alarm() -> None:
    random = np.random.default_rng(8)
    alarms = 0
    for seed in range(40):
        scores = random.normal(size=2300)
        scores[300:][random.random(2000) < 0.02] += 6
        alarms += watch([series(scores[300:])], calibrate(scores[:300]), 0.01, seed)[0].alarm_at is not None
    assert alarms <= 2


def test_it_is_said_what_was_found_and_what_to_do() -> None:
    random = np.random.default_rng(9)
    good, changed = random.normal(size=400), random.normal(size=400)
    changed[200:] -= 2
    quiet, loud = watch([series(good, "cam1"), series(changed, "cam2")], CALIBRATION)
    assert quiet.text() == (
        f"cam1: no sign that the scores changed in 400 images (evidence {10 ** quiet.log10_wealth.max():.3g} of 200; "
        "false-alarm rate 1 % over all folders, for good)"
    )
    assert loud.changed_at is not None
    assert loud.text() == (
        f"cam2: the scores are lower since about image {loud.changed_at + 1} of 400 ({loud.changed_time}), so the promised "
        "rate of false alarms no longer holds here; with lower scores defects may pass (false-alarm rate 1 % over all folders, "
        "for good). Look at the newest images: light, focus, camera, dirt, a new lot? Mend that if you can; else collect good "
        "images of today and run anomaly check, which says whether to recalibrate or to train again"
    )


def test_nothing_to_watch_is_no_alarm() -> None:
    assert watch([], CALIBRATION) == []
    empty = watch([series(np.array([]))], CALIBRATION)[0]
    assert (empty.alarm_at, empty.images) == (None, 0)
    with pytest.raises(AnomalyError, match="a false-alarm rate of 1 found, above 0 and below 1 expected"):
        watch([], CALIBRATION, 1)


@given(st.integers(0, 60), st.integers(1, 20))
def test_windows_hold_every_image_once(images: int, size: int) -> None:
    scores = np.arange(images, dtype=np.float64)
    found = windows(series(scores), CALIBRATION, size)
    assert sum(window.images for window in found) == images
    assert all(window.images >= size / 2 for window in found[1:])
    if found:
        assert (found[0].start, found[-1].end) == (series(scores).times[0], series(scores).times[-1])


def test_windows_are_compared_with_the_calibration() -> None:
    scores = np.concatenate([np.linspace(-1, 1, 101), np.full(99, 5.0)])
    first, second = windows(series(scores), CALIBRATION, 100)
    assert (first.images, first.flagged, first.ordinary_up_to) == (100, 0, CALIBRATION.ordinary_up_to(100))
    assert second.flagged == 99
    assert first.quantiles == pytest.approx(np.quantile(scores[:100].astype(np.float32), LEVELS))
    assert calibration_quantiles(CALIBRATION)[2] == pytest.approx(float(CALIBRATION.median))
    assert windows(series(scores), None)[0].flagged is None
    with pytest.raises(AnomalyError, match="windows of 0 images: expected 1 or more"):
        windows(series(scores), None, 0)
