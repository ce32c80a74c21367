"""The audit sample in the database: how it was drawn, and what was said of it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import sqlalchemy as sa

from anomaly.errors import AnomalyError
from anomaly.review import across, schema
from anomaly.review.findings import Run
from anomaly.review.queries import FINDING, IN_BULK, SETTLED_BEFORE, UNAUDITED, VERDICT
from anomaly.review.verdicts import Draw, Sample, Stratum, draw, resolve


def draw_sample(c: sa.Connection, run: int, images: int, seed: int) -> int:
    """Draws or enlarges the audit sample of a run and returns how many images are in it."""
    _check(c, run, images, seed)
    columns = (FINDING.id, FINDING.score, FINDING.is_anomaly)
    rows = c.execute(
        sa.select(*columns)
        .where(FINDING.run == run, FINDING.status == "ok")
        .order_by(FINDING.position)
    ).all()
    found = draw([row.score for row in rows], [bool(row.is_anomaly) for row in rows], images, seed)
    _write(c, run, [row.id for row in rows], found)
    c.execute(schema.strata.delete().where(schema.strata.c.run == run))
    kept = ("number", "low", "high", "images", "drawn")
    strata = [{name: getattr(stratum, name) for name in kept} for stratum in found.strata]
    c.execute(
        schema.strata.insert(),
        [{**stratum, "run": run, "seed": seed, "size": images} for stratum in strata],
    )
    return int(found.drawn.sum())


def _check(c: sa.Connection, run: int, images: int, seed: int) -> None:
    table = schema.strata.c
    row = c.execute(sa.select(table.seed, table.size).where(table.run == run).limit(1)).first()
    if row is not None and row.seed != seed:
        raise AnomalyError(
            f"an audit sample with seed {row.seed} is drawn already: keep that seed, or its odds "
            "are lost"
        )
    if row is not None and row.size > images:
        raise AnomalyError(
            f"an audit sample of {row.size} is drawn already, {images} asked for: it can only grow"
        )


def _write(c: sa.Connection, run: int, findings: Sequence[int], found: Draw) -> None:
    rows = [
        {
            "finding": findings[i],
            "among": int(found.stratum[i]),
            "number": float(found.lot[i]),
            "inner": bool(found.core[i]),
        }
        for i in np.flatnonzero(found.drawn).tolist()
    ]
    update = schema.findings.update().where(FINDING.id == sa.bindparam("finding"))
    update = update.values(
        stratum=sa.bindparam("among"), lot=sa.bindparam("number"), core=sa.bindparam("inner")
    )
    if rows:
        c.execute(update, rows)


def read_strata(c: sa.Connection, run: int) -> list[Stratum]:
    """The strata of a run's audit sample, [] where none was drawn."""
    answered = sa.select(FINDING.stratum, sa.func.count().label("judged")).group_by(FINDING.stratum)
    answered = answered.where(
        FINDING.run == run,
        FINDING.lot.is_not(None),
        FINDING.state.in_(("anomalous", "normal")),
        ~UNAUDITED,
    )
    judged = {row.stratum: row.judged for row in c.execute(answered)}
    table = schema.strata.c
    columns = (table.number, table.low, table.high, table.images, table.drawn)
    rows = c.execute(sa.select(*columns).where(table.run == run).order_by(table.number))
    return [Stratum(*row, judged=judged.get(row.number, 0)) for row in rows]


def read_sample(c: sa.Connection, run: Run) -> Sample:
    """The flagged images and the audit sample of a run, with the state of each: of an image that
    was drawn, what the verdicts on it alone come to; of a flagged one that was settled in another
    run, what it was found there.
    """
    aside = sa.exists().where(VERDICT.finding == FINDING.id, VERDICT.verdict == "skip")
    state = sa.case((sa.and_(FINDING.state == "open", aside), "skip"), else_=FINDING.state).label(
        "now"
    )
    query = sa.select(FINDING.id, FINDING.score, FINDING.stratum, FINDING.lot, FINDING.core, state)
    rows = c.execute(
        query.where(FINDING.run == run.id, FINDING.stratum.is_not(None)).order_by(FINDING.id)
    ).all()
    known = {**states_alone(c, run.id), **states_before(c, run.id)}
    flagged = [Stratum(0, run.threshold, math.inf, run.flagged, 0)] if run.flagged else []
    return Sample(
        threshold=run.threshold,
        strata=read_strata(c, run.id) or flagged,
        findings=np.array([row.id for row in rows], dtype=np.int64),
        scores=np.array([row.score for row in rows], dtype=np.float32),
        stratum=np.array([row.stratum for row in rows], dtype=np.int64),
        lot=np.array([math.nan if row.lot is None else row.lot for row in rows], dtype=np.float64),
        core=np.array([bool(row.core) for row in rows], dtype=bool),
        states=np.array([known.get(row.id, row.now) for row in rows], dtype=np.str_),
    )


def states_alone(c: sa.Connection, run: int) -> dict[int, str]:
    """The states of drawn images that were judged in bulk too, without those verdicts."""
    drawn = sa.select(FINDING.id).where(FINDING.run == run, FINDING.lot.is_not(None), IN_BULK)
    found: dict[int, list[str]] = {finding: [] for finding in c.execute(drawn).scalars()}
    rows = c.execute(
        sa.select(VERDICT.finding, VERDICT.verdict).where(VERDICT.finding.in_(drawn), ~VERDICT.bulk)
    )
    for row in rows:
        found[row.finding].append(row.verdict)
    return {
        finding: "skip" if {*verdicts} == {"skip"} else resolve(verdicts)
        for finding, verdicts in found.items()
    }


def states_before(c: sa.Connection, run: int) -> dict[int, str]:
    """The states of flagged images that were settled in another run."""
    query = sa.select(FINDING.id).where(FINDING.run == run, FINDING.stratum == 0, SETTLED_BEFORE)
    before = across.settled_before(c, c.execute(query).scalars().all())
    return {finding: twin.state for finding, twin in before.items()}
