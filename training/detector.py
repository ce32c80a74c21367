"""Trained parts -> one graph with its threshold -> the files of RUN and their report."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from torch import Tensor

from anomaly.detector.calibration_nodes import set_calibration
from anomaly.detector.card import Card
from anomaly.detector.file import read_card, set_card, weights_digest
from anomaly.detector.golden import kept_tolerance
from anomaly.detector.session import available_cores, open_session
from anomaly.detector.trial import remember
from anomaly.files.atomic import write_atomically
from anomaly.files.progress import Progress
from anomaly.imaging.decode import Decoded, DecodeRule
from anomaly.inputs.dataset import Record
from anomaly.inputs.used_images import IMAGES
from anomaly.reporting.page import write_report
from anomaly.statistics.calibration import Calibration, Kind
from anomaly.statistics.calibration import calibrate as threshold_of
from anomaly.statistics.groups import one_per_group, worst_per_unit
from training.checkpoint import load_checkpoint, save_checkpoint
from training.cross import graph_of, out_of_fold, sharpening
from training.defect_sizes import (
    DEFECTS_PER_SIZE,
    DEFECTS_PER_SIZE_SLOW,
    flagged_by_size,
    judge_by_file,
    judge_by_graph,
)
from training.describe import describe, list_highest, list_images, training_report
from training.export import (
    DetectorGraph,
    ExplainGraph,
    check_parity,
    golden_samples,
    golden_sizes,
    to_onnx,
    unit_of,
)
from training.good_images import keep_good_images
from training.guard import Guard, learn_guard
from training.kept_maps import MAPS, kept_maps, save_maps
from training.options import TrainOptions
from training.protocols import Module
from training.sets import decode_all
from training.stages import Calibrated, Exported, Fitted, Fold, Job, Trained
from training.suspects import find_suspects, suspects_text, write_suspects


def calibrate(fitted: Fitted) -> Calibrated:
    """Returns the detector as one graph, with the threshold that the graph's own scores set, or
    those of models without a fold each."""
    split, trained = fitted.chosen.split, fitted.trained
    options, seen = split.job.options, split.seen
    to_heatmap = fitted.chosen.to_heatmap
    suspects = find_suspects(seen.records, seen.maps, split.space, to_heatmap)
    write_suspects(options.out, suspects, options.images)
    guard = learn_guard(split.sets.development, split.rule, trained.prepare)
    graph = join(trained, guard)
    model, explain = to_onnx(graph), explaining(trained)
    calibration, heatmap, highest, fold = set_threshold(fitted, model)
    own = None if trained.pooled else heatmap
    return Calibrated(
        fitted, suspects, guard, graph, model, explain, calibration, highest, fold, own
    )


def export(calibrated: Calibrated) -> Exported:
    """Checks the file against torch and writes RUN; what is not the detector itself comes first."""
    split = calibrated.fitted.chosen.split
    options = split.job.options
    defects = calibrated.fitted.defects
    list_images(options.out / IMAGES, split.sets, defects.records if defects else ())
    list_highest(options, calibrated.calibration, calibrated.highest)
    card = describe(calibrated, size_sensitivity(calibrated))
    card = write(split.job, card, calibrated, split.sets.calibration or split.sets.validation)
    keep_good_images(options, card, split.sets)
    kept = kept_maps(calibrated.fitted.trained, split.seen)
    if kept is not None:
        save_maps(options.out / MAPS, kept)
    return Exported(calibrated, card)


def report(exported: Exported) -> Card:
    """Says which images to look at, writes the report, and returns the detector's card."""
    calibrated, card = exported.calibrated, exported.card
    split, options = calibrated.fitted.chosen.split, calibrated.fitted.chosen.split.job.options
    suspects, sets = calibrated.suspects, split.sets
    split.job.tell(suspects_text(suspects, len(split.records), sets, options.images, options.out))
    write_report(
        options.out / "report.html",
        training_report(
            options, card, suspects, calibrated.highest, sets, calibrated.fitted.trained
        ),
    )
    return card


