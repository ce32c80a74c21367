"""The pictures of a finding: the file's own pixels at full resolution, and what the model made of
them.

A browser names a finding and a kind of picture, never a path; the store reads the file, only inside
the folders of its run, and says whether it still is the one that was scored. Every file is decoded
here before a browser gets it: what cannot be read becomes a message in its pane, and a picture that
would exhaust the browser is never sent.
"""

from __future__ import annotations

import hashlib
import io
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from anomaly.errors import ImageError
from anomaly.imaging.colours import difference, heatmap_colours
from anomaly.imaging.decode import Decoded, DecodeRule, decode
from anomaly.review import Run, Store
from anomaly.scorer import Result, Scorer
from dashboard.access import AccessError
from dashboard.detectors import DetectorFiles

KINDS = ("original", "good", "expected", "difference", "heatmap", "thumb", "large")
# by every browser, with their colours as they are
READABLE = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp"}
PLAIN_MODES = ("1", "L", "P", "RGB", "RGBA", "LA")
CACHE_BYTES = 64 << 20
MAX_CANVAS_SIDE_PIXELS = 16_384  # of a picture that browsers put on a canvas
THUMB_SIDE = 192
LARGE_SIDE = 640  # of size L in the queue, at which verdicts on many images count


@dataclass(frozen=True)
class Picture:
    """What is sent: ``data`` of the type ``media``.

    ``state`` of the file: ``same`` as when it was scored, ``changed`` or ``unverified``.
    ``digest``: SHA-256 of the file's bytes, with what may be judged by: original and large.
    ``name``: of the image, where it is another one than the finding's.
    """

    data: bytes
    media: str
    state: str = "same"
    digest: str = ""
    name: str = ""

    @property
    def size(self) -> int:
        return len(self.data)


@dataclass(frozen=True)
class Pair:
    """The picture that the model expected, and how far the real one is from it."""

    expected: Picture
    difference: Picture

    @property
    def size(self) -> int:
        return self.expected.size + self.difference.size


class Sized(Protocol):
    @property
    def size(self) -> int: ...


Made = TypeVar("Made", bound=Sized)


class Cache:
    """Pictures by key, the longest unused dropped first; the same one is not made twice at the same
    time.
    """

    def __init__(self, max_bytes: int = CACHE_BYTES) -> None:
        self._max = max_bytes
        # each of the type that its key stands for
        self._held: OrderedDict[object, Any] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()
        self._making: dict[object, threading.Lock] = {}

    def get(self, key: object, make: Callable[[], Made]) -> Made:
        with self._lock:
            if key in self._held:
                self._held.move_to_end(key)
                kept: Made = self._held[key]
                return kept
            making = self._making.setdefault(key, threading.Lock())
        with making:
            with self._lock:
                if key in self._held:
                    kept = self._held[key]
                    return kept
            try:
                picture = make()
                self._keep(key, picture)
            finally:
                with self._lock:
                    self._making.pop(key, None)
        return picture

    def _keep(self, key: object, picture: Sized) -> None:
        with self._lock:
            self._held[key] = picture
            self._bytes += picture.size
            while self._bytes > self._max and len(self._held) > 1:
                self._bytes -= self._held.popitem(last=False)[1].size


