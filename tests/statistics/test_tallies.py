from __future__ import annotations

from datetime import date
from itertools import combinations

from anomaly.statistics.tallies import KINDS, Part, Production, Tally

PARTS = [
    Part(
        f"2026-02-0{day}", shift, line, f"order {day}", Tally(100, day, 1, 0, 2, day, 0), {"": day}
    )
    for day in (3, 4)
    for shift in ("early", "late")
    for line in ("a", "b")
]


def test_tallies_by_any_kinds_add_up_to_all() -> None:
    found = Production(date(2026, 2, 3), date(2026, 2, 4), PARTS, [], [], [])
    assert found.total == Tally(800, 28, 8, 0, 16, 28, 0) and found.total.undecided == 20
    for many in range(len(KINDS) + 1):
        for kinds in combinations(KINDS, many):
            assert sum(found.by(*kinds).values(), Tally()) == found.total
    assert list(found.by("day")) == [("2026-02-03",), ("2026-02-04",)]
    assert found.types == {"": 28}
