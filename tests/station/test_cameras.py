"""Frames of a video file, of an RTSP stream and of a GenICam camera, by the real libraries."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import genicam as genicam_package
import numpy as np
import pytest

from anomaly.errors import AnomalyError, ImageError
from anomaly.station import genicam, video
from anomaly.station.backlog import Backlog, Taken
from anomaly.station.health import Health
from anomaly.station.ledger import Ledger, Noted
from anomaly.station.settings import (
    ChangeTrigger,
    FrameTrigger,
    GenicamSource,
    KeyboardTrigger,
    TimeTrigger,
    VideoSource,
)
from anomaly.station.triggers import Triggered
from tests.support.review_server import free_port
from tests.support.stations import SECONDS, answers, example, wait_until

PRODUCER = Path(genicam_package.__file__).parent / "viky.cti"  # simulates cameras


def health() -> Health:
    return Health("camera", "video", "source", print)


@contextmanager
def running(run: Callable[..., None], *given: Any) -> Iterator[Health]:
    """Runs a source in a thread; its Health is the last of what it is given but the ledger."""
    of = next(one for one in given if isinstance(one, Health))
    thread = threading.Thread(target=run, args=given)
    thread.start()
    try:
        yield of
    finally:
        of.closing.set()
        next(one for one in given if isinstance(one, Backlog)).close()
        thread.join(SECONDS)
        assert not thread.is_alive()


def taken(backlog: Backlog, number: int) -> list[Taken]:
    """Takes so many images, as the judge does."""
    return [wait_until(lambda: backlog.take(0.1), "an image") for _ in range(number)]


def frame(number: int) -> np.ndarray:
    """Returns a frame whose grey level tells its number."""
    return np.full((48, 64, 3), (10 * number, 10 * number, 0), np.uint8)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Returns a video of 20 frames that are told apart by their colour."""
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    for number in range(20):
        writer.write(np.ascontiguousarray(frame(number)[..., ::-1]))
    writer.release()
    return path


def test_every_nth_frame_of_a_file_is_taken_once_over_restarts(clip: Path, tmp_path: Path) -> None:
    ledger, backlog = Ledger(tmp_path, []), Backlog(50, False)
    settings = VideoSource("camera", str(clip), FrameTrigger(3))
    with running(video.run_source, settings, "id", backlog, health(), ledger.reader()) as of:
        found = taken(backlog, 7)
        wait_until(lambda: of.said, "the end of the file")
    assert "all 20 frames were read" in of.said
    for number, one in zip(range(0, 20, 3), found, strict=True):
        assert isinstance(one.image, np.ndarray)
        # red is red: not OpenCV's order of channels
        assert np.abs(one.image.astype(int) - frame(number)).mean() < 12
    # a station that was stopped behind the third of them goes on with the next
    ledger.add([example(1)], Noted("camera", found[2].origin))
    again = Backlog(50, False)
    with running(video.run_source, settings, "id", again, health(), ledger.reader()):
        first = taken(again, 1)[0]
    assert first.origin == f"{str(found[2].origin).partition(':')[0]}:7"


def test_a_camera_that_is_not_there_is_tried_again(tmp_path: Path) -> None:
    with pytest.raises(AnomalyError, match=r"^rtsp://127\.0\.0\.1:9/cam: cannot be opened"):
        video.opened("rtsp://user:secret@127.0.0.1:9/cam")
    ledger, backlog = Ledger(tmp_path, []), Backlog(5, False)
    settings = VideoSource("camera", "rtsp://user:secret@127.0.0.1:9/cam")
    with running(video.run_source, settings, "id", backlog, health(), ledger.reader()) as of:
        wait_until(lambda: of.pause >= 1.0, "a second attempt")
    assert of.state == "gone"
    assert "secret" not in of.said


