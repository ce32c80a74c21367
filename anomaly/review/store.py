"""The review database: findings, who said what of them, and who is looking at what.

What inspectors do is a log of events that is only ever added to: a verdict is changed by another one and taken back by
an ``undo``. What the verdicts on a finding come to (its state) follows from the events, and is kept beside it for speed.
Every change is one transaction, and one at a time: BEGIN IMMEDIATE on SQLite, an advisory lock on Postgres. When a
method that writes returns, what it wrote is on the disk.

Higher score = more anomalous. Times are UTC, as text: 2026-01-31T23:59:59.123Z.
"""

from __future__ import annotations

import hashlib
import math
import os
import random
import re
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from anomaly import schema
from anomaly.calibrate import Calibration
from anomaly.detector import Card
from anomaly.drift import Series
from anomaly.errors import AnomalyError, RuntimeMissing
from anomaly.schema import sa
from anomaly.table import Row, printable, read_table, utc_text
from anomaly.verdicts import STATES, VERDICTS, Act, Sample, Stratum, Team, calibration_rows, draw, resolve, team

QUEUES = ("anomalous", "uncertain", "audit", "second")
ORDERS = ("score", "uncertain", "recent", "position")
JUDGED = STATES[1:]
LEASE_SECONDS = 300.0
BUSY_SECONDS = 60
CHUNK = 5_000  # rows that are inserted at a time
MOST_VALUES = 500  # in one IN (...)
LOCK = 0x616E6F6D  # Postgres's advisory lock of writers
LONGEST_NAME, LONGEST_COMMENT, LONGEST_KEY = 200, 10_000, 200
MAX_IMAGE_BYTES = 256 << 20
DETECTOR = re.compile(r"(?P<name>.+)@(?P<version>\S+) sha256:(?P<digest>[0-9a-f]{4,64})")

Condition: TypeAlias = "sa.ColumnElement[bool]"
T = TypeVar("T")

_f, _e, _v, _l = schema.findings.c, schema.events.c, schema.verdicts.c, schema.leases.c
_undo = schema.events.alias("undo")