def size_sensitivity(calibrated: Calibrated) -> dict[str, object] | None:
    """Returns how many synthetic defects of each size are flagged; None without a threshold."""
    chosen, calibration = calibrated.fitted.chosen, calibrated.calibration
    if calibration is None:
        return None
    split, tiling, fold = chosen.split, chosen.tiling, calibrated.fold
    job, typical = split.job, float((calibrated.heatmap or calibration).median)
    if fold is None:
        judge, unseen = judge_by_file(calibrated.model, typical), split.sets.calibration
    else:
        judge, unseen = judge_by_graph(graph_of(fold, calibrated), typical), fold.records
    size, each = (tiling.side, DEFECTS_PER_SIZE_SLOW) if tiling else (job.size, DEFECTS_PER_SIZE)
    return flagged_by_size(
        judge,
        calibration,
        unseen,
        split.rule,
        size,
        job.mask,
        job.options.seed,
        each,
    )


def join(trained: Trained, guard: Guard) -> DetectorGraph:
    """Returns the detector as one torch module, which has no calibration."""
    parts = (trained.prepare, trained.space, trained.model, trained.score, guard)
    finer = trained.tiles or trained.fine
    return DetectorGraph(*parts, trained.to_heatmap, finer, trained.pose).eval()


def explaining(trained: Trained) -> onnx.ModelProto | None:
    """Returns the ONNX model that draws what the model expected, None where nothing does."""
    if trained.decoder is None:
        return None
    parts = (trained.prepare, trained.space, trained.model, trained.decoder, trained.pose)
    return to_onnx(ExplainGraph(*parts))


def set_threshold(
    fitted: Fitted, model: onnx.ModelProto
) -> tuple[Calibration | None, Calibration | None, list[Record], Fold | None]:
    """Returns the calibration of scores and that of the largest heatmap values, the images, the
    highest score first, and of cross-calibration a fold.
    """
    split, fold = fitted.chosen.split, None
    options, sets = split.job.options, split.sets
    if options.rank_only:
        return None, None, [], None
    if sets.cross:
        unseen = fitted.unseen or out_of_fold(
            split, sets.calibrating, fitted.chosen.to_heatmap, sharpening(fitted)
        )
        records, found, fold = unseen.records, unseen.scores, unseen.first
    else:
        records, found = scores_by_file(model, sets.calibration, split.rule, options.size or 0)
    kind: Kind = "cross" if sets.cross else "split"
    return *calibrate_on(records, found, options, split.groups, kind), fold


def scores_by_file(
    model: onnx.ModelProto, records: Sequence[Record], rule: DecodeRule, size: int
) -> tuple[list[Record], npt.NDArray[np.float32]]:
    """Returns the images that can be read, and score and largest heatmap value of each by the
    finished graph (CPU, batch 1), float32 (n, 2).
    """
    session, _ = open_session(model.SerializeToString(), "cpu", available_cores())
    found: list[tuple[np.float32, np.float32]] = []
    kept: list[Record] = []
    with Progress(len(records), "setting the threshold") as progress:
        for record, image in decode_all(records, rule, size):
            progress.advance(1)
            if isinstance(image, Decoded):
                (score,), heatmap = session.run(
                    ["score", "heatmap"], {"images": image.pixels[None]}
                )
                found.append((score, heatmap.max()))
                kept.append(record)
    return kept, np.array(found, np.float32).reshape(-1, 2)


def calibrate_on(
    kept: list[Record],
    found: npt.NDArray[np.float32],
    options: TrainOptions,
    joined: Mapping[Path, str],
    kind: Kind,
) -> tuple[Calibration, Calibration, list[Record]]:
    """Returns the calibrations from scores and largest heatmap values of images (n, 2), one for
    each group, and the images, the highest score first.

    ``joined``: the group of each image once copies were joined.
    """
    scores, largest = found.T
    if options.by_unit is not None:
        scores, worst = worst_per_unit(scores, [r.group for r in kept])
        kept, largest = [kept[i] for i in worst], largest[worst]
    paths = [record.path for record in kept]
    values, drawn = one_per_group(
        scores, [joined[path] for path in paths], options.seed, [str(path) for path in paths]
    )
    order = np.argsort(-values, kind="stable")
    calibration = threshold_of(values, options.false_alarm_rate, kind)
    calibration = replace(calibration, review_rate=options.review_rate)
    heatmap = calibration.with_scores(largest[drawn])
    return calibration, heatmap, [kept[int(drawn[i])] for i in order]


