"""The log's digests: each event's is made of its own content and the digest of the event before it.

Whoever changes, removes or adds an event in between, or changes what was found in an image that an
event is on, breaks the chain from there on. Whoever may write to the database can make the whole
chain anew; only a digest that was kept elsewhere (a signed audit archive, a note) shows that: the
log must still hold it, at the same place.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from anomaly.review import schema
from anomaly.review.queries import EVENT, FINDING

START = hashlib.sha256(b"anomaly review log").hexdigest()
FACTS = (
    "uuid",
    "key",
    "at",
    "inspector",
    "action",
    "finding",
    "run",
    "detector",
    "threshold",
    "defect_type",
    "undoes",
    "payload",
)
SUBJECT = ("path", "image", "score", "is_anomaly", "status")  # of the finding
MAX_PROBLEMS_SHOWN = 5


@dataclass(frozen=True)
class Chain:
    """``digests``: of the log after each event, in order, worked out anew; ``wrong``: a line for
    each that is not as stored.

    ``before``: how many of the first events were written by a version that had no digests; the
    first one that has one covers them.
    """

    digests: list[str]
    before: int
    wrong: list[str]

    @property
    def head(self) -> str:
        """The digest of the whole log."""
        return self.digests[-1] if self.digests else START

    def missing(self, events: int, head: str) -> str | None:
        """None where the log of its first ``events`` events had the digest ``head``; else what is
        wrong, in words.
        """
        if events > len(self.digests):
            return (
                f"{len(self.digests):,} events found, {events:,} expected at the least: events "
                "were removed"
            )
        if head != (self.digests[events - 1] if events else START):
            return (
                f"the first {events:,} events are not those of digest {head[:16]}: the log was "
                "rewritten"
            )
        return None

    def holds(self, head: str) -> bool:
        """Whether the log had this digest at any time."""
        return head == START or head in self.digests


def digest_of(before: str, facts: Mapping[str, Any], subject: Mapping[str, Any] | None) -> str:
    """The digest of the log after an event, from that before it; ``subject``: the finding that it
    is on.
    """
    kept = {name: facts[name] for name in FACTS}
    kept["threshold"] = None if kept["threshold"] is None else float(kept["threshold"])
    kept["subject"] = None if subject is None else [subject[name] for name in SUBJECT]
    text = json.dumps(kept, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(f"{before}\n{text}".encode()).hexdigest()


def next_digest(c: sa.Connection, facts: Mapping[str, Any]) -> str:
    """The digest of an event that is about to be written. One writer at a time, or the order would
    not be that of the ids.
    """
    last = c.execute(sa.select(EVENT.digest).order_by(EVENT.id.desc()).limit(1)).first()
    before = START if last is None else last.digest or read(c).head
    subject = None
    if facts["finding"] is not None:
        subject = dict(c.execute(_subject().where(FINDING.id == facts["finding"])).mappings().one())
    return digest_of(before, facts, subject)


def _subject() -> sa.Select[Any]:
    return sa.select(*(FINDING[name] for name in SUBJECT))


def read(c: sa.Connection) -> Chain:
    """The chain of a whole log, worked out anew and compared with what is stored."""
    columns = [FINDING[name].label(f"subject_{name}") for name in SUBJECT]
    query = (
        sa.select(schema.events, *columns)
        .outerjoin(schema.findings, FINDING.id == EVENT.finding)
        .order_by(EVENT.id)
    )
    digests: list[str] = []
    wrong: list[str] = []
    now, before = START, 0
    for count, row in enumerate(
        map(dict, c.execute(query.execution_options(yield_per=1000)).mappings()), 1
    ):
        subject = (
            None if row["finding"] is None else {name: row[f"subject_{name}"] for name in SUBJECT}
        )
        now = digest_of(now, row, subject)
        digests.append(now)
        if row["digest"] is None and before == count - 1:
            before = count
        elif row["digest"] != now:
            wrong.append(
                f"event {row['id']} ({row['at']}, {row['inspector']}) is not as it was written, or "
                "one before it is not"
            )
            now = row["digest"] or now  # so that what comes after it is looked at, too
    return Chain(digests, before, wrong)


def in_words(wrong: list[str]) -> str:
    """The first lines of what is wrong, and how many more there are."""
    more = (
        f"; and {len(wrong) - MAX_PROBLEMS_SHOWN:,} more" if len(wrong) > MAX_PROBLEMS_SHOWN else ""
    )
    return "; ".join(wrong[:MAX_PROBLEMS_SHOWN]) + more
