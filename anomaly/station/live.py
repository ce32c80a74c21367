"""What a page shows of a station, in one file of its state folder: live.json, replaced whole twice
a second; the pictures that it names lie in live/.

The format is that of ``Live.facts``; a page takes a station for working only while ``heartbeat_at``
is less than three seconds old: it is the judge's own tick, not that of the thread that writes here.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from anomaly.detector.card import Card
from anomaly.errors import AnomalyError
from anomaly.files.table import shortest, utc_text
from anomaly.station.backlog import Backlog
from anomaly.station.health import Health
from anomaly.station.judge import Judge
from anomaly.station.ledger import Ledger
from anomaly.station.results import NOT_JUDGED, OUTCOMES, StationResult, review_threshold
from anomaly.station.settings import Station

FILE, FORMAT = "live.json", 2
EVERY_SECONDS = 0.5
LEFT_OUT = ("station", "is_anomaly", "area", "width", "height", "sha256", "image", "lot", "action")


def read_live(folder: Path) -> dict[str, Any]:
    """Returns what a station's state folder shows; AnomalyError where there is nothing yet."""
    file = folder / FILE
    try:
        facts = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise AnomalyError(
            f"{file}: cannot be read ({error}); the state folder of a station that runs expected: "
            "start it by anomaly run STATION.toml"
        ) from error
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        raise AnomalyError(f"{file}: not the state of a station, or of another version")
    return facts


@dataclass(frozen=True)
class Live:
    """Writes live.json in a thread, while ``judge`` works on ``backlog``."""

    station: Station
    card: Card
    ledger: Ledger
    judge: Judge
    backlog: Backlog
    sources: Sequence[Health]
    sinks: Sequence[Health]
    started: datetime

    def write(self) -> None:
        """Writes it once, whole."""
        file = self.station.state / FILE
        temporary = file.with_name(f".{FILE}.tmp")
        temporary.write_text(json.dumps(self.facts(), ensure_ascii=False), encoding="utf-8")
        os.replace(temporary, file)

    def write_or_say(self, say: Callable[[str], object]) -> None:
        """Writes it, or says why it cannot."""
        try:
            self.write()
        except OSError as error:
            say(f"{self.station.state / FILE}: cannot be written ({error.strerror})")

    def counts(self) -> dict[str, int]:
        """Returns how many results there are of each outcome, of images or of units."""
        return {outcome: self.ledger.counts[self.station.per, outcome] for outcome in OUTCOMES}

    @property
    def alarm(self) -> str:
        """What somebody has to see to, or nothing."""
        if not self.judge.works:
            return "the judge stands still"
        newest = next(iter(self.ledger.newest[self.station.per]), None)
        if newest is not None and newest.action == "stop":
            return f"not judged: {newest.error or newest.path}"
        if self.backlog.behind:
            return f"behind: {self.backlog.waiting:,} images wait"
        gone = [health.name for health in self.sources if health.facts()["state"] == "gone"]
        return f"no images from {', '.join(gone)}" if gone else ""

    def facts(self) -> dict[str, Any]:
        """Returns what the page shows."""
        per, calibration = self.station.per, self.card.calibration
        counts = self.counts()
        judged = sum(counts.values()) - counts[NOT_JUDGED]
        return {
            "format": FORMAT,
            "station": self.station.name,
            "written_at": utc_text(datetime.now(UTC)),
            "heartbeat_at": utc_text(self.judge.heartbeat),
            "started_at": utc_text(self.started),
            "since": self.ledger.since,
            "detector": self.card.identity,
            "threshold": shortest(float(calibration.threshold)) if calibration else None,
            "review_threshold": review_threshold(self.card),
            "per": per,
            "counts": counts,
            "ordinary": {
                "expected": calibration.expected(judged),
                "up_to": calibration.ordinary_up_to(judged),
            }
            if calibration
            else None,
            "not_judged_counts_as": self.station.not_judged,
            "lost": sum(health.lost for health in self.sources),
            "cycle": self._cycle(),
            "waiting": self.backlog.waiting,
            "alarm": self.alarm,
            "sources": [
                {**health.facts(), "images": health.images, "lost": health.lost}
                for health in self.sources
            ],
            "sinks": [self._sink(health) for health in self.sinks],
            "last": [self._shown(result) for result in list(self.ledger.newest[per])],
        }

    def _cycle(self) -> dict[str, float] | None:
        times = list(self.judge.cycles)
        if not times:
            return None
        p50, p99 = np.percentile(times, (50, 99))
        return {"newest": times[-1], "p50": round(float(p50), 4), "p99": round(float(p99), 4)}

    def _sink(self, health: Health) -> dict[str, Any]:
        waiting = self.ledger.waiting(health.name)
        return {**health.facts(), "delivered": self.ledger.last - waiting, "waiting": waiting}

    def _shown(self, result: StationResult) -> dict[str, Any]:
        facts = {key: value for key, value in vars(result).items() if key not in LEFT_OUT}
        # of a unit the picture of its worst view, which flagged it or was nearest to it
        of = result.seq if result.of == "image" else self._worst_view(result)
        thumbnail, heatmap = f"live/{of:09}.jpg", f"live/{of:09}-heatmap.jpg"
        there = (self.station.state / thumbnail).exists()
        drawn = there and (self.station.state / heatmap).exists()
        return {
            **facts,
            "thumbnail": thumbnail if there else None,
            "heatmap": heatmap if drawn else None,
        }

    def _worst_view(self, unit: StationResult) -> int:
        views = (one for one in list(self.ledger.newest["image"]) if one.seq in unit.views)
        worst = (unit.source, unit.path)
        return next((one.seq for one in views if (one.source, one.path) == worst), 0)
