"""The database under the review: an SQLite file or a Postgres, with one writer at a time on both."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from anomaly.errors import AnomalyError, RuntimeMissing
from anomaly.review import schema
from anomaly.table import utc_text

BUSY_SECONDS = 60
LOCK = 0x616E6F6D  # Postgres's advisory lock of writers


class Database:
    """A review database, brought up to date. ``clock``: seconds since 1970, by default those of the database's host.

    Plain BEGIN would let two SQLite transactions read and then both try to write, and one of them fail; and serialised
    writers need no other locks on Postgres either. Threads may share it, processes open their own.
    """

    def __init__(self, database: str | os.PathLike[str], clock: Callable[[], float] | None = None) -> None:
        self._engine = _open_engine(database)
        self._sqlite = self._engine.dialect.name == "sqlite"
        self._clock = clock
        try:
            self._migrate()
        except BaseException:
            self.close()
            raise

    def _migrate(self) -> None:
        with self.read() as c:
            current = schema.is_current(c)
        if not current:
            with self.write() as c:
                schema.migrate(c, self.now_text(c))

    def close(self) -> None:
        self._engine.dispose()

    @property
    def url(self) -> str:
        """The address without its password."""
        return self._engine.url.render_as_string(hide_password=True)

    def read(self) -> AbstractContextManager[sa.Connection]:
        """A transaction that sees one state of the database and waits for nobody."""
        return self._transaction("BEGIN")

    @contextmanager
    def write(self, lasting: bool = True) -> Iterator[sa.Connection]:
        """A transaction that is the only one to write; at its end what it wrote is on the disk.

        Not ``lasting``: it does not wait for the disk, and outlives the process but not a loss of power.
        """
        with self._transaction("BEGIN IMMEDIATE", "FULL" if lasting else "NORMAL") as c:
            if not self._sqlite:
                wait = "on" if lasting else "off"
                c.exec_driver_sql(f"SELECT set_config('synchronous_commit', '{wait}', true), pg_advisory_xact_lock({LOCK})")
            yield c

    @contextmanager
    def _transaction(self, begin: str, synchronous: str = "FULL") -> Iterator[sa.Connection]:
        try:
            with self._engine.connect().execution_options(begin=begin, synchronous=synchronous) as c, c.begin():
                yield c
        except (sa.exc.DatabaseError, sa.exc.TimeoutError) as error:
            if isinstance(error, sa.exc.IntegrityError | sa.exc.ProgrammingError | sa.exc.DataError):
                raise
            raise AnomalyError(f"review database {self.url}: {_reason(error)}") from error

    def now(self, c: sa.Connection) -> float:
        """Seconds since 1970. Where several hosts share a database it is the database's clock that counts."""
        if self._clock is not None:
            return self._clock()
        return time.time() if self._sqlite else float(c.scalar(sa.text("SELECT extract(epoch FROM clock_timestamp())")))

    def now_text(self, c: sa.Connection) -> str:
        return utc_text(datetime.fromtimestamp(self.now(c), UTC))


def _open_engine(database: str | os.PathLike[str]) -> sa.Engine:
    text = os.fspath(database)
    url = sa.engine.make_url(text) if "://" in text else sa.URL.create("sqlite", database=text)
    if url.get_backend_name() == "sqlite":
        return _open_sqlite(url)
    if url.drivername.split("+")[0] not in ("postgresql", "postgres"):
        raise AnomalyError(f"database {url.get_backend_name()} found, an SQLite file or postgresql://... expected")
    try:
        return sa.create_engine(url.set(drivername="postgresql+psycopg"), pool_pre_ping=True)
    except ImportError as error:
        raise RuntimeMissing.extra("psycopg", "postgres", "a review database on Postgres") from error


def _open_sqlite(url: sa.URL) -> sa.Engine:
    if not url.database or url.database == ":memory:":
        raise AnomalyError("an SQLite database in memory was asked for, a file expected: verdicts must outlive the process")
    folder = Path(url.database).absolute().parent
    if not folder.is_dir():
        raise AnomalyError(f"{folder}: no such folder; make it first, or choose another file")
    engine = sa.create_engine(url, connect_args={"timeout": BUSY_SECONDS, "isolation_level": None})

    @sa.event.listens_for(engine, "connect")
    def connect(connection: Any, _: object) -> None:
        connection.execute("PRAGMA foreign_keys = ON")
        # Turning WAL on does not wait for others by itself. It stays on, so that it happens once in a file's life.
        if connection.execute("PRAGMA journal_mode").fetchone() != ("wal",):
            _patiently(lambda: connection.execute("PRAGMA journal_mode = WAL"))

    @sa.event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        options = connection.get_execution_options()
        connection.exec_driver_sql(f"PRAGMA synchronous = {options['synchronous']}")
        connection.exec_driver_sql(options["begin"])

    return engine


def _patiently(act: Callable[[], object]) -> None:
    for attempt in range(100):
        try:
            act()
        except sqlite3.OperationalError:
            if attempt == 99:
                raise
            time.sleep(0.02)
        else:
            return


def _reason(error: Exception) -> str:
    text = " ".join(str(getattr(error, "orig", None) or error).split())[:300]
    if "locked" in text or isinstance(error, sa.exc.TimeoutError):
        return f"others have been writing to it for {BUSY_SECONDS} s ({text}): try again"
    if "not a database" in text:
        return "not an SQLite database; a review database or a new file expected: choose another one"
    return f"{text}: check that it is there, may be written to and has room"
