"""From the ledger to a message sink: every result, in order, at least once, in a thread of its own.

What a sink does not take is sent again after growing pauses, from the first result that it has not
confirmed; results behind it wait in the ledger, so that none is lost and none overtakes another. A
receiver drops what it has by the ``id`` of a result.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Protocol

from anomaly.station.health import Health
from anomaly.station.ledger import Ledger, LedgerReader
from anomaly.station.results import StationResult

TOGETHER = 100  # results that are sent before one is confirmed, at most
IDLE_SECONDS = 0.5


class MessageSink(Protocol):
    """What takes results, and raises an error where it cannot."""

    def open(self) -> int | None:
        """Connects; returns the number of the newest result that it holds, where it knows."""

    def send(self, results: Sequence[StationResult]) -> None:
        """Returns when it has all of them."""

    def idle(self) -> None:
        """Is called between results, twice a second."""

    def close(self) -> None:
        """Disconnects; may be called at any time, and again."""


class Delivery:
    """Delivers results of images or of units (``of``) to a sink until it is closed."""

    def __init__(self, sink: MessageSink, ledger: Ledger, health: Health, of: str) -> None:
        self._sink, self._ledger, self._health, self._of = sink, ledger, health, of
        self._thread = threading.Thread(target=self._run, name=f"sink {health.name}", daemon=True)
        self._finishing = False

    def start(self) -> None:
        self._thread.start()

    def finish(self, seconds: float) -> None:
        """Delivers what the ledger holds, for so many seconds at most, and ends."""
        self._finishing = True
        with self._ledger.changed:
            self._ledger.changed.notify_all()
        self._thread.join(seconds)
        self._health.closing.set()
        self._thread.join(seconds)

    def _run(self) -> None:
        reader, name = self._ledger.reader(), self._health.name
        while not self._health.closing.is_set() and not self._done():
            with self._health.attempt():
                try:
                    held = self._sink.open()
                    if held is not None:
                        self._ledger.delivered[name] = held
                    self._health.ok()
                    self._deliver(reader)
                finally:
                    self._sink.close()
        reader.close()

    def _done(self) -> bool:
        return self._finishing and not self._ledger.waiting(self._health.name)

    def _deliver(self, reader: LedgerReader) -> None:
        name, closing = self._health.name, self._health.closing
        while not closing.is_set():
            newest, before = self._ledger.last, self._ledger.delivered[name]
            results = reader.after(before, self._of, TOGETHER)
            if results:
                self._sink.send(results)
                self._health.ok()
            # a result can be read a moment before it counts as the newest one: never go back
            done = max([before, *(one.seq for one in results)])
            done = done if len(results) == TOGETHER else max(done, newest)
            self._ledger.delivered[name] = done
            if self._done():
                return
            with self._ledger.changed:
                if self._ledger.last == done:
                    self._ledger.changed.wait(IDLE_SECONDS)
            self._sink.idle()