class Store:
    """A review database: an SQLite file, made where there is none, or a Postgres by its URL. Threads may share it.

        with Store("review.db") as store:
            run, new = store.import_table(Path("scores.csv"), by="ann")
            finding = store.next("ann", filters=Filters(run=run.id))[0]
            store.record("ann", finding.id, "normal", key=default_key())

    An older database is migrated; a newer one, or one that is something else, is an AnomalyError. ``clock``: seconds
    since 1970, by default those of the database's host.
    """

    def __init__(self, database: str | os.PathLike[str], *, clock: Callable[[], float] | None = None) -> None:
        self._engine = _open_engine(database)
        self._sqlite = self._engine.dialect.name == "sqlite"
        self._clock = clock
        self._runs: dict[int, Run] = {}
        try:
            self._migrate()
        except BaseException:
            self._engine.dispose()
            raise

    def _migrate(self) -> None:
        with self._read() as c:
            if schema.is_current(c):
                return
        with self._write() as c:
            schema.migrate(c, self._now_text(c))

    def close(self) -> None:
        self._engine.dispose()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def url(self) -> str:
        """The database's address without its password."""
        return self._engine.url.render_as_string(hide_password=True)

    # ---- transactions ----

    def _read(self) -> AbstractContextManager[sa.Connection]:
        return self._transaction("BEGIN")

    @contextmanager
    def _write(self) -> Iterator[sa.Connection]:
        with self._transaction("BEGIN IMMEDIATE") as c:
            if not self._sqlite:
                c.execute(sa.select(sa.func.pg_advisory_xact_lock(LOCK)))
            yield c

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[sa.Connection]:
        try:
            with self._engine.connect().execution_options(begin=begin) as c, c.begin():
                yield c
        except (sa.exc.DatabaseError, sa.exc.TimeoutError) as error:
            if isinstance(error, sa.exc.IntegrityError | sa.exc.ProgrammingError | sa.exc.DataError):
                raise
            raise AnomalyError(f"review database {self.url}: {_reason(error)}") from error

    def _now(self, c: sa.Connection) -> float:
        """Seconds since 1970. Where several hosts share a database it is the database's clock that counts."""
        if self._clock is not None:
            return self._clock()
        return time.time() if self._sqlite else float(c.scalar(sa.text("SELECT extract(epoch FROM clock_timestamp())")))

    def _now_text(self, c: sa.Connection) -> str:
        return utc_text(datetime.fromtimestamp(self._now(c), UTC))

    # ---- runs and detectors ----

    def runs(self) -> list[Run]:
        """All runs, the newest first."""
        with self._read() as c:
            return [_run(row) for row in c.execute(_RUNS.order_by(schema.runs.c.id.desc()))]

    def run(self, run: int) -> Run:
        """One run; AnomalyError where there is none."""
        with self._read() as c:
            return self._run(c, run)

    def _run(self, c: sa.Connection, run: int) -> Run:
        if run not in self._runs:  # a run never changes
            row = c.execute(_RUNS.where(schema.runs.c.id == run)).first()
            if row is None:
                raise AnomalyError(f"run {run} is not in this review database: see `anomaly review stats`")
            self._runs[run] = _run(row)
        return self._runs[run]

    def detectors(self) -> list[Detector]:
        with self._read() as c:
            table = schema.detectors
            rows = c.execute(sa.select(table.c.digest, table.c.name, table.c.version, table.c.card).order_by(table.c.id))
            return [Detector(**row._mapping) for row in rows]

    def detector(self, digest: str) -> Detector:
        found = [detector for detector in self.detectors() if detector.digest == digest]
        if not found:
            raise AnomalyError(f"detector {digest[:12]} has no run in this review database: import a score table of it")
        return found[0]

    def import_table(
        self,
        table: Path,
        *,
        name: str | None = None,
        folder: Path | None = None,
        roots: Sequence[Path] = (),
        card: Card | None = None,
        by: str = "",
    ) -> tuple[Run, bool]:
        """The run of a score table, and whether it is new: the same file a second time adds nothing.

        ``name``: of the run (default: the file's, numbered where it is taken); ``folder``: what relative paths are
        relative to (default: the current one); ``roots``: the folders that images may be read from (default: the
        images' common one); ``card``: of the detector that scored it. Raises AnomalyError.
        """
        fingerprint = _fingerprint(table)
        base = Path(folder or Path.cwd()).absolute()
        with self._write() as c:
            found = c.scalar(sa.select(schema.runs.c.id).where(schema.runs.c.fingerprint == fingerprint))
            if found is not None:
                return self._run(c, found), False
            rows = enumerate(read_table(table))
            first = next(rows, None)
            if first is None:
                raise AnomalyError(f"{table}: a score table without rows found, at least 1 image expected")
            run = self._begin_run(c, table, first[1], fingerprint, _free_name(c, table, name), base, card, by)
            counts = _insert_findings(c, run, table, first[1], rows)
            c.execute(schema.runs.update().where(schema.runs.c.id == run).values(counts))
            for root in {Path(root).resolve() for root in roots} or {_common_root(c, run, base)}:
                c.execute(schema.roots.insert().values(run=run, folder=os.fspath(root)))
            self._append(c, key=f"import {fingerprint}", inspector=by, action="import", run=run, payload=counts)
            return self._run(c, run), True

    def _begin_run(
        self,
        c: sa.Connection,
        table: Path,
        first: Row,
        fingerprint: str,
        name: str,
        base: Path,
        card: Card | None,
        by: str,
    ) -> int:
        detector = _detector_id(c, table, first.detector, card)
        values = {
            "name": name,
            "source": printable(os.fspath(table.absolute())),
            "fingerprint": fingerprint,
            "folder": os.fspath(base),
            "detector": detector,
            "threshold": first.threshold,
            "images": 0,
            "flagged": 0,
            "not_judged": 0,
            "imported_at": self._now_text(c),
            "imported_by": by and _name(by),
        }
        return int(c.execute(schema.runs.insert().values(values).returning(schema.runs.c.id)).scalar_one())

    # ---- findings ----

    def finding(self, finding: int) -> Finding:
        """One finding; AnomalyError where there is none."""
        with self._read() as c:
            return _finding(self._row(c, finding))

    def _row(self, c: sa.Connection, finding: int) -> sa.Row[Any]:
        row = c.execute(sa.select(*_FINDING).where(_f.id == finding)).first()
        if row is None:
            raise AnomalyError(f"finding {finding} is not in this review database: open the queue again")
        return row

    def findings(self, filters: Filters, order: str = "score", limit: int = 100, offset: int = 0) -> list[Finding]:
        """Findings that match. ``order``: ``score`` (highest first), ``uncertain`` (nearest the limit first),
        ``recent`` (last judged first) or ``position`` (as in the table)."""
        query = _ordered(sa.select(*_FINDING).where(*_matching(filters)), order)
        with self._read() as c:
            return [_finding(row) for row in c.execute(query.limit(limit).offset(offset))]

    def count(self, filters: Filters) -> int:
        with self._read() as c:
            return int(c.scalar(sa.select(sa.func.count()).select_from(schema.findings).where(*_matching(filters))) or 0)

    def progress(self, run: int) -> Progress:
        """How far a run is reviewed."""
        count, judged = sa.func.count(), _f.state != "open"
        inside = sa.select(count).select_from(schema.findings).where(_f.run == run)
        with self._read() as c:
            found = self._run(c, run)
            states = c.execute(sa.select(_f.state, count).where(_f.run == run).group_by(_f.state))
            return Progress(
                images=found.images,
                flagged=found.flagged,
                flagged_judged=c.scalar(inside.where(_f.stratum == 0, judged)) or 0,
                audit=c.scalar(inside.where(_f.lot.is_not(None))) or 0,
                audit_judged=c.scalar(inside.where(_f.lot.is_not(None), judged)) or 0,
                not_judged_by_detector=found.not_judged,
                states=dict.fromkeys(STATES, 0) | {state: number for state, number in states},
            )

    def folders(self, run: int) -> list[Folder]:
        """The folders of a run's images, in order."""
        flagged = sa.func.count().filter(_f.stratum == 0)
        query = sa.select(_f.folder, sa.func.count(), flagged).where(_f.run == run).group_by(_f.folder)
        with self._read() as c:
            return [Folder(*row) for row in c.execute(query.order_by(_f.folder))]

    def scores(self, run: int, folder: str | None = None) -> NDArray[np.float32]:
        """The scores of a run's judged images, float32 (n,), in no particular order."""
        query = sa.select(_f.score).where(*_matching(Filters(run=run, folder=folder, status="ok")))
        with self._read() as c:
            return np.fromiter(c.execute(query).scalars(), dtype=np.float32)

    def same_image(self, finding: int) -> list[Finding]:
        """What other runs, mostly of other detectors, found in the very same image."""
        with self._read() as c:
            row = self._row(c, finding)
            query = sa.select(*_FINDING).where(_f.image == row.image, _f.id != finding, _f.sha256.is_not(None))
            return [_finding(found) for found in c.execute(query.order_by(_f.id.desc()).limit(50))]

    def similar(self, finding: int, limit: int = 6) -> list[Finding]:
        """Findings of the same run with about the same score, those first whose region overlaps this one's most."""
        with self._read() as c:
            row = self._row(c, finding)
            if row.score is None:
                return []
            inside = sa.select(*_FINDING).where(_f.run == row.run, _f.id != finding)
            below = inside.where(_f.score <= row.score).order_by(_f.score.desc()).limit(5 * limit)
            above = inside.where(_f.score > row.score).order_by(_f.score).limit(5 * limit)
            found = {r.id: _finding(r) for query in (below, above) for r in c.execute(query)}
            this = _finding(row)
        return sorted(found.values(), key=lambda f: (-_overlap(f, this), abs((f.score or 0) - row.score)))[:limit]

    # ---- images ----

    def roots(self, run: int) -> list[Path]:
        """The folders that a run's images may be read from."""
        with self._read() as c:
            return [Path(folder) for folder in c.execute(_ROOTS.where(schema.roots.c.run == run)).scalars()]

    def add_root(self, run: int, folder: Path, *, by: str, key: str) -> None:
        """Lets a run's images be read from one more folder (and what lies below it)."""
        if not folder.is_dir():
            raise AnomalyError(f"{folder}: no such folder; one that holds images of the run was expected")
        real = os.fspath(folder.resolve())
        with self._write() as c:
            if self._repeated(c, key, by, "root", None) is None:
                self._append(c, key=key, inspector=by, action="root", run=self._run(c, run).id, payload={"folder": real})
                if real not in c.execute(_ROOTS.where(schema.roots.c.run == run)).scalars().all():
                    c.execute(schema.roots.insert().values(run=run, folder=real))

    def image(self, finding: int, max_bytes: int = MAX_IMAGE_BYTES) -> ImageFile:
        """The bytes of a finding's image, read once and compared with what was scored. Never outside the run's roots."""
        with self._read() as c:
            row = self._row(c, finding)
            run = self._run(c, row.run)
            roots = [Path(folder) for folder in c.execute(_ROOTS.where(schema.roots.c.run == run.id)).scalars()]
        return read_image(Path(run.folder), row.path, row.sha256, roots, max_bytes)

    # ---- the queue ----

    def next(
        self,
        inspector: str,
        queue: str = "anomalous",
        filters: Filters = Filters(),
        count: int = 1,
        seconds: float = LEASE_SECONDS,
        known_share: float = 0.0,
    ) -> list[Finding]:
        """Up to ``count`` findings for this inspector to judge, leased for ``seconds``: nobody else gets these images.

        ``queue``: ``anomalous`` (highest score first), ``uncertain`` (nearest the limit), ``audit`` (the audit sample in
        the order of its lots) or ``second`` (unsure, or inspectors disagree). ``filters.run`` says of which run; with
        ``filters.state`` or ``filters.inspector`` that takes the place of the queue's own choice of states. What the
        inspector holds already comes first, so that asking again gives the same. ``known_share``: how many of the new
        ones are to be hidden known images, as far as there are such.
        """
        me = _name(inspector)
        if filters.run is None:
            raise AnomalyError("no run given, one of Store.runs() expected: scores of different runs do not compare")
        mine_not = ~sa.exists().where(_v.finding == _f.id, _v.inspector == me)
        wanted = sa.and_(mine_not, *_queued(queue, filters))
        known = sa.and_(mine_not, _f.truth.is_not(None))
        with self._write() as c:
            now = self._now(c)
            detector = self._run(c, filters.run).detector
            c.execute(schema.leases.delete().where(_l.until <= now))
            held = self._held(c, me, wanted, known, queue, count)
            missing = count - len(held)
            tests = self._draw_known(c, known, detector, sum(random.random() < known_share for _ in range(missing)))
            fresh = self._free(c, wanted, queue, missing - len(tests), [row.image for row in tests])
            new = [(row, queue) for row in fresh]
            for row in tests:
                new.insert(random.randint(0, len(new)), (row, "known"))
            self._lease(c, me, [(row.image, name) for row, name in new], held, now, seconds)
        return [_finding(row) for row in [*held, *(row for row, _ in new)]]

    def _held(
        self, c: sa.Connection, me: str, wanted: Condition, known: Condition, queue: str, count: int
    ) -> list[sa.Row[Any]]:
        """What the inspector was handed before and has not judged, in the order it was handed."""
        held = sa.select(*_FINDING).join(schema.leases, _l.image == _f.image).where(_l.inspector == me)
        held = held.where(sa.or_(wanted, sa.and_(_l.queue == "known", known))).order_by(_l.since)
        return _one_each(c.execute(_ordered(held, _ORDER_OF[queue]).limit(2 * count)))[:count]

    def _free(
        self, c: sa.Connection, wanted: Condition, queue: str, count: int, taken: Sequence[str]
    ) -> list[sa.Row[Any]]:
        """The next findings in the queue whose images are in nobody's hands. Expired leases are gone already."""
        if count < 1:
            return []
        free = ~sa.exists().where(_l.image == _f.image)
        query = _ordered(sa.select(*_FINDING).where(wanted, free), _ORDER_OF[queue])
        # the same image may be there twice: one of them is enough
        rows = _one_each(row for row in c.execute(query.limit(2 * count)) if row.image not in taken)
        return rows[:count]

    def _draw_known(self, c: sa.Connection, known: Condition, detector: str, count: int) -> list[sa.Row[Any]]:
        if count < 1:
            return []
        same = _f.run.in_(
            sa.select(schema.runs.c.id)
            .join(schema.detectors, schema.detectors.c.id == schema.runs.c.detector)
            .where(schema.detectors.c.digest == detector)
        )
        query = sa.select(*_FINDING).where(known, same, ~sa.exists().where(_l.image == _f.image))
        return _one_each(c.execute(query.order_by(sa.func.random()).limit(count)))

    def _lease(
        self,
        c: sa.Connection,
        me: str,
        new: Sequence[tuple[str, str]],
        held: Sequence[sa.Row[Any]],
        now: float,
        seconds: float,
    ) -> None:
        if held:
            mine = sa.and_(_l.inspector == me, _l.image.in_([row.image for row in held]))
            c.execute(schema.leases.update().where(mine).values(until=now + seconds))
        if new:
            lease = {"inspector": me, "until": now + seconds}
            # a millionth of a second apart, so that they come back in this order
            rows = [{"image": image, "queue": queue, "since": now + 1e-6 * i, **lease} for i, (image, queue) in enumerate(new)]
            c.execute(schema.leases.insert(), rows)

    def renew(self, inspector: str, findings: Collection[int], seconds: float = LEASE_SECONDS) -> list[int]:
        """Keeps leases for ``seconds`` more and returns those findings that the inspector still holds."""
        me = _name(inspector)
        with self._write() as c:
            now = self._now(c)
            held = sa.select(_f.id, _f.image).join(schema.leases, _l.image == _f.image)
            held = held.where(_f.id.in_(list(findings)), _l.inspector == me, _l.until > now)
            rows = c.execute(held.order_by(_f.id)).all()
            mine = sa.and_(_l.inspector == me, _l.image.in_([row.image for row in rows]))
            c.execute(schema.leases.update().where(mine).values(until=now + seconds))
        return [row.id for row in rows]

    def release(self, inspector: str, findings: Collection[int] | None = None) -> None:
        """Gives images back to the queue: those of ``findings``, or all that this inspector holds."""
        gone = schema.leases.delete().where(_l.inspector == _name(inspector))
        if findings is not None:
            gone = gone.where(_l.image.in_(sa.select(_f.image).where(_f.id.in_(list(findings)))))
        with self._write() as c:
            c.execute(gone)

    # ---- verdicts ----

    def record(
        self,
        inspector: str,
        finding: int,
        verdict: str,
        *,
        key: str,
        defect_type: str | None = None,
        comment: str = "",
        seconds: float | None = None,
    ) -> Event:
        """The event of a verdict, one of VERDICTS, which counts until this inspector gives another or takes it back.

        ``key``: of this click; the same one again returns the same event and adds nothing. ``defect_type`` goes with
        ``anomalous`` only. ``seconds``: how long the inspector looked. ``skip`` puts the image aside for this inspector.
        """
        if verdict not in VERDICTS:
            raise AnomalyError(f"verdict {verdict!r} found, one of {', '.join(VERDICTS)} expected")
        if defect_type is not None and verdict != "anomalous":
            raise AnomalyError(f"defect type {defect_type!r} with verdict {verdict!r} found: only anomalous images have one")
        payload: dict[str, Any] = {"text": _comment(comment)} if comment.strip() else {}
        if seconds is not None and math.isfinite(seconds):
            payload["seconds"] = round(max(0.0, seconds), 3)
        with self._write() as c:
            if event := self._repeated(c, key, inspector, verdict, finding):
                return event
            row = self._row(c, finding)
            if defect_type is not None:
                _check_defect_type(c, defect_type)
            event = self._append(
                c, key=key, inspector=inspector, action=verdict, finding=row, defect_type=defect_type, payload=payload
            )
            self._settle(c, finding)
            c.execute(schema.leases.delete().where(_l.image == row.image, _l.inspector == event.inspector))
            return event

    def undo(self, inspector: str, *, key: str, event: int | None = None, run: int | None = None) -> Event | None:
        """The event that takes back one of this inspector's own verdicts or comments; ``undoes`` says which.

        ``event``: its id; without one it is the last verdict that is not undone (of ``run``, where given), and None is
        returned where there is none. The verdict before it, if any, counts again. The image is leased to the
        inspector, unless somebody else holds it.
        """
        with self._write() as c:
            if done := self._repeated(c, key, inspector, "undo", None, undoes=event):
                return done
            target = self._last_verdict(c, inspector, run) if event is None else self._own(c, inspector, event)
            if target is None:
                return None
            row = self._row(c, target.finding)
            done = self._append(c, key=key, inspector=inspector, action="undo", finding=row, undoes=target.id)
            self._settle(c, row.id)
            now, taken = self._now(c), sa.select(_l.image).where(_l.image == row.image)
            c.execute(schema.leases.delete().where(_l.until <= now))
            if target.action != "comment" and c.scalar(taken) is None:
                self._lease(c, done.inspector, [(row.image, "undo")], [], now, LEASE_SECONDS)
            return done

    def comment(self, inspector: str, finding: int, text: str, *, key: str) -> Event:
        """The event of a comment on a finding. It changes no verdict, and can be undone."""
        with self._write() as c:
            if event := self._repeated(c, key, inspector, "comment", finding):
                return event
            row, payload = self._row(c, finding), {"text": _comment(text)}
            return self._append(c, key=key, inspector=inspector, action="comment", finding=row, payload=payload)

    def event(self, event: int) -> Event:
        """One event; AnomalyError where there is none."""
        with self._read() as c:
            return self._event(c, _e.id == event)

    def events(
        self,
        *,
        inspector: str | None = None,
        finding: int | None = None,
        run: int | None = None,
        actions: Collection[str] | None = None,
        limit: int | None = 10,
    ) -> list[Event]:
        """What was done, the newest first, the undone too (they are marked)."""
        query = _EVENTS.order_by(_e.id.desc()).limit(limit)
        for column, value in ((_e.inspector, inspector), (_e.finding, finding), (_e.run, run)):
            query = query if value is None else query.where(column == value)
        query = query if actions is None else query.where(_e.action.in_(actions))
        with self._read() as c:
            return [Event(**row._mapping) for row in c.execute(query)]

    def current(self, finding: int) -> dict[str, Event]:
        """The verdict (or skip) of each inspector on a finding that counts now."""
        query = _EVENTS.join(schema.verdicts, _v.id == _e.id).where(_v.finding == finding).order_by(_e.inspector)
        with self._read() as c:
            return {row.inspector: Event(**row._mapping) for row in c.execute(query)}

    def inspectors(self) -> list[str]:
        """Everybody who has given a verdict."""
        query = sa.select(_e.inspector).where(_e.action.in_(VERDICTS)).distinct().order_by(_e.inspector)
        with self._read() as c:
            return list(c.execute(query).scalars())

    def _event(self, c: sa.Connection, which: Condition) -> Event:
        row = c.execute(_EVENTS.where(which)).first()
        if row is None:
            raise AnomalyError("this event is not in the review database: open the page again")
        return Event(**row._mapping)

    def _append(
        self,
        c: sa.Connection,
        *,
        key: str,
        inspector: str,
        action: str,
        finding: sa.Row[Any] | None = None,
        run: int | None = None,
        detector: str | None = None,
        threshold: float | None = None,
        defect_type: str | None = None,
        undoes: int | None = None,
        payload: Mapping[str, Any] | None = None,
    ) -> Event:
        """Adds to the log; with a finding, the detector and limit that its result comes from."""
        if finding is not None:
            run, threshold = finding.run, finding.threshold
            detector = self._run(c, finding.run).detector
        values = {
            "uuid": str(uuid.uuid4()),
            "key": _key(key),
            "at": self._now_text(c),
            "inspector": _name(inspector) if action != "import" else inspector and _name(inspector),
            "action": action,
            "finding": None if finding is None else finding.id,
            "run": run,
            "detector": detector,
            "threshold": threshold,
            "defect_type": defect_type,
            "undoes": undoes,
            "payload": dict(payload or {}),
        }
        new = c.execute(schema.events.insert().values(values).returning(_e.id)).scalar_one()
        return Event(id=new, undone=False, **values)

    def _repeated(
        self, c: sa.Connection, key: str, inspector: str, action: str, finding: int | None, undoes: int | None = None
    ) -> Event | None:
        """The event with this key, if the click was counted already; AnomalyError where it was another click."""
        row = c.execute(_EVENTS.where(_e.key == _key(key))).first()
        if row is None:
            return None
        event = Event(**row._mapping)
        same = (event.inspector, event.action) == (_name(inspector), action)
        if not same or (finding is not None and event.finding != finding) or (undoes is not None and event.undoes != undoes):
            raise AnomalyError(f"key {key!r} belongs to another action ({event.action}): make a new key for each click")
        return event

    def _last_verdict(self, c: sa.Connection, inspector: str, run: int | None) -> Event | None:
        query = _EVENTS.where(_e.inspector == _name(inspector), _e.action.in_(VERDICTS), _undo.c.id.is_(None))
        query = query if run is None else query.where(_e.run == run)
        row = c.execute(query.order_by(_e.id.desc()).limit(1)).first()
        return None if row is None else Event(**row._mapping)

    def _own(self, c: sa.Connection, inspector: str, event: int) -> Event:
        found = self._event(c, _e.id == event)
        if found.inspector != _name(inspector):
            raise AnomalyError(f"event {event} is by {found.inspector}: only they can take it back; give your own verdict")
        if found.action not in (*VERDICTS, "comment"):
            raise AnomalyError(f"event {event} ({found.action}) cannot be undone, only verdicts and comments can")
        if found.undone:
            raise AnomalyError(f"event {event} is undone already: open the page again")
        return found

    def _settle(self, c: sa.Connection, finding: int) -> None:
        """Works out anew what the verdicts on a finding come to."""
        columns = (_v.id, _v.verdict, _v.defect_type)
        current = c.execute(sa.select(*columns).where(_v.finding == finding).order_by(_v.id)).all()
        state = resolve(row.verdict for row in current)
        types = [row.defect_type for row in current if row.defect_type is not None]
        values = {
            "state": state,
            "defect_type": types[-1] if types and state == "anomalous" else None,
            "last_event": current[-1].id if current else None,
        }
        c.execute(schema.findings.update().where(_f.id == finding).values(values))

    # ---- set-up ----

    def defect_types(self) -> list[DefectType]:
        """The kinds of defects to choose from, in order."""
        table = schema.defect_types.c
        with self._read() as c:
            rows = c.execute(sa.select(table.name, table.key, table.colour).order_by(table.place))
            return [DefectType(**row._mapping) for row in rows]

    def set_defect_types(self, types: Sequence[DefectType], *, by: str, key: str) -> None:
        """Replaces the list of defect types. Verdicts keep the type they were given, on the list or not."""
        _check_defect_types(types)
        with self._write() as c:
            if self._repeated(c, key, by, "types", None) is not None:
                return
            self._append(c, key=key, inspector=by, action="types", payload={"types": [asdict(t) for t in types]})
            c.execute(schema.defect_types.delete())
            rows = [{"place": place, **asdict(kind)} for place, kind in enumerate(types)]
            if rows:
                c.execute(schema.defect_types.insert(), rows)

    def draw_audit(self, run: int, images: int, seed: int = 0, *, by: str, key: str) -> list[Stratum]:
        """Draws an audit sample of about ``images`` of a run (see ``verdicts.draw``) and returns its strata.

        A second draw makes it larger; it keeps the seed and what was drawn before.
        """
        with self._write() as c:
            if self._repeated(c, key, by, "audit", None) is None:
                self._run(c, run)
                _check_draw(c, run, images, seed)
                columns = (_f.id, _f.score, _f.is_anomaly)
                rows = c.execute(sa.select(*columns).where(_f.run == run, _f.status == "ok").order_by(_f.position)).all()
                found = draw([row.score for row in rows], [bool(row.is_anomaly) for row in rows], images, seed)
                drawn = [
                    {"finding": rows[i].id, "part": int(found.stratum[i]), "number": float(found.lot[i]), "inner": bool(found.core[i])}
                    for i in np.flatnonzero(found.drawn)
                ]
                _store_draw(c, run, drawn, found.strata, seed, images)
                payload = {"images": images, "seed": seed, "drawn": len(drawn)}
                self._append(c, key=key, inspector=by, action="audit", run=run, payload=payload)
            return _strata(c, run)

    def strata(self, run: int) -> list[Stratum]:
        """The strata of a run's audit sample, [] where none was drawn."""
        with self._read() as c:
            return _strata(c, run)

    def set_known(self, finding: int, truth: str | None, *, by: str, key: str) -> None:
        """Makes a finding a hidden known image (``truth`` ``anomalous`` or ``normal``) to measure inspectors by, or not."""
        if truth not in (None, "anomalous", "normal"):
            raise AnomalyError(f"truth {truth!r} found; anomalous, normal or None expected")
        with self._write() as c:
            if self._repeated(c, key, by, "known", finding) is None:
                row = self._row(c, finding)
                self._append(c, key=key, inspector=by, action="known", finding=row, payload={"truth": truth})
                c.execute(schema.findings.update().where(_f.id == finding).values(truth=truth))

    def set_threshold(
        self, run: int, threshold: float, *, by: str, key: str, detector: str | None = None, path: str = ""
    ) -> Event:
        """Notes in the log who chose a limit after looking at a run, and the digest and path of the detector made of it."""
        with self._write() as c:
            if event := self._repeated(c, key, by, "threshold", None):
                return event
            parent = self._run(c, run)
            payload = {"parent": parent.detector, "parent_threshold": parent.threshold, "path": path}
            return self._append(
                c, key=key, inspector=by, action="threshold", run=run, threshold=threshold, detector=detector, payload=payload
            )

    # ---- numbers ----

    def sample(self, run: int) -> Sample:
        """The flagged images and the audit sample of a run with their states, for ``verdicts.precision`` and others."""
        aside = sa.exists().where(_v.finding == _f.id, _v.verdict == "skip")
        state = sa.case((sa.and_(_f.state == "open", aside), "skip"), else_=_f.state)
        columns = (_f.id, _f.score, _f.stratum, _f.lot, _f.core, state.label("now"))
        with self._read() as c:
            found = self._run(c, run)
            rows = c.execute(sa.select(*columns).where(_f.run == run, _f.stratum.is_not(None)).order_by(_f.id)).all()
            strata = _strata(c, run) or [Stratum(0, found.threshold, None, found.flagged, 0)]
        return Sample(
            threshold=found.threshold,
            strata=strata,
            findings=np.array([row.id for row in rows], dtype=np.int64),
            scores=np.array([row.score for row in rows], dtype=np.float32),
            stratum=np.array([row.stratum for row in rows], dtype=np.int64),
            lot=np.array([math.nan if row.lot is None else row.lot for row in rows], dtype=np.float64),
            core=np.array([bool(row.core) for row in rows], dtype=bool),
            states=np.array([row.now for row in rows], dtype=np.str_),
        )

    def calibration_images(self, run: int) -> list[Finding]:
        """Images judged normal that may set a limit: drawn by lot whatever their score (``verdicts.calibration_rows``)."""
        sample = self.sample(run)
        return self._by_id(sample.findings[calibration_rows(sample)].tolist())

    def judged_anomalous(self, sha256s: Collection[str]) -> list[Finding]:
        """Which of these images were judged anomalous in any run: a calibration image among them should not set a limit."""
        with self._read() as c:
            return [
                _finding(row)
                for some in _chunks(sorted(sha256s), MOST_VALUES)
                for row in c.execute(sa.select(*_FINDING).where(_f.image.in_(some), _f.state == "anomalous"))
            ]

    def _by_id(self, ids: Sequence[int]) -> list[Finding]:
        with self._read() as c:
            some = (c.execute(sa.select(*_FINDING).where(_f.id.in_(part))) for part in _chunks(ids, MOST_VALUES))
            found = {row.id: _finding(row) for rows in some for row in rows}
        return [found[finding] for finding in ids]

    def team(self, run: int | None = None) -> Team:
        """Who has done what, and how far they agree: in a run, or in all."""
        query = _EVENTS.add_columns(_v.id.label("current")).where(_e.action.in_(VERDICTS))
        query = query.outerjoin(schema.verdicts, _v.id == _e.id).order_by(_e.id)
        query = query if run is None else query.where(_e.run == run)
        with self._read() as c:
            acts = [
                Act(row.inspector, row.finding, row.action, row.undone, row.current is not None, row.payload.get("seconds"))
                for row in c.execute(query)
            ]
            truths = c.execute(sa.select(_f.id, _f.truth).where(_f.truth.is_not(None)))
            return team(acts, {row.id: row.truth for row in truths})

    def compare(self, a: int, b: int) -> Comparison:
        """Two runs on the images, by digest, that both judged; in the order of run ``a``."""
        one, other = schema.findings.alias("one"), schema.findings.alias("other")
        columns = (one.c.id, other.c.id, one.c.path, one.c.score, other.c.score, one.c.is_anomaly, other.c.is_anomaly)
        query = sa.select(*columns).join(other, sa.and_(other.c.image == one.c.image, other.c.run == b))
        query = query.where(one.c.run == a, one.c.status == "ok", other.c.status == "ok").order_by(one.c.position, other.c.id)
        with self._read() as c:
            runs = self._run(c, a), self._run(c, b)
            pairs = {row[0]: row for row in reversed(c.execute(query).all())}  # the first, where an image is there twice
        ids_a, ids_b, paths, *numbers = zip(*reversed(pairs.values()), strict=True) if pairs else ((),) * 7
        return Comparison(
            *runs, list(ids_a), list(ids_b), list(paths),
            np.array(numbers[0], dtype=np.float32), np.array(numbers[1], dtype=np.float32),
            np.array(numbers[2], dtype=bool), np.array(numbers[3], dtype=bool),
        )  # fmt: skip

    def series(self, detector: str, depth: int = 1) -> list[Series]:
        """The scores of all runs of a detector in the order they were made, for each folder, for ``drift.watch``.

        ``depth``: how many levels of folders below each run's common one tell cameras apart (0: none).
        """
        columns = (_f.run, _f.folder, _f.scored_at, _f.score, _f.status)
        query = sa.select(*columns).where(_f.run.in_(sa.bindparam("runs", expanding=True)))
        chosen = [run.id for run in self.runs() if run.detector == detector]
        common = {run: os.path.commonpath([f.path for f in self.folders(run)]) for run in chosen}
        found: dict[str, list[sa.Row[Any]]] = {}
        with self._read() as c:
            for row in c.execute(query.order_by(_f.scored_at, _f.run, _f.position), {"runs": chosen}):
                parts = Path(os.path.relpath(row.folder or ".", common[row.run] or ".")).parts
                found.setdefault("/".join(parts[:depth]) or ".", []).append(row)
        return [_series(name, found[name]) for name in sorted(found)]