def write(job: Job, card: Card, calibrated: Calibrated, records: Sequence[Record]) -> Card:
    """Checks the file against torch and writes RUN: first what belongs to the detector, last
    detector.onnx itself.
    """
    model, trained = calibrated.model, calibrated.fitted.trained
    if card.calibration is not None:
        set_calibration(model, card.calibration)
    sample = [
        image.pixels
        for _, image in decode_all(records[:7], card.decode, card.size)
        if isinstance(image, Decoded)
    ]
    data = model.SerializeToString(deterministic=True)
    unit = unit_of("score", card.calibration, data, sample)
    heatmap = None if card.pooled else unit_of("heatmap", card.heatmap, data, sample)
    parity = check_parity(calibrated.graph, data, sample, unit, heatmap)
    tolerance = (
        1e-3 * unit if card.calibration is None else kept_tolerance(1e-3 * unit, card.calibration)
    )
    tiled = None if trained.tiles is None else trained.tiles.prepare.shape
    card = replace(
        card,
        weights=weights_digest(model),
        golden=golden_samples(data, golden_sizes(card.size, tiled), tolerance),
        training=replace(card.training, parity=parity),
    )
    save_run(job.options, card, calibrated)
    set_card(model, card)
    finished = model.SerializeToString(deterministic=True)
    remember(finished)  # its golden samples were scored here just now
    write_atomically(job.options.out / "detector.onnx", finished)
    return read_card(job.options.out)


def save_run(options: TrainOptions, card: Card, calibrated: Calibrated) -> None:
    """Writes explain.onnx and the checkpoint that holds all weights (for sample, reconstruct and
    --resume).
    """
    trained, explain = calibrated.fitted.trained, calibrated.explain
    if explain is not None:
        onnx.helper.set_model_props(explain, {"weights": card.weights})
        drawn = explain.SerializeToString(deterministic=True)
        remember(drawn)
        write_atomically(options.out / "explain.onnx", drawn)
    path = options.out / "checkpoint.safetensors"
    tensors, facts = load_checkpoint(path)
    tensors |= weights_of(trained, calibrated.guard)
    built = built_by(options, trained)
    if card.training.backbone is not None:
        built["backbone"] = card.training.backbone.to_json()
    save_checkpoint(path, tensors, {**facts, "run": json.dumps(built)})


def weights_of(trained: Trained, guard: Guard) -> dict[str, Tensor]:
    """Returns all tensors of a detector by the names that training.restore reads."""
    tiles, mask = trained.tiles, trained.prepare.mask
    parts: dict[str, Module | None] = {
        "model": trained.model,
        "space": trained.space.whitening,
        "density": trained.score.density,
        "decoder": trained.decoder,
        "tiles.model": None if tiles is None else tiles.model,
        "tiles.space": None if tiles is None else tiles.space.whitening,
        "pose": trained.pose,
        "fine": trained.fine,
        "known": trained.score.known,
        "guard": guard,
    }
    tensors = {} if mask is None else {"mask": mask}
    for prefix, module in parts.items():
        weights = {} if module is None else module.state_dict()
        tensors |= {f"{prefix}.{name}": value for name, value in weights.items()}
    return tensors if tiles is None else tensors | {"tiles.scale": tiles.scale}


def built_by(options: TrainOptions, trained: Trained) -> dict[str, object]:
    """Returns the facts by which training.restore builds the modules again."""
    built: dict[str, object] = {
        "model": options.model,
        "space": options.space,
        "size": options.size,
        "recipe": trained.recipe.to_json(),
        "error": options.error,
        "score": options.score,
        "seed": options.seed,
        "target": options.target,
        "cells": trained.to_heatmap.cells,
        "types": trained.score.known.types if trained.score.known else 0,
    }
    if trained.tiles is not None:
        tiles = trained.tiles
        built["tiles"] = {**asdict(tiles.tiling), "cells": tiles.to_heatmap.cells}
    built["grey"] = trained.space.whitening is None and trained.space.channels == 1
    return built
