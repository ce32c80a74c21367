"""The judge: an image that waits -> a result that is safe in the ledger; then sinks hear of it.

One thread, so that results have one order. It ticks at least four times a second, and only while it
works: heartbeats of all sinks are its ticks.
"""

from __future__ import annotations

import hashlib
import random
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from anomaly.detector.slow_images import now_judging
from anomaly.errors import ImageError
from anomaly.files.atomic import write_atomically
from anomaly.files.table import portable, printable
from anomaly.imaging.decode import Decoded
from anomaly.imaging.pillow import suffix_of
from anomaly.scorer import Result, Scorer
from anomaly.station.backlog import Backlog, Taken
from anomaly.station.health import Health
from anomaly.station.ledger import Ledger, LedgerReader, Noted
from anomaly.station.results import (
    NOT_FLAGGED,
    Actions,
    StationResult,
    facts_of,
    times_of,
)
from anomaly.station.units import Units

TICK_SECONDS = 0.25
STILL_SECONDS = 3.0  # without a tick the judge stands still: nothing may be taken for good then
CYCLES = 1000  # images whose times are remembered


@dataclass(frozen=True)
class Judged:
    """What was just judged, for pictures: its pixels and heatmap are gone soon."""

    result: StationResult
    taken: Taken
    decoded: Decoded | None
    found: Result


@dataclass(frozen=True)
class Keeping:
    """Images kept in ``folder``: all but what is not flagged, and a share of all by lot."""

    folder: Path
    audit_share: float


class Judge:
    """Judges what waits until it is closed; ``health``: of the sources, by name.

    ``safe``: what hears of each result as soon as it is safe; ``judged``: of each image, with its
    pixels, a moment later. ``keeping``: None where no sink wants images.
    ``ticked``: when it ticked last (time.monotonic), ``heartbeat``: the same in UTC. ``cycles``:
    seconds of the last images.
    """

    def __init__(
        self,
        station: str,
        scorer: Scorer,
        ledger: Ledger,
        backlog: Backlog,
        actions: Actions,
        *,
        units: Units | None,
        keeping: Keeping | None,
        health: Mapping[str, Health],
    ) -> None:
        self._station, self._scorer, self._ledger, self._backlog = station, scorer, ledger, backlog
        self._actions, self._units, self._keeping, self._health = actions, units, keeping, health
        self._reader: LedgerReader = ledger.reader()
        self._lots = random.SystemRandom()
        self.safe: list[Callable[[StationResult], object]] = []
        self.judged: list[Callable[[Judged], object]] = []
        self.cycles: deque[float] = deque(maxlen=CYCLES)
        self.ticks = 0
        self.tick()

    def tick(self) -> None:
        self.ticked, self.heartbeat = time.monotonic(), datetime.now(UTC)
        self.ticks += 1

    @property
    def works(self) -> bool:
        """Whether it ticks."""
        return time.monotonic() - self.ticked < STILL_SECONDS

    def run(self) -> None:
        """Judges until the backlog is closed and empty. AnomalyError where results cannot be made
        safe.
        """
        while True:
            taken = self._backlog.take(TICK_SECONDS)
            self.tick()
            if taken is not None:
                self._take(taken)
            elif self._backlog.closed:
                break
            else:
                self._ledger.save()
            if self._units is not None:
                for views in self._units.expired():
                    self._record_unit(self._units, views)

    def _take(self, taken: Taken) -> None:
        if taken.origin is not None and taken.again:
            before = self._reader.of_origin(taken.source, taken.origin)
            if before is not None:  # it comes again: nobody had told its source that it is safe
                taken.done(before)
                return
        decoded, found = self._judged(taken)
        self._health[taken.source].images += 1
        self._health[taken.source].lost += found.kind == "lost"
        now = datetime.now(UTC)
        data = taken.image if isinstance(taken.image, bytes) else None
        seq = self._ledger.last + 1
        facts = facts_of(found, self._scorer.card)
        result = StationResult(
            seq=seq, id=self._id(seq), station=self._station, of="image", source=taken.source,
            serial=taken.serial, path=printable(taken.path),
            action=self._actions.of(facts["outcome"]),
            sha256=None if data is None else hashlib.sha256(data).hexdigest(),
            **facts, **times_of(taken.at, now),
        )  # fmt: skip
        result = self._kept(result, taken)
        self._record(result, taken)
        self.cycles.append(result.seconds)
        taken.done(result)
        for tell in self.judged:
            tell(Judged(result, taken, decoded, found))

    def _judged(self, taken: Taken) -> tuple[Decoded | None, Result]:
        now_judging(taken.path)
        decoded = None
        try:
            if isinstance(taken.image, ImageError):
                raise taken.image
            decoded = self._scorer.decode(taken.image)
            return decoded, self._scorer.judge(decoded)
        except ImageError as error:
            what = str(error).removeprefix("image: ")
            return decoded, Result("error", error=what, kind=error.kind)
        except Exception as error:  # a bug: the line goes on, and this image is not judged
            return decoded, Result("error", error=f"cannot be judged: {error!r}", kind="runtime")

    def _id(self, seq: int) -> str:
        return f"{self._ledger.station_id}-{seq}"

    def _kept(self, result: StationResult, taken: Taken) -> StationResult:
        """Returns the result with where its image is kept; the bytes of a file are written here, so
        that who sent them may forget them.
        """
        if self._keeping is None or isinstance(taken.image, ImageError):
            return result
        lot = self._lots.random()
        drawn = lot < self._keeping.audit_share
        if result.outcome == NOT_FLAGGED and not drawn:
            return result
        suffix = suffix_of(taken.image) if isinstance(taken.image, bytes) else ".png"
        serial = "" if result.serial is None else f"-{portable(result.serial)[:80]}"
        name = f"{result.judged_at[:10]}/{result.seq:09}{serial}{suffix}"
        if isinstance(taken.image, bytes):
            place = self._keeping.folder / name
            place.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(place, taken.image)
        return replace(result, image=name, lot=lot if drawn else None)

    # ---- into the ledger ----

    def _record(self, result: StationResult, taken: Taken) -> None:
        noted = Noted(taken.source, taken.origin, taken.file)
        results = [result]
        if self._units is not None:
            waiting, views = self._units.add(result)
            noted = replace(noted, waiting=waiting)
            if views:
                seq = result.seq + 1
                results.append(self._units.result(views, seq, self._id(seq)))
                noted = replace(noted, joined=result.serial)
        self._add(results, noted)

    def _record_unit(self, units: Units, views: list[StationResult]) -> None:
        seq = self._ledger.last + 1
        unit = units.result(views, seq, self._id(seq))
        now = datetime.now(UTC)
        unit = replace(unit, **times_of(datetime.fromisoformat(unit.taken_at), now))
        self._add([unit], Noted(joined=unit.serial))

    def _add(self, results: list[StationResult], noted: Noted) -> None:
        self._ledger.add(results, noted)
        for result in results:
            for tell in self.safe:
                tell(result)
