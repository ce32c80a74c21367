"""Parts of several views: which part an image shows, a part's score by its worst view, and the table of parts.

A part is stopped when one of its views lies above the limit, so its score is the highest of its views' scores. Where
calibration takes that score of each good part, the promise is one for parts: at most so many good parts are stopped. The
more views a part has the more chance has one of them to be high, so the card holds how many views the parts had that set
the limit: a part with more is not judged, and one with fewer, or with a view that could not be judged, is never good.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import groupby, islice
from pathlib import Path
from typing import Any, NamedTuple

from anomaly.calibrate import Calibration
from anomaly.dataset import Record
from anomaly.errors import DatasetError, ImageError
from anomaly.part_rule import PartRule, compiled, part_name
from anomaly.table import Row, read_table, table_suffix, whole_file, write_rows
from anomaly.wording import ordinary_text

BATCH = 1000  # rows held at a time


def by_part(records: Iterable[Record], pattern: str, views: int | None = None) -> tuple[list[Record], list[str]]:
    """Returns records with their part as the group, and a line for each part left out: those without exactly ``views`` images.

    DatasetError where a path names no part.
    """
    regex, named = compiled(pattern), []
    for record in records:
        name = part_name(regex, str(record.path))
        if name is None:
            raise DatasetError(f"--by-part {pattern!r} does not match {str(record.path)!r}: every path must name its part")
        named.append(replace(record, group=name))
    counts = Counter(record.group for record in named)
    wrong = [] if views is None else [name for name, count in counts.items() if count != views]
    if len(wrong) == len(counts):
        raise DatasetError(f"no part with {views} views found ({wrong[0]} has {counts[wrong[0]]}): check --by-part and --views")
    left_out = [f"part {name}: {counts[name]} of {views} views found" for name in wrong]
    return [record for record in named if record.group not in set(wrong)], left_out


def whole_parts(kept: Sequence[Record], before: Iterable[Record]) -> list[Record]:
    """Returns those of ``kept`` whose part has lost none of its views of ``before``: of the others the worst is not known."""
    counts, whole = Counter(record.group for record in kept), Counter(record.group for record in before)
    return [record for record in kept if counts[record.group] == whole[record.group]]


# --- the table of parts -----------------------------------------------------------------------------------------------
class PartRow(NamedTuple):
    """One part in the table. ``is_anomaly`` is None where it was not judged: such a part is never good.

    ``views``: images found of it; ``judged``: those with a verdict; ``worst``: the path of the one with the highest score,
    whose ``score`` and ``p_value`` are the part's. ``status``: ``ok``, ``incomplete`` (too few views), ``outside`` (too many,
    or one unlike the training images) or ``error``; ``error`` says why.
    """

    part: str
    views: int
    judged: int
    worst: str | None
    score: float | None
    p_value: float | None
    threshold: float | None
    is_anomaly: bool | None
    status: str
    error: str | None
    detector: str


class View(NamedTuple):
    """What a part's verdict needs of one image's row."""

    path: str
    score: float | None
    p_value: float | None
    threshold: float | None
    is_anomaly: bool | None
    status: str


def judge_part(part: str, views: Sequence[View], rule: PartRule, detector: str, more: int = 0) -> PartRow:
    """Returns the verdict on a part with these views, and ``more`` that are too many to be looked at.

    A view above the limit stops it, whatever became of the others: that keeps the promise. It is not stopped only where
    all its views were judged.
    """
    count = len(views) + more
    judged = [view for view in views if view.status == "ok" and view.score is not None]
    worst = max(judged, key=lambda view: view.score or 0.0, default=None)
    others = [view for view in views if view.status != "ok"]
    status, error, stopped = "ok", None, any(view.is_anomaly for view in judged)
    if count > rule.most:
        status, error, worst = "outside", f"{count:,} views found, {rule.views} in the parts that set the limit", None
    elif not stopped and len(views) < rule.least:
        status, error = "incomplete", f"{len(views)} of {rule.views} found"
    elif not stopped and others:
        status = "error" if any(view.status == "error" for view in others) else "outside"
        error = f"{len(others)} of {len(views)} views could not be judged, the first: {others[0].path}"
    found = View("", None, None, None, None, "") if worst is None else worst
    return PartRow(
        part=part,
        views=count,
        judged=len(judged),
        worst=found.path or None,
        score=found.score,
        p_value=found.p_value,
        threshold=next((view.threshold for view in views if view.threshold is not None), None),
        is_anomaly=None if status != "ok" or found.is_anomaly is None else stopped,
        status=status,
        error=error,
        detector=detector,
    )


@dataclass(frozen=True)
class PartsSummary:
    """What a table of parts holds. ``of_no_part``: images whose path names none, which therefore are not judged.

    ``expected`` and ``ordinary_up_to``: how many of the ``ok`` parts would be stopped if all were good, on average and at
    most (95 %).
    """

    out: Path
    parts: int
    ok: int
    others: dict[str, int]
    stopped: int
    of_no_part: int
    expected: float
    ordinary_up_to: int

    @property
    def not_judged(self) -> int:
        """Number of parts without a verdict, and of images of no part."""
        return sum(self.others.values()) + self.of_no_part

    def rows(self) -> list[tuple[str, str]]:
        """The summary in words."""
        rows = [("parts stopped", ordinary_text(self.stopped, self.ok, self.expected, self.ordinary_up_to, "part"))]
        kinds = [f"{count:,} {kind}" for kind, count in sorted(self.others.items())]
        if self.of_no_part:
            kinds.append(f"{self.of_no_part:,} image{'s' * (self.of_no_part != 1)} of no part")
        if kinds:
            rows.append(("parts not judged", f"{', '.join(kinds)}; treat as not OK"))
        return [*rows, ("parts table", str(self.out))]


def parts_table(table: Path) -> Path:
    """Returns where the table of parts lies: beside the one of images."""
    return table.with_name(f"{table.stem}-parts{table.suffix}")


def write_parts(table: Path, rules: Mapping[str, tuple[PartRule, Calibration | None]], inside: Path) -> PartsSummary:
    """Writes the parts of a finished table of images beside it, sorted by detector and name, and returns what they are.

    ``rules``: of each detector's identity in the table that promises per part. Rows are sorted on the disk: any number
    of images takes some megabytes of memory. ``inside``: a folder of the same file system for what is unfinished.
    """
    out, counts, no_part = parts_table(table), Counter[tuple[str, str]](), 0
    with _sorted_on_disk(inside / f".views.{os.getpid()}.tmp") as views:
        for rows in _batches(read_table(table)):
            known = [_view(row, rules[row.detector][0]) for row in rows if row.detector in rules]
            no_part += known.count(None)
            views.executemany("INSERT OR REPLACE INTO view VALUES (?, ?, ?, ?, ?, ?, ?, ?)", filter(None, known))
        parts = _counted(_judged(views, {identity: rule for identity, (rule, _) in rules.items()}), counts)
        with whole_file(out, inside=inside) as file:
            write_rows(parts, PartRow, table_suffix(out), file)
    return _summary(out, counts, no_part, {identity: calibration for identity, (_, calibration) in rules.items()})


@contextmanager
def _sorted_on_disk(file: Path) -> Iterator[sqlite3.Connection]:
    """Opens a table of views that keeps them in order, in a file that goes. A path counts once, however often it was given."""
    file.unlink(missing_ok=True)
    views = sqlite3.connect(file, isolation_level=None)
    try:
        for setting in ("journal_mode = OFF", "synchronous = OFF", "cache_size = -32768"):  # KiB
            views.execute(f"PRAGMA {setting}")
        views.execute(
            "CREATE TABLE view (detector, part, path, score REAL, p_value REAL, threshold REAL, is_anomaly, status, "
            "PRIMARY KEY (detector, part, path)) WITHOUT ROWID"
        )
        views.execute("BEGIN")
        yield views
    except sqlite3.Error as error:
        raise OSError(errno.EIO, f"parts cannot be sorted ({error})", str(file)) from error
    finally:
        views.close()
        file.unlink(missing_ok=True)


def _view(row: Row, rule: PartRule) -> tuple[Any, ...] | None:
    try:
        part = rule.part_of(row.path)
    except ImageError:
        return None
    return (row.detector, part, row.path, row.score, row.p_value, row.threshold, row.is_anomaly, row.status)


def _judged(views: sqlite3.Connection, rules: Mapping[str, PartRule]) -> Iterator[PartRow]:
    rows = views.execute("SELECT * FROM view ORDER BY detector, part, path")
    for (detector, part), found in groupby(rows, key=lambda row: (row[0], row[1])):
        of_part = iter(found)
        held = list(islice(of_part, rules[detector].most + 1))  # a wrong pattern can make one part of a million images
        seen = [View(row[2], row[3], row[4], row[5], None if row[6] is None else bool(row[6]), row[7]) for row in held]
        yield judge_part(part, seen, rules[detector], detector, sum(1 for _ in of_part))


def _counted(parts: Iterable[PartRow], counts: Counter[tuple[str, str]]) -> Iterator[PartRow]:
    for part in parts:
        counts[part.detector, part.status] += 1
        counts[part.detector, "stopped"] += bool(part.is_anomaly)
        yield part


def _summary(
    out: Path, counts: Counter[tuple[str, str]], no_part: int, calibrations: Mapping[str, Calibration | None]
) -> PartsSummary:
    total = Counter[str]()
    for (_, kind), count in counts.items():
        total[kind] += count
    known = [(calibration, counts[identity, "ok"]) for identity, calibration in calibrations.items() if calibration]
    return PartsSummary(
        out=out,
        parts=sum(count for kind, count in total.items() if kind != "stopped"),
        ok=total["ok"],
        others={kind: count for kind, count in total.items() if kind not in ("ok", "stopped") and count},
        stopped=total["stopped"],
        of_no_part=no_part,
        expected=sum(calibration.expected(ok) for calibration, ok in known),
        ordinary_up_to=sum(calibration.ordinary_up_to(ok, 1 - 0.05 / len(known)) for calibration, ok in known),
    )


def _batches(rows: Iterable[Row]) -> Iterator[list[Row]]:
    rows = iter(rows)
    while batch := list(islice(rows, BATCH)):
        yield batch
