"""Whether a source or sink works, as the page and the log say it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from anomaly.errors import AnomalyError

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 15.0  # seconds
STEADY_SECONDS = 10.0  # what worked so long begins with the first pause again


def line_of(error: Exception) -> str:
    """Returns what is said of an error, in one line: of a bug, or an error of a library, its type
    too.
    """
    said = str(error) if isinstance(error, AnomalyError | OSError) else repr(error)
    return " ".join(said.split())[:300] or type(error).__name__


@dataclass
class Health:
    """What is known of a source or sink. ``state``: ``starting``, ``ok`` or ``gone``; ``said``: one
    line why it is gone. ``images`` and ``lost``: of a source; ``say``: gets a line at each change.
    """

    name: str
    kind: str
    what: str  # source or sink
    say: Callable[[str], object]
    state: str = "starting"
    said: str = ""
    images: int = 0
    lost: int = 0
    closing: threading.Event = field(default_factory=threading.Event)
    pause: float = 0.0
    trigger: Health | None = None  # of a camera's trigger from outside
    _since: float = 0.0

    def ok(self) -> None:
        """It works: said where it had not."""
        if self.state == "gone":
            self.say(f"{self.what} {self.name}: back")
        if self.state != "ok":
            self.state, self.said, self._since = "ok", "", time.monotonic()

    def gone(self, error: Exception) -> None:
        """It does not work: said, and after a pause that grows it may be tried again."""
        steady = self.state == "ok" and time.monotonic() - self._since > STEADY_SECONDS
        longer = self.pause > 0 and not steady
        self.pause = min(LONGEST_PAUSE, 2 * self.pause) if longer else FIRST_PAUSE
        first = self.state != "gone"
        self.state, self.said = "gone", f"{line_of(error)}; tried again in {self.pause:g} s"
        if first or self.pause >= LONGEST_PAUSE:
            self.say(f"{self.what} {self.name}: {self.said}")

    def facts(self) -> dict[str, Any]:
        """Returns what the page shows."""
        of = self.trigger if self.trigger is not None and self.trigger.state == "gone" else self
        return {"name": self.name, "kind": self.kind, "state": of.state, "said": of.said}

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Turns whatever goes wrong in the block into ``gone`` and a pause, which ends where the
        station is closing.

        A bug too: it may not end a thread without a word while the rest goes on.
        """
        try:
            yield
        except Exception as error:
            if not self.closing.is_set():
                self.gone(error)
                self.closing.wait(self.pause)
