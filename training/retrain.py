"""Training a run again without the images that a person marked as defects, and without their
groups.

Real defects are not exchangeable with good images, so the guarantee asks for their removal; a good
image that is left out because it looks unusual makes it false. So only what is marked as a defect
leaves, with its whole group, and every other image of the former training has to be there again.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from anomaly.detector.card import Card
from anomaly.detector.file import find_detector, read_card
from anomaly.errors import TrainingError
from anomaly.files.atomic import write_atomically
from anomaly.files.delimited import read_lines
from anomaly.inputs.dataset import Record, normal_training, read_dataset
from anomaly.quality.marks import DEFECT, Mark, read_marks, sha256_of_image, training_images
from training.options import TrainOptions, check_out, make_run
from training.pipeline import train
from training.sets import name_of
from training.tensors import sha256_of

LEFT_OUT = "left_out.txt"  # in a run folder: what its training left out, as --exclude takes it


def train_again(
    run: Path,
    out: Path,
    *,
    images: Path | None,
    only: Path | None,
    command: str,
    say: Callable[[str], None],
) -> tuple[Card, Card]:
    """Trains ``run`` again into ``out`` by the options of its card, without the marked defects;
    returns both cards.

    ``images``: where the images lie now, if they were moved. ``only``: a list of the images to
    leave out, each marked as a defect; None: all that are. Raises TrainingError where there is
    none, where one is not marked as a defect, or where another image of the former training is
    missing.
    """
    old = read_card(run)
    options = replace(options_of(old, run), out=out, command=command, parent=old.digest)
    options = replace(options, images=images or options.images)
    check_out(options)
    defects = chosen(run, only, options)
    leaving = with_groups(run, {mark.sha256 for mark in defects})
    records = normal_training(read_dataset(options.images, options.group_by, good=options.good))
    before = left_out_before(run, options)
    paths = paths_leaving(run, records, leaving, before, options)
    make_run(out)
    lines = "".join(f"{line}\n" for line in sorted({*paths, *before}))
    write_atomically(out / LEFT_OUT, lines.encode("utf-8", "surrogateescape"))
    who = ", ".join(sorted({mark.by for mark in defects}))
    new = train(replace(options, exclude=out / LEFT_OUT, marked_by=who), say)
    if new is None:
        raise TrainingError(
            "more than one process found, one expected: anomaly retrain does not run under torchrun"
        )
    return old, new


def left_out_before(run: Path, options: TrainOptions) -> set[str]:
    """Returns what the former training left out itself."""
    own = find_detector(run).with_name(LEFT_OUT)
    file = own if own.is_file() else options.exclude
    return lines_of(file) if file else set()


def options_of(card: Card, run: Path) -> TrainOptions:
    """Returns the options that a detector was trained by; TrainingError where its card does not say
    them all.
    """
    said = None if card.training.options is None else card.training.options.to_json()
    if card.training.recalibrated or card.training.threshold_moved:
        raise TrainingError(
            f"{run}: a threshold set after training found (anomaly calibrate, or by hand): give "
            "the run that was trained"
        )
    names = {field.name for field in fields(TrainOptions)}
    if said is None or not set(said) <= names:
        raise TrainingError(
            f"{run}: its card does not say the options of its training: train once more by anomaly "
            "train"
        )
    paths = {"images", "exclude", "mask", "defects"}
    given: dict[str, Any] = {
        n: Path(v) if n in paths and isinstance(v, str) else v for n, v in said.items()
    }
    given |= {name: tuple(value) for name, value in given.items() if isinstance(value, list)}
    try:
        return TrainOptions(**given, out=Path())
    except TypeError as error:
        raise TrainingError(
            f"{run}: the options in its card are damaged ({error}): train once more"
        ) from error


def chosen(run: Path, only: Path | None, options: TrainOptions) -> list[Mark]:
    """Returns the marks of the images to leave out; TrainingError unless each is marked as a
    defect.
    """
    marks = read_marks(run)
    defects = [mark for mark in marks.values() if mark.mark == DEFECT]
    if only is not None:
        root = options.images if options.images.is_dir() else options.images.parent
        named = [_found(line, root) for line in sorted(lines_of(only))]
        defects = [_marked(path, marks.get(sha256_of_image(path))) for path in named]
    if not defects:
        raise TrainingError(
            f"{run}: no image is marked as a defect, so none is left out: mark them on the page "
            f"Calibration of anomaly review --detector {run}, or by anomaly mark {run} --defect "
            "IMAGE"
        )
    return defects


def lines_of(file: Path) -> set[str]:
    """Returns the lines of a list of images."""
    return set(read_lines(file.read_bytes()))


def _found(line: str, root: Path) -> Path:
    """Returns the file that a line of a list names, by itself or inside the folder of images."""
    return Path(line) if Path(line).exists() else root / line


def _marked(path: Path, mark: Mark | None) -> Mark:
    if mark is None or mark.mark != DEFECT:
        found = "nobody marked it" if mark is None else f"{mark.by} marked it as good"
        raise TrainingError(
            f"{path}: {found}; only what is marked as a defect may be left out, because a "
            "threshold set without unusual good images is too low"
        )
    return mark


def with_groups(run: Path, defects: set[str]) -> set[str]:
    """Returns the digests of all images of the training that leave: the defects, and what is of one
    group with them.
    """
    rows = training_images(run)
    groups = {row["group"] for row in rows if row["sha256"] in defects}
    unknown = defects - {row["sha256"] for row in rows}
    if unknown:
        raise TrainingError(
            f"{run}: an image marked as a defect (sha256 {min(unknown)[:12]}) was not in its "
            "training"
        )
    return {row["sha256"] for row in rows if row["group"] in groups}


def paths_leaving(
    run: Path, records: Sequence[Record], leaving: set[str], before: set[str], options: TrainOptions
) -> list[str]:
    """Returns the paths of the records that leave; TrainingError where an image that has to stay is
    missing or left out.
    """
    digests = {r.path: sha256_of(r) for r in records if r.path.is_file()}
    out = {r.path for r in records if str(r.path) in before or name_of(r, options.images) in before}
    there = {sha256 for path, sha256 in digests.items() if path not in out}
    missing = [row for row in training_images(run) if row["sha256"] not in leaving | there]
    if missing:
        count = f"{len(missing):,} image{'s' * (len(missing) > 1)}"
        raise TrainingError(
            f"{count} of the training not found unchanged in {options.images}, such as "
            f"{missing[0]['path']}: all but those marked as defects are needed, because a "
            "threshold set without unusual good images is too low"
        )
    return [os.fspath(path) for path, sha256 in digests.items() if sha256 in leaving]
