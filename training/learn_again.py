"""`anomaly learn`: a new detector from a run, the defects that inspectors found since, and more
good images.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from anomaly.detector.card import Card
from anomaly.detector.file import find_detector, read_card
from anomaly.errors import TrainingError
from anomaly.files.atomic import write_atomically
from anomaly.files.csv_cells import csv_text
from anomaly.inputs.dataset import Record, normal_training, read_dataset
from anomaly.inputs.known_defects import UNTYPED, read_defects
from anomaly.inputs.labels import GOOD
from anomaly.inputs.used_images import DEFECTS
from anomaly.quality.marks import training_images
from anomaly.reporting.lines import line_of
from training.options import TrainOptions, check_out, make_run
from training.pipeline import train
from training.retrain import options_of
from training.tensors import sha256_of
from training.update import Former, update

MASKS = "defect_masks"  # in a run folder: regions that inspectors drew
MANIFESTS = ("good_images.csv", "known_defects.csv")  # in a run folder: what it was learnt from
COLUMNS = ("path", "split", "label", "group", "mask")


@dataclass(frozen=True)
class News:
    """What is to be learnt besides: good images, and known defects with their types.

    ``masks``: as PNG, of the defects (by path) on which an inspector drew regions.
    """

    good: list[Record] = field(default_factory=list)
    defects: list[Record] = field(default_factory=list)
    masks: dict[Path, bytes] = field(default_factory=dict)


def learn_again(
    run: Path, out: Path, news: News, *, command: str, say: Callable[[str], None]
) -> tuple[Card, Card]:
    """Trains ``run`` again into ``out`` by the options of its card, from its own images and the new
    ones; returns both cards.

    Which good images set the threshold is drawn anew, among all of them: nothing is fitted on
    those. Raises TrainingError where there is nothing new, an image of the former training is not
    found unchanged, or the run did not learn from single images.
    """
    old = read_card(run)
    options = replace(
        options_of(old, run), out=out, command=command, resume=False, parent=old.digest
    )
    check_out(options)
    good, before = former_images(run, options.images)
    good_new = without(news.good, [*good, *before])
    defects = without(news.defects, before)
    marked = newly_marked(before, news)
    if not good_new and not defects and not marked:
        raise TrainingError(
            f"{run}: nothing new to learn from found: {len(news.good)} good images and "
            f"{len(news.defects)} defects given, all of them known to it"
        )
    make_run(out)
    images = write_manifest(out / MANIFESTS[0], [*good, *good_new])
    known = with_masks([*before, *defects], {**news.masks, **marked}, out / MASKS)
    asked = replace(options, images=images, group_by=None, exclude=None, good=())
    if known:
        asked = replace(asked, defects=write_manifest(out / MANIFESTS[1], known))
    if news.defects:  # found by a detector, as far as anybody knows
        asked = replace(asked, independent_defects=False)
    say(line_of("learnt from", f"{len(good)} good images of {run}, {len(good_new)} new ones"))
    new = learn_good(run, asked, good_new, say) or train(asked, say)
    if new is None:
        raise TrainingError(
            "more than one process found, one expected: anomaly learn does not run under torchrun"
        )
    return old, new


def learn_good(
    run: Path, options: TrainOptions, good: Sequence[Record], say: Callable[[str], None]
) -> Card | None:
    """Returns the card of a detector that is updated by good images alone; None, and says why,
    where everything has to be learnt anew.
    """
    former = None
    if options.defects is not None:
        reason = "there are known defects"
    elif options.by_unit is not None:
        reason = "units calibrate"
    else:
        former, reason = Former.of(run), f"{run} keeps no maps that its model is updated by"
    if former is None:
        say(line_of("learnt anew", reason))
        return None
    return update(former, options, good, say)


def former_images(run: Path, images: Path) -> tuple[list[Record], list[Record]]:
    """Returns the good images of a training and its known defects; TrainingError where one is not
    found unchanged.
    """
    of_set: dict[str, list[dict[str, str]]] = {}
    for row in training_images(run):
        of_set.setdefault(DEFECTS if row["set"] == DEFECTS else GOOD, []).append(row)
    good = [_found(row, GOOD, run) for row in of_set.get(GOOD, [])]
    known: list[Record] = []
    if of_set.get(DEFECTS):
        listed = {row["path"]: row for row in of_set[DEFECTS]}
        source = read_card(run).training.options
        given = Path(source.defects) if source and source.defects else images
        typed = {str(record.path): record for record in read_defects(given)}
        known = [typed.get(path) or _found(row, UNTYPED, run) for path, row in listed.items()]
    return good, known


def _found(row: dict[str, str], label: str, run: Path) -> Record:
    path = Path(row["path"])
    record = Record(path, "train", label, row["group"], None)
    if not path.is_file() or sha256_of(record) != row["sha256"]:
        raise TrainingError(
            f"{path}: an image that {find_detector(run)} learnt from is not found unchanged: put "
            "it back, or train once more by anomaly train"
        )
    return record


def without(records: Iterable[Record], known: Sequence[Record]) -> list[Record]:
    """Returns the records whose bytes are not among those of others, each once."""
    seen = {sha256_of(record) for record in known if record.path.is_file()}
    kept = []
    for record in records:
        digest = sha256_of(record)
        if digest not in seen:
            seen.add(digest)
            kept.append(record)
    return kept


def newly_marked(known: Sequence[Record], news: News) -> dict[Path, bytes]:
    """Returns the masks, by path, of known defects that had none, and on which regions were drawn
    since.
    """
    drawn = {
        sha256_of(record): news.masks[record.path]
        for record in news.defects
        if record.path in news.masks
    }
    bare = {r.path: sha256_of(r) for r in known if r.mask is None and r.path.is_file()}
    return {path: drawn[digest] for path, digest in bare.items() if digest in drawn}


def with_masks(
    records: Sequence[Record], masks: Mapping[Path, bytes], folder: Path
) -> list[Record]:
    """Writes the masks of records that have none of their own, and returns the records with
    them.
    """
    found = []
    for record in records:
        if record.mask is None and record.path in masks:
            folder.mkdir(parents=True, exist_ok=True)
            mask = folder / f"{sha256_of(record)}.png"
            write_atomically(mask, masks[record.path])
            record = replace(record, mask=mask)
        found.append(record)
    return found


def write_manifest(file: Path, records: Sequence[Record]) -> Path:
    """Writes a manifest of records, and returns its path."""
    rows = [
        (
            os.path.abspath(record.path),
            "train",
            record.label or GOOD,
            record.group,
            "" if record.mask is None else os.path.abspath(record.mask),
        )
        for record in records
    ]
    write_atomically(file, csv_text([COLUMNS, *rows]).encode("utf-8", "surrogateescape"))
    return file


def news_of(
    normal: Path | None,
    defects: Path | None,
    review: str | None,
    say: Callable[[str], None],
    group_by: str | None = None,
) -> News:
    """Returns what there is to learn: a folder of good images, one of known defects, and the
    verdicts of a review, of which only the audit sample's good images count. ``group_by``: the
    expression that names groups in the run's training.

    A good image that is its own group goes by its whole path: another folder may hold one of the
    same name.
    """
    good, known, masks = [], [], {}
    if normal is not None:
        root = normal if normal.is_dir() else normal.parent
        found_good = normal_training(read_dataset(normal, group_by, say=say), say)
        good += [
            replace(one, group=str(one.path)) if one.path == root / one.group else one
            for one in found_good
        ]
    if defects is not None:
        known += read_defects(defects, say=say)
    if review is not None:
        from anomaly.review import Store
        from anomaly.review.exports import learnable

        with Store(review, create=False) as store:
            found = learnable(store)
        for line in found.left_out:
            say(f"not learnt from: {line}")
        good += [Record(path, "train", GOOD, str(path), None) for path in found.good]
        known += [
            Record(path, "train", kind or UNTYPED, str(path), None) for path, kind in found.defects
        ]
        masks = found.masks
        if masks:
            say(f"regions drawn on {len(masks)} of {len(found.defects)} defects: learnt as masks")
    return News(good, known, masks)
