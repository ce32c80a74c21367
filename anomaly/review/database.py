"""The database under the review, with one writer at a time on SQLite and Postgres alike."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime

import sqlalchemy as sa

from anomaly.errors import AnomalyError
from anomaly.files.table import utc_text
from anomaly.review import schema
from anomaly.review.engine import BUSY_SECONDS, EXPECTED, open_engine

LOCK = 0x616E6F6D  # Postgres's advisory lock of writers


class Database:
    """A review database, brought up to date. ``clock``: seconds since 1970, by default those of the
    database's host.

    Plain BEGIN would let two SQLite transactions read and then both try to write, and one of them
    fail; and serialised writers need no other locks on Postgres either. Threads may share it,
    processes open their own.
    """

    def __init__(
        self,
        database: str | os.PathLike[str],
        clock: Callable[[], float] | None = None,
        create: bool = True,
    ) -> None:
        self._engine = open_engine(database, create)
        self._sqlite = self._engine.dialect.name == "sqlite"
        self._clock = clock
        try:
            self._migrate(create)
        except BaseException:
            self.close()
            raise

    def _migrate(self, create: bool) -> None:
        with self.read() as c:
            current = schema.is_current(c)
            if not current and not create and schema.is_empty(c):
                raise AnomalyError(
                    f"{self.url}: a database without a review in it found; {EXPECTED}"
                )
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

        Not ``lasting``: it does not wait for the disk, and outlives the process but not a loss of
        power.
        """
        with self._transaction("BEGIN IMMEDIATE", "FULL" if lasting else "NORMAL") as c:
            if not self._sqlite:
                wait = "on" if lasting else "off"
                c.exec_driver_sql(
                    f"SELECT set_config('synchronous_commit', '{wait}', true), "
                    f"pg_advisory_xact_lock({LOCK})"
                )
            yield c

    @contextmanager
    def _transaction(self, begin: str, synchronous: str = "FULL") -> Iterator[sa.Connection]:
        try:
            with (
                self._engine.connect().execution_options(begin=begin, synchronous=synchronous) as c,
                c.begin(),
            ):
                yield c
        except (sa.exc.DatabaseError, sa.exc.TimeoutError) as error:
            if isinstance(
                error, sa.exc.IntegrityError | sa.exc.ProgrammingError | sa.exc.DataError
            ):
                raise
            raise AnomalyError(f"review database {self.url}: {_reason(error)}") from error

    def now(self, c: sa.Connection) -> float:
        """Seconds since 1970. Where several hosts share a database it is the database's clock that
        counts.
        """
        if self._clock is not None:
            return self._clock()
        return (
            time.time()
            if self._sqlite
            else float(c.scalar(sa.text("SELECT extract(epoch FROM clock_timestamp())")))
        )

    def now_text(self, c: sa.Connection) -> str:
        return utc_text(datetime.fromtimestamp(self.now(c), UTC))


def _reason(error: Exception) -> str:
    text = " ".join(str(getattr(error, "orig", None) or error).split())[:300]
    if "locked" in text or isinstance(error, sa.exc.TimeoutError):
        return f"others have been writing to it for {BUSY_SECONDS} s ({text}): try again"
    if "not a database" in text:
        return (
            "not an SQLite database; a review database or a new file expected: choose another one"
        )
    if "readonly" in text or "read-only" in text:
        return (
            f"it can only be read here ({text}): a review writes into it, so allow that or copy it "
            "to where it can"
        )
    if re.search('database ".*" does not exist', text):
        return f"there is no such database ({text}): check the name at the end of the address"
    return f"{text}: check that it is there, may be written to and has room"