# ---- what is asked of it ----

_RUNS = sa.select(
    *(column for column in schema.runs.c if column.name not in ("detector", "fingerprint")),
    schema.detectors.c.digest.label("detector"),
).join(schema.detectors, schema.detectors.c.id == schema.runs.c.detector)
_ROOTS = sa.select(schema.roots.c.folder).order_by(schema.roots.c.folder)
_FINDING = [column for column in schema.findings.c if column.name not in ("distance", "last_event", "truth")]
_EVENTS = sa.select(schema.events, _undo.c.id.is_not(None).label("undone")).outerjoin(_undo, _undo.c.undoes == _e.id)
_ORDER_OF = {"anomalous": "score", "uncertain": "uncertain", "audit": "lot", "second": "score"}


def _matching(filters: Filters) -> list[Condition]:
    """The conditions of all filters that are set."""
    found: list[Condition] = []
    if filters.run is not None:
        found.append(_f.run == filters.run)
    if filters.folder is not None:
        below = filters.folder.rstrip("/")
        # "0" is the character after "/": everything that begins with "folder/"
        found.append(sa.or_(_f.folder == filters.folder, sa.and_(_f.folder >= f"{below}/", _f.folder < f"{below}0")))
    if filters.flagged is not None:
        found.append(_f.stratum == 0 if filters.flagged else _f.is_anomaly.is_(False))
    if filters.status is not None:
        found.append(_f.status == filters.status)
    if filters.low is not None:
        found.append(_f.score >= filters.low)
    if filters.high is not None:
        found.append(_f.score <= filters.high)
    if filters.state is not None:
        found.append(_f.state.in_(JUDGED) if filters.state == "judged" else _f.state == filters.state)
    if filters.defect_type is not None:
        found.append(_f.defect_type == filters.defect_type)
    if filters.inspector is not None:
        found.append(sa.exists().where(_v.finding == _f.id, _v.inspector == filters.inspector))
    return found


