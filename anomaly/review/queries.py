"""How findings, runs and events are chosen, ordered, and turned from rows into what Python has."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, TypeAlias, TypeVar

import sqlalchemy as sa

from anomaly.errors import AnomalyError
from anomaly.review import schema
from anomaly.review.findings import Event, Filters, Finding, Run
from anomaly.review.inspectors import Act
from anomaly.review.verdicts import STATES, VERDICTS

ORDERS = ("score", "uncertain", "recent", "position")
MAX_QUERY_VALUES = 500  # in one IN (...)
MAX_WORDS = 8  # of a search

Condition: TypeAlias = sa.ColumnElement[bool]
Row: TypeAlias = Any  # of SQLAlchemy: the columns that were asked for, as attributes
T = TypeVar("T")

FINDING, EVENT, VERDICT, LEASE = (
    schema.findings.c,
    schema.events.c,
    schema.current.c,
    schema.leases.c,
)
undo = schema.events.alias("undo")

OF_RUNS_ALONE = ("detector", "fingerprint", "up_to")  # not of a Run
RUNS = sa.select(
    *(column for column in schema.runs.c if column.name not in OF_RUNS_ALONE),
    schema.detectors.c.digest.label("detector"),
).join(schema.detectors, schema.detectors.c.id == schema.runs.c.detector)
ROOTS = sa.select(schema.roots.c.folder).order_by(schema.roots.c.folder)
FINDINGS = sa.select(
    *(
        column
        for column in schema.findings.c
        if column.name not in ("distance", "last_event", "truth")
    )
)
EVENTS = sa.select(schema.events, undo.c.id.is_not(None).label("undone")).outerjoin(
    undo, undo.c.undoes == EVENT.id
)


# Verdicts that were given to many images at once, and to this one alone.
IN_BULK = sa.exists().where(VERDICT.finding == FINDING.id, VERDICT.bulk)
ALONE = sa.exists().where(VERDICT.finding == FINDING.id, ~VERDICT.bulk)
# An audit asks for an answer to each image: one in bulk is none.
UNAUDITED = sa.or_(FINDING.state == "open", sa.and_(IN_BULK, ~ALONE))

# The same bytes in another finding, of another detector or run: what was settled of them there
# holds here too. A drawn image is judged anew, and what nobody is sure of wants a second opinion.
TWIN = schema.findings.alias("twin")
SAME_IMAGE = sa.and_(
    TWIN.c.image == FINDING.image,
    TWIN.c.id != FINDING.id,
    TWIN.c.sha256.is_not(None),
    TWIN.c.state.in_(("anomalous", "normal")),
)
SETTLED_BEFORE = sa.and_(
    FINDING.state == "open", FINDING.lot.is_(None), sa.exists().where(SAME_IMAGE)
)


def matching(filters: Filters) -> list[Condition]:
    """The conditions of all filters that are set."""
    found: list[Condition] = []
    exact = ((FINDING.run, "run"), (FINDING.status, "status"), (FINDING.defect_type, "defect_type"))
    found += [
        column == getattr(filters, name)
        for column, name in exact
        if getattr(filters, name) is not None
    ]
    if filters.folder is not None:
        below = filters.folder.rstrip("/")
        # "0" is the character after "/": everything that begins with "folder/"
        found.append(
            sa.or_(
                FINDING.folder == filters.folder,
                sa.and_(FINDING.folder >= f"{below}/", FINDING.folder < f"{below}0"),
            )
        )
    if filters.result is not None:
        flagged = filters.result == "flagged"  # which has an index of its own
        found.append(FINDING.stratum == 0 if flagged else FINDING.result == filters.result)
    if filters.low is not None:
        found.append(FINDING.score >= filters.low)
    if filters.high is not None:
        found.append(FINDING.score <= filters.high)
    if filters.state is not None:
        found.append(
            FINDING.state.in_(STATES[1:])
            if filters.state == "judged"
            else FINDING.state == filters.state
        )
    if filters.inspector is not None:
        found.append(
            sa.exists().where(VERDICT.finding == FINDING.id, VERDICT.inspector == filters.inspector)
        )
    if filters.find is not None:
        found += [saying(word, filters.run) for word in filters.find.split()[:MAX_WORDS]]
    if filters.like is not None:
        found.append(meeting(filters.like))
    return found


def saying(word: str, run: int | None) -> Condition:
    """Findings with a word in their path, unit, type of defect, likely type, or a comment that was
    not taken back.
    """
    comment = EVENT.payload["text"].as_string()
    commented = sa.select(EVENT.finding).where(
        comment.icontains(word, autoescape=True),
        ~sa.exists().where(undo.c.undoes == EVENT.id),
    )
    commented = commented if run is None else commented.where(EVENT.run == run)
    columns = (FINDING.path, FINDING.unit, FINDING.defect_type, FINDING.likely_type)
    said = [column.icontains(word, autoescape=True) for column in columns]
    return sa.or_(*said, FINDING.id.in_(commented))


def meeting(finding: int) -> Condition:
    """Other findings of the same run whose region meets that of this one."""
    that = schema.findings.alias("that")
    return sa.exists().where(
        that.c.id == finding,
        that.c.run == FINDING.run,
        that.c.image != FINDING.image,
        FINDING.box_x < that.c.box_x + that.c.box_w,
        that.c.box_x < FINDING.box_x + FINDING.box_w,
        FINDING.box_y < that.c.box_y + that.c.box_h,
        that.c.box_y < FINDING.box_y + FINDING.box_h,
    )


def ordered(query: sa.Select[Any], order: str) -> sa.Select[Any]:
    """The query in one of ORDERS, or in that of the audit sample's lots."""
    if order == "score":
        return query.order_by(FINDING.score.desc().nulls_last(), FINDING.id)
    if order == "uncertain":
        return query.where(FINDING.distance.is_not(None)).order_by(FINDING.distance, FINDING.id)
    if order == "recent":
        return query.where(FINDING.last_event.is_not(None)).order_by(FINDING.last_event.desc())
    if order == "lot":
        return query.where(FINDING.lot.is_not(None)).order_by(FINDING.lot)
    if order == "position":
        return query.order_by(FINDING.run, FINDING.position)
    raise AnomalyError(f"order {order!r} found, one of {', '.join(ORDERS)} expected")


