"""What the model learns from: the images without outliers, in a space that is whitened by them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from torch import Tensor

from anomaly.errors import TrainingError
from anomaly.inputs.dataset import Record
from training.choose import choose_space
from training.models import MODELS
from training.options import TrainOptions
from training.protocols import Space
from training.scores import TYPICALITY, Heatmap, heatmap_factor
from training.sets import Sets
from training.spaces import BothSpace, make_space
from training.stages import Chosen, Split
from training.suspects import outliers
from training.tensors import Extracted
from training.tiles import Tiling

# AUROC on synthetic defects, by which features alone must be better: less is chance with so few
# images
CLEAR_AUROC_GAIN = 0.03


def choose(split: Split) -> Chosen:
    """Returns what the model learns from; choices are made on validation images and synthetic
    defects.
    """
    split, choice = choose_between_spaces(split)
    options, seen, sets = split.job.options, split.seen, split.sets
    learnt, held_out = (seen.subset(some) for some in learnt_and_held_out(options, sets))
    if options.space == "pixels" and all(grey for _, _, _, grey in learnt.facts):
        split = replace(split, space=make_space("pixels", split.job.size, grey=True))
    tiling, space = tiling_of(options, seen), split.space
    whole = (space.grid // heatmap_factor(space.grid)) ** 2
    cells = 1 if tiling else cells_of(options.min_area, seen, whole)
    to_heatmap = Heatmap(split.prepare.coverage(space.grid), cells)
    learnt, sets = leave_out_outliers(learnt, sets, space, to_heatmap, split.job.device)
    return Chosen(replace(split, sets=sets), choice, learnt, held_out, tiling, to_heatmap)


def choose_between_spaces(split: Split) -> tuple[Split, dict[str, float] | None]:
    """Returns the images in ``features`` alone where these are clearly better than ``both``, and
    the figures; where a space was asked for, or there is but one, nothing is changed.
    """
    job, both = split.job, split.space
    if job.asked.space != "auto" or job.options.space != "both" or not isinstance(both, BothSpace):
        return split, None
    maps = split.seen.subset(split.sets.fit).maps
    both.cpu()
    choice = choose_space(
        both, maps, split.sets.validation, split.rule, split.prepare, job.options.seed
    )
    if choice["features"] <= choice["both"] + CLEAR_AUROC_GAIN:
        return replace(split, space=both.to(job.device)), choice
    space = both.features
    seen = replace(split.seen, maps=split.seen.maps[:, : space.inputs])
    job = replace(job, options=replace(job.options, space="features"))
    return replace(split, job=job, space=space.to(job.device), seen=seen), choice


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
