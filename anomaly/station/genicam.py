"""Frames of a GenICam camera (GigE, USB3 Vision) behind any GenTL producer, by harvesters.

Frames have numbers: those between two that came are lost, and each is recorded as not judged where
every frame is to be taken.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from anomaly.errors import AnomalyError, RuntimeMissing
from anomaly.station.backlog import Backlog
from anomaly.station.health import Health
from anomaly.station.settings import FrameTrigger, GenicamSource
from anomaly.station.triggers import Triggered
from anomaly.station.video import Frames

try:
    from genicam.gentl import TimeoutException
    from harvesters.core import Harvester
except ImportError as error:
    raise RuntimeMissing.extra("harvesters", "genicam", "GenICam cameras") from error

FETCH_SECONDS = 2.0
GONE_SECONDS = 10.0  # without a frame, of a camera that takes every one
MAX_LOST = 1000  # frames lost at once that have a row each; behind them the camera was away
GREY, COLOUR = ("Mono8",), {"RGB8": (3, 1), "BGR8": (3, -1), "RGBa8": (4, 1), "BGRa8": (4, -1)}
BAYER = {"BayerRG8": "BG", "BayerGB8": "GR", "BayerGR8": "GB", "BayerBG8": "RG"}  # OpenCV's names


def run_source(settings: GenicamSource, station_id: str, backlog: Backlog, health: Health) -> None:
    """Takes frames until the station is closing."""
    client = f"anomaly-{station_id}-trigger-{settings.name}"
    frames = Frames(settings.name, Triggered(settings.trigger, client, health), backlog)
    while not health.closing.is_set():
        with health.attempt(), acquiring(settings) as camera:
            health.ok()
            _fetch(settings, camera, frames, health)
        frames.miss()


@contextlib.contextmanager
def acquiring(settings: GenicamSource) -> Iterator[Any]:
    """Opens the camera and lets it run; AnomalyError where it is not there."""
    if not settings.producer.is_file():
        raise AnomalyError(f"{settings.producer}: no such file, a GenTL producer (.cti) expected")
    with Harvester() as harvester:
        harvester.add_file(str(settings.producer))
        harvester.update()
        ids = [info.id_ for info in harvester.device_info_list]
        if not ids or settings.device not in ("", *ids):
            found, wanted = ", ".join(ids) or "no camera", settings.device or "one"
            raise AnomalyError(f"{settings.producer}: {found} found, {wanted} expected")
        camera = harvester.create({"id_": settings.device} if settings.device else 0)
        try:
            for name, value in settings.features.items():
                getattr(camera.remote_device.node_map, name).value = value
            camera.start()
            yield camera
            camera.stop()
        finally:
            camera.destroy()


def _fetch(settings: GenicamSource, camera: Any, frames: Frames, health: Health) -> None:
    every = settings.trigger == FrameTrigger()
    before, silent = -1, 0.0
    while not health.closing.is_set():
        try:
            with camera.fetch(timeout=FETCH_SECONDS) as buffer:
                number = int(buffer.frame_id)
                pixels = pixels_of(buffer.payload.components[0])
        except TimeoutException as error:
            silent += FETCH_SECONDS
            frames.miss()
            if every and silent >= GONE_SECONDS:
                raise OSError(f"no frame in {silent:g} s") from error
            continue
        silent = 0.0
        if every and 0 <= before < number - 1:
            for lost in range(before + 1, min(number, before + 1 + MAX_LOST)):
                frames.lose(None, f"lost: frame {lost} did not arrive")
        before = number
        frames.take(pixels, None, waits=False)


def pixels_of(component: Any) -> npt.NDArray[np.uint8]:
    """Returns a frame as grey or RGB pixels; AnomalyError for a format that is not read."""
    kind, height, width = component.data_format, component.height, component.width
    data = np.asarray(component.data)
    if kind in GREY:
        return data.reshape(height, width).copy()
    if kind in COLOUR:
        channels, step = COLOUR[kind]
        return np.ascontiguousarray(data.reshape(height, width, channels)[..., :3][..., ::step])
    if kind in BAYER:
        import cv2

        code = getattr(cv2, f"COLOR_Bayer{BAYER[kind]}2RGB")
        return np.asarray(cv2.cvtColor(data.reshape(height, width), code))
    known = ", ".join([*GREY, *COLOUR, *BAYER])
    raise AnomalyError(
        f"pixel format {kind} found, one of {known} expected: set it (features.PixelFormat = ...)"
    )
