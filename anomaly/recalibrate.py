"""`anomaly calibrate`: a new limit from good images, without torch. The weights stay as they are."""

from __future__ import annotations

import csv
import hashlib
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from anomaly.calibrate import calibrate, one_per_group
from anomaly.dataset import Record, normal_training, read_dataset
from anomaly.detector import Card, find_detector, import_onnx, read_card, recalibrate
from anomaly.errors import CalibrationError, DetectorError, ImageError
from anomaly.portable import write_portable
from anomaly.scorer import Scorer

IMAGES = "images.csv"  # in a run folder: which image was used for what


def recalibrate_on(
    run: Path, normal: Path, *, out: Path | None, wish: float | None, group_by: str | None, seed: int, portable: bool = False
) -> tuple[Card, Path, list[str]]:
    """Writes a detector whose limit is set by the good images ``normal``; returns its card, its path and what was left out.

    Scores come from the file itself, on the CPU at batch 1, one for each group. Images that trained this detector are
    left out, as far as the run folder tells: a promise made on them is false. Without ``wish`` that of the detector
    is kept. ``portable``: the file is written in the form that is exact in OpenVINO too. Raises CalibrationError,
    DatasetError, DetectorError.
    """
    import_onnx()
    path = find_detector(run)
    with tempfile.TemporaryDirectory() as folder:
        source = path
        if portable:
            source = Path(folder) / path.name
            write_portable(path, source)
        return _recalibrate_on(path, source, normal, out, wish, group_by, seed)


def _recalibrate_on(
    path: Path, source: Path, normal: Path, out: Path | None, wish: float | None, group_by: str | None, seed: int
) -> tuple[Card, Path, list[str]]:
    """Recalibrates ``source``, which is the detector at ``path`` or its portable form."""
    scorer = Scorer(source, device="cpu")
    version = next_version(scorer.card.version)
    target = out or path.with_name(f"{path.stem}-{version}.onnx")
    check_free(target)
    good = score_good(scorer, path, normal, group_by, seed)
    values = good.scores
    if wish is None and scorer.card.calibration is not None:
        wish = scorer.card.calibration.wish
    calibration = calibrate(values, wish)
    highest = [good.paths[i].name for i in np.argsort(-values, kind="stable")[:5]]
    recalibrate(
        source, calibration, target, version=version, highest=highest, images=good.images, groups=len(values),
        parent=read_card(path).digest,
    )  # fmt: skip
    return read_card(target), target, good.left_out


@dataclass(frozen=True, eq=False)
class GoodScores:
    """Scores of good images that a detector was not trained on, one for each group: float32 (n,), as for its limit.

    ``paths``: of these n images; ``outside``: whether each is unlike the training images, bool (n,); ``images``: how many
    were scored in all; ``left_out``: a line for each that was not.
    """

    scores: NDArray[np.float32]
    outside: NDArray[np.bool_]
    paths: list[Path]
    images: int
    left_out: list[str]


def score_good(scorer: Scorer, detector: Path, normal: Path, group_by: str | None, seed: int) -> GoodScores:
    """Returns the scores of a folder or manifest of good images; CalibrationError where none can be used."""
    records, left_out = without_training_images(normal_training(read_dataset(normal, group_by)), detector.with_name(IMAGES))
    results, kept = [], []
    for record in records:
        try:
            results.extend(scorer.judge([scorer.decode(record.path)]))
            kept.append(record)
        except ImageError as error:
            left_out.append(str(error))
    if not kept:
        raise CalibrationError(f"no good image of {normal} can be used ({(left_out or ['none found'])[0]}): add new ones")
    scores = [np.nan if result.score is None else result.score for result in results]
    values, index = one_per_group(scores, [r.group for r in kept], seed, [str(r.path) for r in kept])
    outside = np.array([results[i].status == "outside" for i in index])
    return GoodScores(values, outside, [kept[i].path for i in index], len(kept), left_out)


def next_version(version: str) -> str:
    """Returns the version after 1, 2, 3, ...; of any other one with .1 behind it."""
    return str(int(version) + 1) if version.isdecimal() else f"{version}.1"


def check_free(target: Path) -> None:
    """Raises DetectorError where a new detector cannot be written under that name."""
    if target.exists():
        raise DetectorError(
            f"{target} is there already; a detector in use must not change under its name: choose another --out"
        )
    if not target.parent.is_dir():
        raise DetectorError(f"{target.parent}: no such folder; make it first, or choose another --out")


def without_training_images(records: Sequence[Record], listing: Path) -> tuple[list[Record], list[str]]:
    """Returns the records that were neither fitted nor validated on, by their bytes, and a line for each of the others."""
    if not listing.is_file():
        return list(records), []
    with open(listing, newline="", encoding="utf-8", errors="surrogateescape") as file:
        used = {row.get("sha256") for row in csv.DictReader(file) if row.get("set") in ("fit", "validation")}
    kept, left_out = [], []
    for record in records:
        if record.path.is_file() and hashlib.sha256(record.path.read_bytes()).hexdigest() in used:
            left_out.append(f"{record.path}: this detector was trained on it, so it cannot set its limit")
        else:
            kept.append(record)
    return kept, left_out
