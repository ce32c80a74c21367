from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import ArrayLike

from anomaly.errors import AnomalyError
from anomaly.reporting.drift import TO_DO, score_watch_text
from anomaly.statistics.calibration import calibrate
from anomaly.statistics.drift import (
    LEVELS,
    Series,
    calibration_quantiles,
    count_level,
    watch,
    windows,
)

CALIBRATION = calibrate(np.random.default_rng(0).normal(size=300))
GOOD = float(CALIBRATION.median)
BAD = float(CALIBRATION.threshold) + 1


def series(scores: ArrayLike, name: str = "cam1") -> Series:
    found = np.asarray(scores, dtype=np.float32)
    times = [
        f"2026-01-01T{i // 3600:02}:{i // 60 % 60:02}:{i % 60:02}.000Z" for i in range(len(found))
    ]
    return Series(name, found, times)


def good(images: int, seed: int = 1) -> list[float]:
    return list(np.random.default_rng(seed).normal(size=images).clip(-2, 2))


def test_many_flagged_are_an_alarm_by_their_count() -> None:
    """24 of 44 where 2 are ordinary: too few, and too much mixed, to wait for the test of the
    scores.
    """
    scores = good(44)
    scores[::2] = [BAD] * 22
    scores[1] = scores[3] = BAD
    found = watch([series(scores)], CALIBRATION)[0]
    assert found.alarm and CALIBRATION.ordinary_up_to(44) <= 3
    assert score_watch_text(found).startswith(
        "cam1: 24 of the newest 44 images flagged, up to 2 is ordinary; "
    )
    assert score_watch_text(found).endswith(TO_DO)


@pytest.mark.parametrize("calm", [0, 1_000, 30_000])
def test_many_flagged_are_an_alarm_however_many_were_good_before(calm: int) -> None:
    found = watch(
        [series([*good(calm), *good(100, seed=2)[:20], *[BAD, *good(1)] * 12])], CALIBRATION
    )[0]
    assert next(count.kind for count in found.counts if count.alarm) == "flagged"


@pytest.mark.parametrize("missing", [math.nan, math.inf, -math.inf, None])
@pytest.mark.parametrize("calm", [0, 5_000])
def test_many_not_judged_are_an_alarm(missing: float | None, calm: int) -> None:
    scores = [
        *good(calm),
        *[one for pair in zip(good(51), [missing] * 51, strict=True) for one in pair],
        *[missing] * 18,
    ]
    found = watch(
        [Series("cam1", np.array(scores, dtype=np.float32), [str(i) for i in range(len(scores))])],
        CALIBRATION,
    )[0]
    assert found.alarm and found.not_judged == 69 and found.change is None
    newest = 120 if not calm else 200
    assert f"69 of the newest {newest} images not judged, up to " in score_watch_text(found)
    assert "nobody has inspected them" in score_watch_text(found)


def test_a_detector_that_only_ranks_counts_those_not_judged() -> None:
    found = watch([series([*good(51), *[math.nan] * 69]), series(good(100), "cam2")], None)
    assert [one.alarm for one in found] == [True, False]
    assert len(found[0].log10_evidence) == 0
    assert (
        score_watch_text(found[1]) == "cam2: 100 images judged, 0 not judged; no scores to compare"
    )


def test_what_is_ordinary_is_no_alarm() -> None:
    """One flagged or not judged is none, nor is as many as is ordinary; one more is."""
    level = count_level([series([0.0] * 150)], CALIBRATION)
    limit = CALIBRATION.ordinary_up_to(150, level)
    for flagged in (1, limit, limit + 1):
        scores = [*good(150 - flagged), *[BAD] * flagged]
        random = np.random.default_rng(3).permutation(scores)
        assert watch([series(random)], CALIBRATION)[0].alarm is (flagged > limit)
    assert not any(
        one.alarm for one in watch([series([BAD]), series([math.nan]), series([])], CALIBRATION)
    )
    assert watch([series([BAD] * 3)], CALIBRATION)[0].alarm
    assert watch([series([math.nan] * 4)], CALIBRATION)[0].alarm


def test_each_look_at_the_counts_is_wrong_as_rarely_as_stated() -> None:
    """Over ten folders, and a calibration that is drawn anew each time: at most 5 %."""
    random = np.random.default_rng(4)
    wrong = 0
    for _ in range(120):
        scores = random.normal(size=100 + 10 * 250).astype(np.float32)
        scores[100:][random.random(2500) < 0.02] = math.nan
        found = watch(
            [series(part) for part in np.split(scores[100:], 10)], calibrate(scores[:100])
        )
        wrong += any(count.alarm for one in found for count in one.counts)
    assert wrong / 120 <= 0.05 + 2.5 * math.sqrt(0.05 * 0.95 / 120)