def following(finding: int, order: str) -> Condition:
    """What comes behind a finding in the order ``score``, ``uncertain`` or ``lot``; nothing where
    it has no place there.
    """
    column = {"score": "score", "uncertain": "distance", "lot": "lot"}[order]
    that = schema.findings.alias("that")
    there = sa.select(that.c[column]).where(that.c.id == finding).scalar_subquery()
    value, later = FINDING[column], FINDING.id > finding
    if order != "score":
        return sa.or_(value > there, sa.and_(value == there, later))
    both_without = sa.and_(value.is_(None), there.is_(None), later)
    return sa.or_(
        value < there,
        sa.and_(value == there, later),
        sa.and_(value.is_(None), there.is_not(None)),
        both_without,
    )


def find_run(c: sa.Connection, run: int) -> Run:
    """One run; AnomalyError where there is none."""
    row = c.execute(RUNS.where(schema.runs.c.id == run)).first()
    if row is None:
        raise AnomalyError(f"run {run} is not in this review database: see `anomaly review stats`")
    return as_run(row)


def find_row(c: sa.Connection, finding: int) -> Row:
    """One finding's row; AnomalyError where there is none."""
    row = c.execute(FINDINGS.where(FINDING.id == finding)).first()
    if row is None:
        raise AnomalyError(
            f"finding {finding} is not in this review database: open the queue again"
        )
    return row


def as_run(row: Row) -> Run:
    return Run(**row._mapping)


def as_event(row: Row) -> Event:
    return Event(**row._mapping)


def as_finding(row: Row) -> Finding:
    values = dict(row._mapping)
    box = tuple(values.pop(f"box_{side}") for side in "xywh")
    lot, _, _ = values.pop("lot"), values.pop("core"), values.pop("image")
    sampled_as = "flagged" if values["is_anomaly"] else "audit" if lot is not None else None
    return Finding(**values, box=None if None in box else box, sampled_as=sampled_as)


def chunks(values: Iterable[T], size: int) -> Iterator[list[T]]:
    rest = iter(values)
    while some := list(islice(rest, size)):
        yield some


def acts_and_truths(c: sa.Connection, run: int | None) -> tuple[list[Act], dict[int, str]]:
    """Returns the verdicts of a run, or of all, in order, and what is known of findings by id."""
    query = EVENTS.add_columns(VERDICT.event.label("current")).where(EVENT.action.in_(VERDICTS))
    query = query.outerjoin(schema.current, VERDICT.event == EVENT.id).order_by(EVENT.id)
    query = query if run is None else query.where(EVENT.run == run)
    known = sa.select(FINDING.id, FINDING.truth).where(FINDING.truth.is_not(None))
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
    return acts, {row.id: row.truth for row in c.execute(known)}
