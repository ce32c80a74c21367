"""Images that arrive in folders: which ones are there, and which of them are whole.

Two things tell of a file: the system's events, where there are any (extra `watch`; none come from a network share), and a look
through the folders, again and again, which finds everything everywhere. A file is taken up

    at once              when it was closed after writing, or renamed to its name, as far as events tell
    after SETTLED        without a change, where no event tells, if its own end mark shows that it is whole (JPEG, PNG)
    after SURE           without a change, where it decodes but has no such mark
    after the patience   without a change, whatever it is: what cannot be decoded then gets an error row
"""

from __future__ import annotations

import contextlib
import heapq
import os
import stat
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

from anomaly.errors import AnomalyError
from anomaly.imaging import listing
from anomaly.imaging.decode import head_of, is_ours, walk_images
from anomaly.imaging.listing import Passed, count, is_image_head, is_image_name, wanted

SETTLED, SURE = 0.3, 2.0  # seconds
LOOK, SHARE = 0.2, 4  # seconds between two looks at least, and looks take no more than one part in so many of the time
FIRST_RETRY_SECONDS = 0.5  # seconds until a file that is not whole is read again; they double
FOUND, CHANGED, CLOSED, GONE = "found", "changed", "closed", "gone"


class State(NamedTuple):
    """What a file's metadata tells; any change of its content changes this too."""

    size: int
    mtime: int
    file: int


class Arrival(NamedTuple):
    """A file to be read now. ``closed``: an event told so; ``last``: whatever it is then, it gets its row."""

    path: str
    state: State
    closed: bool
    last: bool


@dataclass
class _Waiting:
    """A file that has no row yet. ``writing``: as events tell; None where none did. ``held``: it is being judged."""

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
    """Files on their way to a row. All times are those of one clock, in seconds; one thread uses it.

    ``patience``: seconds without a change after which a file that is not whole gets its row as it is.
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
        """Takes note of a file that has a row, if it was not changed after ``before`` (seconds since 1970)."""
        with contextlib.suppress(OSError):
            found = os.stat(path)
            if max(found.st_mtime, found.st_ctime) < before:
                self._done[path] = State(found.st_size, found.st_mtime_ns, found.st_ino)

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
            # Changed after it was closed may be no more than its time; else somebody writes, who will close it.
            waiting.writing, waiting.since = (None if waiting.writing is False else True), now
            after = self.patience if waiting.writing else SETTLED
            self._put(path, waiting, now + after, last=bool(waiting.writing))
        return None

    def _gone(self, path: str, now: float) -> None:
        waiting = self._waiting.get(path)
        if waiting is not None and not waiting.held and waiting.due > now:  # else it was whole, and its row says that it went
            del self._waiting[path]
        self._done.pop(path, None)

    def _put(self, path: str, waiting: _Waiting, due: float, last: bool = False) -> None:
        waiting.due, waiting.last = due, last
        if not waiting.held:
            heapq.heappush(self._heap, (due, path))

    def take(self, now: float) -> Arrival | None:
        """Returns the file that has waited longest of those to be read now, or None; it is held until it is given back."""
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
        """A file was read and is not surely whole: it is read again when it has changed, and after a while."""
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
        """Whether a file that is gone lies under another name now; then it is forgotten under this one."""
        others = ((path, waiting.state) for path, waiting in self._waiting.items())
        found = arrival.state in self._done.values() or any(
            state == arrival.state and path != arrival.path for path, state in others
        )
        if found:
            del self._waiting[arrival.path]
        return found

    def unreachable(self, arrival: Arrival, now: float) -> None:
        """A file's disk or server has gone: it is read again until that is back, and never given up."""
        waiting = self._waiting[arrival.path]
        waiting.held = False
        self._put(arrival.path, waiting, now + self.patience)

    def behind(self, now: float) -> tuple[int, float]:
        """Returns how many files are to be read now and are not yet, and the seconds that the first of them has waited."""
        ready = [due for due, path in self._heap if due <= now and self._is_due(path, due)]
        return len(ready), now - min(ready) if ready else 0.0

    def _is_due(self, path: str, due: float) -> bool:
        waiting = self._waiting.get(path)
        return waiting is not None and not waiting.held and waiting.due == due

    @property
    def next_due(self) -> float | None:
        """When the next file is to be read."""
        return self._heap[0][0] if self._heap else None


# ---- who tells ----


