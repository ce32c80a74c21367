"""Progress of long work, with the time left: a line that is redrawn on a terminal, lines now and
then elsewhere.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import TextIO

REDRAW = 0.1  # seconds between two pictures of the line on a terminal
# seconds until the first plain line, and between two of them at most
FIRST_LINE, LONGEST_GAP = 4.0, 600.0


class Progress:
    """Says on stderr how far ``what`` has come and how long it will take.

        with Progress(len(paths), "scoring images") as progress:
            for path in paths:
                ...
                progress.advance()

    ``total``: None where it is not known; then counts and speed are said, but no time left. On a
    terminal one line is redrawn. Into a pipe or a log the first line comes after a few seconds and
    the gaps double. ``quiet``: nothing.
    """

    def __init__(
        self,
        total: int | None,
        what: str,
        *,
        quiet: bool = False,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.total = total
        self.what = what
        self.done = 0
        self._skipped = 0
        self._quiet = quiet
        self._stream = sys.stderr if stream is None else stream
        self._clock = clock
        self._note = ""
        self._terminal = is_terminal(self._stream)
        self._began = clock()
        self._due = self._began + (REDRAW if self._terminal else FIRST_LINE)
        self._said = False

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.finish(self._finished() if kind is None else self._line())

    def finish(self, line: str = "") -> None:
        """Ends the line, if there is one: other output may follow."""
        if self._said:  # else it was over before there was anything to say
            self._write(line or self._finished(), end="\n")
            self._said = False

    def advance(self, n: int = 1, note: str = "") -> None:
        """Counts ``n`` more as done; ``note`` (a loss, say) is shown behind until the next one."""
        self.done += n
        self._note = note or self._note
        now = self._clock()
        if now >= self._due and not self._quiet:
            self._write(self._line(), end="" if self._terminal else "\n")
            # A log of a night should have a page of lines, not a hundred.
            gap = REDRAW if self._terminal else min(now - self._began, LONGEST_GAP)
            self._due = now + gap

    def skip(self, n: int) -> None:
        """Counts ``n`` as done before: they do not make the work look fast."""
        self.done += n
        self._skipped += n

    @property
    def seconds_left(self) -> float | None:
        """Time left at the speed so far; None where nothing is known yet."""
        speed = self._speed()
        return None if self.total is None or not speed else max(0, self.total - self.done) / speed

    def _speed(self) -> float:
        seconds = self._clock() - self._began
        return (self.done - self._skipped) / seconds if seconds > 0 else 0.0

    def _line(self) -> str:
        share = f" of {self.total:,} ({100 * self.done // self.total} %)" if self.total else ""
        left = self.seconds_left
        parts = [f"{self.what}: {self.done:,}{share}", speed_text(self._speed()), self._note]
        parts.append(
            f"{duration(self._clock() - self._began)} so far"
            if left is None
            else f"{duration(left)} left"
        )
        return ", ".join(part for part in parts if part)

    def _finished(self) -> str:
        took = duration(self._clock() - self._began)
        parts = [f"{self.what}: {self.done:,} in {took}", speed_text(self._speed()), self._note]
        return ", ".join(part for part in parts if part)

    def _write(self, line: str, end: str) -> None:
        if self._terminal:
            line = f"\r{line[: shutil.get_terminal_size().columns - 1]}\x1b[K"
        with contextlib.suppress(OSError, ValueError):  # work does not end because nobody listens
            self._stream.write(line + end)
            self._stream.flush()
        self._said = True


def is_terminal(stream: TextIO) -> bool:
    """Whether a line on ``stream`` can be drawn over."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def duration(seconds: float) -> str:
    """Seconds as one reads them: ``4.2 s``, ``12 s``, ``3 min 20 s``,
    ``2 h 5 min``, ``3 d 4 h``.
    """
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for size, name, smaller, small in (
        (86400, "d", 3600, "h"),
        (3600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if whole >= size:
            rest = whole % size // smaller
            return f"{whole // size} {name}" + (f" {rest} {small}" if rest else "")
    return f"{whole} s"


def speed_text(a_second: float) -> str:
    """A speed as one reads it: ``57 a second``, ``12 a minute``, ``3 an hour``; nothing where it is
    zero.
    """
    for size, name in ((1, "a second"), (60, "a minute"), (3600, "an hour")):
        if a_second * size >= 1:
            speed = a_second * size
            return f"{speed:,.0f} {name}" if speed >= 9.95 else f"{speed:.1f} {name}"
    return ""
