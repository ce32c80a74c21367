"""Jobs: `anomaly` commands that were started from the dashboard, in a queue in the database.

One worker works the queue off, one job at a time. It holds a lease that it renews every few
seconds: while it holds, a second worker ends at once; once it has lapsed, the worker is dead, and
the job that it ran is interrupted.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa

from anomaly.errors import AnomalyError
from anomaly.review import journal, schema
from anomaly.review.database import Database

LEASE_SECONDS = 20.0  # a worker that was not heard of for so long is dead
MAX_LINES = 5000  # of a job that are kept, the last ones
MAX_LINE_CHARACTERS = 2000
ENDED = ("done", "failed", "stopped", "interrupted")
JOB, LINE, WORKER = schema.jobs.c, schema.job_lines.c, schema.job_workers.c


@dataclass(frozen=True)
class Job:
    """A command to run. ``kind``: train, calibrate or learn; ``given``: its options, see
    job_commands.py. ``state``: waiting, running, or one of ENDED. ``resumed``: how often it was
    started again. ``status``: exit status, once it ended by itself.
    """

    id: int
    kind: str
    given: dict[str, str]
    state: str
    made_by: str
    made_at: str
    started_at: str | None
    ended_at: str | None
    status: int | None
    resumed: int

    @property
    def ended(self) -> bool:
        return self.state in ENDED


COLUMNS = [column for column in schema.jobs.c if column.name not in ("key", "stop")]


class Jobs:
    """The queue of a review database; threads may share it. Every method is one transaction."""

    def __init__(
        self, database: str | os.PathLike[str], clock: Callable[[], float] | None = None
    ) -> None:
        self._db = Database(database, clock, create=False)

    def close(self) -> None:
        self._db.close()

    # ---- for pages ----

    def put(self, kind: str, given: Mapping[str, str], *, by: str, key: str) -> Job:
        """The job, at the end of the queue; the same key again gives the same job."""
        values = {"kind": kind, "given": dict(given), "made_by": journal.name(by), "key": key}
        with self._db.write() as c:
            found = c.scalar(sa.select(JOB.id).where(JOB.key == key))
            if found is None:
                at = self._db.now_text(c)
                made = schema.jobs.insert().values(state="waiting", made_at=at, resumed=0, **values)
                found = c.execute(made.returning(JOB.id)).scalar_one()
            return self._find(c, found)

    def all(self, limit: int = 20) -> list[Job]:
        """The last jobs, the newest first."""
        query = sa.select(*COLUMNS).order_by(JOB.id.desc()).limit(limit)
        with self._db.read() as c:
            alive = self._worker(c) is not None
            return [_as_job(row, alive) for row in c.execute(query)]

    def job(self, number: int) -> Job:
        """One job; AnomalyError where there is none."""
        with self._db.read() as c:
            return self._find(c, number)

    def lines(self, number: int, last: int = 200) -> list[str]:
        """The last lines that a job has printed, in order."""
        query = sa.select(LINE.text).where(LINE.job == number).order_by(LINE.number.desc())
        with self._db.read() as c:
            return list(c.execute(query.limit(last)).scalars())[::-1]

    def stop(self, number: int) -> None:
        """Asks for the end of a job: one that waits does not begin, one that runs is stopped."""
        with self._db.write() as c:
            job, at = self._find(c, number), self._db.now_text(c)
            if job.state == "waiting":
                _set(c, number, state="stopped", ended_at=at)
            elif job.state == "running":
                _set(c, number, stop=True)

    def resume(self, number: int) -> None:
        """Puts a job that has ended into the queue again; AnomalyError where it has not."""
        with self._db.write() as c:
            job = self._find(c, number)
            if not job.ended or job.state == "done":
                raise AnomalyError(f"job {number} is {job.state}: only one that ended can resume")
            again = {"state": "waiting", "resumed": job.resumed + 1, "stop": False}
            _set(c, number, **again, status=None, ended_at=None)

    def needs_worker(self) -> bool:
        """Whether a job waits and no worker is alive."""
        with self._db.read() as c:
            waits = c.scalar(sa.select(sa.exists().where(JOB.state == "waiting")))
            return bool(waits) and self._worker(c) is None

    # ---- for the worker ----

    def take(self, worker: str) -> Job | None:
        """The next job, which now runs in this worker's hands; None where there is none, or another
        worker is alive: this one has to end.
        """
        with self._db.write() as c:
            if self._worker(c) not in (None, worker):
                return None
            c.execute(schema.job_workers.delete())
            # whoever ran them is gone
            gone = schema.jobs.update().where(JOB.state == "running")
            c.execute(gone.values(state="interrupted", ended_at=self._db.now_text(c)))
            first = c.scalar(sa.select(sa.func.min(JOB.id)).where(JOB.state == "waiting"))
            if first is None:
                return None
            until = self._db.now(c) + LEASE_SECONDS
            c.execute(schema.job_workers.insert().values(place=1, worker=worker, until=until))
            _set(c, first, state="running", started_at=self._db.now_text(c))
            return replace(self._find(c, first), state="running")

    def note(self, worker: str, number: int, lines: Sequence[tuple[int, str]]) -> bool:
        """Keeps numbered lines of a job (a number again replaces its line) and the worker's lease;
        returns whether the job may go on.
        """
        with self._db.write(lasting=False) as c:
            until = self._db.now(c) + LEASE_SECONDS
            held = schema.job_workers.update().where(WORKER.worker == worker)
            if not c.execute(held.values(until=until)).rowcount:
                return False
            if lines:
                _keep_lines(c, number, dict(lines))
            return not c.scalar(sa.select(JOB.stop).where(JOB.id == number))

    def last_number(self, number: int) -> int:
        """The number of a job's last line, 0 without one."""
        with self._db.read() as c:
            return c.scalar(sa.select(sa.func.max(LINE.number)).where(LINE.job == number)) or 0

    def end(self, worker: str, number: int, status: int) -> None:
        """Notes that a job has ended, unless another worker has taken over."""
        with self._db.write() as c:
            if self._holder(c) != worker:
                return
            stopped = c.scalar(sa.select(JOB.stop).where(JOB.id == number))
            state = "done" if status == 0 else "stopped" if stopped else "failed"
            _set(c, number, state=state, status=status, ended_at=self._db.now_text(c))

    # ---- inside a transaction ----

    def _holder(self, c: sa.Connection) -> str | None:
        return c.scalar(sa.select(WORKER.worker))

    def _worker(self, c: sa.Connection) -> str | None:
        """The worker that is alive."""
        return c.scalar(sa.select(WORKER.worker).where(WORKER.until > self._db.now(c)))

    def _find(self, c: sa.Connection, number: int) -> Job:
        row = c.execute(sa.select(*COLUMNS).where(JOB.id == number)).first()
        if row is None:
            raise AnomalyError(f"job {number} is not in this review database")
        return _as_job(row, self._worker(c) is not None)


def _as_job(row: Any, alive: bool) -> Job:
    job = Job(**row._mapping)
    return replace(job, state="interrupted") if job.state == "running" and not alive else job


def _set(c: sa.Connection, number: int, **values: object) -> None:
    c.execute(schema.jobs.update().where(JOB.id == number).values(**values))


def _keep_lines(c: sa.Connection, number: int, lines: Mapping[int, str]) -> None:
    of_job = schema.job_lines.delete().where(LINE.job == number)
    c.execute(of_job.where(LINE.number.in_(list(lines))))
    rows = [
        {"job": number, "number": at, "text": text.replace("\0", "")[:MAX_LINE_CHARACTERS]}
        for at, text in lines.items()
    ]
    c.execute(schema.job_lines.insert(), rows)
    c.execute(of_job.where(LINE.number <= max(lines) - MAX_LINES))
