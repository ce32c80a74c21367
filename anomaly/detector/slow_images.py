"""Images that take far longer than pictures did in the detector's trial: said, and ended between
two operators.

ONNX Runtime looks between two operators at whether it shall stop, and never within one. So an image
that is inside one operator is said to be, again and again more rarely, and only the end of the
process ends it.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from anomaly.detector.trial import seconds_allowed
from anomaly.files.progress import duration

VARIABLE = "ANOMALY_IMAGE_SECONDS"
# of the trial's slowest picture; seconds; seconds without a trial
TIMES, LEAST, UNKNOWN = 100, 60.0, 600.0
SAID_AT = 0.2  # of the limit

_here = threading.local()


def limit_of(trial: float | None) -> float:
    """Returns the seconds for an image: ANOMALY_IMAGE_SECONDS, or 100 times the trial's slowest
    picture and at least 60.

    ``trial``: what that picture took; None (made here, without a trial): 600 s. Raises
    DetectorError for a bad setting.
    """
    if os.environ.get(VARIABLE):
        return seconds_allowed(VARIABLE)
    return UNKNOWN if trial is None else max(LEAST, TIMES * trial)


def now_judging(name: str) -> None:
    """Notes what this thread judges next, for what is said of it."""
    _here.name = name


@dataclass
class _Inference:
    """``options``: of ONNX Runtime, by which it is ended. ``say_at``: seconds after which it is
    said (again).
    """

    options: Any
    name: str
    began: float
    seconds: float
    say_at: float


class SlowImages:
    """Watches inferences from a thread of its own until it is closed. ``say``: takes one line."""

    def __init__(self, say: Callable[[str], object]) -> None:
        self._say = say
        self._running: dict[int, _Inference] = {}
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._look, name="slow images", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closed.set()
        self._thread.join()

    @contextmanager
    def watched(self, options: Any, seconds: float) -> Iterator[None]:
        """Ends the inference that runs in the block, by its options, after so many seconds."""
        one = _Inference(
            options,
            getattr(_here, "name", "an image"),
            time.monotonic(),
            seconds,
            SAID_AT * seconds,
        )
        self._running[id(one)] = one
        try:
            yield
        finally:
            self._running.pop(id(one), None)

    def _look(self) -> None:
        while not self._closed.wait(0.25):
            for one in list(self._running.values()):
                self._look_at(one, time.monotonic() - one.began)

    def _look_at(self, one: _Inference, took: float) -> None:
        late = took >= one.seconds
        if late:
            one.options.terminate = True
        if took >= one.say_at:
            # first a second later, when it ought to have ended
            one.say_at = max(2 * took, one.seconds + 1)
            self._say(
                f"{one.name}: judged for {duration(took)} so far, {_what_next(one.seconds, late)}"
            )


def _what_next(seconds: float, late: bool) -> str:
    if late:
        when = "as soon as ONNX Runtime leaves the operator that it is in"
        return f"more than {duration(seconds)}: an error {when}; Ctrl-C ends the run at once"
    return (
        f"far longer than it should take: an error after {duration(seconds)} ({VARIABLE} sets that)"
    )
