"""One result for a unit of several views: the worst counts, and a missing view is never good."""

from __future__ import annotations

from itertools import product

import pytest

from anomaly.station.results import FLAGGED, NOT_FLAGGED, NOT_JUDGED, OUTCOMES, REVIEW, Actions
from anomaly.station.settings import UnitSettings
from anomaly.station.units import Units
from tests.support.stations import example

SETTINGS = UnitSettings(("left", "right"), 0.05)


def units(**waiting: list) -> Units:
    return Units(SETTINGS, Actions(), waiting)


@pytest.mark.parametrize(("left", "right"), list(product(OUTCOMES, OUTCOMES)))
def test_the_worst_view_decides(left: str, right: str) -> None:
    of = units()
    first, second = example(1, left, serial="A"), example(2, right, serial="A", source="right")
    assert of.add(first) == ("A", None)
    serial, views = of.add(second)
    assert (serial, views) == (None, [first, second])
    unit = of.result(views or [], 3, "a-3")
    worst = next(one for one in (FLAGGED, NOT_JUDGED, REVIEW, NOT_FLAGGED) if one in (left, right))
    assert (unit.outcome, unit.of, unit.views, unit.seq) == (worst, "unit", (1, 2), 3)
    assert (unit.action == "pass") == (worst == NOT_FLAGGED)
    assert (unit.is_anomaly is None) == (worst == NOT_JUDGED)


def test_the_worst_view_is_that_of_its_score_where_posts_share_a_path() -> None:
    of, shared = units(), {"serial": "A", "path": "post-"}
    good = example(1, **shared, box=(0, 0, 1, 1))
    bad = example(2, "flagged", **shared, source="right", box=(5, 5, 1, 1))
    unit = of.result([good, bad], 3, "a-3")
    assert (unit.score, unit.box) == (bad.score, bad.box)


@pytest.mark.parametrize(("there", "outcome"), [("not flagged", NOT_JUDGED), ("flagged", FLAGGED)])
def test_a_missing_view_is_not_judged_unless_another_flags(there: str, outcome: str) -> None:
    # a view that the ledger held when the process was killed has the whole time again
    of = units(A=[example(1, there, serial="A")])
    assert of.expired() == []
    found: list = []
    while not found:
        found = of.expired()
    unit = of.result(found[0], 2, "a-2")
    assert (unit.outcome, unit.action) == (outcome, "reject")
    assert unit.error == "no view of right within 0.05 s"
    # what comes now is too late for a second result
    assert of.add(example(3, serial="A", source="right")) == (None, [])


def test_an_image_without_a_serial_number_is_a_unit_that_is_not_judged() -> None:
    of = units()
    serial, views = of.add(example(1, serial=None))
    unit = of.result(views or [], 2, "a-2")
    assert (serial, unit.outcome) == (None, NOT_JUDGED)
    assert "no serial number" in str(unit.error)


def test_a_source_that_is_no_view_has_no_unit() -> None:
    assert units().add(example(1, source="lid")) == (None, [])
