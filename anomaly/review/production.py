"""How it goes: what was scored, flagged and judged, by day, shift, line and order.

Each image counts on the day and in the shift in which it was scored, and a flagged one is confirmed
or a false alarm by what its verdicts come to, or those on the same bytes in another run.
"""

from __future__ import annotations

import os
import statistics
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import partial
from pathlib import Path

import regex
import sqlalchemy as sa

from anomaly.detector.unit_rule import SECONDS, compiled, in_time
from anomaly.errors import AnomalyError
from anomaly.review import schema
from anomaly.review.across import settled_before
from anomaly.review.estimates import escape, overkill
from anomaly.review.findings import Run
from anomaly.review.over_time import Grouped
from anomaly.review.queries import EVENT, FINDING, SETTLED_BEFORE
from anomaly.review.reader import Reader
from anomaly.review.shifts import Shifts, Span
from anomaly.review.verdicts import VERDICTS
from anomaly.statistics.lights import DayCount, Light, by_day, lights
from anomaly.statistics.tallies import Audited, Pace, Part, Production, Tally

MAX_AUDITED_RUNS = 20  # whose audit samples one report reads: the newest


@dataclass(frozen=True)
class Names:
    """How lines and orders are called: by the first group (or the whole) of an expression in an
    image's folder or, where it is not there, in its run's name. Without one a line is the first
    folder below that of all the run's images, or the service or station; an order is the run.
    """

    line: str = ""
    order: str = ""

    def __post_init__(self) -> None:
        for kind in ("line", "order"):
            _pattern(getattr(self, kind), kind)

    def of(self, run: Run, folder: str, common: Callable[[], str]) -> tuple[str, str]:
        """Line and order of a run's images in a folder; ``common``: asks for that of all."""
        line, order = (
            _found(_pattern(getattr(self, kind), kind), (folder, run.name))
            for kind in ("line", "order")
        )
        return line or _line(run, folder, common), order or run.name


def _pattern(text: str, kind: str) -> regex.Pattern[str] | None:
    try:
        return compiled(text) if text else None
    except AnomalyError as error:
        raise AnomalyError(str(error).replace("--by-unit", kind)) from error


def _found(pattern: regex.Pattern[str] | None, places: Iterable[str]) -> str:
    if pattern is None:
        return ""
    for place in places:
        with in_time(pattern, place):
            match = pattern.search(place, timeout=SECONDS)
        if match:
            return match[1 if pattern.groups else 0] or ""
    return ""


def _line(run: Run, folder: str, common: Callable[[], str]) -> str:
    if run.source == "service":  # NAME DETECTOR DAY
        return run.name.rsplit(" ", 2)[0]
    top = common()
    inside = Path(os.path.relpath(folder or ".", top or ".")).parts
    return inside[0] if inside else Path(top).name or run.name


class Statistics(Reader):
    """The part of a Store that counts over time."""

    def newest(self) -> str | None:
        """When the newest finding was scored; None without one."""
        with self._db.read() as c:
            found: str | None = c.scalar(sa.select(sa.func.max(FINDING.scored_at)))
        return found

    def production(
        self, first: date, last: date, shifts: Shifts | None = None, names: Names | None = None
    ) -> Production:
        """What was scored from the day ``first`` to ``last``, and what became of it."""
        spans = (shifts or Shifts()).spans(first, last)
        runs = {run.id: run for run in self.runs()}
        with self._db.read() as c:
            rows = [
                (span, row) for span in spans for row in (*_counted(c, span), *_passed(c, span))
            ]
            paces = _paces(c, spans[0].start, spans[-1].end)
        seen = sorted({row.run for _, row in rows}, reverse=True)
        audited = [self._audited(runs[run]) for run in seen[:MAX_AUDITED_RUNS]]
        answered = [one for one in audited if one.escape.n or one.overkill.n]
        unaudited = [one.run for one in audited if not (one.escape.n or one.overkill.n)]
        unaudited += [runs[run].name for run in seen[MAX_AUDITED_RUNS:]]
        parts = list(self._parts(rows, runs, names or Names()))
        return Production(first, last, parts, answered, unaudited, paces)

    def lights(
        self,
        detector: str,
        days: int,
        last: date | None = None,
        shifts: Shifts | None = None,
        names: Names | None = None,
    ) -> list[Light]:
        """A light for each line and each of so many ``days`` up to the ``last``, by default the
        last on which this detector scored anything.
        """
        calendar, known = shifts or Shifts(), self.detector(detector)
        runs = {run.id: run for run in self.runs() if run.detector == detector}
        if last is None:
            with self._db.read() as c:
                newest = sa.select(sa.func.max(FINDING.scored_at)).where(FINDING.run.in_(runs))
                moment = c.scalar(newest)
            if moment is None:
                return []
            last = calendar.day_of(moment)
        spans = calendar.spans(last - timedelta(days=days - 1), last)
        grouped = Grouped.of(known.training)
        if grouped.rule or grouped.pattern:
            named = [(day, *_ends(spans, day)) for day in dict.fromkeys(one.day for one in spans)]
            counts = by_day(self.series(detector), known.calibration, named)
        else:
            counts = self._by_day(runs, spans, names or Names())
        return lights(counts, known.calibration, grouped.not_judged_share)

    def told(self, channel: str) -> set[str]:
        """The keys of the alerts that somebody was told of by a channel and that go on."""
        table = schema.alerts.c
        with self._db.read() as c:
            return set(c.execute(sa.select(table.key).where(table.channel == channel)).scalars())

    def note_told(self, channel: str, keys: Collection[str]) -> None:
        """Notes which alerts go on and were told: those of ``keys``, and no others."""
        table = schema.alerts
        with self._db.write() as c:
            known = set(
                c.execute(sa.select(table.c.key).where(table.c.channel == channel)).scalars()
            )
            for key in known - set(keys):
                this = sa.and_(table.c.channel == channel, table.c.key == key)
                c.execute(table.delete().where(this))
            since = self._db.now_text(c)
            for key in sorted(set(keys) - known):
                c.execute(table.insert().values(channel=channel, key=key, since=since))

    def _by_day(
        self, runs: Mapping[int, Run], spans: Sequence[Span], names: Names
    ) -> list[DayCount]:
        """The counts of all images of some runs, by line and day."""
        with self._db.read() as c:
            rows = [
                (span, row)
                for span in spans
                for row in (*_counted(c, span), *_passed(c, span))
                if row.run in runs
            ]
        found: dict[tuple[str, str], DayCount] = {}
        for part in self._parts(rows, runs, names):
            key, of = (part.day, part.line), part.tally
            count = DayCount(*key, of.images, of.flagged, of.not_judged)
            found[key] = found[key] + count if key in found else count
        return [found[key] for key in sorted(found)]

    def _audited(self, run: Run) -> Audited:
        sample = self.sample(run.id)
        return Audited(run.name, escape(sample), overkill(sample))

    def _parts(
        self, rows: Sequence[tuple[Span, Counted]], runs: Mapping[int, Run], names: Names
    ) -> Iterator[Part]:
        def common(run: int) -> str:
            return os.path.commonpath([one.path for one in self.folders(run)] or ["."])

        called = {
            (run, folder): names.of(runs[run], folder, partial(common, run))
            for run, folder in {(row.run, row.folder) for _, row in rows}
        }
        found: dict[tuple[str, str, str, str], list[Counted]] = {}
        for span, row in rows:
            key = (span.day, span.shift, *called[row.run, row.folder])
            found.setdefault(key, []).append(row)
        for place, some in sorted(found.items()):
            types: Counter[str] = Counter()
            for row in some:
                if row.state == "anomalous":
                    types[row.defect_type or ""] += row.images
            yield Part(*place, sum((row.tally for row in some), Tally()), dict(types))


