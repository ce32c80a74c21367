"""What can be read of the review database: runs, findings, verdicts and what they come to."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Self

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from anomaly.errors import AnomalyError
from anomaly.review import across, audit, chain, handout, journal, over_time, schema
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
from anomaly.review.inspectors import Team, team
from anomaly.review.queries import (
    EVENT,
    EVENTS,
    FINDING,
    FINDINGS,
    MAX_QUERY_VALUES,
    ROOTS,
    RUNS,
    SETTLED_BEFORE,
    UNAUDITED,
    VERDICT,
    acts_and_truths,
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
from anomaly.review.verdicts import STATES, VERDICTS, Sample, Stratum, calibration_rows
from anomaly.scoring.units import UnitRow
from anomaly.statistics.drift import Series

EVERYTHING = Filters()


class Reader:
    """What can be read of a review database, in one transaction each; a Store writes as well."""

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

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def url(self) -> str:
        """The database's address without its password."""
        return self._db.url

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
            query = sa.select(sa.func.count()).select_from(schema.findings)
            return c.scalar(query.where(*matching(filters))) or 0

    def remaining(self, queue: str, filters: Filters) -> tuple[int, int]:
        """How many findings of a queue within the filters are left for anybody to judge, and of how
        many.
        """
        with self._db.read() as c:
            return handout.remaining(c, queue, filters)

    def progress(self, run: int) -> Progress:
        """How far a run is reviewed."""
        count, drawn = sa.func.count(), FINDING.lot.is_not(None)
        done = sa.or_(FINDING.state != "open", SETTLED_BEFORE)
        inside = sa.select(count).select_from(schema.findings).where(FINDING.run == run)
        with self._db.read() as c:
            found = find_run(c, run)
            states = c.execute(
                sa.select(FINDING.state, count).where(FINDING.run == run).group_by(FINDING.state)
            ).all()
            return Progress(
                images=found.images,
                flagged=found.flagged,
                flagged_judged=c.scalar(inside.where(FINDING.stratum == 0, done)) or 0,
                review=found.review,
                review_judged=c.scalar(inside.where(FINDING.result == "review", done)) or 0,
                audit=c.scalar(inside.where(drawn)) or 0,
                audit_judged=c.scalar(inside.where(drawn, ~UNAUDITED)) or 0,
                not_judged_by_detector=found.not_judged,
                not_judged_done=c.scalar(inside.where(FINDING.status != "ok", done)) or 0,
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

    def settled_before(self, findings: Collection[int]) -> dict[int, Finding]:
        """Of those that nobody has judged and no audit drew, the newest finding of the very same
        image, of any detector, that was found anomalous or normal.
        """
        with self._db.read() as c:
            return across.settled_before(c, findings)

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
        query = sa.select(EVENT.inspector).where(EVENT.action.in_(VERDICTS)).distinct()
        with self._db.read() as c:
            return list(c.execute(query.order_by(EVENT.inspector)).scalars())

    def defect_types(self) -> list[DefectType]:
        """The kinds of defects to choose from, in order."""
        table = schema.defect_types.c
        with self._db.read() as c:
            rows = c.execute(sa.select(table.name, table.key, table.colour).order_by(table.place))
            return [DefectType(**row._mapping) for row in rows]

    def strata(self, run: int) -> list[Stratum]:
        """The strata of a run's audit sample, [] where none was drawn."""
        with self._db.read() as c:
            return audit.read_strata(c, run)

    def sample(self, run: int) -> Sample:
        """The flagged images and the audit sample of a run with their states, for
        ``estimates.precision`` and others.
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
        with self._db.read() as c:
            return team(*acts_and_truths(c, run))

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