def _queued(queue: str, filters: Filters) -> list[Condition]:
    """The conditions of a queue within the filters."""
    if queue not in QUEUES:
        raise AnomalyError(f"queue {queue!r} found, one of {', '.join(QUEUES)} expected")
    found = _matching(filters)
    if queue == "audit":
        found.append(_f.lot.is_not(None))
    if queue == "uncertain":
        found.append(_f.distance.is_not(None))
    if filters.state is None and filters.inspector is None:
        found.append(_f.state.in_(("unsure", "disagreement")) if queue == "second" else _f.state == "open")
    return found


def _ordered(query: sa.Select[Any], order: str) -> sa.Select[Any]:
    if order == "score":
        return query.order_by(_f.score.desc().nulls_last(), _f.id)
    if order == "uncertain":
        return query.where(_f.distance.is_not(None)).order_by(_f.distance, _f.id)
    if order == "recent":
        return query.where(_f.last_event.is_not(None)).order_by(_f.last_event.desc())
    if order == "lot":
        return query.order_by(_f.lot)
    if order == "position":
        return query.order_by(_f.run, _f.position)
    raise AnomalyError(f"order {order!r} found, one of {', '.join(ORDERS)} expected")


def _run(row: sa.Row[Any]) -> Run:
    return Run(**row._mapping)


