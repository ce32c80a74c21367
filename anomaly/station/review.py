"""The sink of a review database: findings with their images, and a random audit sample.

Results of images only, each once: the run notes the number of the newest result that it holds, in
the same transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path

from anomaly.detector.card import Card
from anomaly.errors import RuntimeMissing
from anomaly.station.results import NOT_FLAGGED, StationResult
from anomaly.station.settings import ReviewSink

try:
    from anomaly.review.store import Store
    from anomaly.review.stream import Sent, Stream
except ImportError as error:
    raise RuntimeMissing.extra("SQLAlchemy", "review", "a sink of kind review") from error


class Review:
    """Findings in ``settings.database``, whose images lie below ``images``.

    ``station``: its name, and the id of its ledger, which numbers results; ``wait_for``: waits
    until the image of a result is on the disk.
    """

    def __init__(
        self,
        settings: ReviewSink,
        images: Path,
        card: Card,
        station: tuple[str, str],
        wait_for: Callable[[int], object],
        say: Callable[[str], object],
    ) -> None:
        self._settings, self._images, self._card = settings, images, card
        self._name, self._sender = station[0], f"station {station[1]}"
        self._wait_for, self._say = wait_for, say
        self._store: Store | None = None

    def open(self) -> int | None:
        self._store = Store(self._settings.database, create=self._settings.create)
        return self._store.newest_sent(self._sender)

    def send(self, results: Sequence[StationResult]) -> None:
        assert self._store is not None
        for (day, detector), some in groupby(
            results, lambda result: (result.judged_at[:10], result.detector)
        ):
            of_day = list(some)
            if detector != self._card.identity:
                self._say(
                    f"review: {len(of_day):,} results of {detector} are left out: that detector "
                    "is not here any more"
                )
                continue
            self._wait_for(of_day[-1].seq)
            name = f"{self._name} {self._card.name} {day}"
            folder = self._images.resolve()
            stream = Stream(name, folder, self._card, self._sender, of_day[-1].seq)
            stored = [one for one in of_day if one.outcome != NOT_FLAGGED or one.lot is not None]
            sent = [self._sent(one) for one in stored]
            passed = len(of_day) - len(stored)
            self._store.add_findings(stream, sent, passed, by=self._name)

    def _sent(self, result: StationResult) -> Sent:
        by_unit = self._card.training.by_unit is not None
        row = result.row(result.image or result.path)
        return Sent(row, result.lot, result.serial if by_unit else None)

    def idle(self) -> None: ...

    def close(self) -> None:
        if self._store is not None:
            self._store.close()
            self._store = None
