"""From a service to the review database: images that are flagged or for review, and a random audit
share, in a thread of its own.

A request only puts its finding into a bounded queue; where that is full the finding is dropped and
counted. Whatever is wrong with the database or the disk is said and tried again, and no request
waits for it or fails.
"""

from __future__ import annotations

import hashlib
import io
import queue
import random
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from anomaly.detector.card import Card
from anomaly.errors import AnomalyError
from anomaly.files.atomic import write_atomically
from anomaly.files.table import Row, utc_text
from anomaly.imaging.pillow import suffix_of
from anomaly.review.store import Store
from anomaly.review.stream import Sent, Stream
from anomaly.scorer import Result

ROOM, ROOM_BYTES = 1_000, 256 << 20  # findings that may wait, and the bytes of their images
FINDINGS_PER_TRANSACTION = 500  # findings that one transaction stores
RETRY_SECONDS = (1, 5, 25)
Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class SentFinding:
    """One image that is on its way to the database."""

    image: bytes | Pixels
    result: Result
    card: Card
    lot: float | None
    at: datetime


class Outbox:
    """Stores findings in the review database ``database`` and their images under ``folder``.

        outbox = Outbox("review.db", Path("findings"), audit_share=0.01)
        outbox.offer(data, scorer.score(data), scorer.card)  # returns at once, never raises
        outbox.close()                                       # stores what is waiting

    ``audit_share``: of all images, drawn at random; only they make recall measurable and may set a
    new threshold. ``say``: gets a line when something is wrong. ``every``: seconds between two
    transactions. ``create``: whether a database that is not there is made. Raises AnomalyError
    where it cannot be opened at the start.
    """

    def __init__(
        self,
        database: str,
        folder: Path,
        *,
        audit_share: float = 0.01,
        name: str = "service",
        say: Callable[[str], object] = print,
        every: float = 2.0,
        create: bool = True,
    ) -> None:
        # what is refused leaves no folder behind
        self._store, self._name = Store(database, create=create), name
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder.resolve()
        self.audit_share, self._say, self._every = audit_share, say, every
        self.dropped = self.stored = 0
        self._waiting: queue.Queue[SentFinding] = queue.Queue(ROOM)
        self._bytes, self._lock = 0, threading.Lock()
        self._passed: Counter[str] = Counter()  # by detector: judged, not stored, not yet told
        self._streams: dict[str, Stream] = {}  # by detector: where its last finding went
        self._random, self._closing = random.SystemRandom(), threading.Event()
        self._thread = threading.Thread(target=self._work, name="outbox", daemon=True)
        self._thread.start()

    def offer(self, image: bytes | Pixels, result: Result, card: Card) -> bool:
        """Takes a finding, if it is one to be stored and there is room; returns whether it was
        taken.
        """
        lot = self._random.random()
        drawn = lot < self.audit_share
        if result.status == "error" or not (result.is_anomaly or result.review or drawn):
            if result.status == "ok":
                with self._lock:
                    self._passed[card.digest] += 1
            return False
        # a view would hold the whole request
        kept = image if isinstance(image, bytes) else image.copy()
        finding = SentFinding(kept, result, card, lot if drawn else None, datetime.now(UTC))
        with self._lock:
            if self._waiting.full() or self._bytes + _size(image) > ROOM_BYTES:
                self.dropped += 1
                return False
            self._bytes += _size(image)
            self._waiting.put_nowait(finding)
        return True

    def close(self, seconds: float = 30.0) -> None:
        """Stores what is waiting, for so many seconds at the most."""
        self._closing.set()
        self._thread.join(seconds)
        self._store.close()

    def _work(self) -> None:
        while not (self._closing.is_set() and self._waiting.empty()):
            self._closing.wait(self._every)
            while found := self._take():
                self._deliver(found)
        self._tell_passed()

    def _tell_passed(self) -> None:
        """Counts the images that passed since the last finding of their detector; without one there
        is no run to count in.
        """
        for digest, stream in self._streams.items():
            if passed := self._passed.pop(digest, 0):
                try:
                    self._store.add_findings(stream, [], passed, by=self._name)
                except Exception as error:
                    self._say(f"{passed} images that passed are not counted: {error}")

    def _take(self) -> list[SentFinding]:
        found: list[SentFinding] = []
        with self._lock:
            while len(found) < FINDINGS_PER_TRANSACTION and not self._waiting.empty():
                found.append(self._waiting.get_nowait())
            self._bytes -= sum(_size(one.image) for one in found)
        return found

    def _deliver(self, found: Sequence[SentFinding]) -> None:
        """Stores findings, tries again where that fails, and gives them up at last."""
        for seconds in (*RETRY_SECONDS, None):
            try:
                self._store_all(found)
                self.stored += len(found)
                return
            except (AnomalyError, OSError) as error:
                self._say(f"{len(found)} findings are not stored yet: {error}")
            # a bug must not end the thread, or the queue would stay full for good
            except Exception as error:
                self._say(f"{len(found)} findings cannot be stored: {error!r}")
                break
            if seconds is None or self._closing.wait(seconds):
                break
        self.dropped += len(found)

    def _store_all(self, found: Sequence[SentFinding]) -> None:
        for digest in dict.fromkeys(one.card.digest for one in found):
            these = [one for one in found if one.card.digest == digest]
            for day in dict.fromkeys(f"{one.at:%Y-%m-%d}" for one in these):
                of_day = [one for one in these if f"{one.at:%Y-%m-%d}" == day]
                stream = Stream(
                    f"{self._name} {of_day[0].card.name} {day}", self._folder, of_day[0].card
                )
                sent = [Sent(self._row(one, day), one.lot) for one in of_day]
                passed = self._passed[digest]
                self._store.add_findings(stream, sent, passed, by=self._name)
                self._streams[digest] = stream
                with self._lock:
                    self._passed[digest] -= passed

    def _row(self, finding: SentFinding, day: str) -> Row:
        """Writes the image and returns its row of the score table."""
        data = finding.image if isinstance(finding.image, bytes) else _png(finding.image)
        digest, result, card = hashlib.sha256(data).hexdigest(), finding.result, finding.card
        path = Path(day) / (digest + suffix_of(data))
        (self._folder / day).mkdir(exist_ok=True)
        if not (self._folder / path).exists():
            write_atomically(self._folder / path, data)
        x, y, w, h = result.box or (None, None, None, None)
        calibration = card.calibration
        threshold = float(calibration.threshold) if calibration else None
        review = calibration.review if calibration else None
        return Row(
            str(path),
            digest,
            result.width,
            result.height,
            result.score,
            result.p_value,
            threshold,
            None if review is None else float(review.threshold),
            result.is_anomaly,
            result.result,
            x,
            y,
            w,
            h,
            result.area,
            result.defect_type,
            result.type_score,
            result.status,
            result.error,
            card.identity,
            utc_text(finding.at),
        )


def _size(image: bytes | Pixels) -> int:
    return len(image) if isinstance(image, bytes) else image.nbytes


def _png(pixels: Pixels) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    return file.getvalue()