@contextmanager
def streaming(port: int) -> Iterator[str]:
    """Yields the address of an RTSP stream of ten frames a second, by Debian's RTSP server and
    ffmpeg.
    """
    source = free_port()
    server = subprocess.Popen(
        ["rtsp-server-perl", "-c", str(port), "-s", str(source),
         "--client_listen_address", "127.0.0.1", "--source_listen_address", "127.0.0.1"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    sender = [
        *"ffmpeg -nostdin -loglevel quiet -re -f lavfi -i testsrc=size=64x48:rate=10".split(),
        *"-c:v mpeg4 -g 5 -rtsp_transport udp -f rtsp".split(), f"rtsp://127.0.0.1:{source}/cam",
    ]  # fmt: skip
    processes = [server]
    try:
        wait_until(lambda: answers(source) and answers(port), "the RTSP server listens")
        processes.append(subprocess.Popen(sender))
        yield f"rtsp://127.0.0.1:{port}/cam"
    finally:
        for process in processes:
            process.kill()
            process.wait()


@pytest.mark.skipif(
    not (shutil.which("rtsp-server-perl") and shutil.which("ffmpeg")),
    reason="rtsp-server-perl and ffmpeg are not installed",
)
def test_a_stream_is_taken_and_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Debian's server knows UDP only; OpenCV's own choice is TCP
    monkeypatch.setitem(os.environ, "OPENCV_FFMPEG_CAPTURE_OPTIONS", "rtsp_transport;udp")
    port, backlog = free_port(), Backlog(3, False)
    settings = VideoSource("camera", f"rtsp://127.0.0.1:{port}/cam", FrameTrigger(2))
    of, ledger = health(), Ledger(tmp_path, [])
    with running(video.run_source, settings, "id", backlog, of, ledger.reader()):
        with streaming(port):
            found = taken(backlog, 5)
            assert all(isinstance(one.image, np.ndarray | ImageError) for one in found)
            assert all(one.frame for one in found)
        wait_until(lambda: of.state == "gone", "the stream is gone")
        while backlog.take(0.0):
            pass
        with streaming(port):
            assert taken(backlog, 1)
        assert "source camera: back" in capsys.readouterr().out


def test_frames_of_a_genicam_camera_are_taken_with_its_features(tmp_path: Path) -> None:
    settings = GenicamSource(
        "camera", PRODUCER, "VikyTL_DEV_green", {"PixelFormat": "RGBa8"}, TimeTrigger(0.2)
    )
    backlog = Backlog(50, False)
    with running(genicam.run_source, settings, "id", backlog, health()) as of:
        found = taken(backlog, 4)
    assert of.state == "ok"
    shapes = {one.image.shape for one in found if isinstance(one.image, np.ndarray)}
    assert shapes == {(400, 400, 3)}
    assert all(later.at > one.at for one, later in pairwise(found))


def test_a_genicam_camera_that_is_not_there_is_said() -> None:
    with pytest.raises(AnomalyError, match=r"no such file, a GenTL producer \(.cti\) expected"):
        genicam.acquiring(GenicamSource("camera", Path("none.cti"))).__enter__()
    with pytest.raises(AnomalyError, match=r"VikyTL_DEV_red.* found, other expected"):
        genicam.acquiring(GenicamSource("camera", PRODUCER, "other")).__enter__()


class Component:
    """A frame as a producer hands it over."""

    def __init__(self, kind: str, data: np.ndarray) -> None:
        self.data_format, self.data = kind, data.ravel()
        self.height, self.width = data.shape[:2]


def test_pixel_formats_become_grey_or_rgb() -> None:
    colour = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    alpha = np.concatenate([colour, np.full((2, 4, 1), 255, np.uint8)], axis=2)
    assert np.array_equal(genicam.pixels_of(Component("Mono8", colour[..., 0])), colour[..., 0])
    assert np.array_equal(genicam.pixels_of(Component("RGB8", colour)), colour)
    assert np.array_equal(genicam.pixels_of(Component("BGR8", colour[..., ::-1])), colour)
    assert np.array_equal(genicam.pixels_of(Component("RGBa8", alpha)), colour)
    raw = np.zeros((8, 8), np.uint8)
    raw[::2, ::2] = 200  # the red pixels of BayerRG
    red = genicam.pixels_of(Component("BayerRG8", raw))
    assert (red.reshape(-1, 3).mean(0) > 50).tolist() == [True, False, False]
    with pytest.raises(AnomalyError, match="Mono10p found, one of Mono8, RGB8"):
        genicam.pixels_of(Component("Mono10p", raw))


# ---- which frames are taken ----------------------------------------------------------------------
def test_a_frame_is_taken_when_it_changes() -> None:
    trigger = Triggered(ChangeTrigger(4.0), "id", health())
    levels = (100, 101, 103, 120, 119, 100)
    frames = [np.full((480, 640, 3), level, np.uint8) for level in levels]
    assert [trigger.takes(one) for one in frames] == [[None], [], [], [None], [], [None]]


def test_a_trigger_takes_the_next_frame_and_one_without_a_frame_is_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.stdin", iter(()))
    trigger, backlog = Triggered(KeyboardTrigger(), "id", health()), Backlog(50, False)
    frames = video.Frames("camera", trigger, backlog)
    frames.take(frame(0), None, waits=False)
    trigger.fire("A1")
    frames.take(frame(1), None, waits=False)
    frames.take(frame(2), None, waits=False)
    trigger.fire("A2")
    trigger.fire("A3")
    frames.take(frame(3), None, waits=False)
    trigger.fire("A4")
    monkeypatch.setattr("anomaly.station.triggers.FRAME_SECONDS", 0.0)
    frames.miss()
    found = [backlog.take(0) for _ in range(4)]
    assert [(one.serial, isinstance(one.image, ImageError)) for one in found if one] == [
        ("A1", False), ("A2", False), ("A3", True), ("A4", True),
    ]  # fmt: skip
    assert backlog.take(0) is None