@dataclass(frozen=True)
class Counted:
    """So many ``images`` of a run in a folder have this result, state and defect type."""

    run: int
    folder: str
    result: str | None
    state: str
    defect_type: str | None
    images: int

    @property
    def tally(self) -> Tally:
        flagged, blind = self.result == "flagged", self.result == "not judged"
        return Tally(
            images=self.images,
            flagged=self.images * flagged,
            confirmed=self.images * (flagged and self.state == "anomalous"),
            false_alarms=self.images * (flagged and self.state == "normal"),
            review=self.images * (self.result == "review"),
            not_judged=self.images * blind,
            looked_at=self.images * (blind and self.state != "open"),
        )


def _ends(spans: Sequence[Span], day: str) -> tuple[str, str]:
    """When a day begins, and when it ends."""
    of_day = [span for span in spans if span.day == day]
    return of_day[0].start, of_day[-1].end


def _counted(c: sa.Connection, span: Span) -> Iterator[Counted]:
    """What is stored of a span, with what was settled in another run moved to there."""
    inside = FINDING.scored_at >= span.start, FINDING.scored_at < span.end
    columns = (FINDING.run, FINDING.folder, FINDING.result, FINDING.state, FINDING.defect_type)
    query = sa.select(*columns, sa.func.count()).where(*inside).group_by(*columns)
    yield from (Counted(*row) for row in c.execute(query))
    wanted = FINDING.result.in_(("flagged", "not judged", "review"))
    again = {
        row.id: row
        for row in c.execute(sa.select(FINDING.id, *columns).where(*inside, wanted, SETTLED_BEFORE))
    }
    for finding, twin in settled_before(c, list(again)).items():
        row = again[finding]
        yield Counted(row.run, row.folder, row.result, "open", None, -1)
        yield Counted(row.run, row.folder, row.result, twin.state, twin.defect_type, 1)


def _passed(c: sa.Connection, span: Span) -> Iterator[Counted]:
    """The images that a service judged, did not flag and did not store."""
    table = schema.passed.c
    total = sa.cast(sa.func.sum(table.images), sa.BigInteger)  # Postgres adds them as decimals
    query = sa.select(table.run, total).group_by(table.run)
    for run, images in c.execute(query.where(table.at >= span.start, table.at < span.end)):
        yield Counted(run, "", "not flagged", "open", None, images)


def _paces(c: sa.Connection, start: str, end: str) -> list[Pace]:
    """How long the verdicts that were given from ``start`` to before ``end`` took."""
    query = sa.select(EVENT.inspector, EVENT.payload).where(
        EVENT.action.in_(VERDICTS), EVENT.at >= start, EVENT.at < end
    )
    seconds: dict[str, list[float]] = {}
    for name, payload in c.execute(query):
        if payload.get("seconds") is not None and not payload.get("bulk"):
            seconds.setdefault(name, []).append(float(payload["seconds"]))
    everybody = [one for some in seconds.values() for one in some]
    return [
        Pace(name, len(some), statistics.median(some))
        for name, some in [("", everybody), *sorted(seconds.items())]
        if some
    ]
