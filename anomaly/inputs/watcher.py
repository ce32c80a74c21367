"""Watches folders for images: file events where there are, else by looking through them."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from anomaly.errors import AnomalyError
from anomaly.imaging import listing
from anomaly.imaging.find import is_ours, walk_images
from anomaly.imaging.image_file import head_of
from anomaly.imaging.listing import Passed, count, is_image_head, is_image_name, wanted
from anomaly.inputs.arrivals import CHANGED, CLOSED, FOUND, GONE, SETTLED, State, state_of

# seconds between two looks at least, and looks take no more than one part in so many of the time
LOOK, SHARE = 0.2, 4


class Watcher:
    """Looks through folders in a thread, and listens to the system's events, until it is closed.

    ``inbox`` gets (event, path); ``known``: a file's state as it was last noted; ``say``: gets a
    line where a folder cannot be listed. ``events``: whether the system tells of changes here.
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
        # of each folder, at the last look
        self._names: dict[str, set[str]] = {root: set() for root in self._roots}
        self._said: set[str] = set()
        # whether a file begins as an image, where no suffix tells
        self._begins: dict[str, tuple[State | None, bool]] = {}
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
            from watchdog.events import (
                FileClosedEvent,
                FileCreatedEvent,
                FileDeletedEvent,
                FileModifiedEvent,
                FileMovedEvent,
            )
            from watchdog.observers import Observer
        except ImportError:
            return None
        observer: Any = Observer()
        kinds = [
            FileClosedEvent,
            FileCreatedEvent,
            FileDeletedEvent,
            FileModifiedEvent,
            FileMovedEvent,
        ]
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
        names = {
            "created": FOUND,
            "modified": CHANGED,
            "closed": CLOSED,
            "deleted": GONE,
            "moved": GONE,
        }
        self._tell(names[event.event_type], event.src_path)
        if event.event_type == "moved":
            self._tell(CLOSED, event.dest_path)

    def _tell(self, event: str, path: str) -> None:
        path = os.path.normpath(path) if path else ""
        below = next((path[len(root) :] for root in self._roots if path.startswith(root)), path)
        if any(part.startswith(".") for part in below.split(os.sep)) or self._is_in_ours(
            path, below
        ):
            return
        if self._is_image(path):
            self._inbox.put((event, path))

    def _is_in_ours(self, path: str, below: str) -> bool:
        """Whether one of the folders between a watched one and a file is one that this program
        writes into.
        """
        root = path.removesuffix(below)
        parts = below.split(os.sep)
        return any(is_ours(root + os.sep.join(parts[:count])) for count in range(1, len(parts)))

    def _is_image(self, path: str) -> bool:
        """Whether a file is one to judge: by its suffix, else by how it begins, which is looked at
        when it has changed.
        """
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
                if (
                    os.path.join(folder + name, "") in self._names
                    or os.path.join(folder + name, "") in self._ours
                ):
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
        """Tells of the names that were not in a folder at the look before, and of the folders among
        them goes on.
        """
        if folder not in self._roots and is_ours(folder):
            self._ours.add(folder)
            del self._names[folder]
            return
        try:
            names = set(os.listdir(folder or "."))
        except OSError as error:
            if folder in self._roots:
                self._once(
                    folder,
                    f"{folder}: cannot be listed ({error.strerror}); waiting for it to come back",
                )
                self._names[folder] = set()
            else:
                if not isinstance(error, FileNotFoundError):
                    self._once(
                        folder,
                        f"{folder}: cannot be listed ({error.strerror}); what is in it is not "
                        "judged",
                    )
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
            raise AnomalyError(
                f"{given}: no folder found, folders on this machine (or mounted on it) expected by "
                "--watch"
            )
    return [Path(given) for given in inputs]
