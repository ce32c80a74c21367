"""What the model learns from: the images without outliers, in a space that is whitened by them."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from torch import Tensor

from anomaly.errors import TrainingError
from anomaly.files.progress import Progress
from anomaly.inputs.dataset import Record
from anomaly.reporting.lines import line_of
from training.choose import MOST_TRIED, Candidate, best_of, candidate_in, draw_good, draw_sample
from training.models import MODELS
from training.options import TrainOptions, chooses_recipe
from training.preprocess import Preprocess
from training.processes import rank
from training.protocols import Space
from training.scores import TYPICALITY, Heatmap, heatmap_shape
from training.sets import Sets
from training.stages import Chosen, Split
from training.suspects import outliers
from training.tensors import Extracted, extract
from training.tiles import Tiling


def choose(split: Split) -> Chosen:
    """Returns what the model learns from; choices are made on validation images and synthetic
    defects.
    """
    split, choice = choose_recipe(split)
    options, seen, sets = split.job.options, split.seen, split.sets
    learnt, held_out = (seen.subset(some) for some in learnt_and_held_out(options, sets))
    if options.space == "pixels" and all(grey for _, _, _, grey in learnt.facts):
        split = replace(split, space=split.job.recipe.make_space(grey=True))
    tiling, space = tiling_of(options, seen), split.space
    whole = math.prod(heatmap_shape(space.grid))
    if split.pose is not None:  # cells are of the frame alone
        whole = round(whole * math.prod(split.pose.picture) / float(split.pose.extent.prod()))
    cells = 1 if tiling else cells_of(options.min_area, seen, whole)
    to_heatmap = Heatmap(split.prepare.coverage(*space.grid), cells)
    learnt, sets = leave_out_outliers(learnt, sets, space, to_heatmap, split.job.device)
    return Chosen(replace(split, sets=sets), choice, learnt, held_out, tiling, to_heatmap)


def choose_recipe(split: Split) -> tuple[Split, dict[str, float] | None]:
    """Returns the images as they are looked at by the recipe that tells synthetic defects best, and
    the figures; where space, size or model were asked for, by the default recipe, in the frame
    asked for.
    """
    job, frame = split.job, split.job.asked.frame
    is_open = chooses_recipe(job.asked, len(split.seen.records))
    if not is_open and frame in ("auto", "whole"):
        return split, None
    development = [replace(r, group=split.groups[r.path]) for r in split.sets.development]
    if not is_open:
        good = draw_good(development, split.rule)
        return looked_at(split, candidate_in(frame, job, good)), None
    sample = draw_sample(development, split.rule, job.options.seed, job.mask)
    try:
        with Progress(MOST_TRIED, "choosing the recipe", quiet=rank() > 0) as progress:
            best, choice = best_of(job, sample, len(development), lambda: progress.advance(1))
    except TrainingError:
        if frame != "auto":
            raise
        return split, None  # too few, or copies of one: the fit says so
    said = f"{best.recipe}; chosen from {len(choice)} by synthetic defects"
    job.tell([line_of("recipe", said)])
    return (split if best.recipe == job.recipe else looked_at(split, best)), choice


def looked_at(split: Split, candidate: Candidate) -> Split:
    """Returns the images as a candidate looks at them."""
    job, recipe, pose = split.job, candidate.recipe, candidate.pose
    height, width = recipe.picture
    options = replace(job.options, space=recipe.space, size=max(recipe.picture))
    job = replace(job, options=options, size=max(recipe.picture), recipe=recipe)
    prepare = Preprocess(height, options.target, split.prepare.mask, width).to(job.device)
    space = recipe.make_space(backbone=job.features).to(job.device).eval()
    pose = None if pose is None else pose.to(job.device)
    records = split.seen.records
    with Progress(len(records), "looking at images by the recipe", quiet=rank() > 0) as progress:
        seen = extract(
            records, split.rule, prepare, space, job.device, lambda: progress.advance(1), pose
        )
    seen = replace(split.seen, maps=seen.maps, pictures=seen.pictures)
    return replace(split, job=job, prepare=prepare, space=space, seen=seen, pose=pose)


def learnt_and_held_out(options: TrainOptions, sets: Sets) -> tuple[list[Record], list[Record]]:
    """Returns the images that the model is fitted on, and those that it never sees but that are not
    for the threshold.

    A model in closed form has no epochs to watch: once choices were made on the validation images
    it learns from them too, but where a scale, a density or, without a calibration set, the unit of
    scores needs images that the model has not seen.
    """
    needed = options.tile is not None or options.score == TYPICALITY or options.rank_only
    if needed or not MODELS[options.model].closed_form:
        return sets.fit, sets.validation
    return [*sets.fit, *sets.validation], []


def tiling_of(options: TrainOptions, seen: Extracted) -> Tiling | None:
    """Returns the grid of tiles for the median image, None where no tiles are asked for."""
    if options.tile is None:
        return None
    width, height = (int(np.median([fact[axis] for fact in seen.facts])) for axis in (0, 1))
    return Tiling.of(options.tile, options.size or 0, height, width)


def cells_of(min_area: int | None, seen: Extracted, whole: int) -> int:
    """Returns how many cells of a heatmap of ``whole`` cover an area in pixels of the original, by
    the median image.
    """
    if min_area is None:
        return 1
    cell = float(np.median([width * height for width, height, _, _ in seen.facts])) / whole
    cells = -(-min_area // cell)
    if cells > whole / 4:
        raise TrainingError(
            f"--min-area {min_area} found, at most {int(cell * whole / 4)} expected: a quarter of "
            "an image"
        )
    return max(1, int(cells))


def leave_out_outliers(
    learnt: Extracted, sets: Sets, space: Space, to_heatmap: Heatmap, device: str
) -> tuple[Extracted, Sets]:
    """Returns what is learnt from, and the sets, without the images that are unlike all others:
    defects may hide there.

    The space is whitened by what is left.
    """
    whiten_by(space, learnt, to_heatmap)
    far = outliers(learnt.maps, space.cpu(), to_heatmap.cpu())
    if far.any():
        left = [record for record, is_far in zip(learnt.records, far, strict=True) if is_far]
        paths = {record.path for record in left}
        fit, validation, kept = (
            [r for r in subset if r.path not in paths]
            for subset in (sets.fit, sets.validation, learnt.records)
        )
        learnt, sets = (
            learnt.subset(kept),
            replace(sets, fit=fit, validation=validation, outliers=left),
        )
        whiten_by(space, learnt, to_heatmap)
    space.to(device)
    to_heatmap.to(device)
    return learnt, sets


def whiten_by(space: Space, learnt: Extracted, to_heatmap: Heatmap) -> None:
    """Fits the whitening of a space that has one, on what a mask lets be inspected."""
    if space.whitening is not None:
        space.whitening.cpu().fit(inspected(learnt.maps, to_heatmap).split(64))


def inspected(maps: Tensor, to_heatmap: Heatmap) -> Tensor:
    """Returns the places of maps (n, C, h, w) that a mask lets be inspected, as maps (n, C,
    1, k).
    """
    return (
        maps
        if to_heatmap.coverage is None
        else maps[:, :, to_heatmap.coverage[0].cpu() > 0][:, :, None]
    )
