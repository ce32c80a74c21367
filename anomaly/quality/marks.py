"""The images that set a run's threshold, and what people said of them: good, or a defect.

They lie in the run folder, not in the review database: they are training images, which no review
has as findings, and whoever trains again needs them beside the run, without a database.
``highest.json`` is written by training; ``marks.jsonl`` grows by a line a mark, and the last one of
an image's bytes counts.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from anomaly.detector.card import Card
from anomaly.detector.file import find_detector, read_card
from anomaly.errors import AnomalyError, DetectorError
from anomaly.files.atomic import append_line, write_atomically

HIGHEST, MARKS = "highest.json", "marks.jsonl"
MAX_LISTED_IMAGES = 24  # images of highest.json at most
GOOD, DEFECT, UNKNOWN = "good", "defect", "unknown"
KINDS = (GOOD, DEFECT, UNKNOWN)
MAX_BYTES = 64 << 20


@dataclass(frozen=True)
class Highest:
    """One of the calibration images with the highest scores. ``name``: as the user knows it;
    ``group``: what leaves with it.
    """

    path: str
    name: str
    sha256: str
    group: str
    score: float


@dataclass(frozen=True)
class Mark:
    """What somebody said of an image, known by its bytes. ``mark``: good, defect or unknown (taken
    back).
    """

    sha256: str
    mark: str
    by: str
    at: str
    path: str


def write_highest(run: Path, images: Sequence[Highest]) -> None:
    """Writes RUN/highest.json, the highest score first."""
    write_atomically(
        run / HIGHEST,
        json.dumps([asdict(image) for image in images[:MAX_LISTED_IMAGES]], indent=1).encode(),
    )


def read_highest(run: Path) -> tuple[Card, list[Highest]]:
    """Returns a detector's card and the images that set its threshold with those below, the highest
    score first.

    Raises AnomalyError where they are not known: no listing beside it, or a threshold that other
    images set.
    """
    file = find_detector(run)
    card, listing = read_card(file), file.with_name(HIGHEST)
    if card.calibration is None:
        raise DetectorError(f"{file}: it only ranks, so no image sets a threshold")
    if not listing.exists():
        raise DetectorError(
            f"{listing}: not there, the list of the images that set the threshold expected: "
            f"{file.parent} was trained by an older version, or copied without it; train again "
            "(anomaly train), or copy the whole run folder"
        )
    found = [_as(Highest, row, listing) for row in _json(listing)]
    scores = np.array([image.score for image in found], np.float32)
    if not len(scores) or not np.array_equal(card.calibration.scores[::-1][: len(scores)], scores):
        raise DetectorError(
            f"{file}: other images set its threshold than {listing} lists (anomaly calibrate?): "
            "look at the detector that training wrote"
        )
    return card, found


def names_of(run: Path) -> dict[str, str]:
    """Returns the digests of the images that set the threshold by their names and paths; nothing
    where they are not known.
    """
    try:
        _, highest = read_highest(run)
    except AnomalyError:  # images.csv tells them by their paths
        return {}
    return {image.name: image.sha256 for image in highest} | {
        image.path: image.sha256 for image in highest
    }


def read_marks(run: Path) -> dict[str, Mark]:
    """Returns the mark of each image that counts, by the sha256 of its bytes; those taken back are
    left out.
    """
    file = find_detector(run).with_name(MARKS)
    if not file.exists():
        return {}
    last = {}
    for line in _text(file).splitlines():
        mark = _as(Mark, _parsed(line, file), file)
        last[mark.sha256] = mark
    return {sha256: mark for sha256, mark in last.items() if mark.mark != UNKNOWN}


def add_mark(run: Path, path: str, sha256: str, mark: str, by: str) -> Mark:
    """Notes what somebody said of an image of the training; it is on the disk when this returns."""
    if mark not in KINDS:
        raise AnomalyError(f"mark {mark!r} found, {', '.join(KINDS)} expected")
    made = Mark(sha256, mark, by, datetime.now(UTC).isoformat(timespec="seconds"), path)
    append_line(find_detector(run).with_name(MARKS), json.dumps(asdict(made)))
    return made


def sha256_of_image(path: Path) -> str:
    """Returns the digest of a file's bytes; AnomalyError where it cannot be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise AnomalyError(
            f"{path}: cannot be read ({error.strerror}); an image of the training expected"
        ) from error


def training_images(run: Path) -> list[dict[str, str]]:
    """Returns the rows (path, sha256, set, group) of RUN/images.csv; AnomalyError where it is
    missing.
    """
    file = find_detector(run).with_name("images.csv")
    try:
        with open(file, newline="", encoding="utf-8", errors="surrogateescape") as opened:
            rows = list(csv.DictReader(opened))
    except (OSError, csv.Error) as error:
        raise AnomalyError(
            f"{file}: cannot be read; the list of images that training writes was expected"
        ) from error
    if not rows or not {"path", "sha256", "set", "group"} <= set(rows[0]):
        raise AnomalyError(
            f"{file}: columns path, sha256, set and group expected: copy the whole run folder"
        )
    return rows


def _json(file: Path) -> list[Any]:
    found = _parsed(_text(file), file)
    if not isinstance(found, list):
        raise AnomalyError(f"{file}: damaged, a list expected: train again")
    return found


def _text(file: Path) -> str:
    if not file.is_file() or file.stat().st_size > MAX_BYTES:
        raise AnomalyError(
            f"{file}: not there, or no listing of images; a run folder of anomaly train expected"
        )
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise AnomalyError(
            f"{file}: cannot be read ({type(error).__name__}): copy it again"
        ) from error


def _parsed(text: str, file: Path) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise AnomalyError(f"{file}: damaged (no valid JSON): restore it") from error


def _as(kind: type[Any], row: object, file: Path) -> Any:
    """Returns a row as ``kind``; AnomalyError where it has other fields, or of other types."""
    types = {"score": float}
    names = kind.__dataclass_fields__
    fits = (
        isinstance(row, dict)
        and set(row) == set(names)
        and all(isinstance(row[n], types.get(n, str)) for n in names)
    )
    if not fits or (kind is Mark and row["mark"] not in KINDS):  # type: ignore[index]
        raise AnomalyError(
            f"{file}: {str(row)[:60]!r} found, {', '.join(names)} expected: damaged, restore it"
        )
    return kind(**row)  # type: ignore[arg-type]
