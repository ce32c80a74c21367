"""What a run writes of its training: facts for the card, pictures, the report."""

from __future__ import annotations

import os
import platform
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from anomaly.detector.card import Card
from anomaly.detector.file import user
from anomaly.detector.size_sensitivity import MAX_NAMED_IMAGES, Cost, SizeSensitivity
from anomaly.detector.training_facts import TrainingFacts
from anomaly.detector.unit_rule import UnitRule
from anomaly.files.atomic import write_atomically
from anomaly.files.csv_cells import csv_text
from anomaly.imaging.mask import MAX_CELLS, Mask, mask_facts
from anomaly.imaging.overlay import shrink
from anomaly.inputs.dataset import Record
from anomaly.inputs.used_images import DEFECTS
from anomaly.quality.marks import MAX_LISTED_IMAGES, Highest, write_highest
from anomaly.reporting.detector import card_text
from anomaly.reporting.report import PICTURES_A_GALLERY, GalleryItem, Report
from anomaly.scorer import Scorer
from anomaly.statistics.calibration import Calibration
from anomaly.statistics.groups import one_per_group
from anomaly.statistics.resampling import NORMAL
from anomaly.version import __version__
from training.guard import guard_facts
from training.options import TrainOptions
from training.protocols import Space
from training.sets import Sets, file_ranges, name_of
from training.stages import Calibrated, Job, Split, Trained
from training.suspects import SUSPECTS, Suspect, picture
from training.tensors import Extracted, digest_of, sha256_of


def warn_of_mask(mask: Mask, seen: Extracted) -> list[str]:
    """Returns a warning where a mask has not the shape of the images that it is stretched over."""
    height, width = mask.shape
    other = sum(not 0.9 < width / height * h / w < 1.1 for w, h, _, _ in seen.facts)
    # a large one was made smaller, and has lost its own shape
    if not other or max(mask.shape) == MAX_CELLS:
        return []
    return [
        f"the mask of {width} x {height} pixels is stretched over {other} of {len(seen.facts)} "
        "images that have another shape: check that they show the part in the same place"
    ]


def describe(calibrated: Calibrated, sensitivity: dict[str, Any] | None) -> Card:
    """Returns the detector's card; what only the finished file knows (golden samples, digests) is
    still empty.
    """
    split, trained = calibrated.fitted.chosen.split, calibrated.fitted.trained
    options = split.job.options
    return Card(
        name=options.out.resolve().name,
        version="1",
        model=options.model,
        space=options.space,
        size=split.job.size,
        score=trained.score.in_words() if trained.tiles is None else trained.tiles.score_in_words(),
        decode=split.rule,
        calibration=calibrated.calibration,
        training=TrainingFacts.from_json(training_facts(calibrated, sensitivity)),
        golden={},
        licences={"weights": weights_licence(split.job), "data": "not stated"},
        quality=None,
        parent=options.parent,
        weights="",
        pooled=trained.pooled,
        heatmap=calibrated.heatmap,
    )


def weights_licence(job: Job) -> str:
    """Returns the networks whose weights a detector holds, with their licences."""
    if job.backbone is not None:
        return f"{job.backbone.facts.name}: {job.backbone.facts.licence}"
    held = {"features": 1, "both": 1, "all": 2}.get(job.options.space, 0)
    names = ("efficientnet-lite0", "efficientnet-lite2")[:held]
    return f"{', '.join(names)}: ImageNet weights, Apache-2.0" if names else "none used"


