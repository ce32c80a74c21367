"""The log of what was done: events are only ever added, and what they come to is worked out from
them.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from anomaly.errors import AnomalyError
from anomaly.files.table import printable
from anomaly.review import chain, schema
from anomaly.review.findings import Event
from anomaly.review.queries import EVENT, EVENTS, FINDING, VERDICT, Condition, Row, as_event, undo
from anomaly.review.verdicts import VERDICTS, resolve

MAX_NAME_LENGTH, MAX_KEY_BYTES, MAX_COMMENT_CHARACTERS = 200, 200, 10_000


@dataclass(frozen=True)
class Click:
    """One action of one person. Its ``key`` tells it from every other: however often it comes, it
    counts once.
    """

    inspector: str
    key: str

    @classmethod
    def of(cls, inspector: str, key: str) -> Click:
        return cls(name(inspector), line(key, "key of a click", MAX_KEY_BYTES))


def find(c: sa.Connection, which: Condition) -> Event:
    """One event; AnomalyError where there is none."""
    row = c.execute(EVENTS.where(which)).first()
    if row is None:
        raise AnomalyError("this event is not in the review database: open the page again")
    return as_event(row)


def repeated(
    c: sa.Connection,
    click: Click,
    action: str,
    finding: int | None = None,
    undoes: int | None = None,
) -> Event | None:
    """The event of this click, if it was counted already; AnomalyError where the key was another
    action's.
    """
    row = c.execute(EVENTS.where(EVENT.key == click.key)).first()
    if row is None:
        return None
    found = as_event(row)
    same = (found.inspector, found.action) == (click.inspector, action)
    if not same or finding not in (None, found.finding) or undoes not in (None, found.undoes):
        raise AnomalyError(
            f"key {click.key!r} belongs to another action ({found.action}): make a new key for "
            "each click"
        )
    return found


def append(c: sa.Connection, click: Click, at: str, action: str, **facts: Any) -> Event:
    """Adds an event. ``facts``: columns of the table, of which ``payload`` is everything that has
    no column.
    """
    values: dict[str, Any] = dict.fromkeys(
        ("finding", "run", "detector", "threshold", "defect_type", "undoes")
    ) | {"payload": {}}
    values |= facts | {
        "uuid": str(uuid.uuid4()),
        "key": click.key,
        "at": at,
        "inspector": click.inspector,
        "action": action,
    }
    # as it is read again, by which its digest is worked out
    values["payload"] = json.loads(json.dumps(values["payload"]))
    values["digest"] = chain.next_digest(c, values)
    new = c.execute(schema.events.insert().values(values).returning(EVENT.id)).scalar_one()
    return Event(id=new, undone=False, **values)


def append_on(
    c: sa.Connection, click: Click, at: str, action: str, row: Row, **facts: Any
) -> Event:
    """Adds an event on a finding, with the detector and the threshold that its result
    comes from.
    """
    runs, detectors = schema.runs.c, schema.detectors.c
    digest = (
        sa.select(detectors.digest)
        .join(schema.runs, runs.detector == detectors.id)
        .where(runs.id == row.run)
    )
    facts |= {
        "finding": row.id,
        "run": row.run,
        "detector": c.scalar(digest),
        "threshold": row.threshold,
    }
    return append(c, click, at, action, **facts)


def last_verdict(c: sa.Connection, inspector: str, run: int | None) -> Event | None:
    """The inspector's last verdict that is not undone."""
    query = EVENTS.where(
        EVENT.inspector == inspector, EVENT.action.in_(VERDICTS), undo.c.id.is_(None)
    )
    query = query if run is None else query.where(EVENT.run == run)
    row = c.execute(query.order_by(EVENT.id.desc()).limit(1)).first()
    return None if row is None else as_event(row)


def own(c: sa.Connection, inspector: str, event: int) -> Event:
    """An event that this inspector may take back; AnomalyError where it is not one."""
    found = find(c, EVENT.id == event)
    if found.inspector != inspector:
        raise AnomalyError(
            f"event {event} is by {found.inspector}: only they can take it back; give your own "
            "verdict"
        )
    if found.action not in (*VERDICTS, "comment"):
        raise AnomalyError(
            f"event {event} ({found.action}) cannot be undone, only verdicts and comments can"
        )
    if found.undone:
        raise AnomalyError(f"event {event} is undone already: open the page again")
    return found


def settle(c: sa.Connection, finding: int) -> None:
    """Works out anew, from the log, what the verdicts on a finding come to."""
    view = schema.verdicts.c
    query = sa.select(schema.verdicts, EVENT.payload).join(schema.events, EVENT.id == view.id)
    standing = c.execute(query.where(view.finding == finding).order_by(view.id)).all()
    state = resolve(row.verdict for row in standing)
    types = [row.defect_type for row in standing if row.defect_type is not None]
    values = {
        "state": state,
        "defect_type": types[-1] if types and state == "anomalous" else None,
        "last_event": standing[-1].id if standing else None,
    }
    c.execute(schema.findings.update().where(FINDING.id == finding).values(values))
    c.execute(schema.current.delete().where(VERDICT.finding == finding))
    rows = [
        {
            "finding": finding,
            "inspector": row.inspector,
            "event": row.id,
            "verdict": row.verdict,
            "bulk": "bulk" in row.payload,
        }
        for row in standing
    ]
    if rows:
        c.execute(schema.current.insert(), rows)


# ---- what comes from people ----


def name(text: str) -> str:
    """A person's name as it is stored; AnomalyError where it is empty, too long or not on
    one line.
    """
    return line(text, "name of a person", MAX_NAME_LENGTH)


def line(text: str, what: str, longest: int) -> str:
    found = text.strip()
    if not found or len(found) > longest or not found.isprintable():
        raise AnomalyError(
            f"{what} {text[:40]!r} found, 1 to {longest} printable characters on one line expected"
        )
    return found


def comment(text: str) -> str:
    found = printable(text).replace("\0", "").strip()
    if not found or len(found) > MAX_COMMENT_CHARACTERS:
        raise AnomalyError(
            f"a comment of {len(found):,} characters found, 1 to "
            f"{MAX_COMMENT_CHARACTERS:,} expected"
        )
    return found


def payload_of(text: str, seconds: float | None) -> Mapping[str, Any]:
    """What a verdict carries besides: a comment, and how long it took."""
    found: dict[str, Any] = {"text": comment(text)} if text.strip() else {}
    if seconds is not None and 0 <= seconds < 1e6:
        found["seconds"] = round(seconds, 3)
    return found
