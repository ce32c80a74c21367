"""Pictures of results, drawn beside the judging: copies of camera frames that are kept, and for the
page thumbnails and heatmaps.

The page's pictures are left out where the next result is there already. Copies never are: where
they take longer than the judging, the judging waits.
"""

from __future__ import annotations

import io
import queue
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from anomaly.files.atomic import write_atomically
from anomaly.files.progress import duration
from anomaly.imaging.decode import Decoded
from anomaly.imaging.find import mark_ours
from anomaly.imaging.overlay import overlay, shrink
from anomaly.scorer import Scorer
from anomaly.scoring.pictures import colour_anchors
from anomaly.station.health import line_of
from anomaly.station.judge import Judged
from anomaly.station.ledger import SHOWN_RESULTS

THUMBNAIL_SIDE, HEATMAP_SIDE = 160, 1024  # pixels
ROOM = 8  # results whose pixels are held


class PictureThread:
    """Draws pictures into the state folder ``state`` until it is closed. ``kept``: the number of
    the newest result whose copy is on the disk, if it was to be kept.
    """

    def __init__(
        self, state: Path, scorer: Scorer, last: int, say: Callable[[str], object]
    ) -> None:
        self._state, self._images, self._say = state, state / "images", say
        self._scorer = scorer
        self._waiting: queue.Queue[Judged | None] = queue.Queue(ROOM)
        self.kept, self._changed = last, threading.Condition()
        (state / "live").mkdir(parents=True, exist_ok=True)
        mark_ours(state)  # no search takes what is kept for images of a set
        self._drawn = sorted(int(path.stem) for path in (state / "live").glob("?????????.jpg"))
        self._thread = threading.Thread(target=self._run, name="pictures", daemon=True)
        self._thread.start()

    def put(self, judged: Judged) -> None:
        """Takes a result; waits where eight are there."""
        self._waiting.put(judged)

    def close(self, seconds: float = 10.0) -> None:
        """Draws what is there, and ends."""
        self._waiting.put(None)
        self._thread.join(seconds)

    def wait_for(self, seq: int, seconds: float = 30.0) -> None:
        """Waits until the copy of a result is on the disk, if it is to be."""
        with self._changed:
            if not self._changed.wait_for(lambda: self.kept >= seq, seconds):
                raise OSError(f"the image of result {seq} is not written after {duration(seconds)}")

    def _run(self) -> None:
        while (judged := self._waiting.get()) is not None:
            try:
                self._keep(judged)
                if judged.decoded is not None and self._waiting.empty():
                    self._draw(judged, judged.decoded)
            except Exception as error:  # the judge must not wait for a thread that has ended
                self._say(f"pictures of {judged.result.path}: not written ({line_of(error)})")

    def _keep(self, judged: Judged) -> None:
        try:
            if judged.result.image is not None and isinstance(judged.taken.image, np.ndarray):
                place = self._images / judged.result.image
                place.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(place, encoded(judged.taken.image, "PNG", compress_level=1))
        finally:
            with self._changed:
                self.kept = judged.result.seq
                self._changed.notify_all()

    def _draw(self, judged: Judged, decoded: Decoded) -> None:
        seq, folder = judged.result.seq, self._state / "live"
        small = shrink(decoded.pixels, HEATMAP_SIDE)
        if judged.found.heatmap is not None:
            laid = overlay(small, judged.found.heatmap, *colour_anchors(self._scorer, judged.found))
            (folder / f"{seq:09}-heatmap.jpg").write_bytes(encoded(laid, "JPEG"))
        # the thumbnail last: where it is there, so is the other
        (folder / f"{seq:09}.jpg").write_bytes(encoded(shrink(small, THUMBNAIL_SIDE), "JPEG"))
        self._drawn.append(seq)
        while len(self._drawn) > SHOWN_RESULTS:
            old = self._drawn.pop(0)
            for name in (f"{old:09}.jpg", f"{old:09}-heatmap.jpg"):
                (folder / name).unlink(missing_ok=True)


def encoded(
    pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], kind: str, **how: int
) -> bytes:
    """Returns RGB or grey pixels as the bytes of an image file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **how)
    return file.getvalue()
