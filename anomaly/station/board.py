"""The newest result, for controllers that read the station's state: never one that is old, and none
while the judge stands still.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from anomaly.station.health import Health
from anomaly.station.judge import Judge
from anomaly.station.results import StationResult


@dataclass
class Board:
    """``of``: which results are shown, of images or of units. ``alarm``: what somebody has to see
    to; ``counts``: of results, by outcome. ``newest``: the newest result of this process, when it
    came (time.monotonic), and how many results there have been with it, of every process.
    """

    judge: Judge
    of: str
    alarm: Callable[[], str]
    counts: Callable[[], Mapping[str, int]]
    newest: tuple[StationResult | None, float, int]
    _wake: list[Callable[[], object]] = field(default_factory=list)

    def put(self, result: StationResult) -> None:
        """Shows a result, which is safe, if it is one of those. The judge's thread calls it."""
        if result.of != self.of:
            return
        self.newest = result, time.monotonic(), self.newest[2] + 1
        for wake in list(self._wake):
            wake()

    def now(self, expires: float) -> tuple[StationResult | None, int]:
        """Returns the newest result, None where it is older than ``expires`` seconds or the judge
        stands still; and how many there have been.
        """
        result, at, number = self.newest
        valid = time.monotonic() - at < expires and self.judge.works
        return (result if valid else None), number

    def waker(self) -> tuple[asyncio.Event, Callable[[], object]]:
        """Returns an event of the running loop that every new result sets, and what ends that."""
        loop, event = asyncio.get_running_loop(), asyncio.Event()

        def wake() -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(event.set)

        self._wake.append(wake)
        return event, lambda: self._wake.remove(wake)


class StateSink(Protocol):
    """What shows the board to controllers."""

    async def serve(self, board: Board, health: Health) -> None:
        """Serves until the station is closing; raises what is wrong."""


class Showing:
    """Runs a state sink in a thread, and again after growing pauses where it fails."""

    def __init__(self, sink: StateSink, board: Board, health: Health) -> None:
        self._sink, self._board, self._health = sink, board, health
        self._thread = threading.Thread(target=self._run, name=f"sink {health.name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def finish(self, seconds: float) -> None:
        self._health.closing.set()
        self._thread.join(seconds)

    def _run(self) -> None:
        while not self._health.closing.is_set():
            with self._health.attempt():
                asyncio.run(self._sink.serve(self._board, self._health))
