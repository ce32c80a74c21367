"""Findings that come one after the other, from a service: a run that grows, with an audit sample
drawn on the way.

Each image draws a lot, uniform in [0, 1). What was flagged or is for review is stored, and so is
every image whose lot is below the audit share: the core of the audit sample. Of the others only
their number is kept; it says how many good images a passed one stands for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from anomaly.detector.card import Card
from anomaly.files.table import Row
from anomaly.review import intake, schema

FLAGGED, PASSED = 0, 1  # the two strata


@dataclass(frozen=True)
class Sent:
    """A finding that a service stores. ``lot``: below the audit share where the image is in the
    audit sample, else None. ``unit``: that it shows, where its source tells.
    """

    row: Row
    lot: float | None
    unit: str | None = None


@dataclass(frozen=True)
class Stream:
    """The run that findings of one detector go to. ``name``: of the run; ``folder``: what their
    paths are relative to; ``sender``: tells apart who sends under the same name; ``up_to``: the
    number of the newest result that the run then holds, where the sender numbers them.
    """

    name: str
    folder: Path
    card: Card
    sender: str = "service"
    up_to: int | None = None

    @property
    def fingerprint(self) -> str:
        return f"{self.sender} {self.name} {self.card.digest}"


def append(
    c: sa.Connection, stream: Stream, sent: Sequence[Sent], passed: int, by: str, at: str
) -> tuple[int, bool]:
    """Adds findings to a stream's run and returns its number and whether it is new. ``passed``:
    judged, and not stored.
    """
    known = intake.known_run(c, stream.fingerprint)
    run = _new_run(c, stream, by, at) if known is None else known
    first = sa.select(sa.func.max(schema.findings.c.position)).where(schema.findings.c.run == run)
    position = -1 if (last := c.scalar(first)) is None else int(last)
    values = [_values(stream, run, position + 1 + number, one) for number, one in enumerate(sent)]
    if values:
        c.execute(schema.findings.insert(), values)
    _count(c, run, sent, passed, stream.up_to)
    if passed:
        _note_passed(c, run, passed, f"{at[:15]}0:00.000Z")
    return run, known is None


def _note_passed(c: sa.Connection, run: int, passed: int, at: str) -> None:
    """Adds images that are not stored to those of the ten minutes that begin ``at``."""
    table = schema.passed
    this = sa.and_(table.c.run == run, table.c.at == at)
    more = table.update().where(this).values(images=table.c.images + passed)
    if not c.execute(more).rowcount:
        c.execute(table.insert().values(run=run, at=at, images=passed))


def _new_run(c: sa.Connection, stream: Stream, by: str, at: str) -> int:
    calibration = stream.card.calibration
    source = intake.Source(Path(stream.name), None, stream.folder, (), stream.card)
    values = {
        "name": intake.free_name(c, source),
        "source": "service",
        "fingerprint": stream.fingerprint,
        "folder": str(stream.folder),
        "detector": intake.detector(c, source, stream.card.identity),
        "threshold": float(calibration.threshold) if calibration else None,
        "imported_at": at,
        "imported_by": by,
        **dict.fromkeys(intake.COUNTS, 0),
    }
    run = int(
        c.execute(schema.runs.insert().values(values).returning(schema.runs.c.id)).scalar_one()
    )
    c.execute(schema.roots.insert(), [{"run": run, "folder": str(stream.folder)}])
    strata = [
        {"run": run, "number": number, "images": 0, "drawn": 0, "seed": 0, "size": 0}
        for number in (FLAGGED, PASSED)
    ]
    c.execute(schema.strata.insert(), strata)
    return run


def _values(stream: Stream, run: int, position: int, sent: Sent) -> dict[str, object]:
    values = intake.row_values(run, Path(stream.name), position, sent.row, sent.row)
    if sent.row.status == "ok" and sent.lot is not None:
        values |= {"stratum": FLAGGED if sent.row.is_anomaly else PASSED}
    return {**values, "unit": sent.unit, "lot": None, "core": None} | (
        {"lot": sent.lot, "core": True} if sent.lot is not None else {}
    )


def _count(
    c: sa.Connection, run: int, sent: Sequence[Sent], passed: int, up_to: int | None
) -> None:
    judged = [one for one in sent if one.row.status == "ok"]
    flagged = [one for one in judged if one.row.is_anomaly]
    table = schema.runs.c
    review = sum(one.row.result == "review" for one in sent)
    c.execute(
        schema.runs.update().where(table.id == run).values(
            images=table.images + len(sent) + passed,
            flagged=table.flagged + len(flagged),
            review=table.review + review,
            not_judged=table.not_judged + len(sent) - len(judged),
            up_to=up_to,
        )
    )  # fmt: skip
    for number, images, drawn in (
        (FLAGGED, len(flagged), _drawn(flagged)),
        (PASSED, len(judged) - len(flagged) + passed, _drawn(judged) - _drawn(flagged)),
    ):
        table = schema.strata.c
        this = schema.strata.update().where(table.run == run, table.number == number)
        c.execute(this.values(images=table.images + images, drawn=table.drawn + drawn))


def newest_sent(c: sa.Connection, sender: str) -> int | None:
    """Returns the number of the newest result that any run of a sender holds, None without one."""
    of = schema.runs.c.fingerprint.startswith(f"{sender} ", autoescape=True)
    newest: int | None = c.scalar(sa.select(sa.func.max(schema.runs.c.up_to)).where(of))
    return newest


def _drawn(sent: Sequence[Sent]) -> int:
    return sum(one.lot is not None for one in sent)
