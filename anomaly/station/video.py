"""Frames of a video file, a camera or a stream (RTSP), by OpenCV.

A file waits for the judge, and resumes after its last frame that has a result. A camera
does not wait: it is read all the time, and frames that its trigger does not take are passed over.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from anomaly.errors import AnomalyError, ImageError, RuntimeMissing
from anomaly.station.backlog import Backlog, Taken
from anomaly.station.health import Health
from anomaly.station.ledger import LedgerReader
from anomaly.station.reading import is_path
from anomaly.station.settings import VideoSource
from anomaly.station.triggers import Triggered

try:
    import cv2
except ImportError as error:
    raise RuntimeMissing.extra("opencv-python-headless", "camera", "video and cameras") from error

STREAM_MILLISECONDS = 5000  # until a stream that says nothing counts as gone


class Frames:
    """Puts the frames of one camera that its trigger takes into the backlog. ``missing``: why there
    was no frame for a part.
    """

    def __init__(self, name: str, trigger: Triggered, backlog: Backlog) -> None:
        self._name, self._trigger, self._backlog = name, trigger, backlog
        self._number = 0

    def take(self, pixels: npt.NDArray[np.uint8], origin: str | None, waits: bool) -> None:
        """Takes a frame of RGB or grey pixels, if its trigger does. ``waits``: it may wait for the
        judge.
        """
        self._number += 1
        serials = self._trigger.takes(pixels)
        for serial in serials[:1]:
            self._put(pixels, origin, serial, waits)
        for serial in serials[1:]:
            self.lose(serial, "lost: triggers came faster than frames")
        self.miss()

    def miss(self) -> None:
        """Records the parts whose trigger came, but no frame."""
        for serial in self._trigger.missed():
            self.lose(serial, "lost: no frame came after the trigger")

    def lose(self, serial: str | None, why: str) -> None:
        """Records a part or frame that there is no image of."""
        self._put(ImageError("lost", why), None, serial, False)

    def _put(self, image: Any, origin: str | None, serial: str | None, waits: bool) -> None:
        now = datetime.now(UTC)
        path = f"{self._name}/{now:%Y%m%dT%H%M%S}.{now.microsecond // 1000:03}-{self._number}.png"
        self._backlog.put(Taken(self._name, path, image, origin, serial, now, frame=not waits))


def run_source(
    settings: VideoSource, station_id: str, backlog: Backlog, health: Health, ledger: LedgerReader
) -> None:
    """Takes frames until the station is closing."""
    address = settings.address
    file = Path(address) if is_path(address) else None
    client = f"anomaly-{station_id}-trigger-{settings.name}"
    frames = Frames(settings.name, Triggered(settings.trigger, client, health), backlog)
    while not health.closing.is_set():
        with health.attempt():
            if file is None:
                _camera(address, frames, health)
            else:
                _file(file, frames, health, ledger.place(settings.name))
                return
        frames.miss()


def opened(address: str) -> Any:
    """Returns OpenCV's capture of a file, a stream or a camera; AnomalyError without one."""
    if address.isdecimal():
        capture = cv2.VideoCapture(int(address))
    else:
        timeouts = (cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, cv2.CAP_PROP_READ_TIMEOUT_MSEC)
        given = [value for one in timeouts for value in (one, STREAM_MILLISECONDS)]
        with _quiet():
            capture = cv2.VideoCapture(address, cv2.CAP_FFMPEG, given)
    if not capture.isOpened():
        capture.release()
        raise AnomalyError(f"{without_secret(address)}: cannot be opened as a video or camera")
    return capture


def without_secret(address: str) -> str:
    """Returns an address without a user's name and password."""
    kind, mark, rest = address.partition("://")
    return f"{kind}://{rest.rpartition('@')[2]}" if mark else address


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """OpenCV's own lines on standard error say nothing that is not said by us."""
    before = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        cv2.utils.logging.setLogLevel(before)


def _camera(address: str, frames: Frames, health: Health) -> None:
    capture = opened(address)
    try:
        while not health.closing.is_set():
            there, pixels = capture.read()
            if not there:
                raise OSError(f"{without_secret(address)}: no frames come any more")
            health.ok()
            frames.take(_rgb(pixels), None, waits=False)
    finally:
        capture.release()


def _file(file: Path, frames: Frames, health: Health, place: str | None) -> None:
    state = os.stat(file)
    mark = f"{state.st_size}-{state.st_mtime_ns}:"  # another file is begun from its start
    done = int(place.removeprefix(mark)) if place and place.startswith(mark) else -1
    capture = opened(str(file))
    health.ok()
    number = -1
    try:
        while not health.closing.is_set() and capture.grab():
            number += 1
            if number > done:
                there, pixels = capture.retrieve()
                if there:
                    frames.take(_rgb(pixels), f"{mark}{number}", waits=True)
                else:
                    frames.lose(None, f"frame {number} of {file} cannot be decoded")
    finally:
        capture.release()
    if not health.closing.is_set():
        health.said = f"{file}: all {number + 1:,} frames were read"
        health.say(f"source {health.name}: {health.said}")


def _rgb(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    return np.ascontiguousarray(pixels[..., ::-1]) if pixels.ndim == 3 else pixels
