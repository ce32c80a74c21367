"""Who gets which image next. A lease says whose hands an image is in until when: nobody else is
given it before.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

import sqlalchemy as sa

from anomaly.errors import AnomalyError
from anomaly.review import schema
from anomaly.review.findings import Filters
from anomaly.review.queries import (
    FINDING,
    FINDINGS,
    LEASE,
    SETTLED_BEFORE,
    UNAUDITED,
    VERDICT,
    Condition,
    Row,
    following,
    matching,
    ordered,
)

QUEUES = ("anomalous", "uncertain", "audit", "second")
ORDER = {"anomalous": "score", "uncertain": "uncertain", "audit": "lot", "second": "score"}


@dataclass(frozen=True)
class Asked:
    """What an inspector asks for: see ``Store.next``."""

    inspector: str
    queue: str
    filters: Filters
    count: int
    seconds: float
    known_share: float
    after: int | None = None
    besides: Collection[int] = ()

    def conditions(self) -> tuple[Condition, Condition]:
        """Returns those of the queue's findings and of the hidden known images."""
        mine = [VERDICT.finding == FINDING.id, VERDICT.inspector == self.inspector]
        unseen = ~sa.exists().where(*mine, *([~VERDICT.bulk] if self.queue == "audit" else []))
        others = [unseen, *([FINDING.id.not_in(list(self.besides))] if self.besides else [])]
        behind = [] if self.after is None else [following(self.after, ORDER[self.queue])]
        return (
            sa.and_(*others, *behind, *_queued(self.queue, self.filters)),
            sa.and_(*others, FINDING.truth.is_not(None)),
        )


def hand_out(c: sa.Connection, now: float, asked: Asked) -> list[Row]:
    """Up to ``asked.count`` findings that are now leased to the inspector: what is in hand already
    first, then new ones.
    """
    inspector, queue, count = asked.inspector, asked.queue, asked.count
    wanted, known = asked.conditions()
    c.execute(schema.leases.delete().where(LEASE.until <= now))
    held = _held(c, inspector, wanted, known, queue, count)
    missing = count - len(held)
    tests = _known(
        c,
        sa.and_(known, _same_detector(asked.filters)),
        sum(random.random() < asked.known_share for _ in range(missing)),
    )
    fresh = _free(c, wanted, queue, missing - len(tests), {row.image for row in tests})
    new = [(row, queue) for row in fresh]
    for row in tests:
        new.insert(random.randint(0, len(new)), (row, "known"))
    _prolong(c, inspector, [row.image for row in held], now + asked.seconds)
    lease(c, inspector, [(row.image, name) for row, name in new], now, asked.seconds)
    return [*held, *(row for row, _ in new)]


def _queued(queue: str, filters: Filters) -> list[Condition]:
    """The conditions of a queue within the filters; one by state or inspector replaces its own
    choice of states.
    """
    if queue not in QUEUES:
        raise AnomalyError(f"queue {queue!r} found, one of {', '.join(QUEUES)} expected")
    found = matching(filters)
    if filters.state is None and filters.inspector is None:
        found.append(
            FINDING.state.in_(("unsure", "disagreement"))
            if queue == "second"
            else UNAUDITED
            if queue == "audit"
            else sa.and_(FINDING.state == "open", ~SETTLED_BEFORE)
        )
    return found


def remaining(c: sa.Connection, queue: str, filters: Filters) -> tuple[int, int]:
    """How many findings of a queue within the filters are left for anybody, and of how many.

    Of the queues by score only flagged ones and those for review count, or only what the filters
    want.
    """
    inside: list[Condition] = [FINDING.lot.is_not(None)] if queue == "audit" else []
    if queue in ("anomalous", "uncertain") and filters.result is None:
        inside = [sa.or_(FINDING.stratum == 0, FINDING.result == "review")]
    count = sa.select(sa.func.count()).select_from(schema.findings)
    waiting = c.scalar(count.where(*inside, *_queued(queue, filters))) or 0
    return waiting, c.scalar(count.where(*inside, *matching(replace(filters, state=None)))) or 0


