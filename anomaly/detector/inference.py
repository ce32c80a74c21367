"""One inference: its time is bounded, what fails is an ImageError, outputs have the right shape."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from anomaly.detector.session import import_runtime
from anomaly.errors import ImageError
from anomaly.imaging.pillow import Pixels

if TYPE_CHECKING:
    from anomaly.detector.slow_images import SlowImages


# of a heatmap or reconstruction: those of a detector have a million at the most
MAX_OUTPUT_CELLS = 1 << 25


def check_shape(name: str, output: npt.NDArray[Any], images: int, dimensions: int) -> None:
    """Raises ImageError unless an output has as many rows as images went in: what a graph declares
    need not be true.
    """
    right = output.ndim == dimensions and len(output) == images and output.size > 0
    channels = output.shape[3:] in ((), (3,))
    if not right or not channels or math.prod(output.shape[1:3]) > MAX_OUTPUT_CELLS:
        raise ImageError(
            "runtime",
            f"output {name!r} of shape {output.shape} found for {images} "
            f"image{'' if images == 1 else 's'}: the detector is damaged; run anomaly verify, or "
            "copy it again",
        )


def run_session(
    session: Any, outputs: list[str], images: Pixels, deadlines: Deadlines | None = None
) -> list[npt.NDArray[Any]]:
    found: list[npt.NDArray[Any]]
    if deadlines is None:
        with _errors_of_the_runtime(math.inf):
            found = session.run(outputs, {"images": images})
        return found
    options = import_runtime().RunOptions()
    with _errors_of_the_runtime(deadlines.seconds), deadlines.ending(options):
        found = session.run(outputs, {"images": images}, options)
    return found


def run_watched(
    session: Any, outputs: list[str], images: Pixels, slow: SlowImages, seconds: float
) -> list[npt.NDArray[Any]]:
    options = import_runtime().RunOptions()
    with _errors_of_the_runtime(seconds), slow.watched(options, seconds):
        found: list[npt.NDArray[Any]] = session.run(outputs, {"images": images}, options)
    return found


@contextlib.contextmanager
def _errors_of_the_runtime(seconds: float) -> Iterator[None]:
    """Turns what ONNX Runtime raises into an ImageError; ``seconds``: after which an inference was
    to be ended.
    """
    try:
        yield
    except Exception as error:  # ONNX Runtime's own exceptions have no common public base
        if "terminate flag" in str(error):
            raise ImageError(
                "too slow",
                f"not judged within {seconds:g} s: a smaller image, or more seconds, expected",
            ) from error
        raise ImageError(
            "runtime", f"ONNX Runtime failed on this image: {str(error).splitlines()[0][:300]}"
        ) from error


class Deadlines:
    """Ends inferences that take longer than ``seconds``, in one thread for all of them: a timer for
    each would be a thread for each. The thread ends when nothing ran for a while.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._changed = threading.Condition()
        self._running: dict[int, tuple[float, Any]] = {}
        self._looks = False

    @contextlib.contextmanager
    def ending(self, options: Any) -> Iterator[None]:
        """Ends what runs in the block with these options of ONNX Runtime, when its time is over."""
        with self._changed:
            self._running[id(options)] = (time.monotonic() + self.seconds, options)
            if not self._looks:
                self._looks = True
                threading.Thread(target=self._look, name="deadlines", daemon=True).start()
        try:
            yield
        finally:
            with self._changed:
                del self._running[id(options)]

    def _look(self) -> None:
        with self._changed:
            while self._running:
                # later ones are over later: what comes meanwhile can wait until it looks again
                now = time.monotonic()
                for at, options in self._running.values():
                    if at <= now:
                        options.terminate = True
                later = [at for at, _ in self._running.values() if at > now]
                self._changed.wait(min(later, default=now + self.seconds) - now)
            self._looks = False
