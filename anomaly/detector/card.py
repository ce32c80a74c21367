"""The card of a detector: what its metadata says, checked."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from anomaly.detector.card_agreement import check_agreement
from anomaly.detector.card_checks import (
    by_name,
    check_json,
    check_quality,
    is_digest,
    is_flag,
    is_line,
    is_text,
)
from anomaly.detector.golden import Golden
from anomaly.detector.training_facts import TrainingFacts
from anomaly.errors import AnomalyError, DetectorError
from anomaly.imaging.decode import DecodeRule
from anomaly.statistics.calibration import Calibration

FORMAT = 3


MAX_MESSAGE_CHARACTERS = 600  # characters, whatever a card holds


LARGEST_SIZE = 10_000  # pixels a side that a model sees


VERSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z._+-]{0,63}")

UNKNOWN_TYPE = "unknown type"  # of a defect that is like none of the known ones


@dataclass(frozen=True)
class Card:
    """What a detector says of itself.

    ``calibration`` is None in a rank-only detector. ``pooled``: the score is the mean of the
    heatmap's hottest places, so that both have one unit; else ``heatmap`` holds the largest value
    of each calibration image's heatmap, of the same images at the same rank. ``digest`` is the
    sha256 of the file, ``weights`` that of the graph without its calibration: it ties explain.onnx
    to the detector and survives recalibration. Raises ValueError where calibration and heatmap do
    not fit each other.
    """

    name: str
    version: str
    model: str
    space: str
    size: int
    score: str
    decode: DecodeRule
    calibration: Calibration | None
    training: TrainingFacts
    golden: dict[str, Any]
    licences: dict[str, str]
    quality: dict[str, Any] | None
    parent: str | None
    weights: str
    digest: str = ""
    pooled: bool = True
    heatmap: Calibration | None = None

    def __post_init__(self) -> None:
        own = None if self.pooled else self.calibration
        expected, found = (None if c is None else (c.n, c.k) for c in (own, self.heatmap))
        if expected != found:
            raise ValueError("heatmap: not one value for each calibration score")

    @property
    def heatmap_anchors(self) -> tuple[float, float] | None:
        """The values that a heatmap's colours, outline and box go by: that of a typical good image
        and the threshold, in the heatmap's unit; None in a rank-only detector.
        """
        found = self.calibration if self.pooled else self.heatmap
        return None if found is None else (float(found.median), float(found.threshold))

    @property
    def defect_types(self) -> tuple[str, ...]:
        """The types of known defects that have a name, in the order of the output type_scores."""
        learnt = self.training.known_defects
        return () if learnt is None else learnt.named

    def defect_type(self, type_scores: Sequence[float]) -> tuple[str, float] | None:
        """Returns the most likely type of a defect and its score (0 to 1), ``unknown type`` where
        that is lower than a tenth of the known defects had, held out; None where no type has a
        name.
        """
        learnt = self.training.known_defects
        if learnt is None or not learnt.named:
            return None
        best = max(range(len(learnt.named)), key=lambda index: type_scores[index])
        score = float(type_scores[best])
        known = learnt.unknown_below is None or score >= learnt.unknown_below
        return (learnt.named[best] if known else UNKNOWN_TYPE), score

    @property
    def identity(self) -> str:
        """The detector's name, version and digest, as every row and report gives it."""
        return f"{self.name}@{self.version} sha256:{self.digest}"

    def to_json(self) -> dict[str, Any]:
        """Returns the card as it stands in the file (without the file's own digest)."""
        return {
            "format": FORMAT,
            "name": self.name,
            "version": self.version,
            "model": self.model,
            "space": self.space,
            "size": self.size,
            "score": self.score,
            "decode": self.decode.to_json(),
            "calibration": None if self.calibration is None else self.calibration.to_json(),
            "pooled": self.pooled,
            "heatmap": None if self.heatmap is None else _heatmap_json(self.heatmap),
            "training": self.training.to_json(),
            "golden": self.golden,
            "licences": self.licences,
            "quality": self.quality,
            "parent": self.parent,
            "weights": self.weights,
        }

    @classmethod
    def from_json(cls, card: dict[str, Any], digest: str = "") -> Card:
        """Returns the card of a file; DetectorError where a field is missing or of the
        wrong kind.
        """
        _check_format(card.get("format") if isinstance(card, dict) else None)
        try:
            check_json(card)
            calibration = (
                None if card["calibration"] is None else Calibration.from_json(card["calibration"])
            )
            return cls(
                name=_line(card["name"], 255),
                version=_version(card["version"]),
                model=_line(card["model"], 1000),
                space=_line(card["space"], 1000),
                size=_size(card["size"]),
                score=_line(card["score"], 10_000),
                decode=_decode(card["decode"]),
                calibration=calibration,
                training=_training(card["training"], calibration, card["size"]),
                golden=_golden(card["golden"], calibration),
                licences=_licences(card["licences"]),
                quality=None if card["quality"] is None else _quality(card["quality"]),
                parent=None if card["parent"] is None else _digest(card["parent"]),
                weights=_digest(card["weights"]),
                digest=digest,
                pooled=_flag(card["pooled"]),
                heatmap=_heatmap(card["heatmap"], calibration),
            )
        except AnomalyError as error:
            if len(str(error)) < MAX_MESSAGE_CHARACTERS:
                raise
            raise DetectorError(f"{str(error)[:MAX_MESSAGE_CHARACTERS]}...") from error
        except (
            KeyError,
            TypeError,
            ValueError,
            IndexError,
            OverflowError,
            RecursionError,
        ) as error:
            what = " ".join(str(error).split())[:300]
            raise DetectorError(
                f"the card is damaged ({type(error).__name__}: {what}): train or copy it again"
            ) from error