def _finding(row: sa.Row[Any]) -> Finding:
    values = dict(row._mapping)
    box = tuple(values.pop(f"box_{part}") for part in "xywh")
    lot, _, _ = values.pop("lot"), values.pop("core"), values.pop("image")
    sampled_as = "flagged" if values["is_anomaly"] else "audit" if lot is not None else None
    return Finding(**values, box=None if None in box else box, sampled_as=sampled_as)


def _series(name: str, rows: Sequence[sa.Row[Any]]) -> Series:
    judged = [row for row in rows if row.status == "ok"]
    scores = np.array([row.score for row in judged], dtype=np.float32)
    return Series(name, scores, [row.scored_at for row in judged], sum(row.status == "outside" for row in rows))


def _one_each(rows: Iterable[sa.Row[Any]]) -> list[sa.Row[Any]]:
    """One row for each image, the first."""
    found: dict[str, sa.Row[Any]] = {}
    for row in rows:
        found.setdefault(row.image, row)
    return list(found.values())


def _overlap(a: Finding, b: Finding) -> float:
    """Intersection over union of two regions, 0 to 1."""
    if a.box is None or b.box is None:
        return 0.0
    (ax, ay, aw, ah), (bx, by, bw, bh) = a.box, b.box
    width, height = min(ax + aw, bx + bw) - max(ax, bx), min(ay + ah, by + bh) - max(ay, by)
    inside = max(0, width) * max(0, height)
    return inside / max(1, aw * ah + bw * bh - inside)


