"""The review database: findings, who said what of them, and who is looking at what.

What inspectors do is a log of events that is only ever added to: a verdict is changed by another
one and taken back by an ``undo``. What the verdicts on a finding come to (its state) follows from
the events, and is kept with it for speed.

Higher score = more anomalous. Times are UTC, as text: 2026-01-31T23:59:59.123Z.
"""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from anomaly.detector.card import Card
from anomaly.errors import AnomalyError
from anomaly.review import across, audit, chain, handout, intake, journal, over_time, schema
from anomaly.review.chain import Chain
from anomaly.review.database import Database
from anomaly.review.evidence import MAX_IMAGE_BYTES, ImageFile, read_image
from anomaly.review.findings import (
    Comparison,
    DefectType,
    Detector,
    Event,
    Filters,
    Finding,
    Folder,
    Progress,
    Run,
)
from anomaly.review.inspectors import Act, Team, team
from anomaly.review.journal import Click
from anomaly.review.queries import (
    EVENT,
    EVENTS,
    FINDING,
    FINDINGS,
    MAX_QUERY_VALUES,
    ROOTS,
    RUNS,
    VERDICT,
    as_event,
    as_finding,
    as_run,
    chunks,
    find_row,
    find_run,
    following,
    matching,
    ordered,
    undo,
)
from anomaly.review.stream import Sent, Stream
from anomaly.review.stream import append as append_findings
from anomaly.review.verdicts import STATES, VERDICTS, Sample, Stratum, calibration_rows
from anomaly.scoring.units import UnitRow
from anomaly.statistics.drift import Series

LEASE_SECONDS = 300.0
EVERYTHING = Filters()


def default_key() -> str:
    """A new idempotency key: make it when a button is drawn, not when it is pressed, and a double
    press counts once.
    """
    return uuid.uuid4().hex


