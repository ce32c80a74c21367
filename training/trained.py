"""The parts of a detector, fitted: the model, the picture decoder, the model of one tile."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import training.fit
from anomaly.detector.training_facts import TileFacts
from anomaly.errors import TrainingError
from anomaly.files.progress import Progress
from anomaly.reporting.detector import tiles_text
from training.explain import PictureDecoder, fit_decoder
from training.fine_heatmap import (
    MAX_IMAGES,
    Early,
    FineHeatmap,
    distances,
    fit_fine_heatmap,
)
from training.learnt import cells_of
from training.models import MODELS
from training.options import FitOptions, TrainOptions
from training.preprocess import Preprocess
from training.processes import rank
from training.protocols import Model, Space, Whitener
from training.scores import TYPICALITY, DensityOfStates, ImageScore, score_names, scores_of, states
from training.spaces import make_space
from training.stages import Chosen, Fitted, Job, Trained
from training.tiles import MAX_MAPS, TileReader, Tiles, Tiling, finer, tile_space


def fit(chosen: Chosen) -> Fitted:
    """Returns the parts of a detector, fitted: of whole images, and of tiles where they are asked
    for.
    """
    job, trained = chosen.split.job, fit_whole(chosen)
    if chosen.tiling is not None:
        tile = job.options.tile or 0
        laid = TileFacts.from_json(chosen.tiling.facts(tile))
        job.tell([f"tiles: {tiles_text(laid, job.size)}"])
        trained = with_tiles(chosen, chosen.tiling, trained)
    return Fitted(chosen, trained)


def fit_whole(chosen: Chosen) -> Trained:
    """Fits the model on maps of a whitened space, and in feature and filter space the picture
    decoder.
    """
    split, learnt, to_heatmap = chosen.split, chosen.learnt, chosen.to_heatmap
    job, space = split.job, split.space
    share = 1.0 if to_heatmap.coverage is None else float(to_heatmap.coverage.mean())
    groups = [record.group for record in learnt.records]
    raw = (learnt.maps, chosen.held_out.maps)
    fitted = fit_maps(job, space, raw, share, job.options.out, groups)
    density = None
    if job.score == TYPICALITY:
        scores = scores_of(fitted.model, fitted.held_out, job.device, to_heatmap=to_heatmap)
        density = DensityOfStates.of(states(scores))
    decoder: PictureDecoder | None = None
    if space.whitening is not None and job.options.expected_picture and rank() == 0:
        decoder = fit_decoder(fitted.model, fitted.maps, learnt.pictures, job.device).cpu()
    prepare, space = split.prepare.cpu(), space.cpu()
    pose = None if split.pose is None else split.pose.cpu()
    early = Early(space, prepare, pose, split.rule)
    fine = fine_heatmap(chosen, early)
    known = (
        {}
        if fine is None or not split.sets.cross
        else (distances(fine, early, split.sets.calibrating))
    )
    return Trained(
        prepare,
        space,
        fitted.model.cpu().eval(),
        to_heatmap.cpu(),
        ImageScore(job.score, density),
        decoder,
        fitted.history,
        job.recipe,
        fitted.warnings,
        pose=pose,
        fine=fine,
        distances=known,
    )


def fine_heatmap(chosen: Chosen, early: Early) -> FineHeatmap | None:
    """Returns what makes the heatmap fine; None where nothing does: it has to be a sum of squares
    of features, of whole images.
    """
    options, records = chosen.split.job.options, chosen.learnt.records
    if options.model != "linear" or options.tile or early.space.early_shape is None:
        return None
    most = min(len(records), MAX_IMAGES)
    with Progress(most, "fitting the fine heatmap", quiet=rank() > 0) as progress:
        return fit_fine_heatmap(early, records, progress.advance)


@dataclass(frozen=True)
class FittedMaps:
    """A model, the maps that it learnt from and those it did not, and what came of the fit."""

    model: Model
    maps: Tensor
    held_out: Tensor
    history: list[dict[str, Any]]
    warnings: list[str]


def fit_maps(
    job: Job,
    space: Space,
    raw: tuple[Tensor, Tensor],
    share: float,
    folder: Path,
    groups: Sequence[str] | None = None,
) -> FittedMaps:
    """Fits a new model on maps of a whitened space.

    ``raw``: to learn from and held out, (n, C, h, w). ``share`` of them is inspected. The
    checkpoint lies in ``folder``. ``groups``: of the maps to learn from; None where these are of
    tiles, whose places are not those of a part.
    """
    maps, held_out = whitened(space, raw, job.device)
    model = build_model(job.options, maps)
    model.inspected, model.groups = share, groups
    check_score(job.score, model, maps)
    fit_options = FitOptions(seed=job.options.seed, device=job.device)
    if job.options.epochs is not None:
        fit_options = replace(fit_options, epochs=job.options.epochs)
    checkpoint = folder / "checkpoint.safetensors"
    history = training.fit.fit(
        model, maps, held_out, fit_options, checkpoint, job.options.resume, job.say
    )
    model.finish(maps)
    warnings = model.warnings(maps)
    job.tell(warnings)
    return FittedMaps(model, maps, held_out, history, warnings)


def whitened(space: Space, raw: tuple[Tensor, Tensor], device: str) -> tuple[Tensor, Tensor]:
    """Returns maps to learn from and held out as the model takes them; pixels stay uint8."""
    first, second = raw
    if space.whitening is None:
        return first[:, : space.channels], second[:, : space.channels]
    space.whitening.cpu()
    with torch.inference_mode():
        maps, held_out = whiten_all(space.whitening, first), whiten_all(space.whitening, second)
    space.whitening.to(device)
    return maps, held_out


def with_tiles(chosen: Chosen, tiling: Tiling, whole: Trained) -> Trained:
    """Fits the model of one tile on tiles of the fit set, and its scale and the whole image's on
    the validation set.
    """
    job, held_out = chosen.split.job, chosen.held_out.records
    prepare = Preprocess(tiling.height, job.options.target, whole.prepare.mask, tiling.width)
    grey = whole.space.whitening is None and whole.space.channels == 1
    space = make_space(tile_space(job.options.space), job.size, grey)
    prepare, space = prepare.to(job.device), space.to(job.device).eval()
    raw, share = tile_maps(
        chosen, TileReader(chosen.split.rule, prepare, space, tiling, job.device)
    )
    if space.whitening is not None:
        space.whitening.cpu().fit(raw[0].split(64))
    fitted = fit_maps(job, space, raw, share, job.options.out / "tiles")
    model, cells = fitted.model.cpu().eval(), stitched_cells(chosen, tiling, space.grid[0])
    tiles = Tiles(prepare.cpu(), space.cpu(), model, tiling, whole.space.grid, cells)
    label = "bringing tiles and whole to one scale"
    with Progress(len(held_out), label, quiet=rank() > 0) as progress:
        tiles.fit_scale(whole.map_of, held_out, chosen.split.rule, lambda: progress.advance(1))
    return replace(whole, tiles=tiles, warnings=[*whole.warnings, *fitted.warnings])


def tile_maps(chosen: Chosen, reader: TileReader) -> tuple[tuple[Tensor, Tensor], float]:
    """Returns raw maps of tiles to learn from and held out, and which share of the first is
    inspected.
    """
    sets = (chosen.learnt.records, chosen.held_out.records)
    seed = chosen.split.job.options.seed
    with Progress(sum(map(len, sets)), "looking at tiles", quiet=rank() > 0) as progress:
        (maps, share), (held_out, _) = (
            reader.extract(records, most, seed, lambda: progress.advance(1))
            for records, most in zip(sets, MAX_MAPS, strict=True)
        )
    return (maps, held_out), share


def stitched_cells(chosen: Chosen, tiling: Tiling, grid: int) -> int:
    """Returns how many places of the stitched map make the least area that counts."""
    # places of the stitched map to a cell: an area within one says nothing
    fine = finer(grid) ** 2
    whole = math.prod(tiling.stitched(grid)) // fine
    cells = cells_of(chosen.split.job.options.min_area, chosen.split.seen, whole)
    return 1 if cells == 1 else cells * fine


def check_score(name: str, model: Model, maps: Tensor) -> None:
    """Raises TrainingError where the model has no image score of that name."""
    names = score_names(model, maps.shape[1:])
    if name not in names:
        raise TrainingError(
            f"--score {name} found, one of {', '.join(names)} expected of this model in this space"
        )


def build_model(options: TrainOptions, maps: Tensor) -> Model:
    """Returns a new model for maps (n, C, h, w); its weights follow from the seed alone."""
    torch.manual_seed(options.seed)
    _, channels, height, width = maps.shape
    pixels = options.space == "pixels"
    kind, error, dropout = MODELS[options.model], options.error, options.dropout
    return kind(channels, height, width, pixels=pixels, error=error, dropout=dropout)


def whiten_all(whitening: Whitener, maps: Tensor) -> Tensor:
    """Returns whitened maps, a few images at a time, so that memory holds only one copy more."""
    return torch.cat([whitening(subset) for subset in maps.split(64)])
