"""Findings beside each other: two detectors on the same images, views of a unit, images that look
alike.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import sqlalchemy as sa

from anomaly.detector.unit_rule import UnitRule
from anomaly.review import schema
from anomaly.review.findings import Comparison, Finding, Run
from anomaly.review.queries import (
    FINDING,
    FINDINGS,
    MAX_QUERY_VALUES,
    SAME_IMAGE,
    SETTLED_BEFORE,
    TWIN,
    Row,
    as_finding,
    chunks,
)
from anomaly.scoring.units import UnitRow, View, judge_unit


def compare(c: sa.Connection, a: Run, b: Run) -> Comparison:
    """Two runs on the images, by digest, that both judged, in the order of the first."""
    one, other = schema.findings.alias("one"), schema.findings.alias("other")
    columns = (
        one.c.id,
        other.c.id,
        one.c.path,
        one.c.score,
        other.c.score,
        one.c.is_anomaly,
        other.c.is_anomaly,
    )
    query = sa.select(*columns).join(
        other, sa.and_(other.c.image == one.c.image, other.c.run == b.id)
    )
    query = query.where(one.c.run == a.id, one.c.status == "ok", other.c.status == "ok")
    first: dict[int, Row] = {}  # where an image is there twice
    for row in c.execute(query.order_by(one.c.position, other.c.position)):
        first.setdefault(row[0], row)
    columns_of = list(zip(*first.values(), strict=True)) or [()] * 7
    return Comparison(
        a=a,
        b=b,
        findings_a=list(columns_of[0]),
        findings_b=list(columns_of[1]),
        paths=list(columns_of[2]),
        scores_a=np.array(columns_of[3], dtype=np.float32),
        scores_b=np.array(columns_of[4], dtype=np.float32),
        flagged_a=np.array(columns_of[5], dtype=bool),
        flagged_b=np.array(columns_of[6], dtype=bool),
    )


def with_common_images(c: sa.Connection, run: int) -> list[int]:
    """The other runs that judged an image of this run too, the newest first."""
    one, other = schema.findings.alias("one"), schema.findings.alias("other")
    ours = sa.select(one.c.image).where(one.c.run == run, one.c.status == "ok")
    query = (
        sa.select(other.c.run)
        .where(other.c.run != run, other.c.status == "ok", other.c.image.in_(ours))
        .distinct()
    )
    return sorted(c.execute(query).scalars(), reverse=True)


def settled_before(c: sa.Connection, findings: Collection[int]) -> dict[int, Finding]:
    """Of findings that nobody has judged: the newest one of the same image that was settled."""
    newest = sa.select(sa.func.max(TWIN.c.id)).where(SAME_IMAGE).correlate(schema.findings)
    query = sa.select(FINDING.id, newest.scalar_subquery().label("before")).where(SETTLED_BEFORE)
    found: dict[int, int] = {}
    for some in chunks(findings, MAX_QUERY_VALUES):
        found |= {row.id: row.before for row in c.execute(query.where(FINDING.id.in_(some)))}
    rows = {
        row.id: as_finding(row)
        for some in chunks(sorted({*found.values()}), MAX_QUERY_VALUES)
        for row in c.execute(FINDINGS.where(FINDING.id.in_(some)))
    }
    return {finding: rows[before] for finding, before in found.items()}


def other_detectors(c: sa.Connection, row: Row, limit: int) -> list[Finding]:
    """What other detectors found in the very same image: of each the newest finding, the newest
    detectors first.
    """
    runs = schema.runs.c
    own = sa.select(runs.detector).where(runs.id == row.run).scalar_subquery()
    newest = sa.select(sa.func.max(FINDING.id)).join(schema.runs, runs.id == FINDING.run)
    newest = newest.where(FINDING.image == row.image, runs.detector != own).group_by(runs.detector)
    return [
        as_finding(found)
        for found in c.execute(
            FINDINGS.where(FINDING.id.in_(newest)).order_by(FINDING.id.desc()).limit(limit)
        )
    ]


def unit(c: sa.Connection, run: Run, name: str, rule: UnitRule) -> tuple[UnitRow, list[Finding]]:
    """A unit's verdict, and its views by path, as far as a unit may have any; a path counts once,
    by its last row.
    """
    of_unit = FINDING.run == run.id, FINDING.unit == name
    last = sa.select(sa.func.max(FINDING.id)).where(*of_unit).group_by(FINDING.path)
    query = FINDINGS.where(FINDING.id.in_(last)).order_by(FINDING.path).limit(rule.most + 1)
    views = [as_finding(row) for row in c.execute(query)]
    count = c.scalar(sa.select(sa.func.count(FINDING.path.distinct())).where(*of_unit)) or 0
    seen = [View(*(getattr(view, name) for name in View._fields)) for view in views]
    return judge_unit(name, seen, rule, run.detector, count - len(views)), views


def similar(c: sa.Connection, row: Row, limit: int) -> list[Finding]:
    """Findings of the same run with about the same score, those first whose region overlaps this
    one's most.
    """
    if row.score is None:
        return []
    inside = FINDINGS.where(FINDING.run == row.run, FINDING.image != row.image)  # not copies of it
    below = (
        inside.where(FINDING.score <= row.score)
        .order_by(FINDING.score.desc().nulls_last())
        .limit(5 * limit)
    )
    above = (
        inside.where(FINDING.score > row.score)
        .order_by(FINDING.score.asc().nulls_first())
        .limit(5 * limit)
    )
    found = [as_finding(near) for query in (below, above) for near in c.execute(query)]
    this = as_finding(row)
    return sorted(
        found, key=lambda near: (-overlap(near, this), abs((near.score or 0) - row.score))
    )[:limit]


def overlap(a: Finding, b: Finding) -> float:
    """Intersection over union of two regions, 0 to 1."""
    if a.box is None or b.box is None:
        return 0.0
    (ax, ay, aw, ah), (bx, by, bw, bh) = a.box, b.box
    width, height = min(ax + aw, bx + bw) - max(ax, bx), min(ay + ah, by + bh) - max(ay, by)
    inside = max(0, width) * max(0, height)
    return inside / max(1, aw * ah + bw * bh - inside)
