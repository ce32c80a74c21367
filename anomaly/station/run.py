"""`anomaly run`: a whole station, from its sources to its sinks, until SIGTERM or Ctrl-C."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from anomaly.detector.slow_images import SlowImages
from anomaly.errors import AnomalyError
from anomaly.scorer import Scorer
from anomaly.scoring.locks import lock
from anomaly.station.backlog import Backlog
from anomaly.station.board import Board
from anomaly.station.health import Health
from anomaly.station.judge import Judge, Keeping
from anomaly.station.ledger import Ledger
from anomaly.station.live import EVERY_SECONDS, Live
from anomaly.station.parts import Parts, scorer_of, sink_of, source_of
from anomaly.station.pictures import PictureThread
from anomaly.station.results import Actions
from anomaly.station.settings import KIND_OF, FolderSink, ModbusSink, OpcuaSink, ReviewSink, Station
from anomaly.station.units import Units

FINISH_SECONDS = 10.0  # for what sinks have still to take when the station is stopped
Say = Callable[[str], object]


def run_station(station: Station, say: Say) -> None:
    """Runs a station until it is stopped. AnomalyError where it cannot begin, or where results
    cannot be made safe any more.
    """
    with ExitStack() as stack:
        stop = stack.enter_context(_stopped_by_signals())
        _lock(station, stack)
        slow = stack.enter_context(closing(SlowImages(say)))
        scorer = scorer_of(station)
        scorer.watch(slow)
        running = assembled(station, scorer, say)
        stack.callback(running.parts.ledger.close)
        running.run(stop, say)


def assembled(station: Station, scorer: Scorer, say: Say) -> Running:
    """Returns a station whose parts are made, and not started."""
    sources = [Health(one.name, KIND_OF[type(one)], "source", say) for one in station.sources]
    sinks = [Health(one.name, KIND_OF[type(one)], "sink", say) for one in station.sinks]
    state_sinks = OpcuaSink | ModbusSink  # which show the newest result, and need no other
    messages = [one.name for one in station.sinks if not isinstance(one, state_sinks)]
    ledger = Ledger(station.state, messages)
    backlog = Backlog(station.waiting, station.when_behind == "stop the line")
    actions = Actions(station.review, station.not_judged)
    units = Units(station.unit, actions, ledger.views()) if station.unit else None
    judge = Judge(
        station.name, scorer, ledger, backlog, actions,
        units=units, keeping=_keeping(station),
        health={health.name: health for health in sources},
    )  # fmt: skip
    live = Live(station, scorer.card, ledger, judge, backlog, sources, sinks, datetime.now(UTC))
    before = sum(live.counts().values())
    board = Board(judge, station.per, lambda: live.alarm, live.counts, (None, 0.0, before))
    pictures = PictureThread(station.state, scorer, ledger.last, say)
    parts = Parts(station, scorer, ledger, backlog, board, live, pictures)
    judge.safe.append(board.put)
    judge.judged.append(pictures.put)
    return Running(parts, judge, sources, sinks)


def _keeping(station: Station) -> Keeping | None:
    """Returns which images are kept: none where no sink wants any."""
    wanted = [one for one in station.sinks if isinstance(one, ReviewSink | FolderSink)]
    share = max((one.audit_share for one in wanted if isinstance(one, ReviewSink)), default=0.0)
    return Keeping(station.state / "images", share) if wanted else None


@dataclass
class Running:
    """A station that runs: threads of sources, the judge, and sinks."""

    parts: Parts
    judge: Judge
    sources: list[Health]
    sinks: list[Health]

    def run(self, stop: threading.Event, say: Say) -> None:
        """Runs until ``stop``, then judges what was taken and gives the sinks some seconds."""
        station, ledger, failed = self.parts.station, self.parts.ledger, list[Exception]()

        def judging() -> None:
            try:
                self.judge.run()
            except Exception as error:
                failed.append(error)
                stop.set()

        sinks = zip(station.sinks, self.sinks, strict=True)
        sources = zip(station.sources, self.sources, strict=True)
        deliveries = [sink_of(self.parts, *one) for one in sinks]
        feeding = [source_of(self.parts, *one) for one in sources]
        thread = threading.Thread(target=judging, name="judge")
        for delivery in deliveries:
            delivery.start()
        for running in (thread, *feeding):
            running.start()
        say(self._begun())
        sd_notify("READY=1")
        told = Told(say)
        while not stop.wait(EVERY_SECONDS):
            self.parts.live.write_or_say(say)
            told.tell(self.parts)
        for health in self.sources:
            health.closing.set()
        self.parts.backlog.close()
        thread.join()
        for feeder in feeding:
            feeder.join(FINISH_SECONDS)
        for delivery in deliveries:
            delivery.finish(FINISH_SECONDS)
        self.parts.pictures.close()
        self.parts.live.write_or_say(say)
        if failed:
            raise failed[0]
        say(self._ended(ledger))

    def _begun(self) -> str:
        station, before = self.parts.station, sum(self.parts.live.counts().values())
        return (
            f"station {station.name}: {self.parts.scorer.card.identity}; sources "
            f"{', '.join(h.name for h in self.sources)}; sinks "
            f"{', '.join(h.name for h in self.sinks)}; {before:,} results are there; "
            "Ctrl-C ends it"
        )

    def _ended(self, ledger: Ledger) -> str:
        counts = ", ".join(f"{n:,} {outcome}" for outcome, n in self.parts.live.counts().items())
        left = {health.name: ledger.waiting(health.name) for health in self.sinks}
        waiting = ", ".join(f"{n:,} wait for {name}" for name, n in left.items() if n)
        return f"stopped: {counts}{'; ' + waiting if waiting else ''}"


@dataclass
class Told:
    """Says when the station falls behind, stands still, or is itself again."""

    say: Say
    alarm: str = ""

    def tell(self, parts: Parts) -> None:
        sd_notify("WATCHDOG=1" if parts.live.judge.works else "STATUS=the judge stands still")
        alarm = parts.live.alarm
        kind, before = alarm.partition(":")[0], self.alarm.partition(":")[0]
        if kind != before:
            self.say(f"alarm: {alarm}" if alarm else f"no alarm any more ({before})")
        self.alarm = alarm


def sd_notify(state: str) -> None:
    """Tells systemd of this process's state, where systemd asks for it (Type=notify)."""
    place = os.environ.get("NOTIFY_SOCKET", "")
    if sys.platform != "win32" and place:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
            told.sendto(state.encode(), "\0" + place[1:] if place[0] == "@" else place)


def _lock(station: Station, stack: ExitStack) -> None:
    """Holds the state folder for this process alone."""
    station.state.mkdir(parents=True, exist_ok=True)
    handle = os.open(station.state / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    stack.callback(os.close, handle)
    try:
        lock(handle, station.state)
    except AnomalyError as error:
        raise AnomalyError(
            f"{station.state}: another process runs this station: stop it, or choose another "
            "state folder (state = ...)"
        ) from error


@contextmanager
def _stopped_by_signals() -> Iterator[threading.Event]:
    """Yields what the first SIGTERM or Ctrl-C sets; a second one ends the process at once."""
    stop = threading.Event()

    def ask(number: int, frame: object) -> None:
        stop.set()
        for again in (signal.SIGINT, signal.SIGTERM):
            signal.signal(again, lambda number, frame: os._exit(128 + number))

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
