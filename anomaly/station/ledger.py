"""The ledger of a station: every result, once, before anybody hears of it; and how far each sink
has got.

One SQLite file in WAL mode. The judge alone writes, one transaction for each image: its result
(and its unit's), what was counted, where its source goes on, and how far the sinks have got since.
A process that is killed at any moment loses none of it and judges nothing twice. Results that every
sink has, but for the newest ``KEPT_RESULTS``, are removed again: the file does not grow.
"""

from __future__ import annotations

import sqlite3
import threading
import uuid
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from anomaly.errors import AnomalyError
from anomaly.files.table import utc_text
from anomaly.station.results import StationResult

KEPT_RESULTS = 10_000  # results that stay when all sinks have them: by these, repeats are known
SHOWN_RESULTS = 50
FORMAT = "2"
TABLES = """
CREATE TABLE IF NOT EXISTS station (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS results (seq INTEGER PRIMARY KEY, of TEXT NOT NULL, source TEXT NOT NULL,
    origin TEXT, record TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS results_origin ON results (source, origin);
CREATE TABLE IF NOT EXISTS counts (of TEXT, outcome TEXT, number INTEGER NOT NULL,
    PRIMARY KEY (of, outcome)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS places (source TEXT PRIMARY KEY, origin TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS sinks (name TEXT PRIMARY KEY, delivered INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS files (source TEXT, path TEXT, size INTEGER, mtime INTEGER, file INTEGER,
    PRIMARY KEY (source, path)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS views (serial TEXT, seq INTEGER,
    PRIMARY KEY (serial, seq)) WITHOUT ROWID;
"""


@dataclass(frozen=True)
class Noted:
    """What goes into the ledger beside results. ``origin``: what tells one image of a source from
    its others; ``file``: path, size, time and inode of an image file. ``waiting``: the serial
    number of the unit of which the image is a view; ``joined``: of the one that has its result.
    """

    source: str = ""
    origin: str | None = None
    file: tuple[str, int, int, int] | None = None
    waiting: str | None = None
    joined: str | None = None


