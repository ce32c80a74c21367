"""What the review database holds, as Python has it: runs, detectors, findings, events, and filters
to choose by.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anomaly.detector.training_facts import TrainingFacts
from anomaly.detector.unit_rule import UnitRule
from anomaly.errors import DetectorError
from anomaly.statistics.calibration import Calibration


@dataclass(frozen=True)
class Run:
    """An imported score table. ``detector``: digest; ``folder``: what relative paths are relative
    to.

    ``flagged`` of the ``images`` were flagged, ``review`` lie between the detector's two
    thresholds; ``not_judged`` were unlike the training images or not readable.
    """

    id: int
    name: str
    detector: str
    threshold: float | None
    source: str
    folder: str
    images: int
    flagged: int
    review: int
    not_judged: int
    imported_at: str
    imported_by: str


@dataclass(frozen=True)
class Detector:
    """A detector that scored a run; ``card`` is None where only its score table was given."""

    digest: str
    name: str
    version: str
    card: dict[str, Any] | None

    @property
    def identity(self) -> str:
        return f"{self.name}@{self.version} sha256:{self.digest}"

    @property
    def calibration(self) -> Calibration | None:
        found = None if self.card is None else self.card.get("calibration")
        return None if found is None else Calibration.from_json(found)

    @cached_property
    def training(self) -> TrainingFacts | None:
        """What the card says of the training; None without one, DetectorError if damaged."""
        if self.card is None:
            return None
        try:
            return TrainingFacts.from_json(self.card.get("training") or {})
        except (TypeError, ValueError) as error:
            raise DetectorError(
                f"{self.name}: its card in the database is damaged ({error}): import it again"
            ) from error

    @property
    def unit_rule(self) -> UnitRule | None:
        """How a path names its unit; None where the guarantee is per image."""
        return None if self.training is None else self.training.by_unit


@dataclass(frozen=True)
class Finding:
    """An image's result in a run, with what the verdicts on it come to (``state``, one of STATES).

    ``result``: what the detector says, as in the score table; ``likely_type`` and ``type_score``:
    its ``defect_type`` there (``defect_type`` here is that of the verdicts). ``sampled_as``:
    ``flagged``, or ``audit`` where it was not and was drawn for the audit sample. ``box``: x, y,
    width and height in pixels of the original image. ``unit``: that it shows, where the detector
    guarantees per unit.
    """

    id: int
    run: int
    position: int
    path: str
    folder: str
    sha256: str | None
    width: int | None
    height: int | None
    score: float | None
    p_value: float | None
    threshold: float | None
    is_anomaly: bool | None
    result: str | None
    status: str
    error: str | None
    box: tuple[int, int, int, int] | None
    area: int | None
    likely_type: str | None
    type_score: float | None
    scored_at: str
    state: str
    defect_type: str | None
    sampled_as: str | None
    stratum: int | None
    unit: str | None


@dataclass(frozen=True)
class Event:
    """What somebody did. ``action``: a verdict, ``undo``, ``comment``, ``threshold``, ``audit``,
    ``known``, ``types``, ``root`` or ``import``. ``undone``: taken back since by the event that
    names it in ``undoes``. ``digest``: of the log up to here (see chain.py).
    """

    id: int
    uuid: str
    key: str
    at: str
    inspector: str
    action: str
    finding: int | None
    run: int | None
    detector: str | None
    threshold: float | None
    defect_type: str | None
    undoes: int | None
    payload: dict[str, Any]
    digest: str | None
    undone: bool


@dataclass(frozen=True)
class DefectType:
    """A kind of defect that inspectors choose. ``key``: 1 to 9 or None; ``colour``: #rrggbb."""

    name: str
    key: int | None
    colour: str


@dataclass(frozen=True)
class Filters:
    """Which findings: all that match every field that is not None.

    ``folder`` takes in what lies below it; ``result``: one of the score table's; ``low`` and
    ``high``: of the score, inclusive; ``state``: one of STATES, or ``judged``; ``inspector``: who
    has a current verdict on it. ``find``: words, each in its path, its unit or serial number, a
    type of defect or a comment; ``like``: a finding of the run, whose region theirs meets.
    """

    run: int | None = None
    folder: str | None = None
    result: str | None = None
    status: str | None = None
    low: float | None = None
    high: float | None = None
    state: str | None = None
    defect_type: str | None = None
    inspector: str | None = None
    find: str | None = None
    like: int | None = None

    def to_query(self) -> dict[str, str]:
        """The filters as an address has them: ``?run=3&result=flagged``."""
        given = ((field.name, getattr(self, field.name)) for field in fields(self))
        return {
            name: str(value).lower() if isinstance(value, bool) else str(value)
            for name, value in given
            if value is not None
        }

    @classmethod
    def from_query(cls, query: Mapping[str, str]) -> Filters:
        """The filters of an address; what is not understood is left out."""
        read = {field.name: _reader(field.type) for field in fields(cls)}
        found = {name: read[name](value) for name, value in query.items() if name in read}
        return cls(**found)


def is_text(value: str) -> bool:
    """Whether a database can hold it: no NUL, and no half of a character outside the
    first plane.
    """
    return not re.search("[\0\ud800-\udfff]", value)


def _reader(kind: Any) -> Callable[[str], Any]:
    def number(convert: Callable[[str], Any]) -> Callable[[str], Any]:
        def read(text: str) -> Any:
            try:
                value = convert(text)
            except ValueError:
                return None
            return value if abs(value) < 2**53 else None  # false for NaN

        return read

    readers: dict[str, Callable[[str], Any]] = {
        "int": number(int),
        "float": number(float),
        "str": lambda text: text if text and is_text(text) else None,
    }
    readers["bool"] = {"true": True, "false": False}.get
    return readers[str(kind).removesuffix(" | None")]


@dataclass(frozen=True)
class Progress:
    """How far a run is reviewed. ``states``: number of images by state."""

    images: int
    flagged: int
    flagged_judged: int
    review: int
    review_judged: int
    audit: int
    audit_judged: int
    not_judged_by_detector: int
    not_judged_done: int
    states: dict[str, int]


@dataclass(frozen=True)
class Folder:
    path: str
    images: int
    flagged: int


@dataclass(frozen=True, eq=False)
class Comparison:
    """Two detectors on the images that both judged, each array or list (n,); higher score = more
    anomalous.
    """

    a: Run
    b: Run
    findings_a: list[int]
    findings_b: list[int]
    paths: list[str]
    scores_a: NDArray[np.float32]
    scores_b: NDArray[np.float32]
    flagged_a: NDArray[np.bool_]
    flagged_b: NDArray[np.bool_]

    @property
    def newly_flagged(self) -> list[int]:
        """Indices of images that b flags and a does not."""
        return [int(i) for i in np.flatnonzero(self.flagged_b & ~self.flagged_a)]

    @property
    def newly_passed(self) -> list[int]:
        """Indices of images that a flags and b does not."""
        return [int(i) for i in np.flatnonzero(self.flagged_a & ~self.flagged_b)]

    @property
    def flips(self) -> list[int]:
        return sorted(self.newly_flagged + self.newly_passed)
