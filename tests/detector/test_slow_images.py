from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import pytest

from anomaly.detector.inference import Deadlines
from anomaly.detector.slow_images import (
    LEAST,
    TIMES,
    UNKNOWN,
    VARIABLE,
    SlowImages,
    limit_of,
    now_judging,
)
from anomaly.errors import DetectorError


def test_an_image_has_a_hundred_times_as_long_as_the_slowest_picture_of_the_trial(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert (limit_of(None), limit_of(0.01), limit_of(2.0)) == (UNKNOWN, LEAST, 2.0 * TIMES)
    monkeypatch.setenv(VARIABLE, "7")
    assert limit_of(None) == limit_of(2.0) == 7
    monkeypatch.setenv(VARIABLE, "soon")
    with pytest.raises(DetectorError, match=VARIABLE):
        limit_of(None)


def test_an_inference_that_takes_too_long_is_said_and_ended() -> None:
    lines: list[str] = []
    said = threading.Event()

    def say(line: str) -> None:
        lines.append(line)
        said.set()

    slow = SlowImages(say)
    options = SimpleNamespace(terminate=False)
    now_judging("night/17.png")
    with slow.watched(options, 0.0):
        assert said.wait(60)
    assert options.terminate and lines[0].startswith("night/17.png: judged for ")
    quick = SimpleNamespace(terminate=False)
    with slow.watched(quick, 3600.0):
        pass
    slow.close()
    assert not quick.terminate and all("17.png" in line for line in lines)


def test_one_thread_ends_each_inference_at_its_own_time() -> None:
    deadlines, threads = Deadlines(0.3), threading.active_count()
    quick, first, second = (SimpleNamespace(terminate=False) for _ in range(3))
    with deadlines.ending(quick):
        pass
    began = time.monotonic()
    with deadlines.ending(first), deadlines.ending(second):
        assert threading.active_count() == threads + 1
        while not (first.terminate and second.terminate):
            assert time.monotonic() - began < 60
            time.sleep(0.01)
    assert time.monotonic() - began >= 0.3 and not quick.terminate
    while threading.active_count() > threads:  # with nothing to look at it ends
        assert time.monotonic() - began < 60
        time.sleep(0.01)
    with deadlines.ending(third := SimpleNamespace(terminate=False)):
        while not third.terminate:
            assert time.monotonic() - began < 120
            time.sleep(0.01)
