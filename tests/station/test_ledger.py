"""The ledger: what is safe stays, once; sinks go on where they were; the file does not grow."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anomaly.errors import AnomalyError
from anomaly.station import ledger as module
from anomaly.station.ledger import Ledger, Noted
from anomaly.station.results import OUTCOMES, StationResult
from tests.support.stations import example

NAMES = st.text(max_size=20) | st.none()


@settings(max_examples=40)
@given(st.sampled_from(OUTCOMES), NAMES, NAMES, st.floats(allow_nan=False))
def test_a_result_comes_back_as_it_was(
    outcome: str, serial: str | None, error: str | None, seconds: float
) -> None:
    result = example(3, outcome, serial=serial, error=error, seconds=seconds, views=(1, 2))
    assert StationResult.from_json(result.to_json()) == result


def test_a_ledger_that_is_opened_again_goes_on(tmp_path: Path) -> None:
    first = Ledger(tmp_path, ["hook"])
    first.add([example(1)], Noted("left", "frame 7", ("/a.png", 3, 4, 5)))
    first.add([example(2, "flagged")], Noted("left", "frame 8", ("/b.png", 6, 7, 8)))
    first.delivered["hook"] = 1
    first.gone.append(("left", "/a.png"))
    first.add([example(3)], Noted("right"))
    first.close()
    second = Ledger(tmp_path, ["hook", "new"])
    reader = second.reader()
    assert (second.last, second.station_id) == (3, first.station_id)
    assert second.counts == {("image", "not flagged"): 2, ("image", "flagged"): 1}
    assert [one.seq for one in second.newest["image"]] == [3, 2, 1]
    # a sink that is new begins with what is new
    assert second.delivered == {"hook": 1, "new": 3}
    assert [one.seq for one in reader.after(1, "image", 10)] == [2, 3]
    assert reader.place("left") == "frame 8"
    assert reader.files("left") == {"/b.png": (6, 7, 8)}
    assert reader.of_origin("left", "frame 7") == example(1)
    assert reader.of_origin("right", "frame 7") is None


def test_what_every_sink_has_is_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT_RESULTS", 10)
    ledger = Ledger(tmp_path, ["slow", "quick"])
    for seq in range(1, 101):
        ledger.delivered |= {"quick": seq - 1, "slow": min(seq - 1, 40)}
        ledger.add([example(seq)], Noted("left"))
    # the slow one has not got these
    assert [one.seq for one in ledger.reader().after(0, "image", 1000)][:2] == [41, 42]
    ledger.delivered["slow"] = 100
    for seq in range(101, 121):
        ledger.delivered |= {"quick": seq, "slow": seq}
        ledger.add([example(seq)], Noted("left"))
    assert [one.seq for one in ledger.reader().after(0, "image", 1000)] == [*range(111, 121)]
    assert ledger.counts["image", "not flagged"] == 120


def test_a_failed_transaction_leaves_no_half_of_a_result(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, [])
    ledger.add([example(1)], Noted("left"))
    with pytest.raises(AnomalyError, match=r"cannot be written .*no image is lost"):
        ledger.add([example(2), example(1)], Noted("left", "frame 2"))
    again = Ledger(tmp_path, [])
    assert (again.last, again.reader().place("left")) == (1, None)


def test_a_foreign_file_and_a_newer_one_are_refused(tmp_path: Path) -> None:
    (tmp_path / "station.db").write_bytes(b"no database" * 100)
    with pytest.raises(AnomalyError, match="cannot be used as a station's ledger"):
        Ledger(tmp_path, [])
    newer = tmp_path / "newer"
    Ledger(newer, []).close()
    with sqlite3.connect(newer / "station.db") as db:
        db.execute("UPDATE station SET value = '9' WHERE key = 'format'")
    with pytest.raises(AnomalyError, match="format '9' found, '2' expected"):
        Ledger(newer, [])


def test_views_wait_until_their_unit_has_its_result(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, [])
    ledger.add([example(1, serial="A")], Noted("left", waiting="A"))
    ledger.add([example(2, serial="B")], Noted("left", waiting="B"))
    ledger.add([example(3, serial="A"), example(4, of="unit")], Noted("right", joined="A"))
    views = Ledger(tmp_path, []).views()
    assert {serial: [view.seq for view in found] for serial, found in views.items()} == {"B": [2]}
