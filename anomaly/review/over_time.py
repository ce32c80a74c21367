"""The scores of a detector's runs in the order of time, one of each group, as the tests of drift
take them.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import regex
import sqlalchemy as sa

from anomaly.detector.training_facts import TrainingFacts
from anomaly.detector.unit_rule import SECONDS, UnitRule, compiled, in_time
from anomaly.errors import AnomalyError
from anomaly.review.findings import Run
from anomaly.review.queries import FINDING, Row
from anomaly.scoring.units import View, judge_unit
from anomaly.statistics.drift import NOT_JUDGED, Series

COLUMNS = (
    FINDING.run,
    FINDING.folder,
    FINDING.scored_at,
    FINDING.score,
    FINDING.p_value,
    FINDING.threshold,
    FINDING.is_anomaly,
    FINDING.result,
    FINDING.status,
    FINDING.likely_type,
    FINDING.type_score,
    FINDING.path,
    FINDING.image,
    FINDING.unit,
    FINDING.lot,
)


@dataclass(frozen=True)
class Grouped:
    """What a card says of what belongs together: views of a unit, or images of a group."""

    rule: UnitRule | None
    pattern: regex.Pattern[str] | None
    not_judged_share: float

    @classmethod
    def of(cls, training: TrainingFacts | None) -> Grouped:
        if training is None:
            return cls(None, None, NOT_JUDGED)
        rule, refused = training.by_unit, 0.0 if training.guard is None else training.guard.refused
        share = max(NOT_JUDGED, refused if refused < 1 else 0.0)
        pattern = _pattern(training.group_by)
        return cls(rule, pattern, share if rule is None else 1 - (1 - share) ** rule.most)

    def key(self, row: Row, common: str) -> tuple[object, ...]:
        """Rows of the same key are one entry of a series."""
        if self.rule is not None:
            return ("unit", row.run, row.unit) if row.unit else ("image", row.run, row.path)
        group = (
            None
            if self.pattern is None
            else self._group(self.pattern, os.path.relpath(row.path, common or "."))
        )
        return ("group", group) if group else ("image", row.run, row.path)

    def _group(self, pattern: regex.Pattern[str], path: str) -> str | None:
        with in_time(pattern, path):
            match = pattern.search(path, timeout=SECONDS)
        return match[1 if pattern.groups else 0] if match else None


def _pattern(group_by: str | None) -> regex.Pattern[str] | None:
    try:
        return None if group_by is None else compiled(group_by)
    except AnomalyError:  # a damaged card: then every image is its own group, as without one
        return None


def series(
    c: sa.Connection,
    runs: Sequence[Run],
    common: Mapping[int, str],
    depth: int,
    training: TrainingFacts | None,
) -> list[Series]:
    """The scores of runs of one detector, for each folder; NaN for what was not judged.

    Of a unit the worst view counts, of a group the one that a hash of the paths draws. A file that
    was scored again counts once. Of a service's run only the random sample counts: what else it
    stores was chosen by its score. ``common``: the folder of all a run's images.
    """
    grouped, bases = Grouped.of(training), {run.id: run.folder for run in runs}
    services = {run.id for run in runs if run.source == "service"}
    groups: dict[tuple[object, ...], list[Row]] = {}
    seen: set[tuple[str, str]] = set()
    query = sa.select(*COLUMNS).where(FINDING.run.in_(list(common)))
    for row in c.execute(query.order_by(FINDING.scored_at, FINDING.run, FINDING.position)):
        file = (os.path.join(bases[row.run], row.path), row.image)
        if file in seen or (row.run in services and row.lot is None):
            continue
        seen.add(file)
        groups.setdefault(grouped.key(row, common[row.run]), []).append(row)
    return _by_name(
        groups.values(), grouped, lambda row: _camera(row.folder, common[row.run], depth)
    )


@functools.lru_cache(maxsize=100_000)
def _camera(folder: str, common: str, depth: int) -> str:
    names = Path(os.path.relpath(folder or ".", common or ".")).parts
    return "/".join(names[:depth])


def _by_name(
    groups: Iterable[list[Row]], grouped: Grouped, camera: Callable[[Row], str]
) -> list[Series]:
    """A unit belongs where its first view was taken and comes when its last was; a group where and
    when the drawn image was.
    """
    found: dict[str, list[tuple[str, float | None]]] = {}
    for rows in groups:
        first, last = (rows[0], rows[-1]) if grouped.rule else (_drawn(rows),) * 2
        score = (
            _worst(rows, grouped.rule)
            if grouped.rule
            else first.score
            if first.status == "ok"
            else None
        )
        found.setdefault(camera(first), []).append((last.scored_at, score))
    what = "image" if grouped.rule is None else "unit"
    # what lies in no subfolder: all there is, or what is left beside them
    top = f"all {what}s" if len(found) == 1 else "(no subfolder)"
    return [
        _series(name or top, found[name], what, grouped.not_judged_share) for name in sorted(found)
    ]


def _series(
    name: str, entries: Iterable[tuple[str, float | None]], what: str, share: float
) -> Series:
    times, scores = zip(*sorted(entries, key=lambda entry: entry[0]), strict=True)
    return Series(name, np.array(scores, dtype=np.float32), list(times), what, share)


def _drawn(rows: Sequence[Row]) -> Row:
    """One image of a group: which one depends on the names alone, as in calibration."""
    if len(rows) == 1:
        return rows[0]
    return min(
        rows, key=lambda row: hashlib.sha256(row.path.encode("utf-8", "surrogatepass")).digest()
    )


def _worst(rows: Sequence[Row], rule: UnitRule) -> float | None:
    views = [View(*(getattr(row, name) for name in View._fields)) for row in rows]
    found = judge_unit(rows[0].unit or "", views, rule, "") if rows[0].unit else None
    return None if found is None or found.status != "ok" else found.score
