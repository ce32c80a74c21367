"""A result of a station: of an image, or of a unit of several views; as sinks, ledger and page have
it.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from anomaly.detector.card import Card
from anomaly.files.table import Row, printable, shortest, utc_text
from anomaly.scorer import Result

NOT_FLAGGED, REVIEW, FLAGGED, NOT_JUDGED = "not flagged", "review", "flagged", "not judged"
OUTCOMES = (NOT_FLAGGED, REVIEW, FLAGGED, NOT_JUDGED)


def outcome_of(result: Result) -> str:
    """Returns which of the four outcomes a result is; whatever is not clearly judged is
    ``not judged``.
    """
    return result.result or NOT_JUDGED


@dataclass(frozen=True)
class Actions:
    """What a controller does with a part, by its outcome: ``pass``, ``reject`` or ``stop``."""

    review: str = "reject"
    not_judged: str = "reject"

    def of(self, outcome: str) -> str:
        return {NOT_FLAGGED: "pass", REVIEW: self.review, NOT_JUDGED: self.not_judged}.get(
            outcome, "reject"
        )


@dataclass(frozen=True)
class StationResult:
    """One result. ``seq``: its number in the ledger; ``id``: the same for a result that is
    delivered twice, and for no other. ``of``: ``image`` or ``unit``; ``views``: the numbers of a
    unit's images. ``seconds``: from the image taken to its result. ``image``: where a copy is kept,
    in the state folder; ``lot``: where it is in the audit sample, the lot that it drew. ``score``:
    higher is more anomalous; of a unit it is the one of its worst view. ``defect_type``: of what is
    flagged or for review, as in the score table.
    """

    seq: int
    id: str
    station: str
    of: str
    source: str
    serial: str | None
    path: str
    outcome: str
    action: str
    status: str
    error: str | None
    score: float | None
    p_value: float | None
    threshold: float | None
    review_threshold: float | None
    is_anomaly: bool | None
    box: tuple[int, int, int, int] | None
    area: int | None
    defect_type: str | None
    type_score: float | None
    width: int | None
    height: int | None
    sha256: str | None
    detector: str
    taken_at: str
    judged_at: str
    seconds: float
    views: tuple[int, ...] = ()
    image: str | None = None
    lot: float | None = None

    def message(self) -> dict[str, Any]:
        """Returns what is sent to others: all but where the station keeps things."""
        facts = dataclasses.asdict(self)
        del facts["image"], facts["lot"]
        return facts

    def to_json(self) -> str:
        """Returns the result as the ledger holds it."""
        return json.dumps(dataclasses.asdict(self), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> StationResult:
        facts = json.loads(text)
        facts["box"] = None if facts["box"] is None else tuple(facts["box"])
        return cls(**{**facts, "views": tuple(facts["views"])})

    def row(self, path: str | None = None) -> Row:
        """Returns the row of the score table, with another ``path`` where one is given."""
        x, y, w, h = self.box or (None, None, None, None)
        return Row(
            path=self.path if path is None else path,
            sha256=self.sha256,
            width=self.width,
            height=self.height,
            score=self.score,
            p_value=self.p_value,
            threshold=self.threshold,
            review_threshold=self.review_threshold,
            is_anomaly=self.is_anomaly,
            result=self.outcome,
            box_x=x,
            box_y=y,
            box_w=w,
            box_h=h,
            area=self.area,
            defect_type=self.defect_type,
            type_score=self.type_score,
            status=self.status,
            error=self.error,
            detector=self.detector,
            scored_at=self.judged_at,
        )


def facts_of(result: Result, card: Card) -> Mapping[str, Any]:
    """Returns what a StationResult takes from a scorer's result."""
    calibration = card.calibration
    return {
        "outcome": outcome_of(result),
        "status": result.status,
        "error": None if result.error is None else printable(result.error),
        "score": None if result.score is None else shortest(result.score),
        "p_value": result.p_value,
        "threshold": None if calibration is None else shortest(float(calibration.threshold)),
        "review_threshold": review_threshold(card),
        "is_anomaly": result.is_anomaly if result.status == "ok" else None,
        "box": result.box,
        "area": result.area,
        "defect_type": result.defect_type,
        "type_score": None if result.type_score is None else shortest(result.type_score),
        "width": result.width,
        "height": result.height,
        "detector": card.identity,
    }


def review_threshold(card: Card) -> float | None:
    """Returns the score above which a person looks; None where a detector has one threshold."""
    review = None if card.calibration is None else card.calibration.review
    return None if review is None else shortest(float(review.threshold))


def times_of(taken: datetime, now: datetime) -> Mapping[str, Any]:
    """Returns when an image was taken and judged, and the seconds between them."""
    return {
        "taken_at": utc_text(taken),
        "judged_at": utc_text(now),
        "seconds": round(max(0.0, (now - taken).total_seconds()), 4),
    }
