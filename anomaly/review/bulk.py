"""One verdict on many images at once: each has an event of its own, marked as one of many."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from anomaly.errors import AnomalyError
from anomaly.review import handout, journal, schema
from anomaly.review.findings import Event
from anomaly.review.journal import Click
from anomaly.review.production import Statistics
from anomaly.review.queries import (
    EVENT,
    EVENTS,
    FINDING,
    FINDINGS,
    LEASE,
    VERDICT,
    Row,
    as_event,
)
from anomaly.review.verdicts import VERDICTS

MAX_BULK = 500  # images under one verdict


@dataclass(frozen=True)
class Bulk:
    """What came of a verdict on many images. ``left_out``: finding -> why it has none."""

    events: list[Event]
    left_out: dict[int, str]


class BulkVerdicts(Statistics):
    """The part of a Store that judges many images at once."""

    def record_bulk(
        self,
        inspector: str,
        findings: Collection[int],
        verdict: str,
        *,
        key: str,
        defect_type: str | None = None,
        seconds: float | None = None,
    ) -> Bulk:
        """What came of one verdict on many images, as ``record`` gives it to one.

        Left out, with the reason: images of the audit sample, those that are in somebody else's
        hands, and those that somebody else has judged, which want a blind second opinion.
        ``seconds``: how long the inspector looked at all of them.
        """
        wanted = sorted(set(findings))
        _check(wanted, verdict, defect_type)
        click = Click.of(inspector, key)
        with self._db.write() as c:
            reasons = _reasons(c, click.inspector, wanted, self._db.now(c))
            done = _events(c, [_key(click, finding) for finding in wanted])
            if done:  # the same click again
                judged = {event.finding for event in done}
                rest = {number: reasons.get(number, "") for number in wanted}
                return Bulk(done, {n: why for n, why in rest.items() if n not in judged})
            check_on_the_list(c, defect_type)
            rows = [row for row in _rows(c, wanted) if row.id not in reasons]
            share = None if seconds is None else seconds / max(1, len(wanted))
            payload = {**journal.payload_of("", share), "bulk": len(rows)}
            at = self._db.now_text(c)
            events = []
            for row in rows:
                one = Click(click.inspector, _key(click, row.id))
                events.append(
                    journal.append_on(
                        c, one, at, verdict, row, defect_type=defect_type, payload=payload
                    )
                )
                journal.settle(c, row.id)
            handout.release(c, click.inspector, [row.id for row in rows])
            return Bulk(events, reasons)

    def undo_bulk(
        self, inspector: str, findings: Collection[int], *, of: str, key: str
    ) -> list[Event]:
        """The events that take back what ``record_bulk`` gave to these images under the key ``of``,
        as far as it stands.
        """
        given, click = Click.of(inspector, of), Click.of(inspector, key)
        with self._db.write() as c:
            done = _events(c, [_key(click, finding) for finding in findings])
            if done:
                return done
            at = self._db.now_text(c)
            undone = []
            events = {e.finding: e for e in _events(c, [_key(given, one) for one in findings])}
            for row in _rows(c, [one for one, e in events.items() if one and not e.undone]):
                one = Click(click.inspector, _key(click, row.id))
                before = journal.own(c, click.inspector, events[row.id].id)
                undone.append(journal.append_on(c, one, at, "undo", row, undoes=before.id))
                journal.settle(c, row.id)
            return undone


def _check(findings: Sequence[int], verdict: str, defect_type: str | None) -> None:
    if verdict not in VERDICTS or verdict == "skip":
        raise AnomalyError(f"verdict {verdict!r} found, anomalous, normal or unsure expected")
    if defect_type is not None and verdict != "anomalous":
        raise AnomalyError(
            f"defect type {defect_type!r} with verdict {verdict!r} found: only anomalous images "
            "have one"
        )
    if not 0 < len(findings) <= MAX_BULK:
        raise AnomalyError(f"{len(findings)} images found, 1 to {MAX_BULK} at once expected")


def _key(click: Click, finding: int) -> str:
    """The key of a bulk's event on one finding, by which it is found again."""
    return journal.line(f"{click.key} {finding}", "key of a click", journal.MAX_KEY_BYTES)


def _events(c: sa.Connection, keys: Sequence[str]) -> list[Event]:
    query = EVENTS.where(EVENT.key.in_(keys)).order_by(EVENT.id)
    return [as_event(row) for row in c.execute(query)]


def _rows(c: sa.Connection, findings: Sequence[int]) -> list[Row]:
    """The findings' rows; AnomalyError where one is not there."""
    rows = list(c.execute(FINDINGS.where(FINDING.id.in_(findings)).order_by(FINDING.id)))
    missing = set(findings) - {row.id for row in rows}
    if missing:
        raise AnomalyError(
            f"finding {min(missing)} is not in this review database: open the queue again"
        )
    return rows


def _reasons(
    c: sa.Connection, inspector: str, findings: Sequence[int], now: float
) -> dict[int, str]:
    """Why findings may not be judged in bulk by this inspector."""
    inside = FINDING.id.in_(findings)
    own = sa.select(FINDING.id).where(inside)
    others = own.join(schema.current, VERDICT.finding == FINDING.id)
    held = own.join(schema.leases, LEASE.image == FINDING.image)
    why = {
        "somebody else has it before them": held.where(
            LEASE.inspector != inspector, LEASE.until > now
        ),
        "somebody else has judged it: give a second opinion in Image, blind": others.where(
            VERDICT.inspector != inspector, VERDICT.verdict != "skip"
        ),
        "it is in the audit sample: judge it alone, in Image": own.where(FINDING.lot.is_not(None)),
    }
    return {
        finding: reason for reason, query in why.items() for finding in c.execute(query).scalars()
    }


def check_on_the_list(c: sa.Connection, defect_type: str | None) -> None:
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
