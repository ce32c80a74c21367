"""Image files that arrive in a folder, each once: as `anomaly score --watch` finds them."""

from __future__ import annotations

import os
import re
import time
from datetime import UTC, datetime
from queue import SimpleQueue
from typing import Any

from anomaly.errors import ImageError
from anomaly.files.table import printable
from anomaly.imaging.damage import ends_early
from anomaly.inputs.arrivals import GONE, Arrival, Arrivals, State, state_of
from anomaly.inputs.source import File
from anomaly.inputs.watcher import Watcher, drained
from anomaly.scorer import Scorer
from anomaly.scoring.rows import largest_file
from anomaly.station.backlog import Backlog, Taken
from anomaly.station.health import Health
from anomaly.station.ledger import Ledger
from anomaly.station.results import StationResult
from anomaly.station.settings import FolderSource

DONE = "done"
FORMATS = {b"\xff\xd8": "JPEG", b"\x89P": "PNG"}  # files that show by their end that they are whole


class Folder:
    """Puts image files into the backlog when they are whole, until the station is closing."""

    def __init__(
        self,
        settings: FolderSource,
        scorer: Scorer,
        ledger: Ledger,
        backlog: Backlog,
        health: Health,
    ) -> None:
        self._settings, self._scorer, self._ledger = settings, scorer, ledger
        self._backlog, self._health = backlog, health
        self._inbox: SimpleQueue[Any] = SimpleQueue()
        self._serial = re.compile(settings.serial)
        self._arrivals = self._remembered()

    def run(self) -> None:
        while not self._health.closing.is_set():
            with self._health.attempt():
                os.listdir(self._settings.path)  # OSError where it is not there
                self._watch()

    def _watch(self) -> None:
        arrivals, folder = self._arrivals, self._settings.path
        watcher = Watcher([folder], self._inbox, arrivals.known, self._health.say)
        try:
            self._health.ok()
            while not self._health.closing.is_set():
                due, now = arrivals.next_due, time.monotonic()
                pause = 0.25 if due is None else min(0.25, max(0.001, due - now))
                for event, what in drained(self._inbox, pause):
                    if event == DONE:
                        arrivals.done(what)
                    else:
                        arrivals.told(event, what, time.monotonic())
                while arrival := arrivals.take(time.monotonic()):
                    self._look(arrival, arrivals)
                if not folder.is_dir():
                    raise OSError(f"{folder}: the folder is not there any more")
        finally:
            watcher.close()

    def _remembered(self) -> Arrivals:
        """Returns arrivals that know the files with a result; the ledger forgets those that are
        gone. A file that was to be removed, and is still there, is removed.
        """
        name, arrivals = self._settings.name, Arrivals(self._settings.patience)
        reader = self._ledger.reader()
        for path, state in reader.files(name).items():
            if state_of(path) != State(*state):
                self._ledger.gone.append((name, path))
            elif self._settings.remove:
                self._remove(path)
            else:
                arrivals.judged(path, State(*state))
        reader.close()
        return arrivals

    def _look(self, arrival: Arrival, arrivals: Arrivals) -> None:
        """Reads a file, and puts it into the backlog if it is whole."""
        taken_at, now = datetime.now(UTC), time.monotonic()
        image: bytes | ImageError
        try:
            image = File(arrival.path).read(largest_file(self._scorer))
        except ImageError as error:
            image = error
            if error.kind == "unreachable":
                arrivals.unreachable(arrival, now)
                return
            if error.kind == "missing" and arrivals.renamed(arrival):
                return
        same = state_of(arrival.path) in (arrival.state, None)
        if not same or not (arrival.last or self._whole(arrival, image)):
            arrivals.not_yet(arrival, now, decodes=self._decodes(image))
            return
        found = self._serial.search(arrival.path) if self._settings.serial else None
        serial = found[1 if found.re.groups else 0] if found else None
        file = (arrival.path, *arrival.state)

        def done(_: StationResult) -> None:
            self._inbox.put((DONE, arrival))
            if self._settings.remove and not isinstance(image, ImageError):
                self._remove(arrival.path)
                self._inbox.put((GONE, arrival.path))

        name = printable(arrival.path)
        self._backlog.put(
            Taken(self._settings.name, name, image, None, serial, taken_at, file, done=done)
        )

    def _whole(self, arrival: Arrival, image: bytes | ImageError) -> bool:
        if isinstance(image, ImageError):
            return False
        kind = FORMATS.get(image[:2])
        return arrival.closed or (kind is not None and not ends_early(image, kind))

    def _decodes(self, image: bytes | ImageError) -> bool:
        try:
            return not isinstance(image, ImageError) and bool(self._scorer.decode(image))
        except ImageError:
            return False

    def _remove(self, path: str) -> None:
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass
        except OSError as error:
            self._health.say(f"{path}: cannot be removed ({error.strerror})")
            return
        self._ledger.gone.append((self._settings.name, path))
