"""Views of one unit, by its serial number -> one result for the unit.

A unit is flagged where one of its views is; it is not judged where a view is missing, or one was
not judged, and none is flagged; else it is to be reviewed where one of them is.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from anomaly.detector.unit_rule import UnitRule
from anomaly.scoring.units import View, judge_unit
from anomaly.station.results import FLAGGED, NOT_FLAGGED, NOT_JUDGED, REVIEW, Actions, StationResult
from anomaly.station.settings import UnitSettings

REMEMBERED = 1000  # serial numbers of units that have their result: a view that comes then is late


@dataclass
class _Waiting:
    views: list[StationResult]
    until: float


class Units:
    """Joins the views of units; the judge's thread alone uses it.

    ``waiting``: the views that the ledger holds of units without a result; they have the whole time
    again.
    """

    def __init__(
        self, settings: UnitSettings, actions: Actions, waiting: Mapping[str, list[StationResult]]
    ) -> None:
        self._settings, self._actions = settings, actions
        self._waiting = {serial: _Waiting(views, math.inf) for serial, views in waiting.items()}
        self._done: dict[str, None] = {}

    def add(self, view: StationResult) -> tuple[str | None, list[StationResult] | None]:
        """Takes a view. Returns the serial number that it waits under and None, or None and the
        views of the unit that is whole with it (none at all for a view that comes too late).
        """
        if view.source not in self._settings.views:
            return None, []
        if view.serial is None:
            return None, [view]
        if view.serial in self._done:
            return None, []
        waiting = self._waiting.setdefault(
            view.serial, _Waiting([], time.monotonic() + self._settings.seconds)
        )
        waiting.views.append(view)
        if {one.source for one in waiting.views} != set(self._settings.views):
            return view.serial, None
        return None, self._finished(view.serial)

    def expired(self) -> list[list[StationResult]]:
        """Returns the views of units whose time is over; that of the ledger's begins now."""
        now = time.monotonic()
        for waiting in self._waiting.values():
            waiting.until = min(waiting.until, now + self._settings.seconds)
        over = [serial for serial, waiting in self._waiting.items() if waiting.until <= now]
        return [self._finished(serial) for serial in over]

    def _finished(self, serial: str) -> list[StationResult]:
        self._done[serial] = None
        while len(self._done) > REMEMBERED:
            del self._done[next(iter(self._done))]
        return self._waiting.pop(serial).views

    def result(self, views: Sequence[StationResult], seq: int, id_: str) -> StationResult:
        """Returns the unit's result, numbered ``seq``."""
        names = self._settings.views
        expected = len(names)
        row = judge_unit(
            views[0].serial or "",
            [_view(view) for view in views],
            UnitRule("(.*)", expected, expected),
            views[0].detector,
        )
        status, error, outcome = row.status, row.error, self._outcome(views)
        if views[0].serial is None:
            status, outcome = "error", FLAGGED if outcome == FLAGGED else NOT_JUDGED
            error = f"the image of {views[0].source} has no serial number: of no unit"
        elif missing := [name for name in names if name not in {v.source for v in views}]:
            outcome = FLAGGED if outcome == FLAGGED else NOT_JUDGED
            error = f"no view of {', '.join(missing)} within {self._settings.seconds:g} s"
        elif status != "ok" and outcome != FLAGGED:
            outcome = NOT_JUDGED
        # posts may share a path
        worst = next((v for v in views if (v.path, v.score) == (row.worst, row.score)), views[0])
        named = outcome in (FLAGGED, REVIEW)
        return replace(
            worst,
            seq=seq, id=id_, of="unit", outcome=outcome, action=self._actions.of(outcome),
            status=status, error=error, score=row.score, p_value=row.p_value,
            is_anomaly={FLAGGED: True, NOT_JUDGED: None}.get(outcome, False),
            taken_at=min(v.taken_at for v in views), judged_at=max(v.judged_at for v in views),
            seconds=max(v.seconds for v in views), views=tuple(v.seq for v in views),
            image=None, lot=None,
            defect_type=worst.defect_type if named else None,
            type_score=worst.type_score if named else None,
        )  # fmt: skip

    @staticmethod
    def _outcome(views: Sequence[StationResult]) -> str:
        found = {view.outcome for view in views}
        return next(one for one in (FLAGGED, NOT_JUDGED, REVIEW, NOT_FLAGGED) if one in found)


def _view(one: StationResult) -> View:
    """Returns what a unit's result needs of an image's."""
    return View(
        one.path,
        one.score,
        one.p_value,
        one.threshold,
        one.is_anomaly,
        one.outcome,
        one.status,
        one.defect_type,
        one.type_score,
    )