def test_a_change_says_since_when_and_what_to_do() -> None:
    random = np.random.default_rng(9)
    calm, changed = random.normal(size=400), random.normal(size=400)
    changed[200:] -= 2
    quiet, loud = watch([series(calm, "cam1"), series(changed, "cam2")], CALIBRATION)
    assert score_watch_text(quiet) == (
        "cam1: no sign that the scores changed (400 images judged, 0 not judged; evidence "
        f"{10 ** quiet.log10_evidence[-1]:.3g}, an alarm from 100,000 on)"
    )
    assert loud.change is not None
    assert score_watch_text(loud) == (
        f"cam2: the scores are lower since about image {loud.change.changed_at + 1} of 400 judged "
        f"({loud.changed_time}), so the false-alarm rate no longer holds here; with "
        f"lower scores defects may pass. {TO_DO}"
    )


def test_an_alarm_that_ended_is_said_and_is_none() -> None:
    random = np.random.default_rng(10)
    scores = random.normal(size=3000)
    scores[500:600] += 2
    found = watch([series(scores)], CALIBRATION)[0]
    assert not found.alarm and found.changes[-1].ended_at is not None
    ago = 2999 - found.changes[-1].ended_at
    assert score_watch_text(found).endswith(
        f". An earlier alarm ({found.changed_time}, higher) ended {ago:,} images ago"
    )


def test_images_that_were_not_judged_between_others_do_not_move_the_dates() -> None:
    random = np.random.default_rng(11)
    scores = random.normal(size=600)
    scores[300:] += 2
    holes = np.insert(scores, np.arange(0, 300, 10), math.nan)
    whole, with_holes = (
        watch([series(scores)], CALIBRATION)[0],
        watch([series(holes)], CALIBRATION)[0],
    )
    assert (with_holes.log10_evidence == whole.log10_evidence).all()
    assert whole.change is not None and whole.change == with_holes.change
    assert (
        with_holes.changed_time
        == series(holes).times[np.flatnonzero(np.isfinite(holes))[whole.change.changed_at]]
    )


def test_nothing_to_watch_is_no_alarm() -> None:
    assert watch([], CALIBRATION) == []
    empty = watch([series([])], CALIBRATION)[0]
    assert (empty.alarm, empty.images, empty.change) == (False, 0, None)
    with pytest.raises(
        AnomalyError, match="a run length of 1 found, a number of images above 1 expected"
    ):
        watch([], CALIBRATION, 1)
    with pytest.raises(AnomalyError, match="2 scores and 1 times found: one of each expected"):
        Series("cam1", np.zeros(2, np.float32), ["t"])


@given(st.integers(0, 60), st.integers(1, 20))
def test_windows_hold_every_image_once_and_the_newest_is_whole(images: int, size: int) -> None:
    found = windows(series(np.arange(images, dtype=np.float64)), CALIBRATION, size)
    assert sum(window.images for window in found) == images
    assert all(window.images == size for window in found[1:])
    if found:
        times = series(np.arange(images)).times
        assert (found[0].start, found[-1].end) == (times[0], times[-1])


def test_windows_are_compared_with_the_calibration() -> None:
    scores = np.concatenate([np.linspace(-1, 1, 100), np.full(99, 5.0), [math.nan]])
    first, second = windows(series(scores), CALIBRATION, 100)
    assert (first.images, first.flagged, first.ordinary_up_to) == (
        100,
        0,
        CALIBRATION.ordinary_up_to(100),
    )
    assert (second.images, second.flagged, second.not_judged) == (100, 99, 1)
    assert first.quantiles == pytest.approx(np.quantile(scores[:100].astype(np.float32), LEVELS))
    assert calibration_quantiles(CALIBRATION)[2] == pytest.approx(float(CALIBRATION.median))
    assert windows(series(scores), None)[0].flagged is None
    assert np.isnan(windows(series([math.nan]), CALIBRATION)[0].quantiles).all()
    with pytest.raises(AnomalyError, match="windows of 0 images: expected 1 or more"):
        windows(series(scores), None, 0)


def test_the_newest_window_says_what_the_alarm_says() -> None:
    both: Sequence[Series] = [series([*good(300), *[BAD] * 9]), series(good(50), "cam2")]
    count = next(c for c in watch(both, CALIBRATION)[0].counts if c.kind == "flagged")
    newest = windows(both[0], CALIBRATION, level=count_level(both, CALIBRATION))[-1]
    assert (newest.images, newest.flagged, newest.ordinary_up_to) == (
        200,
        count.found,
        count.ordinary_up_to,
    )