def _held(
    c: sa.Connection, inspector: str, wanted: Condition, known: Condition, queue: str, count: int
) -> list[Row]:
    """What the inspector was handed before and has not judged, in the order it was handed."""
    query = FINDINGS.join(schema.leases, LEASE.image == FINDING.image).where(
        LEASE.inspector == inspector
    )
    query = query.where(sa.or_(wanted, sa.and_(LEASE.queue == "known", known))).order_by(
        LEASE.since
    )
    return _one_each(c.execute(ordered(query, ORDER[queue]).limit(2 * count)))[:count]


def _free(
    c: sa.Connection, wanted: Condition, queue: str, count: int, taken: Collection[str]
) -> list[Row]:
    """The next findings of the queue whose images are in nobody's hands; expired leases are gone
    already.
    """
    if count < 1:
        return []
    query = ordered(
        FINDINGS.where(wanted, ~sa.exists().where(LEASE.image == FINDING.image)), ORDER[queue]
    )
    # the same image may be there more than once, in the run or among the known: one of them is
    # enough
    rows = _one_each(
        row for row in c.execute(query.limit(2 * count + len(taken))) if row.image not in taken
    )
    return rows[:count]


def _known(c: sa.Connection, known: Condition, count: int) -> list[Row]:
    """Hidden known images that this inspector has not judged, any of them as likely as another."""
    if count < 1:
        return []
    query = FINDINGS.where(known, ~sa.exists().where(LEASE.image == FINDING.image))
    return _one_each(c.execute(query.order_by(sa.func.random()).limit(count)))


def _same_detector(filters: Filters) -> Condition:
    runs = schema.runs.c
    detector = sa.select(runs.detector).where(runs.id == filters.run).scalar_subquery()
    return FINDING.run.in_(sa.select(runs.id).where(runs.detector == detector))


def _one_each(rows: Iterable[Row]) -> list[Row]:
    """One row for each image, the first."""
    found: dict[str, Row] = {}
    for row in rows:
        found.setdefault(row.image, row)
    return list(found.values())


def lease(
    c: sa.Connection, inspector: str, images: Sequence[tuple[str, str]], now: float, seconds: float
) -> None:
    """Puts images, each with the queue it comes from, into an inspector's hands. Nobody may hold
    them.
    """
    rows = [
        # a millionth of a second apart, so that they are found in this order again
        {
            "image": image,
            "inspector": inspector,
            "queue": queue,
            "since": now + 1e-6 * i,
            "until": now + seconds,
        }
        for i, (image, queue) in enumerate(images)
    ]
    if rows:
        c.execute(schema.leases.insert(), rows)


def lease_again(c: sa.Connection, inspector: str, image: str, now: float, seconds: float) -> None:
    """Puts an image back into an inspector's hands, unless somebody holds it."""
    c.execute(schema.leases.delete().where(LEASE.until <= now))
    if c.scalar(sa.select(LEASE.image).where(LEASE.image == image)) is None:
        lease(c, inspector, [(image, "undo")], now, seconds)


def renew(
    c: sa.Connection, now: float, inspector: str, findings: Collection[int], seconds: float
) -> list[int]:
    """Which of the findings are still in the inspector's hands; they stay there for ``seconds``
    more.
    """
    query = sa.select(FINDING.id, FINDING.image).join(schema.leases, LEASE.image == FINDING.image)
    query = query.where(
        FINDING.id.in_(list(findings)), LEASE.inspector == inspector, LEASE.until > now
    )
    rows = c.execute(query.order_by(FINDING.id)).all()
    _prolong(c, inspector, [row.image for row in rows], now + seconds)
    return [row.id for row in rows]


def _prolong(c: sa.Connection, inspector: str, images: Sequence[str], until: float) -> None:
    if images:
        c.execute(
            schema.leases.update()
            .where(LEASE.inspector == inspector, LEASE.image.in_(images))
            .values(until=until)
        )


def release(c: sa.Connection, inspector: str, findings: Collection[int] | None) -> None:
    """Takes images out of an inspector's hands: those of ``findings``, or all."""
    gone = schema.leases.delete().where(LEASE.inspector == inspector)
    if findings is not None:
        gone = gone.where(
            LEASE.image.in_(sa.select(FINDING.image).where(FINDING.id.in_(list(findings))))
        )
    c.execute(gone)
