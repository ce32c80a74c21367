"""What is said of a station that runs, by the facts of its state folder: one state for who looks
from across the hall, and lines for who comes near.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

from anomaly.files.numbers import count_text, percent
from anomaly.files.progress import duration

STALE_SECONDS = 3.0  # after which a heartbeat says that the judge stands still
SILENT, WAITING = "silent", "waiting"  # besides the four results


class StationState(NamedTuple):
    """``state``: the newest result (``not flagged``, ``review``, ``flagged``, ``not judged``),
    ``waiting`` where there is none yet, or ``silent``; ``why``: a line, or empty.
    """

    state: str
    why: str


def state_of(facts: Mapping[str, Any], now: datetime) -> StationState:
    """Returns a station's state; a heartbeat that is old, or of a time to come, is ``silent``,
    whatever was judged before.
    """
    silent = (now - datetime.fromisoformat(facts["heartbeat_at"])).total_seconds()
    if silent < -STALE_SECONDS:
        why = f"its clock is {duration(-silent)} ahead of the page's: set both to the same time"
        return StationState(SILENT, why)
    if not silent <= STALE_SECONDS:
        return StationState(
            SILENT, f"no sign of life for {duration(silent)}: nothing is judged; see its log"
        )
    if not facts["last"]:
        return StationState(WAITING, facts["alarm"] or "no image yet")
    newest = facts["last"][0]
    return StationState(newest["outcome"], newest["error"] or "")


def counts_rows(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Returns how many images or units there are of each result."""
    counts: Mapping[str, int] = facts["counts"]
    total = sum(counts.values())
    shares = {name: f" ({percent(n / total)})" if n else "" for name, n in counts.items()}
    return [(name, f"{n:,}{shares[name]}") for name, n in counts.items()]


def ordinary_text(facts: Mapping[str, Any]) -> tuple[str, bool]:
    """Returns how many of the images or units judged would be flagged if all were good, and whether
    more were.
    """
    ordinary = facts["ordinary"]
    if ordinary is None:
        return "", False
    counts = facts["counts"]
    judged, flagged = sum(counts.values()) - counts["not judged"], counts["flagged"]
    many = flagged > ordinary["up_to"]
    said = (
        f"{flagged:,} of {judged:,} {facts['per']}s judged are flagged; if all are good expect "
        f"{count_text(ordinary['expected'])}, up to {ordinary['up_to']:,} is ordinary"
    )
    return said + (": more than that, look: anomaly check" if many else ""), many


def cycle_text(facts: Mapping[str, Any]) -> str:
    """Returns the time from an image taken to its result safe."""
    cycle = facts["cycle"]
    if cycle is None:
        return "no image yet"
    newest, p50, p99 = (f"{1000 * cycle[name]:,.0f} ms" for name in ("newest", "p50", "p99"))
    return f"{newest}; half within {p50}, 99 of 100 within {p99}"
