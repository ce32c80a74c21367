"""How it goes, counted from a database: each image once, in its shift, on its line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest

pytest.importorskip(
    "sqlalchemy", reason="SQLAlchemy is not installed: the review database needs it"
)

from anomaly.errors import AnomalyError
from anomaly.reporting.production import production_json
from anomaly.review import Filters, Store, default_key
from anomaly.review.production import Names
from anomaly.review.shifts import Shifts
from anomaly.review.stream import Sent, Stream
from anomaly.statistics.tallies import Tally
from tests.benchmarks.bench_review import write_table
from tests.review.test_over_time import carded
from tests.review.test_review import database, fill, give_verdict, postgres, row, store  # noqa: F401

DAY, NEXT = date(2026, 2, 3), date(2026, 2, 4)
SHIFTS = Shifts.of(("06:00", "14:00", "22:00"), "Europe/Berlin")  # UTC + 1 in February
MORNING, NIGHT, AFTER_MIDNIGHT = "2026-02-03T05:00", "2026-02-03T21:30", "2026-02-04T04:59"


def at(number: int, moment: str, score: float | None, line: str = "a", **fields: object) -> object:
    return row(
        number,
        score,
        path=f"/photos/{line}/{number}.png",
        scored_at=f"{moment}:00.000Z",
        **fields,
    )


def test_every_image_counts_once_in_its_shift_on_its_line(store: Store, tmp_path: Path) -> None:  # noqa: F811
    run = fill(
        store,
        tmp_path,
        [
            at(0, MORNING, 2.0),
            at(1, MORNING, 3.0, "b"),
            at(2, NIGHT, 2.5),
            at(3, AFTER_MIDNIGHT, 2.6),  # the night shift of the day before
            at(4, AFTER_MIDNIGHT, 0.5),
            at(5, AFTER_MIDNIGHT, None),
            at(6, "2026-02-04T05:00", 2.0),
            at(7, "2026-02-03T04:59", 9.0),  # of the day before
        ],
    )
    ids = {one.position: one.id for one in store.findings(Filters(run=run))}
    give_verdict(store, ids[0], "anomalous", defect_type="dent", seconds=4)
    give_verdict(store, ids[1], "normal", seconds=2)
    give_verdict(store, ids[2], "unsure", "bo", seconds=9)
    give_verdict(store, ids[5], "anomalous")
    found = store.production(DAY, DAY, SHIFTS)
    assert found.by("day", "shift", "line") == {
        ("2026-02-03", "06:00 to 14:00", "a"): Tally(images=1, flagged=1, confirmed=1),
        ("2026-02-03", "06:00 to 14:00", "b"): Tally(images=1, flagged=1, false_alarms=1),
        ("2026-02-03", "22:00 to 06:00", "a"): Tally(
            images=4, flagged=2, not_judged=1, looked_at=1
        ),
    }
    assert found.total.undecided == 2 and found.types == {"": 1, "dent": 1}
    written = json.loads(production_json(found))
    assert sum(part["types"].get("dent", 0) for part in written["parts"]) == 1
    assert store.production(DAY, NEXT, SHIFTS).total.images == 7
    assert store.production(NEXT, NEXT, SHIFTS).total == Tally(images=1, flagged=1)
    assert store.production(date(2025, 1, 1), date(2025, 1, 1), SHIFTS).parts == []


def test_time_per_image_is_of_the_day_on_which_verdicts_were_given(tmp_path: Path) -> None:
    clock = iter(range(1_770_100_000, 1_780_000_000))  # 2026-02-03, 07:26 in Berlin
    with Store(tmp_path / "review.db", clock=lambda: float(next(clock))) as lite:
        fill(lite, tmp_path, [at(number, MORNING, 2.0) for number in range(4)])
        for finding, (name, seconds) in enumerate((("ann", 4), ("ann", 2), ("bo", 9)), 1):
            give_verdict(lite, finding, "normal", name, seconds=seconds)
        give_verdict(lite, 4, "normal", "bo")
        found = lite.production(DAY, DAY, SHIFTS).paces
        assert [(one.name, one.verdicts, one.median_seconds) for one in found] == [
            ("", 3, 4.0),
            ("ann", 2, 3.0),
            ("bo", 1, 9.0),
        ]
        assert lite.production(NEXT, NEXT, SHIFTS).paces == []


def test_what_was_settled_in_another_run_is_no_longer_undecided(
    store: Store,  # noqa: F811
    tmp_path: Path,
) -> None:
    fill(store, tmp_path, [at(0, "2026-02-01T09:00", 2.0), at(1, "2026-02-01T09:00", 2.0)])
    give_verdict(store, 1, "anomalous", defect_type="dent")
    fill(store, tmp_path, [at(0, MORNING, 2.1), at(1, MORNING, 2.1), at(0, NIGHT, 0.3)])
    found = store.production(DAY, DAY, SHIFTS)
    assert found.total == Tally(images=3, flagged=2, confirmed=1)
    assert found.types == {"dent": 1}


def test_images_that_a_service_does_not_store_are_counted(
    store: Store,  # noqa: F811
    tmp_path: Path,
) -> None:
    stream = Stream("line 7 units 2026-02-03", tmp_path, carded())
    for passed in (1000, 500):
        store.add_findings(stream, [Sent(row(passed, 250.0), None)], passed, by="line 7")
    shifts = Shifts.of((), "UTC")
    today = shifts.today()
    found = store.production(date(2026, 1, 31), date(2026, 1, 31), shifts)
    assert found.by("line") == {("line 7",): Tally(images=2, flagged=2)}
    assert store.production(today, today, shifts).by("line") == {("line 7",): Tally(images=1500)}


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (Names(), ("cam1", "table")),
        (Names(line=r"line(\d)", order=r"order-\d+"), ("3", "order-77")),
        (Names(line="nowhere", order="(tab)le"), ("cam1", "tab")),
    ],
)
def test_lines_and_orders_are_called_as_expressions_say(
    names: Names, expected: tuple[str, str], tmp_path: Path
) -> None:
    with Store(tmp_path / "review.db") as lite:
        rows = [
            row(number, 2.0, path=f"/photos/line3/order-77/cam{number}/x.png")
            for number in range(2)
        ]
        run, _ = lite.import_table(write_table(tmp_path / "table.csv", rows))
        calls = names.of(run, "/photos/line3/order-77/cam1", lambda: "/photos/line3/order-77")
    assert calls == expected


@pytest.fixture
def audited(tmp_path: Path) -> Iterator[tuple[Store, int]]:
    with Store(tmp_path / "review.db") as lite:
        run = fill(
            lite, tmp_path, [at(n, MORNING, 2.0 if n < 10 else n / 1000) for n in range(100)]
        )
        lite.draw_audit(run, 200, by="ann", key=default_key())  # all of them
        yield lite, run


def test_escape_and_overkill_are_exact_shares_of_the_core(audited: tuple[Store, int]) -> None:
    lite, run = audited
    for finding in lite.findings(Filters(run=run), limit=100):
        missed = finding.position in (11, 12, 13)
        verdict = "anomalous" if missed or finding.position < 8 else "normal"
        give_verdict(lite, finding.id, verdict)
    (found,) = lite.production(DAY, DAY, SHIFTS).audited
    assert (found.escape.value, found.escape.n) == (pytest.approx(3 / 90), 90)
    assert (found.escape.low, found.escape.high) == pytest.approx((0.0069276, 0.0943361), rel=1e-4)
    assert (found.overkill.value, found.overkill.n) == (pytest.approx(2 / 89), 89)


def test_answers_behind_the_first_open_lot_do_not_count(audited: tuple[Store, int]) -> None:
    """Inspectors see the sample in the order of the lots: what was picked out of turn says
    nothing.
    """
    lite, run = audited
    for finding in lite.findings(Filters(run=run), limit=100)[1:30]:
        give_verdict(lite, finding.id, "normal")
    found = lite.production(DAY, DAY, SHIFTS)
    (told,) = found.audited or [None]
    assert told is None or (told.escape.value is None and told.escape.needed > 0)


@pytest.mark.parametrize(
    ("starts", "zone"),
    [(("6am",), ""), (("14:00", "06:00"), ""), (("06:00", "06:00"), ""), ((), "Europe/Nowhere")],
)
def test_shifts_that_are_none_are_refused_in_one_line(starts: tuple[str, ...], zone: str) -> None:
    with pytest.raises(AnomalyError, match=r"found, .* expected"):
        Shifts.of(starts, zone)


def test_a_day_has_as_many_hours_as_the_clock_says() -> None:
    """On 2026-03-29 clocks in Berlin go from 02:00 to 03:00."""
    (night,) = [
        span
        for span in SHIFTS.spans(date(2026, 3, 28), date(2026, 3, 28))
        if span.shift == "22:00 to 06:00"
    ]
    assert (night.start, night.end) == ("2026-03-28T21:00:00.000Z", "2026-03-29T04:00:00.000Z")
    assert SHIFTS.day_of("2026-03-29T03:59:59.000Z") == date(2026, 3, 28)
    assert SHIFTS.day_of("2026-03-29T04:00:00.000Z") == date(2026, 3, 29)
