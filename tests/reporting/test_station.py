"""What is said of a station that runs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from anomaly.files.table import utc_text
from anomaly.reporting.station import counts_rows, cycle_text, ordinary_text, state_of

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)


def facts(silent: float = 0.0, outcome: str | None = "not flagged", **more: Any) -> dict[str, Any]:
    last = [] if outcome is None else [{"outcome": outcome, "error": None}]
    return {
        "heartbeat_at": utc_text(NOW - timedelta(seconds=silent)),
        "alarm": "",
        "last": last,
        "per": "image",
        "counts": {"not flagged": 990, "review": 6, "flagged": 4, "not judged": 1},
        "ordinary": {"expected": 9.95, "up_to": 17},
        "cycle": {"newest": 0.031, "p50": 0.03, "p99": 0.0414},
        **more,
    }


def test_a_station_that_is_silent_is_never_good() -> None:
    assert state_of(facts(2.9), NOW).state == "not flagged"
    for silent in (3.1, 60.0, 1e6):
        state, why = state_of(facts(silent), NOW)
        assert state == "silent" and "no sign of life for" in why
    for ahead in (3.1, 3600.0):  # it would look alive for so long after its end
        state, why = state_of(facts(-ahead), NOW)
        assert state == "silent" and "set both to the same time" in why
    assert state_of(facts(-2.9), NOW).state == "not flagged"
    assert state_of(facts(outcome=None), NOW) == ("waiting", "no image yet")
    for outcome in ("not flagged", "review", "flagged", "not judged"):
        assert state_of(facts(outcome=outcome), NOW).state == outcome


def test_counts_stand_beside_what_is_ordinary() -> None:
    assert counts_rows(facts()) == [
        ("not flagged", "990 (99 %)"),
        ("review", "6 (0.6 %)"),
        ("flagged", "4 (0.4 %)"),
        ("not judged", "1 (0.1 %)"),
    ]
    assert ordinary_text(facts()) == (
        "4 of 1,000 images judged are flagged; if all are good expect 10, up to 17 is ordinary",
        False,
    )
    said, many = ordinary_text(facts(ordinary={"expected": 0.1, "up_to": 3}))
    assert many and said.endswith("up to 3 is ordinary: more than that, look: anomaly check")
    assert ordinary_text(facts(ordinary=None)) == ("", False)
    assert cycle_text(facts()) == "31 ms; half within 30 ms, 99 of 100 within 41 ms"
    assert cycle_text(facts(cycle=None)) == "no image yet"