def _chunks(values: Iterable[T], size: int) -> Iterator[list[T]]:
    rest = iter(values)
    while some := list(islice(rest, size)):
        yield some


# ---- what comes from people ----


def _name(text: str) -> str:
    return _line(text, "name of an inspector", LONGEST_NAME)


def _key(text: str) -> str:
    return _line(text, "key of a click", LONGEST_KEY)


def _line(text: str, what: str, longest: int) -> str:
    found = text.strip()
    if not found or len(found) > longest or not found.isprintable():
        raise AnomalyError(f"{what} {text[:40]!r} found, 1 to {longest} printable characters on one line expected")
    return found


def _comment(text: str) -> str:
    found = printable(text).replace("\0", "").strip()
    if not found or len(found) > LONGEST_COMMENT:
        raise AnomalyError(f"a comment of {len(found):,} characters found, 1 to {LONGEST_COMMENT:,} expected")
    return found


def _check_defect_types(types: Sequence[DefectType]) -> None:
    """A type's name becomes the name of a folder in an export."""
    for kind in types:
        name = _line(kind.name, "defect type", 60)
        if name != kind.name or re.search(r'[/\\:*?"<>|]', name) or name.startswith(".") or name.lower() in ("good", "normal"):
            raise AnomalyError(f"defect type {name!r} found, a name without / \\ : * ? \" < > |, not good or normal expected")
        if kind.key not in (None, *range(1, 10)) or not re.fullmatch(r"#[0-9a-fA-F]{6}", kind.colour):
            raise AnomalyError(f"defect type {name!r}: key {kind.key!r}, colour {kind.colour!r}; expected 1 to 9 and #rrggbb")
    keys = [kind.key for kind in types if kind.key is not None]
    if len(keys) != len(set(keys)) or len({kind.name.lower() for kind in types}) != len(types):
        raise AnomalyError("two defect types with the same name or key found: give each its own")