def _check_format(found: Any) -> None:
    if type(found) is not int or found < 1:
        raise DetectorError(
            "the card has no format number: this is not a detector made by `anomaly train`"
        )
    if found < FORMAT:
        raise DetectorError(
            f"detector format {found} found, {FORMAT} expected: train again with this version"
        )
    if found > FORMAT:
        raise DetectorError(
            f"detector format {str(found)[:20]} found, at most {FORMAT} expected: made by a newer "
            "version of anomaly; update with pip install -U anomaly"
        )


def _line(value: Any, most: int) -> str:
    if not is_line(value, most):  # names are printed on terminals
        raise TypeError(f"one line of text expected, {str(value)[:40]!r} found")
    return str(value)


def _version(value: Any) -> str:
    """A version becomes part of file names, and a number of one is counted up."""
    if not isinstance(value, str) or not VERSION.fullmatch(value):
        raise TypeError(
            f"a version of letters, digits, dots and dashes expected, {str(value)[:40]!r} found"
        )
    return value


def _flag(value: Any) -> bool:
    if not is_flag(value):
        raise TypeError(f"true or false expected, {str(value)[:40]!r} found")
    return bool(value)


def _decode(value: Any) -> DecodeRule:
    rule = _table(value)
    if len(rule) > 50 or not all(
        len(str(name)) < 100 and len(str(inner)) < 1000 for name, inner in rule.items()
    ):
        raise ValueError("a decode rule of short values expected")
    return DecodeRule.from_json(rule)


def _size(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= LARGEST_SIZE:
        raise TypeError(f"a size expected, {str(value)[:40]} found")
    return value


def _digest(value: Any) -> str:
    if not is_digest(value):
        raise TypeError(f"a sha256 expected, {str(value)[:40]!r} found")
    return str(value)


def _heatmap_json(heatmap: Calibration) -> dict[str, Any]:
    found = heatmap.to_json()  # all else stands in the card's calibration
    return {name: found[name] for name in ("threshold", "m", "scores")}


def _heatmap(value: Any, calibration: Calibration | None) -> Calibration | None:
    if value is None:
        return None
    if calibration is None:
        raise ValueError("heatmap: values without calibration scores found")
    return Calibration.from_json({**calibration.to_json(), **_table(value)})


def _training(value: Any, calibration: Calibration | None, size: int) -> TrainingFacts:
    facts = TrainingFacts.from_json(value)
    check_agreement(facts, calibration, size)
    if facts.mask is not None:
        _ = facts.mask.mask  # which is decoded, or refused
    return facts


def _quality(value: Any) -> dict[str, Any]:
    quality = _table(value)
    check_quality(quality)
    return quality


def _golden(value: Any, calibration: Calibration | None) -> dict[str, Any]:
    golden = _table(value)
    Golden.from_json(golden, calibration)
    return golden


def _licences(value: Any) -> dict[str, str]:
    if not by_name(is_text)(value):
        raise TypeError("licences by name expected")
    return dict(value)


def _table(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"an object expected, {type(value).__name__} found")
    return value
