"""Opening a review database: an SQLite file or a Postgres by its address, made only where that was
asked for.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa

from anomaly.errors import AnomalyError, RuntimeMissing
from anomaly.review.columns import read_json

BUSY_SECONDS = 60
EXPECTED = (
    "a review database expected: check the name, or make one with anomaly score ... --review DB, "
    "anomaly review import TABLE or anomaly serve ... --create-review"
)


def open_engine(database: str | os.PathLike[str], create: bool) -> sa.Engine:
    """Returns an engine on a database; AnomalyError where it is none, or is not there and may not
    be made.

    ``create``: whether an SQLite file that is not there, or is empty, may become a database.
    """
    text = os.fspath(database)
    url = _url(text) if "://" in text else sa.URL.create("sqlite", database=text)
    if url.drivername.split("+")[0] == "sqlite":
        return _open_sqlite(url, create)
    if url.drivername.split("+")[0] not in ("postgresql", "postgres"):
        raise AnomalyError(
            f"database {url.drivername} found, an SQLite file or postgresql://... expected"
        )
    try:
        return sa.create_engine(
            url.set(drivername="postgresql+psycopg"),
            pool_pre_ping=True,
            json_deserializer=read_json,
        )
    except ImportError as error:
        raise RuntimeMissing.extra(
            "psycopg", "postgres", "a review database on Postgres"
        ) from error


def _url(text: str) -> sa.URL:
    try:
        return sa.engine.make_url(text)
    except (sa.exc.ArgumentError, ValueError) as error:
        shown = text.partition("://")[0]  # what follows may hold a password
        raise AnomalyError(
            f"{shown}://... is no address; an SQLite file or postgresql://USER@HOST/NAME expected"
        ) from error


def _open_sqlite(url: sa.URL, create: bool) -> sa.Engine:
    if not url.database or url.database == ":memory:":
        raise AnomalyError(
            "an SQLite database in memory was asked for, a file expected: verdicts must outlive "
            "the process"
        )
    if url.query:
        raise AnomalyError(
            f"options {', '.join(url.query)} in the address of an SQLite file found, none expected"
        )
    file = Path(url.database).absolute()
    _check_file(file, url.database, create)
    # SQLite makes a file at any connection, unless the mode says otherwise: one that is taken away
    # later is not made anew
    where = f"file:{quote(os.fsencode(file))}?mode={'rwc' if create else 'rw'}"

    def connection() -> sqlite3.Connection:
        return sqlite3.connect(
            where, uri=True, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )

    engine = sa.create_engine(url, creator=connection, json_deserializer=read_json)
    sa.event.listen(engine, "connect", _prepare)
    sa.event.listen(engine, "begin", _begin)
    return engine


def _check_file(file: Path, named: str, create: bool) -> None:
    """Raises AnomalyError for what cannot be a review database, before SQLite makes anything
    of it.
    """
    if not file.parent.is_dir():
        raise AnomalyError(f"{file.parent}: no such folder; make it first, or choose another file")
    if file.is_dir():
        raise AnomalyError(f"{named}: is a folder; {EXPECTED}")
    if file.exists() and not file.is_file():
        raise AnomalyError(f"{named}: is a pipe or a device; {EXPECTED}")
    if create:
        return
    if not file.exists():
        near = sorted(other.name for other in file.parent.glob("*.db") if other.is_file())[:5]
        there = f" (there: {', '.join(near)})" if near else ""
        raise AnomalyError(f"{named}: no such file{there}; {EXPECTED}")
    if not file.stat().st_size:
        raise AnomalyError(f"{named}: an empty file found; {EXPECTED}")


def _prepare(connection: Any, _: object) -> None:
    connection.execute("PRAGMA foreign_keys = ON")
    if connection.execute("PRAGMA journal_mode").fetchone() == ("wal",):
        return
    # A file of somebody else's is refused later, and stays as it is.
    ours = "SELECT name FROM sqlite_master WHERE name = 'migrations'"
    if (
        connection.execute("PRAGMA page_count").fetchone() == (0,)
        or connection.execute(ours).fetchone()
    ):
        # Turning WAL on does not wait for others by itself. It stays on, so that it happens once in
        # a file's life.
        _patiently(lambda: connection.execute("PRAGMA journal_mode = WAL"))


def _begin(connection: sa.Connection) -> None:
    options = connection.get_execution_options()
    connection.exec_driver_sql(f"PRAGMA synchronous = {options['synchronous']}")
    connection.exec_driver_sql(options["begin"])


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
