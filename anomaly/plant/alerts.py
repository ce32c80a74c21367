"""What somebody has to be told now, and telling it: each alert once by each channel, until it
clears.

An alert that could not be delivered is told at the next look. Where a program ends between telling
and noting, it is told twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from anomaly.errors import AnomalyError
from anomaly.plant.settings import Plant
from anomaly.plant.tell import channels
from anomaly.reporting.lights import light_text
from anomaly.reporting.station import SILENT, state_of
from anomaly.review import Store
from anomaly.station.live import read_live
from anomaly.station.reading import read_station
from anomaly.statistics.lights import RED


@dataclass(frozen=True)
class Alert:
    """``key``: what goes on until it clears; ``said``: that in a sentence."""

    key: str
    said: str


def alerts(store: Store, plant: Plant, now: datetime) -> list[Alert]:
    """Returns what is red now: today's lights of all detectors, and stations that stand still."""
    return [*_lights(store, plant, now), *_stations(plant, now)]


def _lights(store: Store, plant: Plant, now: datetime) -> Iterator[Alert]:
    calendar = plant.calendar
    today = calendar.day_of(now.isoformat())
    for detector in store.detectors():
        for light in store.lights(detector.digest, 1, today, calendar, plant.names):
            for kind in light.because if light.colour == RED else ():
                key = f"light {detector.digest[:12]} {kind} {light.count.line}"
                yield Alert(key, f"{light_text(light)}. Detector {detector.name}.")


def _stations(plant: Plant, now: datetime) -> Iterator[Alert]:
    for place in map(Path, plant.stations):
        try:
            folder = place if place.is_dir() else read_station(place).state
            facts = read_live(folder)
            state, why = state_of(facts, now)
            name, why = facts["station"], why if state == SILENT else facts["alarm"]
        except AnomalyError as error:
            name, why = place.stem, str(error)
        except (KeyError, TypeError, ValueError):
            name, why = place.stem, f"{place}: not the state of a station"
        if why:
            yield Alert(f"station {place}", f"Station {name}: {why}.")


@dataclass(frozen=True)
class Told:
    """What one look came to: ``sent`` alerts by channel; ``failed``: why one could not be told."""

    going_on: list[Alert]
    sent: dict[str, list[Alert]]
    failed: dict[str, str]


def look(store: Store, plant: Plant, now: datetime | None = None) -> Told:
    """Tells, by mail and webhook, each alert that was not told yet, and notes that."""
    moment = now or datetime.now(UTC)
    going_on = alerts(store, plant, moment)
    keys = {alert.key for alert in going_on}
    sent, failed = {}, {}
    for name, tell in channels(plant).items():
        told = store.told(name) & keys
        new = [alert for alert in going_on if alert.key not in told]
        try:
            if new:
                tell([alert.said for alert in new], moment)
        except (OSError, AnomalyError) as error:
            failed[name] = str(error) or type(error).__name__
            store.note_told(name, told)
            continue
        store.note_told(name, keys)
        sent[name] = new
    return Told(going_on, sent, failed)
