"""Units of several views: which unit an image shows, a unit's score by its worst view, and the
table of units.

A unit is flagged when one of its views lies above the threshold, so its score is the highest of its
views' scores. Where calibration takes that score of each good unit, the guarantee is one for units:
at most so many good units are flagged. The more views a unit has the more chance has one of them to
be high, so the card holds how many views the units had that set the threshold: a unit with more is
not judged, and one with fewer, or with a view that could not be judged, is never good.
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

from anomaly.detector.unit_rule import UnitRule, compiled, unit_name
from anomaly.errors import DatasetError, ImageError
from anomaly.files.atomic import whole_file
from anomaly.files.table import COUNTED, Row, read_table, table_suffix, write_rows
from anomaly.inputs.dataset import Record
from anomaly.statistics.calibration import Calibration

BATCH = 1000  # rows held at a time


def by_unit(
    records: Iterable[Record], pattern: str, views: int | None = None
) -> tuple[list[Record], list[str]]:
    """Returns records with their unit as the group, and a line for each unit left out: those
    without exactly ``views`` images.

    DatasetError where a path names no unit.
    """
    regex, named = compiled(pattern), []
    for record in records:
        name = unit_name(regex, str(record.path))
        if name is None:
            raise DatasetError(
                f"--by-unit {pattern!r} does not match {str(record.path)!r}: every path must name "
                "its unit"
            )
        named.append(replace(record, group=name))
    counts = Counter(record.group for record in named)
    wrong = [] if views is None else [name for name, count in counts.items() if count != views]
    if len(wrong) == len(counts):
        raise DatasetError(
            f"no unit with {views} views found ({wrong[0]} has {counts[wrong[0]]}): check "
            "--by-unit and --views"
        )
    left_out = [f"unit {name}: {counts[name]} of {views} views found" for name in wrong]
    return [record for record in named if record.group not in set(wrong)], left_out


def whole_units(kept: Sequence[Record], before: Iterable[Record]) -> list[Record]:
    """Returns those of ``kept`` whose unit has lost none of its views of ``before``: of the others
    the worst is not known.
    """
    counts, whole = (
        Counter(record.group for record in kept),
        Counter(record.group for record in before),
    )
    return [record for record in kept if counts[record.group] == whole[record.group]]


# --- the table of units ---------------------------------------------------------------------------
class UnitRow(NamedTuple):
    """One unit in the table. ``is_anomaly`` is None where it was not judged: such a unit is never
    good.

    ``views``: images found of it; ``judged``: those with a result; ``worst``: the path of the one
    with the highest score, whose ``score``, ``p_value`` and ``defect_type`` are the unit's.
    ``status``: ``ok``, ``incomplete`` (too few views), ``outside`` (too many, or one unlike the
    training images) or ``error``; ``error`` says why.
    """

    unit: str
    views: int
    judged: int
    worst: str | None
    score: float | None
    p_value: float | None
    threshold: float | None
    is_anomaly: bool | None
    result: str | None
    defect_type: str | None
    type_score: float | None
    status: str
    error: str | None
    detector: str


class View(NamedTuple):
    """What a unit's result needs of one image's row. ``likely_type``: its ``defect_type``."""

    path: str
    score: float | None
    p_value: float | None
    threshold: float | None
    is_anomaly: bool | None
    result: str | None
    status: str
    likely_type: str | None = None
    type_score: float | None = None


def judge_unit(
    unit: str, views: Sequence[View], rule: UnitRule, detector: str, more: int = 0
) -> UnitRow:
    """Returns the result on a unit with these views, and ``more`` that are too many to be looked
    at.

    A view above the threshold flags it, whatever became of the others: that keeps the guarantee. It
    is not flagged only where all its views were judged; then one view for review is enough for a
    review of the unit.
    """
    count = len(views) + more
    judged = [view for view in views if view.status == "ok" and view.score is not None]
    worst = max(judged, key=lambda view: view.score or 0.0, default=None)
    others = [view for view in views if view.status != "ok"]
    status, error, flagged = "ok", None, any(view.is_anomaly for view in judged)
    if count > rule.most:
        status, error, worst = (
            "outside",
            f"{count:,} views found, {rule.views} in the units that set the threshold",
            None,
        )
    elif not flagged and len(views) < rule.least:
        status, error = "incomplete", f"{len(views)} of {rule.views} found"
    elif not flagged and others:
        status = "error" if any(view.status == "error" for view in others) else "outside"
        error = (
            f"{len(others)} of {len(views)} views could not be judged, the first: {others[0].path}"
        )
    found = View("", None, None, None, None, None, "") if worst is None else worst
    return UnitRow(
        unit=unit,
        views=count,
        judged=len(judged),
        worst=found.path or None,
        score=found.score,
        p_value=found.p_value,
        threshold=next((view.threshold for view in views if view.threshold is not None), None),
        is_anomaly=None if status != "ok" or found.is_anomaly is None else flagged,
        # of its worst view: no other has a higher score
        result="not judged" if status != "ok" else found.result,
        defect_type=found.likely_type if status == "ok" else None,
        type_score=found.type_score if status == "ok" else None,
        status=status,
        error=error,
        detector=detector,
    )


@dataclass(frozen=True)
class UnitsSummary:
    """What a table of units holds. ``of_no_unit``: images whose path names none, which therefore
    are not judged.

    ``expected`` and ``ordinary_up_to``: how many of the ``ok`` units would be flagged if all were
    good, on average and at most (95 %). ``review`` ...: as of images, see Summary.
    """

    out: Path
    units: int
    ok: int
    others: dict[str, int]
    flagged: int
    of_no_unit: int
    expected: float
    ordinary_up_to: int
    review: int | None = None
    review_expected: float = 0.0
    review_up_to: int = 0

    @property
    def not_judged(self) -> int:
        """Number of units without a result, and of images of no unit."""
        return sum(self.others.values()) + self.of_no_unit


def units_table(table: Path) -> Path:
    """Returns where the table of units lies: beside the one of images."""
    return table.with_name(f"{table.stem}-units{table.suffix}")


def write_units(
    table: Path, rules: Mapping[str, tuple[UnitRule, Calibration | None]], inside: Path
) -> UnitsSummary:
    """Writes the units of a finished table of images beside it, sorted by detector and name, and
    returns what they are.

    ``rules``: of each detector's identity in the table that guarantees per unit. Rows are sorted on
    the disk: any number of images takes some megabytes of memory. ``inside``: a folder of the same
    file system for what is unfinished.
    """
    out, counts, no_unit = units_table(table), Counter[tuple[str, str]](), 0
    with _sorted_on_disk(inside / f".views.{os.getpid()}.tmp") as views:
        for rows in _batches(read_table(table)):
            known = [_view(row, rules[row.detector][0]) for row in rows if row.detector in rules]
            no_unit += known.count(None)
            views.executemany(
                "INSERT OR REPLACE INTO view VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                filter(None, known),
            )
        units = _counted(
            _judged(views, {identity: rule for identity, (rule, _) in rules.items()}), counts
        )
        with whole_file(out, inside=inside) as file:
            write_rows(units, UnitRow, table_suffix(out), file)
    return _summary(
        out,
        counts,
        no_unit,
        {identity: calibration for identity, (_, calibration) in rules.items()},
    )


@contextmanager
def _sorted_on_disk(file: Path) -> Iterator[sqlite3.Connection]:
    """Opens a table of views that keeps them in order, in a file that goes. A path counts once,
    however often it was given.
    """
    file.unlink(missing_ok=True)
    views = sqlite3.connect(file, isolation_level=None)
    try:
        for setting in ("journal_mode = OFF", "synchronous = OFF", "cache_size = -32768"):  # KiB
            views.execute(f"PRAGMA {setting}")
        views.execute(
            "CREATE TABLE view (detector, unit, path, score REAL, p_value REAL, threshold REAL, "
            "is_anomaly, result, status, likely_type, type_score REAL, "
            "PRIMARY KEY (detector, unit, path)) WITHOUT ROWID"
        )
        views.execute("BEGIN")
        yield views
    except sqlite3.Error as error:
        raise OSError(errno.EIO, f"units cannot be sorted ({error})", str(file)) from error
    finally:
        views.close()
        file.unlink(missing_ok=True)


def _view(row: Row, rule: UnitRule) -> tuple[Any, ...] | None:
    try:
        unit = rule.unit_of(row.path)
    except ImageError:
        return None
    return (
        row.detector,
        unit,
        row.path,
        row.score,
        row.p_value,
        row.threshold,
        row.is_anomaly,
        row.result,
        row.status,
        row.defect_type,
        row.type_score,
    )


def _judged(views: sqlite3.Connection, rules: Mapping[str, UnitRule]) -> Iterator[UnitRow]:
    rows = views.execute("SELECT * FROM view ORDER BY detector, unit, path")
    for (detector, unit), found in groupby(rows, key=lambda row: (row[0], row[1])):
        of_unit = iter(found)
        # a wrong pattern can make one unit of a million images
        held = list(islice(of_unit, rules[detector].most + 1))
        seen = [
            View._make((*row[2:6], None if row[6] is None else bool(row[6]), *row[7:]))
            for row in held
        ]
        yield judge_unit(unit, seen, rules[detector], detector, sum(1 for _ in of_unit))


def _counted(units: Iterable[UnitRow], counts: Counter[tuple[str, str]]) -> Iterator[UnitRow]:
    for unit in units:
        counts[unit.detector, unit.status] += 1
        counts[unit.detector, "flagged"] += bool(unit.is_anomaly)
        counts[unit.detector, "review"] += unit.result == "review"
        yield unit


def _summary(
    out: Path,
    counts: Counter[tuple[str, str]],
    no_unit: int,
    calibrations: Mapping[str, Calibration | None],
) -> UnitsSummary:
    total = Counter[str]()
    for (_, kind), count in counts.items():
        total[kind] += count
    known = [
        (calibration, counts[identity, "ok"])
        for identity, calibration in calibrations.items()
        if calibration
    ]
    above_review = [(calibration.review or calibration, ok) for calibration, ok in known]
    return UnitsSummary(
        out=out,
        units=sum(count for kind, count in total.items() if kind not in COUNTED),
        ok=total["ok"],
        others={kind: n for kind, n in total.items() if kind not in ("ok", *COUNTED) and n},
        flagged=total["flagged"],
        of_no_unit=no_unit,
        expected=sum(calibration.expected(ok) for calibration, ok in known),
        ordinary_up_to=sum(
            calibration.ordinary_up_to(ok, 1 - 0.05 / len(known)) for calibration, ok in known
        ),
        review=total["review"] if any(calibration.review for calibration, _ in known) else None,
        review_expected=sum(above.expected(ok) for above, ok in above_review),
        review_up_to=sum(
            above.ordinary_up_to(ok, 1 - 0.05 / len(known)) for above, ok in above_review
        ),
    )


def _batches(rows: Iterable[Row]) -> Iterator[list[Row]]:
    rows = iter(rows)
    while batch := list(islice(rows, BATCH)):
        yield batch