class Pictures:
    """Makes and keeps the pictures of findings; threads may share it."""

    def __init__(self, store: Store, detectors: DetectorFiles) -> None:
        self._store = store
        self._detectors = detectors
        self._cache = Cache()

    def picture(self, finding_id: int, kind: str) -> Picture:
        """Returns one picture of a finding; an AnomalyError says in one line why there is none."""
        data, state, page = self._read(finding_id)
        if kind == "original":
            return replace(original(data, state, page), digest=hashlib.sha256(data).hexdigest())
        digest = hashlib.sha256(data).digest(), page
        if kind == "thumb":
            return self._cache.get((digest, kind), lambda: thumbnail(data, page))
        if kind == "large":
            made = self._cache.get((digest, kind), lambda: thumbnail(data, page, LARGE_SIDE))
            return replace(made, state=state, digest=hashlib.sha256(data).hexdigest())
        if state == "changed":
            raise ImageError("changed", "the file has changed since it was scored: score it again")
        run = self._store.run(self._store.finding(finding_id).run)
        if kind == "heatmap":
            key = digest, run.detector, kind
            return self._cache.get(key, lambda: self._heat(run, data, page))
        if kind == "good":
            name = PurePath(self._store.finding(finding_id).path).name
            key = digest, run.detector, kind
            return self._cache.get(key, lambda: self._good(run, data, page, name))
        # one run of the model gives the expected picture and the difference
        pair = self._cache.get((digest, run.detector, "pair"), lambda: self._pair(run, data, page))
        return pair.expected if kind == "expected" else pair.difference

    def _read(self, finding_id: int) -> tuple[bytes, str, int | None]:
        file = self._store.image(finding_id)
        if file.state == "forbidden":
            raise AccessError(403, file.message)
        if file.data is None:
            raise ImageError("moved" if file.state == "missing" else file.state, file.message)
        return file.data, file.state, file.page

    def _heat(self, run: Run, data: bytes, page: int | None) -> Picture:
        scorer = self._detectors.scorer(run)
        return heatmap_picture(scorer, scorer.judge(scorer.decode(data, page)))

    def _good(self, run: Run, data: bytes, page: int | None, name: str) -> Picture:
        good = self._detectors.good_images(run)
        small = decode(data, DecodeRule(reduced=True), reduce_to=LARGE_SIDE, page=page)
        at = good.nearest(small.pixels, besides=name)
        return Picture(good.data[at], "image/jpeg", name=good.names[at])

    def _pair(self, run: Run, data: bytes, page: int | None) -> Pair:
        scorer = self._detectors.scorer(run)
        decoded = scorer.decode(data, page)
        expected = scorer.explain(decoded)
        if expected is None:
            raise ImageError(
                "not available",
                "not available for this detector: no explain.onnx beside it, which anomaly train "
                "--no-expected-picture leaves out",
            )
        return Pair(png(expected), png(difference(decoded.pixels, expected)))


def original(data: bytes, state: str, page: int | None = None) -> Picture:
    """Returns the file as it is where every browser shows it rightly, else its pixels (or its
    page's) as PNG, without loss.
    """
    decoded = decode(data, page=page)
    if max(decoded.width, decoded.height) > MAX_CANVAS_SIDE_PIXELS:
        raise ImageError(
            "too large",
            f"{decoded.width} x {decoded.height} pixels: no browser shows more than "
            f"{MAX_CANVAS_SIDE_PIXELS} a side",
        )
    if page is None and is_readable(decoded):
        return Picture(data, READABLE[decoded.format], state)
    return Picture(png(decoded.pixels).data, "image/png", state)


def is_readable(decoded: Decoded) -> bool:
    """Whether browsers show the file's own bytes with the pixels that the model got."""
    return decoded.format in READABLE and decoded.bits == 8 and decoded.mode in PLAIN_MODES


def heatmap_picture(scorer: Scorer, result: Result) -> Picture:
    """Returns the overlay of a result's heatmap, PNG with transparency, anchored by the detector's
    own threshold.
    """
    anchors = scorer.card.heatmap_anchors
    if anchors is None:
        raise ImageError(
            "not available",
            "not available: this detector ranks only, so no colour means a threshold",
        )
    if result.heatmap is None:
        raise ImageError(result.kind or "error", result.error or "this image could not be judged")
    return png(heatmap_colours(result.heatmap, *anchors))


def thumbnail(data: bytes, page: int | None = None, side: int = THUMB_SIDE) -> Picture:
    """Returns a small JPEG of at most ``side`` pixels a side for lists."""
    small = Image.fromarray(
        decode(data, DecodeRule(reduced=True), reduce_to=side, page=page).pixels
    )
    small.thumbnail((side, side), Image.Resampling.BILINEAR)
    file = io.BytesIO()
    small.save(file, "JPEG", quality=88)
    return Picture(file.getvalue(), "image/jpeg")


def png(pixels: npt.NDArray[np.uint8]) -> Picture:
    """Returns pixels (h, w), (h, w, 3) or (h, w, 4) as PNG; packed lightly, since it is looked at
    within the second.
    """
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    return Picture(file.getvalue(), "image/png")
