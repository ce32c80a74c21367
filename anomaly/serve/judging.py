"""One image's result, and whose fault it is where there is none."""

from __future__ import annotations

import math
import threading
import time
from typing import Any
from weakref import WeakKeyDictionary

from anomaly.errors import DetectorError, ImageError
from anomaly.scorer import Result, Scorer
from anomaly.serve.workers import Deadline

SOUND_SECONDS = 60.0  # golden samples are scored again at most this often


def judge_in_time(scorer: Scorer, image: Any, deadline: Deadline) -> Result:
    """Returns an image's result; status ``error`` where it has none, with ``kind``
    ``damaged detector`` where that is why.

    A file that cannot be decoded is always the client's. Where a decoded image has no finite score
    or heatmap, or the runtime fails on it, the detector's golden samples decide: a detector that
    still scores them as its card says is sound, and it is this image that it cannot judge.
    """
    deadline.check()
    try:
        decoded = scorer.decode(image)
    except ImageError as error:
        return Result("error", error=str(error), kind=error.kind)
    deadline.check()
    try:
        result = scorer.judge(decoded)
    except ImageError as error:
        result = Result("error", error=str(error), kind=error.kind)
    if result.kind not in ("not finite", "runtime") or result.status != "error":
        return result
    if reason := SOUNDNESS.damage(scorer):
        return Result("error", error=reason, kind="damaged detector")
    why = (
        result.error
        if result.kind == "runtime"
        else "the detector gives no finite score or heatmap for this image"
    )
    return Result(
        "error", error=f"{why}; its golden samples are right: send another image", kind=result.kind
    )


class Soundness:
    """Whether detectors still score their golden samples right, looked at when an image has no
    score.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: WeakKeyDictionary[Scorer, tuple[float, str]] = WeakKeyDictionary()

    def damage(self, scorer: Scorer) -> str:
        """Returns what is wrong with a detector or its runtime, or an empty string."""
        with self._lock:
            at, reason = self._found.get(scorer, (-math.inf, ""))
            if time.monotonic() - at > SOUND_SECONDS:
                reason = self._look(scorer)
                self._found[scorer] = time.monotonic(), reason
            return reason

    def _look(self, scorer: Scorer) -> str:
        try:
            scorer.verify_golden()
        except (DetectorError, ImageError) as error:
            return "" if isinstance(error, ImageError) and error.kind == "too slow" else str(error)
        return ""


SOUNDNESS = Soundness()