class Store:
    """A review database: an SQLite file, made where there is none, or a Postgres by its URL.
    Threads may share it.

        with Store("review.db") as store:
            run, new = store.import_table(Path("scores.csv"), by="ann")
            finding = store.next("ann", filters=Filters(run=run.id))[0]
            store.record("ann", finding.id, "normal", key=default_key())

    Every method is one transaction; when one that writes returns, what it wrote is on the disk.
    ``key`` is that of one click: the same key again changes nothing. An older database is migrated;
    a newer one, or one that is something else, is an AnomalyError, as is whatever cannot be done.
    ``create=False``: so is one that is not there or empty. ``clock``: seconds since 1970, by
    default those of the database's host.
    """

    def __init__(
        self,
        database: str | os.PathLike[str],
        *,
        clock: Callable[[], float] | None = None,
        create: bool = True,
    ) -> None:
        self._db = Database(database, clock, create)
        self._folders: dict[int, list[Folder]] = {}  # of runs, which never change

    def close(self) -> None:
        self._db.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def url(self) -> str:
        """The database's address without its password."""
        return self._db.url

    # ---- runs and detectors ----

    def import_table(
        self,
        table: Path,
        *,
        name: str | None = None,
        folder: Path | None = None,
        roots: Sequence[Path] = (),
        card: Card | None = None,
        by: str = "import",
    ) -> tuple[Run, bool]:
        """The run of a score table, and whether it is new: the same file a second time adds
        nothing.

        ``name``: of the run (default: the file's, numbered where it is taken); ``folder``: what
        relative paths are relative to (default: the current one); ``roots``: the folders that
        images may be read from (default: the images' common one); ``card``: of the detector that
        scored it.
        """
        source = intake.Source(table, name, Path(folder or Path.cwd()).absolute(), roots, card)
        digest = intake.fingerprint(table)
        click = Click.of(by, f"import {digest}")
        with self._db.write() as c:
            known = intake.known_run(c, digest)
            if known is not None:
                return find_run(c, known), False
            run = find_run(
                c, intake.insert_run(c, source, digest, click.inspector, self._db.now_text(c))
            )
            payload = {"name": run.name, "images": run.images, "flagged": run.flagged}
            journal.append(
                c,
                click,
                self._db.now_text(c),
                "import",
                run=run.id,
                detector=run.detector,
                threshold=run.threshold,
                payload=payload,
            )
            return run, True

    def add_findings(self, stream: Stream, sent: Sequence[Sent], passed: int, *, by: str) -> Run:
        """Adds findings of a service to its run and returns that; ``passed``: images that were
        judged and are not stored.
        """
        with self._db.write() as c:
            at = self._db.now_text(c)
            number, new = append_findings(c, stream, sent, passed, by, at)
            run = find_run(c, number)
            if new:
                click = Click.of(by, f"import {stream.fingerprint}"[:200])
                payload = {"name": run.name, "images": run.images, "flagged": run.flagged}
                journal.append(
                    c,
                    click,
                    at,
                    "import",
                    run=run.id,
                    detector=run.detector,
                    threshold=run.threshold,
                    payload=payload,
                )
        self._folders.pop(run.id, None)
        return run

    def runs(self) -> list[Run]:
        """All runs, the newest first."""
        with self._db.read() as c:
            return [as_run(row) for row in c.execute(RUNS.order_by(schema.runs.c.id.desc()))]

    def run(self, run: int) -> Run:
        """One run."""
        with self._db.read() as c:
            return find_run(c, run)

    def detectors(self) -> list[Detector]:
        """All detectors that have a run here, in the order they came."""
        table = schema.detectors.c
        query = sa.select(table.digest, table.name, table.version, table.card).order_by(table.id)
        with self._db.read() as c:
            return [Detector(**row._mapping) for row in c.execute(query)]

    def detector(self, digest: str) -> Detector:
        """One detector by the digest of its file."""
        table = schema.detectors.c
        with self._db.read() as c:
            query = sa.select(table.digest, table.name, table.version, table.card)
            row = c.execute(query.where(table.digest == digest)).first()
        if row is None:
            raise AnomalyError(
                f"detector {digest[:12]} has no run in this review database: import a score table "
                "of it"
            )
        return Detector(**row._mapping)

    def identities(self) -> list[tuple[str, str]]:
        """Name and version of every detector that scored a run or was written with a threshold of
        this review.
        """
        noted = [event.payload for event in self.events(actions=("threshold",), limit=None)]
        written = [
            (str(made["name"]), str(made["version"]))
            for made in noted
            if {"name", "version"} <= set(made)
        ]
        return [*((detector.name, detector.version) for detector in self.detectors()), *written]

    # ---- findings ----

    def finding(self, finding: int) -> Finding:
        """One finding."""
        with self._db.read() as c:
            return as_finding(find_row(c, finding))

    def findings(
        self,
        filters: Filters = EVERYTHING,
        order: str = "score",
        limit: int = 100,
        offset: int = 0,
        after: int | None = None,
        besides: Collection[int] = (),
    ) -> list[Finding]:
        """Findings that match. ``order``: ``score`` (highest first), ``uncertain`` (nearest the
        threshold first), ``recent`` (last judged first) or ``position`` (as in the table).
        ``after``: only what comes behind this finding (in the first two orders); ``besides``:
        findings to leave out."""
        query = ordered(FINDINGS.where(*matching(filters)), order).limit(limit).offset(offset)
        query = query if after is None else query.where(following(after, order))
        query = query.where(FINDING.id.not_in(list(besides))) if besides else query
        with self._db.read() as c:
            return [as_finding(row) for row in c.execute(query)]

    def count(self, filters: Filters = EVERYTHING) -> int:
        """How many findings match."""
        with self._db.read() as c:
            return (
                c.scalar(
                    sa.select(sa.func.count())
                    .select_from(schema.findings)
                    .where(*matching(filters))
                )
                or 0
            )

    def remaining(self, queue: str, filters: Filters) -> tuple[int, int]:
        """How many findings of a queue within the filters are left for anybody to judge, and of how
        many.
        """
        with self._db.read() as c:
            return handout.remaining(c, queue, filters)

    def progress(self, run: int) -> Progress:
        """How far a run is reviewed."""
        count, judged, drawn = sa.func.count(), FINDING.state != "open", FINDING.lot.is_not(None)
        inside = sa.select(count).select_from(schema.findings).where(FINDING.run == run)
        with self._db.read() as c:
            found = find_run(c, run)
            states = c.execute(
                sa.select(FINDING.state, count).where(FINDING.run == run).group_by(FINDING.state)
            ).all()
            return Progress(
                images=found.images,
                flagged=found.flagged,
                flagged_judged=c.scalar(inside.where(FINDING.stratum == 0, judged)) or 0,
                audit=c.scalar(inside.where(drawn)) or 0,
                audit_judged=c.scalar(inside.where(drawn, judged)) or 0,
                not_judged_by_detector=found.not_judged,
                states=dict.fromkeys(STATES, 0) | {row[0]: row[1] for row in states},
            )

    def folders(self, run: int) -> list[Folder]:
        """The folders of a run's images, in order."""
        if run not in self._folders:
            query = (
                sa.select(FINDING.folder, sa.func.count())
                .where(FINDING.run == run)
                .group_by(FINDING.folder)
                .order_by(FINDING.folder)
            )
            with self._db.read() as c:
                flagged = {row[0]: row[1] for row in c.execute(query.where(FINDING.stratum == 0))}
                rows = c.execute(query).all()
            self._folders[run] = [
                Folder(path, images, flagged.get(path, 0)) for path, images in rows
            ]
        return self._folders[run]

    def scores(self, run: int, folder: str | None = None) -> NDArray[np.float32]:
        """The scores of a run's judged images, float32 (n,), in no particular order."""
        query = sa.select(FINDING.score).where(
            *matching(Filters(run=run, folder=folder, status="ok"))
        )
        with self._db.read() as c:
            return np.fromiter(c.execute(query).scalars(), dtype=np.float32)

    def other_detectors(self, finding: int, limit: int = 8) -> list[Finding]:
        """What other detectors found in the very same image: of each its newest finding, the newest
        detectors first.
        """
        with self._db.read() as c:
            row = find_row(c, finding)
            return across.other_detectors(c, row, limit) if row.sha256 else []

    def with_common_images(self, run: int) -> list[int]:
        """The other runs that judged an image of this run too, the newest first."""
        with self._db.read() as c:
            return across.with_common_images(c, find_run(c, run).id)

    def similar(self, finding: int, limit: int = 6) -> list[Finding]:
        """Findings of the same run with about the same score, those first whose region overlaps
        this one's most.
        """
        with self._db.read() as c:
            return across.similar(c, find_row(c, finding), limit)

    def unit(self, finding: int) -> tuple[UnitRow, list[Finding]] | None:
        """The verdict on the unit that an image shows, and the unit's views; None where the
        guarantee is per image.
        """
        with self._db.read() as c:
            row = find_row(c, finding)
            run = find_run(c, row.run)
            rule = None if row.unit is None else self.detector(run.detector).unit_rule
            return None if rule is None else across.unit(c, run, row.unit, rule)

    def units(self, run: int) -> tuple[int, int]:
        """How many units a run's images show, and how many of them have a view above
        the threshold.
        """
        count = sa.select(sa.func.count(FINDING.unit.distinct())).where(
            FINDING.run == run, FINDING.unit.is_not(None)
        )
        with self._db.read() as c:
            return c.scalar(count) or 0, c.scalar(count.where(FINDING.stratum == 0)) or 0

    # ---- image files ----

    def image(self, finding: int, max_bytes: int = MAX_IMAGE_BYTES) -> ImageFile:
        """The bytes of a finding's image, read once and compared with what was scored; never
        outside the run's roots.
        """
        with self._db.read() as c:
            row = find_row(c, finding)
            run = find_run(c, row.run)
        return read_image(Path(run.folder), row.path, row.sha256, self.roots(run.id), max_bytes)

    def roots(self, run: int) -> list[Path]:
        """The folders that a run's images may be read from."""
        with self._db.read() as c:
            return [
                Path(folder)
                for folder in c.execute(ROOTS.where(schema.roots.c.run == run)).scalars()
            ]

    def add_root(self, run: int, folder: Path, *, by: str, key: str) -> None:
        """Lets a run's images be read from one more folder, with what lies below it."""
        if not folder.is_dir():
            raise AnomalyError(
                f"{folder}: no such folder; one that holds images of the run was expected"
            )
        click, real = Click.of(by, key), os.fspath(folder.resolve())
        with self._db.write() as c:
            if journal.repeated(c, click, "root"):
                return
            journal.append(
                c,
                click,
                self._db.now_text(c),
                "root",
                run=find_run(c, run).id,
                payload={"folder": real},
            )
            if real not in c.execute(ROOTS.where(schema.roots.c.run == run)).scalars().all():
                c.execute(schema.roots.insert().values(run=run, folder=real))

    # ---- the queue ----

    def next(
        self,
        inspector: str,
        queue: str = "anomalous",
        filters: Filters = EVERYTHING,
        count: int = 1,
        seconds: float = LEASE_SECONDS,
        known_share: float = 0.0,
        after: int | None = None,
        besides: Collection[int] = (),
    ) -> list[Finding]:
        """Up to ``count`` findings for this inspector to judge, leased for ``seconds``: nobody else
        gets these images.

        ``queue``: ``anomalous`` (highest score first), ``uncertain`` (nearest the threshold),
        ``audit`` (the audit sample, lowest lot first) or ``second`` (unsure, or inspectors
        disagree). ``filters.run`` says of which run, and has to; ``filters.state`` or
        ``filters.inspector`` replaces the queue's own choice of states. What the inspector holds
        already comes first, so that asking again gives the same; what they judged or skipped never
        comes. ``known_share``: how many of the new ones are to be hidden known images of the same
        detector, as far as there are any. ``after``: only what comes behind this finding of the run
        in the queue's order. ``besides``: findings that the inspector has before them already.
        """
        if filters.run is None:
            raise AnomalyError(
                "no run given, one of Store.runs() expected: scores of different runs do not "
                "compare"
            )
        who = journal.name(inspector)
        asked = handout.Asked(who, queue, filters, count, seconds, known_share, after, besides)
        with self._db.write(lasting=False) as c:
            return [as_finding(row) for row in handout.hand_out(c, self._db.now(c), asked)]

    def renew(
        self, inspector: str, findings: Collection[int], seconds: float = LEASE_SECONDS
    ) -> list[int]:
        """Keeps leases for ``seconds`` more and returns those findings that the inspector still
        holds.
        """
        with self._db.write(lasting=False) as c:
            return handout.renew(c, self._db.now(c), journal.name(inspector), findings, seconds)

    def release(self, inspector: str, findings: Collection[int] | None = None) -> None:
        """Gives images back to the queue: those of ``findings``, or all that this
        inspector holds.
        """
        with self._db.write(lasting=False) as c:
            handout.release(c, journal.name(inspector), findings)

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
        """The event of a verdict, one of VERDICTS, which counts until this inspector gives another
        or takes it back.

        ``defect_type`` goes with ``anomalous`` only. ``seconds``: how long the inspector looked.
        ``skip`` puts the image aside for this inspector.
        """
        if verdict not in VERDICTS:
            raise AnomalyError(f"verdict {verdict!r} found, one of {', '.join(VERDICTS)} expected")
        if defect_type is not None and verdict != "anomalous":
            raise AnomalyError(
                f"defect type {defect_type!r} with verdict {verdict!r} found: only anomalous "
                "images have one"
            )
        click, payload = Click.of(inspector, key), journal.payload_of(comment, seconds)
        with self._db.write() as c:
            if done := journal.repeated(c, click, verdict, finding):
                return done
            row = find_row(c, finding)
            _check_on_the_list(c, defect_type)
            at = self._db.now_text(c)
            done = journal.append_on(
                c, click, at, verdict, row, defect_type=defect_type, payload=payload
            )
            journal.settle(c, finding)
            handout.release(c, click.inspector, [finding])
            return done

    def undo(
        self, inspector: str, *, key: str, event: int | None = None, run: int | None = None
    ) -> Event | None:
        """The event that takes back one of this inspector's own verdicts or comments; ``undoes``
        says which.

        ``event``: its number; without one it is the last verdict that is not undone (of ``run``,
        where given), and None is returned where there is none. The verdict before it, if any,
        counts again. The image is leased to the inspector, unless somebody else holds it.
        """
        click = Click.of(inspector, key)
        with self._db.write() as c:
            if done := journal.repeated(c, click, "undo", undoes=event):
                return done
            who = click.inspector
            target = (
                journal.last_verdict(c, who, run) if event is None else journal.own(c, who, event)
            )
            if target is None or target.finding is None:
                return None
            row = find_row(c, target.finding)
            done = journal.append_on(c, click, self._db.now_text(c), "undo", row, undoes=target.id)
            if target.action in VERDICTS:
                journal.settle(c, row.id)
                handout.lease_again(c, who, row.image, self._db.now(c), LEASE_SECONDS)
            return done

    def comment(self, inspector: str, finding: int, text: str, *, key: str) -> Event:
        """The event of a comment on a finding. It changes no verdict, and can be undone."""
        click, payload = Click.of(inspector, key), {"text": journal.comment(text)}
        with self._db.write() as c:
            if done := journal.repeated(c, click, "comment", finding):
                return done
            return journal.append_on(
                c, click, self._db.now_text(c), "comment", find_row(c, finding), payload=payload
            )

    def event(self, event: int) -> Event:
        """One event."""
        with self._db.read() as c:
            return journal.find(c, EVENT.id == event)

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
        query = EVENTS.order_by(EVENT.id.desc()).limit(limit)
        for column, value in (
            (EVENT.inspector, inspector),
            (EVENT.finding, finding),
            (EVENT.run, run),
        ):
            query = query if value is None else query.where(column == value)
        query = query if actions is None else query.where(EVENT.action.in_(actions))
        with self._db.read() as c:
            return [as_event(row) for row in c.execute(query)]

    def current(self, finding: int) -> dict[str, Event]:
        """The verdict (or skip) of each inspector on a finding that counts now."""
        query = (
            EVENTS.join(schema.current, VERDICT.event == EVENT.id)
            .where(VERDICT.finding == finding)
            .order_by(EVENT.inspector)
        )
        with self._db.read() as c:
            return {row.inspector: as_event(row) for row in c.execute(query)}

    def standing(self, run: int | None = None) -> list[Event]:
        """All verdicts that count now and all comments that are not undone, the oldest first."""
        query = EVENTS.outerjoin(schema.current, VERDICT.event == EVENT.id).order_by(EVENT.id)
        query = query.where(
            sa.or_(
                VERDICT.event.is_not(None), sa.and_(EVENT.action == "comment", undo.c.id.is_(None))
            )
        )
        query = query if run is None else query.where(EVENT.run == run)
        with self._db.read() as c:
            return [as_event(row) for row in c.execute(query)]

    def inspectors(self) -> list[str]:
        """Everybody who has given a verdict."""
        query = (
            sa.select(EVENT.inspector)
            .where(EVENT.action.in_(VERDICTS))
            .distinct()
            .order_by(EVENT.inspector)
        )
        with self._db.read() as c:
            return list(c.execute(query).scalars())

    # ---- set-up ----

    def defect_types(self) -> list[DefectType]:
        """The kinds of defects to choose from, in order."""
        table = schema.defect_types.c
        with self._db.read() as c:
            rows = c.execute(sa.select(table.name, table.key, table.colour).order_by(table.place))
            return [DefectType(**row._mapping) for row in rows]

    def set_defect_types(self, types: Sequence[DefectType], *, by: str, key: str) -> None:
        """Replaces the list of defect types. Verdicts keep the type they were given, on the list or
        not.
        """
        _check_defect_types(types)
        click, rows = Click.of(by, key), [asdict(kind) for kind in types]
        with self._db.write() as c:
            if journal.repeated(c, click, "types"):
                return
            journal.append(c, click, self._db.now_text(c), "types", payload={"types": rows})
            c.execute(schema.defect_types.delete())
            if rows:
                c.execute(
                    schema.defect_types.insert(),
                    [{"place": i, **row} for i, row in enumerate(rows)],
                )

    def draw_audit(
        self, run: int, images: int, seed: int = 0, *, by: str, key: str
    ) -> list[Stratum]:
        """Draws an audit sample of about ``images`` of a run (see ``verdicts.draw``) and returns
        its strata.

        A second draw makes it larger; it keeps the seed and what was drawn before.
        """
        click = Click.of(by, key)
        with self._db.write() as c:
            if not journal.repeated(c, click, "audit"):
                drawn = audit.draw_sample(c, find_run(c, run).id, images, seed)
                payload = {"images": images, "seed": seed, "drawn": drawn}
                journal.append(c, click, self._db.now_text(c), "audit", run=run, payload=payload)
            return audit.read_strata(c, run)

    def strata(self, run: int) -> list[Stratum]:
        """The strata of a run's audit sample, [] where none was drawn."""
        with self._db.read() as c:
            return audit.read_strata(c, run)

    def set_known(self, finding: int, truth: str | None, *, by: str, key: str) -> None:
        """Makes a finding a hidden known image to measure inspectors by: ``anomalous``, ``normal``,
        or None for not.
        """
        if truth not in (None, "anomalous", "normal"):
            raise AnomalyError(f"truth {truth!r} found; anomalous, normal or None expected")
        click = Click.of(by, key)
        with self._db.write() as c:
            if not journal.repeated(c, click, "known", finding):
                row, at = find_row(c, finding), self._db.now_text(c)
                journal.append_on(c, click, at, "known", row, payload={"truth": truth})
                c.execute(schema.findings.update().where(FINDING.id == finding).values(truth=truth))

    def set_threshold(
        self,
        run: int,
        threshold: float,
        *,
        by: str,
        key: str,
        detector: str | None = None,
        path: str = "",
        identity: tuple[str, str] | None = None,
    ) -> Event:
        """Notes in the log who chose a threshold after looking at a run, with digest, path and
        identity (name and version) of the detector made."""
        click = Click.of(by, key)
        with self._db.write() as c:
            if done := journal.repeated(c, click, "threshold"):
                return done
            parent, at = find_run(c, run), self._db.now_text(c)
            payload = {
                "parent": parent.detector,
                "parent_threshold": parent.threshold,
                "path": path,
            }
            if identity is not None:
                payload |= {"name": identity[0], "version": identity[1]}
            return journal.append(
                c,
                click,
                at,
                "threshold",
                run=run,
                threshold=threshold,
                detector=detector,
                payload=payload,
            )

    # ---- numbers ----

    def sample(self, run: int) -> Sample:
        """The flagged images and the audit sample of a run with their states, for
        ``verdicts.precision`` and others.
        """
        with self._db.read() as c:
            return audit.read_sample(c, find_run(c, run))

    def calibration_images(self, run: int) -> list[Finding]:
        """Images judged normal that may set a threshold, drawn by lot whatever their score:
        ``verdicts.calibration_rows``.
        """
        sample = self.sample(run)
        return self._by_number(sample.findings[calibration_rows(sample)].tolist())

    def _by_number(self, numbers: Sequence[int]) -> list[Finding]:
        with self._db.read() as c:
            queries = (
                FINDINGS.where(FINDING.id.in_(some)) for some in chunks(numbers, MAX_QUERY_VALUES)
            )
            found = {row.id: as_finding(row) for query in queries for row in c.execute(query)}
        return [found[number] for number in numbers]

    def team(self, run: int | None = None) -> Team:
        """Who has done what, and how far they agree: in a run, or in all."""
        query = EVENTS.add_columns(VERDICT.event.label("current")).where(EVENT.action.in_(VERDICTS))
        query = query.outerjoin(schema.current, VERDICT.event == EVENT.id).order_by(EVENT.id)
        query = query if run is None else query.where(EVENT.run == run)
        with self._db.read() as c:
            truths = {
                row.id: row.truth
                for row in c.execute(
                    sa.select(FINDING.id, FINDING.truth).where(FINDING.truth.is_not(None))
                )
            }
            acts = [
                Act(
                    row.inspector,
                    row.finding,
                    row.action,
                    row.undone,
                    row.current is not None,
                    row.payload.get("seconds"),
                )
                for row in c.execute(query)
            ]
        return team(acts, truths)

    def log_chain(self) -> Chain:
        """The digests of the log, worked out anew, and which events are not as they
        were written.
        """
        with self._db.read() as c:
            return chain.read(c)

    def compare(self, a: int, b: int) -> Comparison:
        """Two runs on the images, by digest, that both judged, in the order of run ``a``."""
        with self._db.read() as c:
            return across.compare(c, find_run(c, a), find_run(c, b))

    def series(self, detector: str, depth: int = 1) -> list[Series]:
        """The scores of all runs of a detector in the order they were made, for each folder, for
        ``drift.watch``.

        ``depth``: how many levels of folders below each run's common one tell cameras apart (0:
        none).
        """
        runs = [run for run in self.runs() if run.detector == detector]
        common = {
            run.id: os.path.commonpath([folder.path for folder in self.folders(run.id)] or ["."])
            for run in runs
        }
        known = next((found for found in self.detectors() if found.digest == detector), None)
        training = None if known is None else known.training
        with self._db.read() as c:
            return over_time.series(c, runs, common, depth, training)


