"""`anomaly score --watch`: a row for every image that arrives in a folder, within a second, for as
long as the line runs.

The table only grows: rows are written together and synced to the disk before the next images are
judged. It is also the memory of the watch: a start reads it, cuts off what a loss of power left of
a row, and judges what has no row in it. Another program may move it away or empty it meanwhile (see
`watch_table`).
Where the detector guarantees per unit, the table of units is written when the watch ends: who knows
what still arrives?
"""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any, BinaryIO

from anomaly.detector.session import available_cores
from anomaly.detector.slow_images import now_judging
from anomaly.detector.unit_rule import UnitRule
from anomaly.errors import AnomalyError, ImageError
from anomaly.files.table import COUNTED, Row, encode_rows
from anomaly.files.threads import interruptible
from anomaly.imaging.damage import ends_early
from anomaly.imaging.decode import Decoded
from anomaly.imaging.overlay import shrink
from anomaly.inputs.arrivals import Arrival, Arrivals, state_of
from anomaly.inputs.source import File
from anomaly.inputs.watcher import Watcher, drained
from anomaly.scorer import Result, Scorer
from anomaly.scoring.pictures import SIDE, Pictures
from anomaly.scoring.rows import Read, Work, counted, judged, read_pages, recorded
from anomaly.scoring.run_files import ERROR
from anomaly.scoring.summary import Summary, summary_of
from anomaly.scoring.units import UnitsSummary, units_table, write_units
from anomaly.scoring.watch_table import GrowingTable, not_written

SAY_WAITING_SECONDS = 1.0  # seconds that an image may wait before it is said
# seconds by which the clock of a network share may differ from this machine's
CLOCK_DIFFERENCE_SECONDS = 3600.0
LOOK_AGAIN = 1.0  # seconds until it is seen that another program has moved the table
STOP = "stop"


@dataclass(frozen=True)
class _Looked:
    """A file that was read and judged, page by page.

    ``proven``: its own end mark shows that it is whole; ``same``: unchanged meanwhile.
    """

    pages: list[tuple[Read, Result]]
    proven: bool
    same: bool
    judging: float


@dataclass(frozen=True)
class WatchOptions:
    """How a folder is watched.

    ``patience``: seconds after which a file that never becomes whole gets an error row.
    ``workers``: threads (default: the cores). ``force``: an earlier table and its pictures are
    removed.
    """

    pictures: Pictures
    patience: float = 10.0
    workers: int | None = None
    force: bool = False