def training_facts(calibrated: Calibrated, sensitivity: dict[str, Any] | None) -> dict[str, Any]:
    """Returns what the card says of the training, but for the parity of the finished file."""
    chosen, trained = calibrated.fitted.chosen, calibrated.fitted.trained
    split, calibration = chosen.split, calibrated.calibration
    job, options = split.job, split.job.options
    highest = [name_of(record, options.images) for record in calibrated.highest[:5]]
    facts: dict[str, Any] = image_facts(split) | {
        "seed": options.seed,
        "versions": versions(),
        "command": options.command,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "by": user(),
        "warnings": [*split.warnings, *trained.warnings],
        "target": options.target,
        "target_rate": options.false_alarm_rate,
        "highest": highest,
        "choice": chosen.choice,
        "mask": mask_of(job),
    }
    facts |= units_of(calibrated) | {
        "min_area": options.min_area,
        "min_cells": (trained.tiles or trained).to_heatmap.cells,
        "size_sensitivity": sensitivity,
        "guard": guard_facts(calibrated.guard),
        "group_by": options.group_by,
    }
    facts |= backbone_of(job) | {"recipe": recipe_facts(job, trained.space)}
    facts |= known_defects_of(calibrated)
    if chosen.tiling is not None:
        facts["tiles"] = chosen.tiling.facts(options.tile or 0)
    if calibration is not None:
        sizes = None if sensitivity is None else SizeSensitivity.from_json(sensitivity)
        cost = Cost.of_highest(calibration, highest, sizes)
        facts["cost"] = None if cost is None else cost.to_json()
    return facts | {"options": job.asked.to_json()}


def units_of(calibrated: Calibrated) -> dict[str, Any]:
    """Returns what the card says of units, where the guarantee is one for units."""
    split = calibrated.fitted.chosen.split
    by_unit = split.job.options.by_unit
    if by_unit is None or calibrated.calibration is None:
        return {}
    units = [record.group for record in split.sets.calibrating]
    return {"by_unit": UnitRule.seen(by_unit, units).to_json()}


def image_facts(split: Split) -> dict[str, Any]:
    """Returns what the card says of the images."""
    seen, groups = split.seen, {record.group for record in split.records}
    return {
        "images": len(seen.records),
        "groups": len(groups),
        "grouped": len(groups) < len(split.records),
        "sets": {name: len(subset) for name, subset in split.sets.by_name().items()},
        "digest": digest_of(seen.records),
        "ranges": file_ranges(seen.subset(split.sets.development).facts),
    }


def recipe_facts(job: Job, space: Space) -> dict[str, Any]:
    """Returns what the card says of how images are looked at."""
    recipe = job.recipe
    return {
        "frame": recipe.frame,
        "height": recipe.shape[0],
        "width": recipe.shape[1],
        "rows": space.grid[0],
        "columns": space.grid[1],
        "normalised": recipe.normalised and recipe.space not in ("pixels", "filters"),
    }


def backbone_of(job: Job) -> dict[str, Any]:
    """Returns what the card says of a network that the user chose, by its name in the card."""
    return {} if job.backbone is None else {"backbone": job.backbone.facts.to_json()}


def mask_of(job: Job) -> dict[str, Any] | None:
    """Returns what the card says of a mask."""
    path, mask = job.options.mask, job.mask
    return None if path is None or mask is None else mask_facts(path, mask)


def list_images(path: Path, sets: Sets, defects: Sequence[Record] = ()) -> None:
    """Writes which image was used for what, so that nobody calibrates on what was trained on."""
    rows = [("path", "sha256", "set", "group")]
    for name, records in [*sets.by_name().items(), (DEFECTS, defects)]:
        rows += [(str(r.path), sha256_of(r), name, r.group) for r in records if r.path.is_file()]
    write_atomically(path, csv_text(rows).encode("utf-8", "surrogateescape"))


def known_defects_of(calibrated: Calibrated) -> dict[str, Any]:
    """Returns what the card says of known defects, where some were learnt from; how many of each
    type are missed only where they were collected independently of a detector, one image of each
    group.
    """
    learnt, calibration = calibrated.fitted.defects, calibrated.calibration
    options = calibrated.fitted.chosen.split.job.options
    if learnt is None:
        return {}
    types = [record.label or "" for record in learnt.records]
    counts = Counter(types)
    missed, of = None, None
    if calibration is not None and options.independent_defects:
        names = [str(record.path) for record in learnt.records]
        groups = [f"{kind}\0{r.group}" for kind, r in zip(types, learnt.records, strict=True)]
        scores, drawn = one_per_group(learnt.scores, groups, options.seed, names)
        found = [types[index] for index in drawn]
        flagged = calibration.is_anomaly(scores)
        passed = [kind for kind, above in zip(found, flagged, strict=True) if not above]
        of = dict(sorted(Counter(found).items()))
        missed = {name: passed.count(name) for name in of}
    facts = {
        "types": dict(sorted(counts.items())),
        "named": learnt.named,
        "unknown_below": learnt.unknown_below,
        "missed": missed,
        "of": of,
    }
    return {"known_defects": facts}


