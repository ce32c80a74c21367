"""Images that arrive in folders: which ones are there, and which of them are whole.

Two things tell of a file: the system's events, where there are any (extra `watch`; none come from a
network share), and a look through the folders, again and again, which finds everything everywhere.
A file is taken up

    at once              when it was closed after writing, or renamed to its name, as far as events
                         tell
    after SETTLED        without a change, where no event tells, if its own end mark shows that it
                         is whole (JPEG, PNG)
    after SURE           without a change, where it decodes but has no such mark
    after the patience   without a change, whatever it is: what cannot be decoded then gets an
                         error row
"""

from __future__ import annotations

import contextlib
import heapq
import os
import stat
from dataclasses import dataclass
from typing import NamedTuple

SETTLED, SURE = 0.3, 2.0  # seconds
FIRST_RETRY_SECONDS = 0.5  # seconds until a file that is not whole is read again; they double
FOUND, CHANGED, CLOSED, GONE = "found", "changed", "closed", "gone"


class State(NamedTuple):
    """What a file's metadata tells; any change of its content changes this too."""

    size: int
    mtime: int
    file: int


class Arrival(NamedTuple):
    """A file to be read now. ``closed``: an event told so; ``last``: whatever it is then, it gets
    its row.
    """

    path: str
    state: State
    closed: bool
    last: bool


@dataclass
class _Waiting:
    """A file that has no row yet. ``writing``: as events tell; None where none did. ``held``: it is
    being judged.
    """

    state: State
    since: float
    due: float
    writing: bool | None = None
    last: bool = False
    held: bool = False