class FolderWatch:
    """Judges images as they arrive in ``folders``, and appends their rows to ``out`` (.csv, .jsonl;
    ``-``: to ``stdout``).

        options = WatchOptions(Pictures())
        # until SIGTERM or Ctrl-C
        FolderWatch(scorer, [Path("incoming")], Path("today.csv"), options, say=print).run()

    ``say``: gets a line where images wait for more than a second. ``advance``: called for each row.
    Raises AnomalyError.
    """

    def __init__(
        self,
        scorer: Scorer,
        folders: Sequence[Path],
        out: Path,
        options: WatchOptions,
        *,
        say: Callable[[str], object],
        stdout: BinaryIO | None = None,
        advance: Callable[[], object] = lambda: None,
    ) -> None:
        self._work = Work(scorer, keep_going=True, pictures=options.pictures, out=out)
        self._folders, self._say, self._advance, self._stdout = folders, say, advance, stdout
        self._workers = options.workers or available_cores()
        self._arrivals, self._inbox = Arrivals(options.patience), SimpleQueue[Any]()
        # path as rows have it -> digest of its newest row
        self._known: dict[str, bytes | None] = {}
        self._counts, self._rows, self._reading, self._judging = Counter[str](), 0, 0.0, 0.0
        self._first = 0  # rows before those that are counted, in tables that were moved away
        self._rule, self._force = scorer.card.training.by_unit, options.force
        self._behind_since, self._say_after, self._looked_at = 0.0, SAY_WAITING_SECONDS, 0.0

    def run(self) -> Summary:
        """Watches until SIGTERM or Ctrl-C, and returns what the table holds then."""
        began = time.monotonic()
        self._work.pictures.check(self._work.scorer)
        if self._stdout:
            self._work.pictures.begin(self._force)
        with ExitStack() as stack:
            stack.enter_context(self._stopped_by_signals())
            table = None if self._stdout else stack.enter_context(self._opened())
            resumed = self._rows
            self._first = table.before if table else 0
            pool = stack.enter_context(interruptible(ThreadPoolExecutor(self._workers)))
            watcher = Watcher(self._folders, self._inbox, self._arrivals.known, self._say)
            stack.callback(watcher.close)
            how = (
                "file events and looks"
                if watcher.events
                else "looks; with file events: pip install 'anomaly[watch]'"
            )
            self._say(
                f"watching {', '.join(map(str, self._folders))} ({how}); {resumed:,} rows are "
                "there; Ctrl-C ends it"
            )
            if self._rule and not self._stdout:
                self._say(self._units_said(self._rule))
            self._until_stopped(pool, table)
            passed = watcher.passed()
            units = self._join(self._rule) if self._rule and not self._stdout else None
        waiting, _ = self._arrivals.behind(time.monotonic())
        if waiting:
            self._say(f"stopped while {waiting:,} images wait: the next start judges them")
        seconds = time.monotonic() - began
        summary = summary_of(
            self._work.scorer,
            self._work.out,
            self._counts,
            self._rows,
            resumed,
            seconds,
            self._reading,
            self._judging,
        )
        return replace(
            summary, units=units, passed_over=dict(passed), moved=table.moved if table else 0
        )

    def _units_said(self, rule: UnitRule) -> str:
        return (
            f"the rate is per unit of {rule.views}, not per image: an image above the "
            "threshold flags its unit at once, and no unit is good before "
            f"{units_table(self._work.out)} says so, which is written when this ends"
        )

    def _join(self, rule: UnitRule) -> UnitsSummary:
        """Writes the table of units, and returns what it holds."""
        card = self._work.scorer.card
        return write_units(
            self._work.out, {card.identity: (rule, card.calibration)}, self._work.out.parent
        )

    @contextmanager
    def _stopped_by_signals(self) -> Iterator[None]:
        """The first signal ends the watch in order; a second ends it at once."""

        def stop(number: int, frame: object) -> None:
            self._inbox.put((STOP, ""))
            for again in (signal.SIGINT, signal.SIGTERM):
                signal.signal(again, signal.default_int_handler)  # which raises KeyboardInterrupt

        before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _until_stopped(self, pool: ThreadPoolExecutor, table: GrowingTable | None) -> None:
        stopped, running, look_again = False, 0, 0.0
        while running or not stopped:
            now = time.monotonic()
            finished: list[tuple[Arrival, Future[_Looked]]] = []
            for message in drained(self._inbox, self._pause(now, running)):
                if message[0] == STOP:
                    stopped = True
                elif isinstance(message[0], Arrival):
                    finished.append(message)
                else:
                    event, path = message
                    self._arrivals.told(event, path, time.monotonic())
            running -= len(finished)
            self._append(table, finished)
            if table and now >= look_again:
                table.look()
                look_again = now + LOOK_AGAIN
            while (
                not stopped
                and running < 2 * self._workers
                and (arrival := self._arrivals.take(time.monotonic()))
            ):
                future = pool.submit(self._look, arrival)
                future.add_done_callback(partial(self._hand_in, arrival))
                running += 1
            self._tell_if_late(time.monotonic())

    def _hand_in(self, arrival: Arrival, done: Future[Any]) -> None:
        self._inbox.put((arrival, done))

    def _pause(self, now: float, running: int) -> float:
        """Seconds to wait for news: until the next file is due, or somebody is free to take it."""
        due = self._arrivals.next_due
        return (
            1.0 if due is None or running >= 2 * self._workers else min(1.0, max(0.001, due - now))
        )

    def _look(self, arrival: Arrival) -> _Looked:
        """Reads and judges a file, in a thread."""
        began, pages = time.perf_counter(), []
        for read in read_pages(self._work, 0, File(arrival.path)):
            now_judging(read.name)
            # Where it has its row already, this result goes nowhere.
            result = (
                Result("ok") if self._has_row(read) else judged(self._work.scorer, [read.image])[0]
            )
            pages.append((read if read.page is None else self._light(read), result))
        read, _ = pages[0]
        mark = isinstance(read.image, Decoded) and read.image.format in ("JPEG", "PNG")
        proven = (
            mark
            and isinstance(read.image, Decoded)
            and not ends_early(read.data, read.image.format)
        )
        same = state_of(arrival.path) in (arrival.state, None)
        reading = sum(read.seconds for read, _ in pages)
        return _Looked(pages, proven, same, time.perf_counter() - began - reading)

    def _light(self, read: Read) -> Read:
        """Returns a page with the pixels that its overlay needs, and no more: there may be
        hundreds.
        """
        if not isinstance(read.image, Decoded):
            return read
        small = (
            shrink(read.image.pixels, SIDE)
            if self._work.pictures.overlays
            else read.image.pixels[:1, :1].copy()
        )
        return replace(read, image=replace(read.image, pixels=small))

    # ---- rows ----

    def _append(
        self, table: GrowingTable | None, finished: Sequence[tuple[Arrival, Future[_Looked]]]
    ) -> None:
        """Writes the rows of what is whole, and notes the rest as not yet whole."""
        rows: list[Row] = []
        for arrival, future in finished:
            looked = future.result()
            if not self._is_whole(arrival, looked, time.monotonic()):
                continue
            for read, result in looked.pages:
                if not self._has_row(read):
                    row = recorded(
                        self._work,
                        replace(read, number=self._first + self._rows + len(rows)),
                        result,
                    )
                    self._known[row.path] = _bytes(row.sha256)
                    rows.append(row)
                    self._counts.update(counted(result))
                    self._reading += read.seconds
            self._judging += looked.judging
            self._arrivals.done(arrival)
        if rows:
            if table is not None:
                table.append(rows)
            elif self._stdout is not None:
                self._to_stdout(self._stdout, encode_rows(rows, ".jsonl"))
            self._rows += len(rows)
            for _ in rows:
                self._advance()

    def _has_row(self, read: Read) -> bool:
        """Whether the newest row of this path is one of the same content."""
        return read.sha256 is not None and self._known.get(read.name) == _bytes(read.sha256)

    def _to_stdout(self, stdout: BinaryIO, data: bytes) -> None:
        try:
            stdout.write(data)
            stdout.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise not_written(self._work.out, error) from error

    def _is_whole(self, arrival: Arrival, looked: _Looked, now: float) -> bool:
        """Whether a file gets its row now; else it is noted when to read it again."""
        error = next(
            (read.image for read, _ in looked.pages if isinstance(read.image, ImageError)), None
        )
        if error is not None and error.kind == "unreachable":
            self._arrivals.unreachable(arrival, now)
            return False
        if error is not None and error.kind == "missing" and self._arrivals.renamed(arrival):
            return False
        if not looked.same or not (
            arrival.last or (error is None and (arrival.closed or looked.proven))
        ):
            self._arrivals.not_yet(arrival, now, decodes=error is None)
            return False
        return True

    # ---- the table that is there ----

    @contextmanager
    def _opened(self) -> Iterator[GrowingTable]:
        """Opens the table for this process alone, makes it whole, and takes note of what
        it holds.
        """
        out, suffix = self._work.out, self._work.out.suffix.lower()
        if suffix not in (".csv", ".jsonl"):
            raise AnomalyError(
                f"{out}: {suffix or 'no suffix'} found; with --watch .csv or .jsonl expected, "
                "which can grow"
            )
        if not out.parent.is_dir():
            raise AnomalyError(
                f"{out.parent}: no such folder; make it first, or choose another --out"
            )
        units = units_table(out)
        if self._rule and units.exists() and not (self._force or out.exists()):
            raise AnomalyError(
                f"{units}: a table of units found, but not {out}: choose another --out, or --force"
            )
        with closing(GrowingTable(out, self._work.scorer.card.identity, self._say)) as table:
            new = table.open(self._force)
            self._remember(table)
            if new and not table.before:
                self._work.pictures.begin(self._force)
            if self._rule:  # of an earlier watch: it does not know what arrives now
                units.unlink(missing_ok=True)
            self._work.pictures.go_on(table.before + self._rows)
            yield table
            table.look()  # the summary names a table that is there

    def _remember(self, table: GrowingTable) -> None:
        """Takes note of the rows that are there, and of those of tables that were moved away."""
        times = dict[str, float]()
        self._known.update((path, _bytes(sha256)) for path, sha256 in table.remembered())
        for row in table.read():
            self._known[row.path] = _bytes(row.sha256)
            times[row.path] = datetime.fromisoformat(row.scored_at).astimezone(UTC).timestamp()
            self._rows += 1
            named = [name for name in COUNTED if name == row.result]
            self._counts.update(
                [f"{ERROR}not readable (before)" if row.status == "error" else row.status, *named]
            )
        for path, at in times.items():
            self._arrivals.remember(path, at - CLOCK_DIFFERENCE_SECONDS)

    # ---- behind ----

    def _tell_if_late(self, now: float) -> None:
        """Says that images wait too long, again after twice the time, and that this is over."""
        waiting, seconds = self._arrivals.behind(now)
        if seconds > self._say_after:
            self._say(
                f"behind: {waiting:,} images wait, the first of them for {seconds:.1f} s; "
                f"{self._rows:,} rows are written"
            )
            self._behind_since, self._say_after = self._behind_since or now, 2 * seconds
        elif self._behind_since and seconds < SAY_WAITING_SECONDS / 2:
            self._say(
                f"no longer behind, after {now - self._behind_since:.1f} s; {self._rows:,} rows "
                "written"
            )
            self._behind_since, self._say_after = 0.0, SAY_WAITING_SECONDS


def _bytes(sha256: str | None) -> bytes | None:
    return bytes.fromhex(sha256) if sha256 else None