class Ledger:
    """The ledger in a state folder, which is made where there is none; AnomalyError where another
    station's process holds it.

    ``last``: the number of the newest result. ``since``: when the ledger was made. ``counts``: of
    results, by (of, outcome).
    ``newest``: the last 50 results of images and of units, newest first. ``delivered``: how far
    each sink has got; the threads of sinks set it, the judge saves it. ``gone``: image files
    (source, path) to be forgotten; any thread adds to it.
    """

    def __init__(self, folder: Path, sinks: Sequence[str]) -> None:
        self.file = folder / "station.db"
        folder.mkdir(parents=True, exist_ok=True)
        self._db = self._open()
        facts = dict(self._db.execute("SELECT key, value FROM station"))
        if facts.get("format") != FORMAT:
            raise AnomalyError(
                f"{self.file}: a ledger of format {facts.get('format')!r} found, {FORMAT!r} "
                "expected: choose another state folder (state = ...)"
            )
        self.station_id, self.last = facts["id"], int(facts["last"])
        self.since = facts["since"]
        rows = self._db.execute("SELECT of, outcome, number FROM counts")
        self.counts = Counter({(of, outcome): number for of, outcome, number in rows})
        known = dict(self._db.execute("SELECT name, delivered FROM sinks"))
        # a sink that is new begins with what is new
        self.delivered: dict[str, int] = {name: known.get(name, self.last) for name in sinks}
        self._saved: dict[str, int] = {}
        self.newest = {
            of: deque(
                (StationResult.from_json(text) for (text,) in self._newest(of)), SHOWN_RESULTS
            )
            for of in ("image", "unit")
        }
        self.gone: deque[tuple[str, str]] = deque()
        self.changed = threading.Condition()
        self.save()

    def _open(self) -> sqlite3.Connection:
        try:
            db = sqlite3.connect(self.file, isolation_level=None, check_same_thread=False)
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            db.executescript(TABLES)
            db.execute("BEGIN IMMEDIATE")
            for key, value in {
                "format": FORMAT,
                "id": uuid.uuid4().hex[:12],
                "last": "0",
                "since": utc_text(datetime.now(UTC)),
            }.items():
                db.execute("INSERT OR IGNORE INTO station VALUES (?, ?)", (key, value))
            db.execute("COMMIT")
        except sqlite3.Error as error:
            raise AnomalyError(
                f"{self.file}: cannot be used as a station's ledger ({error}): choose another "
                "state folder (state = ...)"
            ) from error
        return db

    def _newest(self, of: str) -> Iterator[tuple[str]]:
        return self._db.execute(
            "SELECT record FROM results WHERE of = ? ORDER BY seq DESC LIMIT ?", (of, SHOWN_RESULTS)
        )

    def waiting(self, sink: str) -> int:
        """Returns how many results of both kinds a sink has still to look at; 0 for one that shows
        the newest only.
        """
        return self.last - self.delivered.get(sink, self.last)

    def close(self) -> None:
        self.save()
        self._db.close()

    # ---- writing: the judge's thread ----

    def add(self, results: Sequence[StationResult], noted: Noted) -> None:
        """Makes results safe, with all that changes with them; they are on the disk when this
        returns. AnomalyError where the disk does not take them.
        """
        last = results[-1].seq
        with self._transaction():
            for result in results:
                self._insert(result, noted)
            self._note(noted, last)
            self._save_delivered()
            self._forget(last)
        self.last = last
        for result in results:
            self.counts[result.of, result.outcome] += 1
            self.newest[result.of].appendleft(result)
        with self.changed:
            self.changed.notify_all()

    def _insert(self, result: StationResult, noted: Noted) -> None:
        self._db.execute(
            "INSERT INTO results VALUES (?, ?, ?, ?, ?)",
            (
                result.seq,
                result.of,
                result.source,
                noted.origin if result.of == "image" else None,
                result.to_json(),
            ),
        )
        self._db.execute(
            "INSERT INTO counts VALUES (?, ?, 1) "
            "ON CONFLICT (of, outcome) DO UPDATE SET number = number + 1",
            (result.of, result.outcome),
        )

    def _note(self, noted: Noted, last: int) -> None:
        replace = "INSERT OR REPLACE INTO"
        gone = [self.gone.popleft() for _ in range(len(self.gone))]
        self._db.executemany("DELETE FROM files WHERE source = ? AND path = ?", gone)
        self._db.execute("UPDATE station SET value = ? WHERE key = 'last'", (str(last),))
        if noted.origin is not None:
            self._db.execute(f"{replace} places VALUES (?, ?)", (noted.source, noted.origin))
        if noted.file is not None:
            self._db.execute(f"{replace} files VALUES (?, ?, ?, ?, ?)", (noted.source, *noted.file))
        if noted.waiting is not None:
            self._db.execute(f"{replace} views VALUES (?, ?)", (noted.waiting, last))
        if noted.joined is not None:
            self._db.execute("DELETE FROM views WHERE serial = ?", (noted.joined,))

    def _save_delivered(self) -> None:
        changed = [(n, at) for n, at in self.delivered.items() if self._saved.get(n) != at]
        self._db.executemany("INSERT OR REPLACE INTO sinks VALUES (?, ?)", changed)
        self._saved.update(changed)

    def _forget(self, last: int) -> None:
        """Removes results that every sink has: a few at a time, so that no image waits for it."""
        done = min([last, *self.delivered.values()])
        self._db.execute(
            "DELETE FROM results WHERE seq IN (SELECT seq FROM results WHERE seq <= ? "
            "AND seq NOT IN (SELECT seq FROM views) ORDER BY seq LIMIT 8)",
            (min(done, last - KEPT_RESULTS),),
        )

    def save(self) -> None:
        """Saves how far the sinks have got, where that has changed."""
        if self._saved != self.delivered:
            with self._transaction():
                self._save_delivered()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Makes what is written in the block safe, all of it or nothing; AnomalyError."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            yield
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            with suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
            what = "no room left" if "full" in str(error) else f"cannot be written ({error})"
            raise AnomalyError(
                f"{self.file}: {what}; no image is lost: mend it and start the same command again"
            ) from error

    # ---- reading: any thread, each with a connection of its own ----

    def reader(self) -> LedgerReader:
        """Returns what one thread reads with."""
        return LedgerReader(self.file)

    def views(self) -> Mapping[str, list[StationResult]]:
        """Returns the views of units that have no result yet, by serial number."""
        rows = self._db.execute(
            "SELECT serial, record FROM views JOIN results USING (seq) ORDER BY seq"
        )
        found: dict[str, list[StationResult]] = {}
        for serial, text in rows:
            found.setdefault(serial, []).append(StationResult.from_json(text))
        return found


class LedgerReader:
    """Reads the ledger in one thread, while the judge writes it."""

    def __init__(self, file: Path) -> None:
        self._db = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA query_only = ON")

    def close(self) -> None:
        self._db.close()

    def after(self, seq: int, of: str, most: int) -> list[StationResult]:
        """Returns the first results behind ``seq``, of images or of units."""
        rows = self._db.execute(
            "SELECT record FROM results WHERE seq > ? AND of = ? ORDER BY seq LIMIT ?",
            (seq, of, most),
        )
        return [StationResult.from_json(text) for (text,) in rows]

    def of_origin(self, source: str, origin: str) -> StationResult | None:
        """Returns the result of an image that was judged before, None where there is none."""
        row = self._db.execute(
            "SELECT record FROM results WHERE source = ? AND origin = ? LIMIT 1", (source, origin)
        ).fetchone()
        return None if row is None else StationResult.from_json(row[0])

    def place(self, source: str) -> str | None:
        """Returns the origin of the newest image of a source."""
        row = self._db.execute("SELECT origin FROM places WHERE source = ?", (source,)).fetchone()
        return None if row is None else str(row[0])

    def files(self, source: str) -> dict[str, tuple[int, int, int]]:
        """Returns the size, time and inode of each image file that has its result."""
        rows = self._db.execute(
            "SELECT path, size, mtime, file FROM files WHERE source = ?", (source,)
        )
        return {path: (size, mtime, file) for path, size, mtime, file in rows}