def _check_defect_type(c: sa.Connection, name: str) -> None:
    names = c.execute(sa.select(schema.defect_types.c.name)).scalars().all()
    if name not in names:
        raise AnomalyError(f"defect type {name!r} found, one of {', '.join(names) or 'none yet'} expected: add it to the list")


def _check_draw(c: sa.Connection, run: int, images: int, seed: int) -> None:
    table = schema.strata.c
    row = c.execute(sa.select(table.seed, table.size).where(table.run == run).limit(1)).first()
    if row is not None and row.seed != seed:
        raise AnomalyError(f"an audit sample with seed {row.seed} is drawn already: keep that seed, or its odds would be lost")
    if row is not None and row.size > images:
        raise AnomalyError(f"an audit sample of {row.size} is drawn already, {images} asked for: it can only grow")


def _store_draw(
    c: sa.Connection, run: int, drawn: Sequence[Mapping[str, Any]], strata: Sequence[Stratum], seed: int, size: int
) -> None:
    update = schema.findings.update().where(_f.id == sa.bindparam("finding"))
    values = {"stratum": sa.bindparam("part"), "lot": sa.bindparam("number"), "core": sa.bindparam("inner")}
    if drawn:
        c.execute(update.values(values), list(drawn))
    c.execute(schema.strata.delete().where(schema.strata.c.run == run))
    rows = [
        {"run": run, "number": s.number, "low": s.low, "high": s.high, "images": s.images, "drawn": s.drawn, "seed": seed, "size": size}
        for s in strata
    ]
    c.execute(schema.strata.insert(), rows)


def _strata(c: sa.Connection, run: int) -> list[Stratum]:
    table = schema.strata.c
    answered = (
        sa.select(_f.stratum, sa.func.count().label("judged"))
        .where(_f.run == run, _f.stratum.is_not(None), _f.lot.is_not(None), _f.state.in_(("anomalous", "normal")))
        .group_by(_f.stratum)
    )
    judged = {row.stratum: row.judged for row in c.execute(answered)}
    columns = (table.number, table.low, table.high, table.images, table.drawn)
    rows = c.execute(sa.select(*columns).where(table.run == run).order_by(table.number))
    return [Stratum(*row, judged=judged.get(row.number, 0)) for row in rows]