def list_highest(
    options: TrainOptions, calibration: Calibration | None, records: Sequence[Record]
) -> None:
    """Writes which images set the threshold and which come next, so that somebody looks at them."""
    if calibration is None:
        return
    scores = calibration.scores[::-1].tolist()
    listed = [
        Highest(
            os.path.abspath(r.path), name_of(r, options.images), sha256_of(r), r.group, float(score)
        )
        for r, score in list(zip(records, scores, strict=True))[:MAX_LISTED_IMAGES]
    ]
    write_highest(options.out, listed)


def threshold_pictures(scorer: Scorer, records: Sequence[Record]) -> list[GalleryItem]:
    """Returns what a report shows of the images that set the threshold, and of those next to it."""
    calibration, anchors = scorer.card.calibration, scorer.card.heatmap_anchors
    if calibration is None or anchors is None:
        return []
    shown = zip(records, calibration.scores[::-1].tolist(), strict=False)
    return [
        threshold_picture(scorer, record, score, float(calibration.threshold), anchors)
        for record, score in list(shown)[
            : min(max(calibration.k, MAX_NAMED_IMAGES), PICTURES_A_GALLERY)
        ]
    ]


def threshold_picture(
    scorer: Scorer, record: Record, score: float, threshold: float, anchors: tuple[float, float]
) -> GalleryItem:
    """Returns what a report shows of one of them, with the detector's own heatmap."""
    decoded = scorer.decode(record.path)
    place = (
        "above the threshold"
        if score > threshold
        else "sets the threshold"
        if score == threshold
        else "next to it"
    )
    return GalleryItem(
        path=str(Path(*record.path.parts[-3:])),
        caption=f"score {score:.4g}; {place}",
        original=shrink(decoded.pixels),
        expected=None,
        heatmap=scorer.judge(decoded).heatmap,
        median=anchors[0],
        threshold=anchors[1],
    )


def versions() -> dict[str, str]:
    """Returns the versions that a result may depend on."""
    import onnxruntime

    return {
        "anomaly": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "onnxruntime": onnxruntime.__version__,
        "numpy": np.__version__,
    }


def unseen_suspects(suspects: Sequence[Suspect], run: Path) -> list[str]:
    """Says that there are more suspects than the report has pictures of."""
    if len(suspects) <= PICTURES_A_GALLERY:
        return []
    return [
        (
            f"{len(suspects)} suspects are listed in {run / SUSPECTS}: the first "
            f"{PICTURES_A_GALLERY} have pictures here"
        )
    ]


def curves_of(
    history: Sequence[dict[str, Any]], loss_name: str
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Returns the losses of each player, of training and of held-out images, and the terms of the
    held-out losses: a value for each epoch, by name. Both are empty for a single epoch.
    """
    if len(history) < 2:
        return {}, {}
    losses = {
        f"{player}: {what}{loss_name}": [row[kind][player] for row in history]
        for kind, what in (("loss", ""), ("held_out", "held-out "))
        for player in history[0][kind]
    }
    return losses, {term: [row["terms"][term] for row in history] for term in history[0]["terms"]}


def training_report(
    options: TrainOptions,
    card: Card,
    suspects: Sequence[Suspect],
    highest: Sequence[Record],
    sets: Sets,
    trained: Trained,
) -> Report:
    """Returns the report of a training: the guarantee, the scores that set the threshold, the good
    images that may be none.
    """
    scorer = Scorer(options.out, device="cpu")
    calibration = card.calibration
    losses, terms = curves_of(trained.history, trained.model.loss_name)
    return Report(
        title=f"{card.name}: training",
        card=card,
        guarantee=card_text(card, str(options.out)),
        scores={} if calibration is None else {NORMAL: calibration.scores},
        threshold=None if calibration is None else float(calibration.threshold),
        median=None if calibration is None else float(calibration.median),
        curves=losses,
        terms=terms,
        galleries={
            "the threshold": threshold_pictures(scorer, highest),
            "suspects": [
                picture(suspect, sets, scorer) for suspect in suspects[:PICTURES_A_GALLERY]
            ],
        },
        notes=[*(card.training.warnings or ()), *unseen_suspects(suspects, options.out)],
    )
