"""Images that were taken and wait for the judge."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt

from anomaly.errors import ImageError
from anomaly.station.results import StationResult

Pixels = npt.NDArray[np.uint8]
LINE_FACTOR = 10  # "stop the line": so many times the images that may wait before frames are lost


def nobody(result: StationResult) -> None:
    """Hears of a result and does nothing."""


@dataclass(frozen=True)
class Taken:
    """An image on its way to the judge: the bytes of a file, RGB pixels, or why there is none.

    ``origin``: what tells it from the source's other images, None where nothing does. ``file``:
    path, size, time and inode of an image file. ``again``: it may be one that was judged before,
    by its origin. ``frame``: it comes from a camera, which does not wait. ``done``: hears of the
    result once it is safe.
    """

    source: str
    path: str
    image: bytes | Pixels | ImageError
    origin: str | None = None
    serial: str | None = None
    at: datetime = datetime.min
    file: tuple[str, int, int, int] | None = None
    again: bool = True
    frame: bool = False
    done: Callable[[StationResult], object] = nobody


class Backlog:
    """Holds images in the order in which they were taken. Threads share it.

    At most ``most`` wait: files and messages wait where they are, and of camera frames the oldest
    is lost. With ``stop_line`` the alarm is on instead, and frames are lost only where ten times as
    many wait. A lost frame keeps its place and is not judged.
    """

    def __init__(self, most: int, stop_line: bool) -> None:
        self._most, self._frames = most, most * (LINE_FACTOR if stop_line else 1)
        self._waiting: deque[Taken] = deque()
        self._changed = threading.Condition()
        self._images = 0  # of those that wait: not lost
        self.closed = False

    @property
    def waiting(self) -> int:
        return self._images

    @property
    def behind(self) -> bool:
        """Whether as many wait as may."""
        return self._images >= self._most

    def put(self, taken: Taken, seconds: float | None = None) -> bool:
        """Takes an image; one that is no camera's frame waits for room, for ``seconds`` at most.
        Returns whether it was taken.
        """
        taken = taken if taken.at != datetime.min else replace(taken, at=datetime.now(UTC))
        until = None if seconds is None else time.monotonic() + seconds
        with self._changed:
            while not taken.frame and self._images >= self._most and not self.closed:
                left = None if until is None else until - time.monotonic()
                if left is not None and left <= 0:
                    return False
                self._changed.wait(left)
            if self.closed:
                return False
            if taken.frame and self._images >= self._frames:
                self._lose_oldest()
            self._waiting.append(taken)
            self._images += 1
            self._changed.notify_all()
        return True

    def _lose_oldest(self) -> None:
        for place, one in enumerate(self._waiting):
            if one.frame and not isinstance(one.image, ImageError):
                why = "lost: images come faster than they are judged"
                self._waiting[place] = replace(one, image=ImageError("lost", why))
                self._images -= 1
                return

    def take(self, seconds: float) -> Taken | None:
        """Returns the image that was taken first, None where none comes in so many seconds."""
        with self._changed:
            if not self._waiting:
                self._changed.wait(seconds)
            if not self._waiting:
                return None
            taken = self._waiting.popleft()
            if not (isinstance(taken.image, ImageError) and taken.image.kind == "lost"):
                self._images -= 1
            self._changed.notify_all()
            return taken

    def close(self) -> None:
        """Takes nothing more; what waits can still be taken."""
        with self._changed:
            self.closed = True
            self._changed.notify_all()

    def wait_empty(self, seconds: float) -> None:
        """Waits until the judge has taken all of it."""
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting, seconds)
