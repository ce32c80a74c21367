"""Stations that run (`anomaly run`), as the page Live shows them: read from their state folders,
with signed links to their pictures.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from anomaly.errors import AnomalyError
from anomaly.files.regular_files import read_small
from anomaly.reporting.known_defects import type_text
from anomaly.reporting.station import SILENT, counts_rows, cycle_text, ordinary_text, state_of
from anomaly.station.live import read_live
from anomaly.station.reading import read_station
from dashboard.access import AccessError, Key
from dashboard.desk import Desk

PICTURE = re.compile(r"live/([0-9]{9}(?:-heatmap)?\.jpg)")
MAX_PICTURE_BYTES = 8 << 20


def state_folder(place: Path) -> Path:
    """Returns the state folder of a station: the one given, or that of its STATION.toml."""
    if place.is_dir():
        return place.resolve()
    if not place.is_file():
        raise AnomalyError(
            f"{place}: no such file or folder; STATION.toml or a station's state folder expected"
        )
    return read_station(place).state.resolve()


def folder_of(desk: Desk, station: int) -> Path:
    """Returns the state folder of a station by its number; AccessError where there is none."""
    folders = desk.settings.stations
    if not 0 <= station < len(folders):
        raise AccessError(404, f"station {station} is not shown here: open the page again")
    return Path(folders[station])


def station_shown(desk: Desk, station: int) -> dict[str, Any]:
    """Returns what the page shows of a station now. One that cannot be read is silent."""
    folder = folder_of(desk, station)
    try:
        facts = read_live(folder)
        return _shown(desk.key, station, facts)
    except (AnomalyError, KeyError, TypeError, ValueError) as error:
        why = str(error) if isinstance(error, AnomalyError) else f"{folder}: not as expected"
        return {"station": folder.name, "state": SILENT, "why": why, "last": []}


def _shown(key: Key, station: int, facts: dict[str, Any]) -> dict[str, Any]:
    now = datetime.now(UTC)
    state, why = state_of(facts, now)
    ordinary, many = ordinary_text(facts)
    return {
        "station": facts["station"],
        "state": state,
        "why": why,
        "alarm": facts["alarm"],
        "per": facts["per"],
        "counts": counts_rows(facts),
        "ordinary": ordinary,
        "many": many,
        "cycle": cycle_text(facts),
        "waiting": facts["waiting"],
        "lost": facts["lost"],
        "since": facts["since"],
        "detector": facts["detector"],
        "thresholds": _thresholds(facts),
        "sources": [_part(one, f"{one['images']:,} images") for one in facts["sources"]],
        "sinks": [_part(one, f"{one['waiting']:,} waiting") for one in facts["sinks"]],
        "last": [_result(key, station, one, now) for one in facts["last"]],
    }


def _thresholds(facts: dict[str, Any]) -> str:
    said = "" if facts["threshold"] is None else f"threshold {facts['threshold']:.4g}"
    review = facts["review_threshold"]
    return said if review is None else f"{said}, review above {review:.4g}"


def _part(part: dict[str, Any], said: str) -> dict[str, str]:
    return {
        "name": part["name"],
        "state": part["state"],
        "said": part["said"] or f"{part['kind']}, {said}",
    }


def _result(key: Key, station: int, one: dict[str, Any], now: datetime) -> dict[str, Any]:
    judged = datetime.fromisoformat(one["judged_at"])
    score = "" if one["score"] is None else f"{one['score']:.4g}"
    return {
        "seq": one["seq"],
        "outcome": one["outcome"],
        "name": one["serial"] or Path(one["path"]).name,
        "score": score,
        "why": one["error"] or type_text(one["defect_type"], one["type_score"]),
        "at": judged.astimezone().strftime("%H:%M:%S"),
        "age": max(0.0, (now - judged).total_seconds()),
        **{kind: _link(key, station, one[kind]) for kind in ("thumbnail", "heatmap")},
    }


def _link(key: Key, station: int, picture: str | None) -> str | None:
    match = PICTURE.fullmatch(picture or "")
    return key.signed(f"/station/{station}/{match[1]}") if match else None


def picture_of(desk: Desk, station: int, name: str) -> bytes:
    """Returns a picture of a station; AccessError where it is none, or gone: only the newest are
    kept.
    """
    if not PICTURE.fullmatch(f"live/{name}"):
        raise AccessError(404, f"{name[:40]!r} found, a picture of a station expected")
    folder = folder_of(desk, station)
    try:
        return read_small(folder / "live" / name, MAX_PICTURE_BYTES)
    except AnomalyError as error:  # it names a path of this server
        raise AccessError(404, f"{name}: not kept any more") from error
