"""More good images, learnt in seconds: the model of a run is fitted anew to the maps that the run
has kept and those of the new images.

The basis stays as it was: how images are looked at, the whitening of the space, the covariance that
makes heatmaps fine, and the training range. On this basis the fit is the one that a training on all
images would find.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch import Tensor

import training.fit
from anomaly.detector.card import Card
from anomaly.detector.file import find_detector, read_card
from anomaly.files.progress import Progress
from anomaly.imaging.decode import Decoded
from anomaly.inputs.dataset import Record, Say
from anomaly.inputs.used_images import IMAGES, read_listing
from anomaly.reporting.lines import line_of
from anomaly.statistics.calibration import Kind
from training.cross import sharpening
from training.describe import describe, list_highest, list_images
from training.detector import calibrate_on, join, report, scores_by_file, write
from training.fine_heatmap import Early, distances
from training.folds import folds
from training.good_images import keep_good_images
from training.kept_maps import MAPS, KeptMaps, kept_maps, load_maps, save_maps
from training.models.autoencoder import location_scale, shrinkage
from training.models.gaussian import KnownMaps, inner_products
from training.options import FitOptions, TrainOptions
from training.protocols import Model
from training.reading import job_of, warn
from training.recipes import Recipe
from training.restore import Run, restore
from training.scores import Heatmap
from training.sets import Sets, copies_text, decode_all, join_copies
from training.stages import Calibrated, Chosen, Exported, Fitted, Job, Split, Trained
from training.suspects import find_suspects, outliers, write_suspects
from training.tensors import extract
from training.trained import build_model

MAX_REFUSED = 0.05  # of the new images; of more the training range has to be learnt anew


@dataclass(frozen=True)
class Former:
    """A finished run that is updated: its file and card, its modules, what it has kept of its
    images, and the set that each image was in, by its path.
    """

    file: Path
    card: Card
    run: Run
    kept: KeptMaps
    sets: dict[str, str]

    @staticmethod
    def of(run: Path) -> Former | None:
        """Returns None where the run keeps no maps, because its model cannot be updated by them, or
        there are too many, or somebody deleted them.
        """
        file = find_detector(run)
        if not file.with_name(MAPS).is_file():
            return None
        sets = {row["path"]: row["set"] for row in read_listing(file.with_name(IMAGES))}
        kept = load_maps(file.with_name(MAPS))
        return Former(file, read_card(run), restore(run), kept, sets)

    @property
    def cross(self) -> bool:
        """Whether all images calibrate."""
        calibration = self.card.calibration
        return calibration is not None and calibration.kind == "cross"


def update(former: Former, options: TrainOptions, new: Sequence[Record], say: Say) -> Card | None:
    """Trains and calibrates a detector that has learnt the new good images too, into
    ``options.out``; returns its card, or None where they lie outside of the training range.

    New images calibrate as those of the former training: by cross all of them, by split the same
    share of their groups. Which synthetic defects are found is not measured again.
    """
    job = job_as_it_was(former, options, say)
    refused = refused_by(former, new)
    if len(refused) > max(1, MAX_REFUSED * len(new)):
        said = f"{len(refused)} of {len(new)} new images lie outside of it, such as {refused[0]}"
        say(line_of("learnt anew", f"for the training range: {said}"))
        return None
    kept = former.kept.joined(looked_at(former, job, new))
    split, learnt = divided(former, job, kept)
    fitted = fit_again(former, split, learnt, kept)
    calibrated = calibrate_again(former, fitted)
    sets = split.sets
    list_images(options.out / IMAGES, sets)
    list_highest(options, calibrated.calibration, calibrated.highest)
    card = describe(calibrated, None)
    card = write(job, card, calibrated, sets.calibration or sets.validation)
    keep_good_images(options, card, sets)
    save_maps(options.out / MAPS, kept)
    return report(Exported(calibrated, card))


def job_as_it_was(former: Former, options: TrainOptions, say: Say) -> Job:
    """Returns the job of the former training, with the choices that it came to."""
    job = job_of(options, say)
    recipe = Recipe.from_json(former.run.facts["recipe"])
    size = max(recipe.picture)
    options = replace(job.options, space=recipe.space, size=size)
    return replace(job, options=options, size=size, recipe=recipe)


@torch.inference_mode()
def refused_by(former: Former, new: Sequence[Record]) -> list[Path]:
    """Returns which of the images are not within the training range."""
    graph, found = former.run.graph, []
    for record, image in decode_all(new, former.card.decode, former.card.size):
        if isinstance(image, Decoded):
            pixels = torch.from_numpy(image.pixels)[None]
            if not bool(graph.guard(pixels, graph.prepare(pixels))):
                found.append(record.path)
    return found


def looked_at(former: Former, job: Job, new: Sequence[Record]) -> KeptMaps:
    """Returns the new images as the former training looked at its own."""
    graph, rule = former.run.graph, former.card.decode
    prepare, space = graph.prepare, graph.space
    with Progress(len(new), "looking at new images") as progress:
        advance = partial(progress.advance, 1)
        seen = extract(new, rule, prepare, space, job.device, advance, graph.pose)
    known = {}
    if graph.fine is not None and former.cross:
        early = Early(space, prepare, graph.pose, rule)
        known = distances(graph.fine, early, seen.records)
    found = kept_maps(replace(trained_as(former, graph.model), distances=known), seen)
    assert found is not None  # as the former ones were kept
    return found


def divided(former: Former, job: Job, kept: KeptMaps) -> tuple[Split, npt.NDArray[np.bool_]]:
    """Returns the three sets, and which of the images are learnt from, bool (n,)."""
    seen, graph = kept.seen, former.run.graph
    records, copies = join_copies(seen.records, seen.thumbs, seen.digests, job.options)
    warnings = warn(seen, copies_text(seen.records, records, copies, job.options))
    job.tell(warnings)
    was = [former.sets.get(str(record.path), "") for record in records]
    names = np.array(set_names([record.group for record in records], was, job.options.seed))
    development, far = names != "calibration", np.array(was) == "outliers"
    maps = seen.maps[torch.from_numpy(development)]
    far[development] |= outliers(maps, None, graph.to_heatmap)
    fit, validation, calibration, left = (
        [records[i] for i in np.flatnonzero(some)]
        for some in (
            (names == "fit") & ~far,
            (names == "validation") & ~far,
            ~development,
            far,
        )
    )
    sets = Sets(fit, validation, calibration, left, cross=former.cross)
    seen, rule = replace(seen, records=records), former.card.decode
    split = Split(job, rule, graph.prepare, graph.space, seen, records, sets, warnings, graph.pose)
    return split, development & ~far


def set_names(groups: Sequence[str], was: Sequence[str], seed: int) -> list[str]:
    """Returns the set of each image: what was learnt from stays so, with all that is of one group
    with it; of new groups as large a share calibrates as of the former ones.
    """
    set_of: dict[str, str] = {}
    for name in ("calibration", "validation", "fit"):  # the last one decides
        set_of |= {group: name for group, own in zip(groups, was, strict=True) if own == name}
    new, old = sorted(set(groups) - set(set_of)), list(set_of.values())
    calibrating = round(len(new) * old.count("calibration") / max(len(old), 1))
    order = np.random.default_rng(seed).permutation(len(new))
    drawn = {new[i]: "calibration" for i in order[:calibrating].tolist()}
    return [set_of.get(group) or drawn.get(group, "fit") for group in groups]


def trained_as(former: Former, model: Model) -> Trained:
    """Returns the parts of the former detector with another model."""
    graph = former.run.graph
    return Trained(
        graph.prepare,
        graph.space,
        model,
        graph.to_heatmap,
        graph.score,
        former.run.decoder,
        [],
        Recipe.from_json(former.run.facts["recipe"]),
        pose=graph.pose,
        fine=graph.fine,
    )


def fit_again(
    former: Former, split: Split, learnt: npt.NDArray[np.bool_], kept: KeptMaps
) -> Fitted:
    """Returns the detector with a model of all that is learnt from."""
    job, seen = split.job, split.seen
    some = seen.subset([r for r, is_learnt in zip(seen.records, learnt, strict=True) if is_learnt])
    to_heatmap = former.run.graph.to_heatmap
    model = build_model(job.options, some.maps)
    model.inspected, model.groups = inspected_by(to_heatmap), [r.group for r in some.records]
    checkpoint = job.options.out / "checkpoint.safetensors"
    fit_options = FitOptions(seed=job.options.seed)
    none = some.maps[:0]
    history = training.fit.fit(model, some.maps, none, fit_options, checkpoint, False, job.say)
    known = {}
    if kept.distances.numel():
        known = dict(zip((record.path for record in seen.records), kept.distances, strict=True))
    trained = replace(trained_as(former, model.eval()), history=history, distances=known)
    choice = former.card.training.choice
    chosen = Chosen(
        split, None if choice is None else dict(choice), some, seen.subset([]), None, to_heatmap
    )
    return Fitted(chosen, trained)


def inspected_by(to_heatmap: Heatmap) -> float:
    """Returns which share of a map a mask leaves."""
    return 1.0 if to_heatmap.coverage is None else float(to_heatmap.coverage.mean())


def calibrate_again(former: Former, fitted: Fitted) -> Calibrated:
    """Returns the updated detector as one graph, with the threshold that its scores set.

    The graphs are those of the former run with other weights: an export takes longer than all else.
    """
    split, trained = fitted.chosen.split, fitted.trained
    options, sets, seen = split.job.options, split.sets, split.seen
    suspects = find_suspects(seen.records, seen.maps, None, trained.to_heatmap)
    write_suspects(options.out, suspects, options.images)
    guard, facts = former.run.graph.guard, former.card.training.guard
    if facts is not None:
        guard.refused, guard.noticed = facts.refused, dict(facts.noticed)
    graph = join(trained, guard)
    model = with_weights(former.file, trained.model)
    explain = None
    if trained.decoder is not None:
        explain = with_weights(former.file.with_name("explain.onnx"), trained.model)
    if options.rank_only:
        return Calibrated(fitted, suspects, guard, graph, model, explain, None, [])
    if sets.cross:
        records, found = left_out_scores(fitted)
    else:
        records, found = scores_by_file(model, sets.calibration, split.rule, options.size or 0)
    kind: Kind = "cross" if sets.cross else "split"
    calibration, heatmap, highest = calibrate_on(records, found, options, split.groups, kind)
    own = None if trained.pooled else heatmap
    return Calibrated(
        fitted, suspects, guard, graph, model, explain, calibration, highest, heatmap=own
    )


def with_weights(file: Path, model: Model) -> onnx.ModelProto:
    """Returns the ONNX model of a file with the weights of another fit."""
    found = onnx.load(file)
    weights = {f"model.{name}": value for name, value in model.state_dict().items()}
    for initializer in found.graph.initializer:
        if initializer.name in weights:
            value = weights[initializer.name].numpy()
            initializer.CopyFrom(onnx.numpy_helper.from_array(value, initializer.name))
    return found


@torch.inference_mode()
def left_out_scores(fitted: Fitted) -> tuple[list[Record], npt.NDArray[np.float32]]:
    """Returns the images that calibrate by cross, and score and largest heatmap value of each by a
    model of the others without its fold, float32 (n, 2).
    """
    split, to_heatmap = fitted.chosen.split, fitted.trained.to_heatmap
    seen, sharpen = split.seen.subset(split.sets.calibrating), sharpening(fitted)
    far = {record.path for record in split.sets.outliers}
    learnt = np.array([record.path not in far for record in seen.records])
    groups = [record.group for record in seen.records]
    fold, products = folds(groups), inner_products(seen.maps.flatten(1))
    found = np.zeros((len(groups), 2), np.float32)
    for k in range(fold.max() + 1):
        left = np.flatnonzero(fold == k)
        kept = np.flatnonzero((fold != k) & learnt)
        errors = errors_by_others(seen.maps, products, groups, (left, kept), to_heatmap)
        heatmaps = to_heatmap(errors)
        found[left, 0] = to_heatmap.pool(heatmaps).numpy()
        for i, heatmap in zip(left, heatmaps, strict=True):
            found[i, 1] = float(sharpen(heatmap[None], seen.records[i].path).max())
    return seen.records, found


def errors_by_others(
    maps: Tensor,
    products: Tensor,
    groups: Sequence[str],
    divided: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]],
    to_heatmap: Heatmap,
) -> Tensor:
    """Returns the errors of some maps, (m, h, w), by a model of others, as LinearAutoencoder finds
    them. ``divided``: the indices of both.
    """
    left, kept = (torch.from_numpy(some) for some in divided)
    among, known = products[kept][:, kept], maps[kept]
    scale = location_scale(known, [groups[i] for i in divided[1]], among)
    errors = KnownMaps.of(known, among, inspected_by(to_heatmap)).errors(
        maps[left], products[left][:, kept]
    )
    return errors / scale ** shrinkage(len(known))