def state_of(path: str) -> State | None:
    """Returns a file's state, or None where there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    if stat.S_ISDIR(found.st_mode):
        return None
    return State(found.st_size, found.st_mtime_ns, found.st_ino)


class Arrivals:
    """Files on their way to a row. All times are those of one clock, in seconds; one thread uses
    it.

    ``patience``: seconds without a change after which a file that is not whole gets its row as it
    is.
    """

    def __init__(self, patience: float) -> None:
        self.patience = patience
        self._waiting: dict[str, _Waiting] = {}
        self._done: dict[str, State] = {}
        self._heap: list[tuple[float, str]] = []

    def known(self, path: str) -> State | None:
        """Returns a file's state when it was last taken note of. Threads may call it."""
        waiting = self._waiting.get(path)
        return self._done.get(path) if waiting is None else waiting.state

    def remember(self, path: str, before: float) -> None:
        """Takes note of a file that has a row, if it was not changed after ``before`` (seconds
        since 1970).
        """
        with contextlib.suppress(OSError):
            found = os.stat(path)
            if max(found.st_mtime, found.st_ctime) < before:
                self._done[path] = State(found.st_size, found.st_mtime_ns, found.st_ino)

    def judged(self, path: str, state: State) -> None:
        """Takes note of a file that had its row in this state."""
        self._done[path] = state

    def found(self, path: str, now: float) -> None:
        """Takes note of a file that was seen in a folder."""
        state = state_of(path)
        if state is None:
            self._gone(path, now)
        elif path in self._waiting:
            self._changed(self._waiting[path], path, state, now)
        elif self._done.get(path) != state:
            self._waiting[path] = waiting = _Waiting(state, now, 0.0)
            self._put(path, waiting, now + SETTLED)

    def _changed(self, waiting: _Waiting, path: str, state: State, now: float) -> None:
        if waiting.state != state:
            waiting.state, waiting.since, waiting.last = state, now, False
            if waiting.writing:
                self._put(path, waiting, now + self.patience, last=True)
            else:
                waiting.writing = None
                self._put(path, waiting, now + SETTLED)

    def told(self, event: str, path: str, now: float) -> None:
        """Takes note of what an event tells of a file."""
        if event == GONE:
            return self._gone(path, now)
        self.found(path, now)
        waiting = self._waiting.get(path)
        if waiting is None:
            return None
        if event == CLOSED:
            waiting.writing, waiting.since = False, now
            self._put(path, waiting, now)
        elif event == CHANGED:
            # Changed after it was closed may be no more than its time; else somebody writes, who
            # will close it.
            waiting.writing, waiting.since = (None if waiting.writing is False else True), now
            after = self.patience if waiting.writing else SETTLED
            self._put(path, waiting, now + after, last=bool(waiting.writing))
        return None

    def _gone(self, path: str, now: float) -> None:
        waiting = self._waiting.get(path)
        # else it was whole, and its row says that it went
        if waiting is not None and not waiting.held and waiting.due > now:
            del self._waiting[path]
        self._done.pop(path, None)

    def _put(self, path: str, waiting: _Waiting, due: float, last: bool = False) -> None:
        waiting.due, waiting.last = due, last
        if not waiting.held:
            heapq.heappush(self._heap, (due, path))

    def take(self, now: float) -> Arrival | None:
        """Returns the file that has waited longest of those to be read now, or None; it is held
        until it is given back.
        """
        while self._heap and self._heap[0][0] <= now:
            due, path = heapq.heappop(self._heap)
            waiting = self._waiting.get(path)
            if waiting is None or waiting.held or waiting.due != due:
                continue  # what was put in again since
            state = state_of(path)
            if state is not None and state != waiting.state and waiting.writing is not False:
                self._changed(waiting, path, state, now)
                continue
            waiting.held, waiting.state = True, state or waiting.state
            return Arrival(path, waiting.state, waiting.writing is False, waiting.last)
        return None

    def done(self, arrival: Arrival) -> None:
        """A file has its row, and needs none until it changes."""
        waiting = self._waiting.pop(arrival.path)
        self._done[arrival.path] = arrival.state
        if waiting.state != arrival.state:
            self.found(arrival.path, waiting.since)

    def not_yet(self, arrival: Arrival, now: float, *, decodes: bool) -> None:
        """A file was read and is not surely whole: it is read again when it has changed, and after
        a while.
        """
        waiting = self._waiting[arrival.path]
        waiting.held, state = False, state_of(arrival.path)
        if waiting.state != arrival.state or (state is not None and state != arrival.state):
            waiting.state, waiting.since = state or waiting.state, now
            due, last = (now + self.patience, True) if waiting.writing else (now + SETTLED, False)
        elif decodes:
            due, last = waiting.since + SURE, True
        else:
            ends = waiting.since + self.patience
            due = min(now + max(FIRST_RETRY_SECONDS, now - waiting.since), ends)
            last = due >= ends
        self._put(arrival.path, waiting, due, last)

    def renamed(self, arrival: Arrival) -> bool:
        """Whether a file that is gone lies under another name now; then it is forgotten under this
        one.
        """
        others = ((path, waiting.state) for path, waiting in self._waiting.items())
        found = arrival.state in self._done.values() or any(
            state == arrival.state and path != arrival.path for path, state in others
        )
        if found:
            del self._waiting[arrival.path]
        return found

    def unreachable(self, arrival: Arrival, now: float) -> None:
        """A file's disk or server has gone: it is read again until that is back, and never given
        up.
        """
        waiting = self._waiting[arrival.path]
        waiting.held = False
        self._put(arrival.path, waiting, now + self.patience)

    def behind(self, now: float) -> tuple[int, float]:
        """Returns how many files are to be read now and are not yet, and the seconds that the first
        of them has waited.
        """
        ready = [due for due, path in self._heap if due <= now and self._is_due(path, due)]
        return len(ready), now - min(ready) if ready else 0.0

    def _is_due(self, path: str, due: float) -> bool:
        waiting = self._waiting.get(path)
        return waiting is not None and not waiting.held and waiting.due == due

    @property
    def next_due(self) -> float | None:
        """When the next file is to be read."""
        return self._heap[0][0] if self._heap else None