def _check_defect_types(types: Sequence[DefectType]) -> None:
    """A type's name becomes the name of a folder in an export."""
    for kind in types:
        name = journal.line(kind.name, "defect type", 60)
        unfit = (
            re.search(r'[/\\:*?"<>|]', name)
            or name.startswith(".")
            or name.lower() in ("good", "normal")
        )
        if name != kind.name or unfit:
            raise AnomalyError(
                f'defect type {name!r} found, a name without / \\ : * ? " < > | expected, not good '
                "or normal"
            )
        if kind.key not in (None, *range(1, 10)) or not re.fullmatch(
            r"#[0-9a-fA-F]{6}", kind.colour
        ):
            raise AnomalyError(
                f"defect type {name!r}: key {kind.key!r}, colour {kind.colour!r}; 1 to 9 and "
                "#rrggbb expected"
            )
    keys = [kind.key for kind in types if kind.key is not None]
    if len(keys) != len(set(keys)) or len({kind.name.lower() for kind in types}) != len(types):
        raise AnomalyError("two defect types with the same name or key found: give each its own")


def _check_on_the_list(c: sa.Connection, defect_type: str | None) -> None:
    names = (
        c.execute(sa.select(schema.defect_types.c.name)).scalars().all()
        if defect_type is not None
        else []
    )
    if defect_type is not None and defect_type not in names:
        expected = ", ".join(names) or "a list of defect types"
        raise AnomalyError(
            f"defect type {defect_type!r} found, {expected} expected: add it to the list first"
        )