class Watcher:
    """Looks through folders in a thread, and listens to the system's events, until it is closed.

    ``inbox`` gets (event, path); ``known``: a file's state as it was last noted; ``say``: gets a line where a folder cannot be
    listed. ``events``: whether the system tells of changes here.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        inbox: SimpleQueue[Any],
        known: Callable[[str], State | None],
        say: Callable[[str], object],
    ) -> None:
        for folder in folders:
            next(walk_images(folder), None)  # DatasetError where it cannot be listed
        self._folders, self._inbox, self._known, self._say = folders, inbox, known, say
        self._roots = ["" if folder == Path() else os.path.join(folder, "") for folder in folders]
        self._names: dict[str, set[str]] = {root: set() for root in self._roots}  # of each folder, at the last look
        self._said: set[str] = set()
        self._begins: dict[str, tuple[State | None, bool]] = {}  # whether a file begins as an image, where no suffix tells
        self._ours: set[str] = set()  # folders that this program writes into
        self._closing = threading.Event()
        self._observer = self._observe()
        self.events = self._observer is not None
        self._thread = threading.Thread(target=self._look, name="watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends both threads; one that hangs in a folder that does not answer is left behind."""
        self._closing.set()
        if self._observer is not None:
            self._observer.stop()
        self._thread.join(2.0)

    def _observe(self) -> Any:
        try:
            from watchdog.events import FileClosedEvent, FileCreatedEvent, FileDeletedEvent, FileModifiedEvent, FileMovedEvent
            from watchdog.observers import Observer
        except ImportError:
            return None
        observer: Any = Observer()
        kinds = [FileClosedEvent, FileCreatedEvent, FileDeletedEvent, FileModifiedEvent, FileMovedEvent]
        try:
            for folder in self._folders:
                observer.schedule(self, str(folder), recursive=True, event_filter=kinds)
            observer.start()
        except OSError as error:  # no more of them to be had (fs.inotify.max_user_watches)
            self._say(f"no file events here ({error.strerror}): folders are looked through instead")
            return None
        return observer

    def dispatch(self, event: Any) -> None:
        """Takes an event from watchdog."""
        names = {"created": FOUND, "modified": CHANGED, "closed": CLOSED, "deleted": GONE, "moved": GONE}
        self._tell(names[event.event_type], event.src_path)
        if event.event_type == "moved":
            self._tell(CLOSED, event.dest_path)

    def _tell(self, event: str, path: str) -> None:
        path = os.path.normpath(path) if path else ""
        below = next((path[len(root) :] for root in self._roots if path.startswith(root)), path)
        if any(part.startswith(".") for part in below.split(os.sep)) or self._is_in_ours(path, below):
            return
        if self._is_image(path):
            self._inbox.put((event, path))

    def _is_in_ours(self, path: str, below: str) -> bool:
        """Whether one of the folders between a watched one and a file is one that this program writes into."""
        root = path.removesuffix(below)
        parts = below.split(os.sep)
        return any(is_ours(root + os.sep.join(parts[:count])) for count in range(1, len(parts)))

    def _is_image(self, path: str) -> bool:
        """Whether a file is one to judge: by its suffix, else by how it begins, which is looked at when it has changed."""
        decided = is_image_name(os.path.basename(path))
        if decided is not None:
            return decided
        state = state_of(path)
        known, is_image = self._begins.get(path, (None, False))
        if known != state or state is None:
            head = head_of(path)
            is_image = isinstance(head, bytes) and is_image_head(head)
            self._begins[path] = (state, is_image)
        return is_image

    def passed(self) -> Passed:
        """Returns what the folders hold besides images, by kind, as it was at the last look."""
        passed: Passed = Counter({listing.OURS: len(self._ours)} if self._ours else {})
        for folder, names in list(self._names.items()):
            for name in list(names):
                if os.path.join(folder + name, "") in self._names or os.path.join(folder + name, "") in self._ours:
                    continue
                if name[0] == ".":
                    if name != listing.MARK:
                        count(passed, listing.HIDDEN)
                elif not self._is_image(folder + name) and not os.path.isdir(folder + name):
                    wanted(name, partial(head_of, folder + name), passed)
        return passed

    def _look(self) -> None:
        """Finds new names at every look, and files that changed at those that have time for it."""
        closely = time.monotonic()
        while not self._closing.is_set():
            began = time.monotonic()
            for folder in list(self._names):
                self._list(folder)
            took = time.monotonic() - began
            if began >= closely:
                self._compare()
                closely = began + max(2 * SETTLED, 5 * SHARE * (time.monotonic() - began))
            self._closing.wait(max(LOOK, SHARE * took))

    def _list(self, folder: str) -> None:
        """Tells of the names that were not in a folder at the look before, and of the folders among them goes on."""
        if folder not in self._roots and is_ours(folder):
            self._ours.add(folder)
            del self._names[folder]
            return
        try:
            names = set(os.listdir(folder or "."))
        except OSError as error:
            if folder in self._roots:
                self._once(folder, f"{folder}: cannot be listed ({error.strerror}); waiting for it to come back")
                self._names[folder] = set()
            else:
                if not isinstance(error, FileNotFoundError):
                    self._once(folder, f"{folder}: cannot be listed ({error.strerror}); what is in it is not judged")
                del self._names[folder]
            return
        self._said.discard(folder)
        new, self._names[folder] = names - self._names[folder], names
        for name in sorted(new):
            path = folder + name
            if name[0] == ".":
                continue
            if os.path.isdir(path):
                self._enter(os.path.join(path, ""))
            elif self._is_image(path) and self._known(path) is None:
                self._inbox.put((FOUND, path))

    def _enter(self, folder: str) -> None:
        place = os.path.realpath(folder)
        if all(os.path.realpath(other) != place for other in self._names):  # a loop of links
            self._names[folder] = set()
            self._list(folder)

    def _compare(self) -> None:
        """Tells of files whose state is another one than was last noted."""
        for folder, names in list(self._names.items()):
            for name in names:
                if self._closing.is_set():
                    return
                if name[0] == "." or is_image_name(name) is False:
                    continue
                path = folder + name
                if self._is_image(path) and state_of(path) != self._known(path):
                    self._inbox.put((FOUND, path))

    def _once(self, folder: str, line: str) -> None:
        if folder not in self._said:
            self._said.add(folder)
            self._say(line)


def drained(inbox: SimpleQueue[Any], seconds: float) -> list[Any]:
    """Returns what lies in a queue, after waiting so long for the first."""
    found = []
    with contextlib.suppress(Empty):
        found.append(inbox.get(timeout=max(0.0, seconds)) if seconds > 0 else inbox.get_nowait())
        while True:
            found.append(inbox.get_nowait())
    return found


def check_folders(inputs: Sequence[str]) -> list[Path]:
    """Returns the folders to watch; AnomalyError where something else was given."""
    for given in inputs:
        if not os.path.isdir(given):
            raise AnomalyError(f"{given}: no folder found, folders on this machine (or mounted on it) expected by --watch")
    return [Path(given) for given in inputs]
