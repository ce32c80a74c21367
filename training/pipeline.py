"""`anomaly train`: normal images -> maps -> model -> one ONNX file with its calibration. The whole
way on one screen.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from anomaly.detector.card import Card
from anomaly.detector.file import read_card, set_calibration, set_card, weights_digest
from anomaly.detector.golden import kept_tolerance
from anomaly.detector.session import available_cores, open_session
from anomaly.detector.size_sensitivity import Cost, SizeSensitivity
from anomaly.detector.training_facts import TileFacts
from anomaly.detector.trial import remember
from anomaly.detector.unit_rule import UnitRule
from anomaly.errors import DatasetError, TrainingError
from anomaly.files.atomic import write_atomically
from anomaly.files.progress import Progress
from anomaly.imaging.decode import Decoded, DecodeRule
from anomaly.imaging.listing import passed_text
from anomaly.imaging.mask import mask_facts, read_mask
from anomaly.inputs.dataset import Record
from anomaly.inputs.used_images import IMAGES
from anomaly.reporting.detector import tiles_said
from anomaly.reporting.page import write_report
from anomaly.scoring.units import whole_units
from anomaly.statistics.calibration import Calibration, calibrate, one_per_group, worst_per_unit
from training.checkpoint import load_checkpoint, save_checkpoint
from training.choose import choose_space
from training.defect_sizes import DEFECTS_PER_SIZE, DEFECTS_PER_SIZE_SLOW, flagged_by_size
from training.describe import (
    describe,
    list_highest,
    list_images,
    training_report,
    warn_of_mask,
    with_facts,
)
from training.explain import fit_decoder, steps_for
from training.export import (
    DetectorGraph,
    ExplainGraph,
    check_parity,
    golden_samples,
    golden_sizes,
    to_onnx,
)
from training.fit import fit
from training.guard import Guard, guard_facts, learn_guard
from training.models import MODELS
from training.options import FitOptions, TrainOptions, check_out, make_run, resolve
from training.preprocess import Preprocess
from training.processes import pick_device, rank
from training.scores import (
    TYPICALITY,
    DensityOfStates,
    Heatmap,
    ImageScore,
    heatmap_factor,
    score_names,
    scores_of,
    states,
)
from training.sets import (
    Sets,
    copies_text,
    decode_all,
    depths_text,
    excluded_text,
    find_images,
    find_rule,
    join_copies,
    name_of,
    sets_of_copies,
)
from training.spaces import make_space
from training.suspects import find_suspects, outliers, suspects_text, write_suspects
from training.tensors import Extracted, extract
from training.tiles import MOST_MAPS, Tiles, Tiling, extract_tiles, finer, tile_space

# AUROC on synthetic defects, by which features alone must be better: less is chance with so few
# images
CLEAR_AUROC_GAIN = 0.03


@dataclass(frozen=True)
class Trained:
    """The parts of a detector before they are joined and written."""

    prepare: Preprocess
    space: nn.Module
    model: nn.Module
    to_heatmap: Heatmap
    score: ImageScore
    decoder: nn.Module | None
    history: list[dict[str, Any]]
    warnings: list[str]
    tiles: Tiles | None = None

    def map_of(self, images: Tensor) -> Tensor:
        """Returns the heatmap of whole images, (N, g, g)."""
        return self.to_heatmap(self.model(self.space(self.prepare(images)))[0])


def train(options: TrainOptions, say: Callable[[str], None]) -> Card | None:
    """Trains, calibrates and writes RUN; returns the detector's card (None in the helping processes
    of torchrun).

    ``say`` gets warnings and news, a line each. Raises DatasetError, CalibrationError,
    TrainingError.
    """
    asked, chooses, choice = options, options.space == "auto", None
    options = resolve(options)
    own_score = "hottest" if options.tile else getattr(MODELS[options.model], "score", "hottest")
    options = replace(options, score=options.score or own_score)
    device, mask = (
        pick_device(options.device),
        None if options.mask is None else read_mask(options.mask),
    )
    passed = Counter[str]()
    records, sets = find_images(options, say if rank() == 0 else None, passed)
    check_out(options)
    make_run(options.out)
    rule = find_rule(records, options.decode == "reduced", options.depth)
    prepare = Preprocess(
        options.size, options.target, None if mask is None else torch.from_numpy(mask)
    ).to(device)
    space = make_space(options.space, options.size).to(device).eval()
    with Progress(len(records), "looking at images", quiet=rank() > 0) as progress:
        everything = extract(records, rule, prepare, space, device, lambda: progress.advance(1))
    if options.by_unit is not None:
        everything = only_whole_units(everything, records)
    check_depth(options.depth, everything)
    told = everything.records
    records, copies = join_copies(told, everything.thumbs, everything.digests, options)
    excluded = sets.excluded
    # now, so that a rate that cannot be kept fails before the fit
    sets = sets_of_copies(told, records, copies, options)
    alike = copies_text(told, records, copies, options)
    joined = {record.path: record.group for record in records}
    if options.by_unit is None:
        everything = replace(everything, records=records)
    warnings = (
        excluded_text(options, excluded)
        + warn(everything, alike)
        + ([] if mask is None else warn_of_mask(mask, everything))
    )
    for line in (
        [*warnings, *([f"passed over: {passed_text(passed)}"] if passed else [])]
        if rank() == 0
        else []
    ):
        say(line)
    if chooses and options.space == "both":
        choice = choose_space(
            space.cpu(),
            everything.subset(sets.fit).maps,
            sets.validation,
            rule,
            prepare,
            options.seed,
        )
        options = replace(
            options,
            space="features" if choice["features"] > choice["both"] + CLEAR_AUROC_GAIN else "both",
        )
        if options.space == "features":
            space = space.parts[0]
            everything = replace(everything, maps=everything.maps[:, : space.inputs])
        space.to(device)
    learnt, held_out = (everything.subset(subset) for subset in learnt_and_held_out(options, sets))
    if options.space == "pixels" and all(grey for _, _, _, grey in learnt.facts):
        space = make_space("pixels", options.size, grey=True)
    tiling = tiling_of(options, everything)
    cells = (
        1
        if tiling
        else cells_of(options.min_area, everything, (space.grid // heatmap_factor(space.grid)) ** 2)
    )
    to_heatmap = Heatmap(prepare.coverage(space.grid), cells)
    learnt, sets = leave_out_outliers(learnt, sets, space, to_heatmap, device)
    trained = fit_model(options, prepare, space, to_heatmap, learnt, held_out, device, say)
    if tiling:
        if rank() == 0:
            laid = TileFacts.from_json(tiling.facts(options.tile))
            say(f"tiles: {tiles_said(laid, options.size)}")
        parts = (learnt.records, held_out.records)
        trained = replace(
            trained, tiles=fit_tiles(options, tiling, trained, everything, parts, rule, device, say)
        )
    if rank() > 0:  # under torchrun the first process finishes the detector
        return None
    suspects = find_suspects(everything.records, everything.maps, space, to_heatmap)
    write_suspects(options.out, suspects, options.images)
    warnings += trained.warnings
    guard = learn_guard(sets.development, rule, trained.prepare)
    graph, model = join(trained, guard)
    calibration, highest = calibrate_on(model, sets.calibration, rule, options, joined)
    card = describe(options, rule, records, sets, everything, calibration, warnings)
    card = replace(
        card,
        score=trained.score.in_words() if trained.tiles is None else trained.tiles.score_in_words(),
    )
    list_images(options.out / IMAGES, sets)
    list_highest(options, calibration, highest)
    first = [name_of(r, options.images) for r in highest[:5]]
    facts = {
        "highest": first,
        "choice": choice,
        "mask": mask_facts(options.mask, mask) if options.mask else None,
    }
    if options.by_unit is not None and calibration is not None:
        facts["by_unit"] = UnitRule.seen(
            options.by_unit, [record.group for record in sets.calibration]
        ).to_json()
    facts |= {
        "min_area": options.min_area,
        "min_cells": (trained.tiles or trained).to_heatmap.cells,
        "size_sensitivity": None,
    }
    facts["guard"], facts["group_by"] = guard_facts(guard), options.group_by
    if tiling:
        facts["tiles"] = tiling.facts(options.tile)
    if calibration is not None:
        size, each = (
            (tiling.side, DEFECTS_PER_SIZE_SLOW) if tiling else (options.size, DEFECTS_PER_SIZE)
        )
        tried = (sets.calibration, rule, size, mask, options.seed)
        found = SizeSensitivity.from_json(flagged_by_size(model, calibration, *tried, each))
        facts["size_sensitivity"] = found
        facts["cost"] = Cost.of_highest(calibration, first, found)
    facts["options"] = asked.to_json()
    card = replace(card, training=with_facts(card.training, facts))
    card = write(options, card, graph, model, trained, sets.calibration or sets.validation)
    for line in suspects_text(suspects, len(records), sets, options.images, options.out):
        say(line)
    write_report(
        options.out / "report.html",
        training_report(options, card, suspects, highest, sets, trained.history),
    )
    return card


def only_whole_units(seen: Extracted, before: Sequence[Record]) -> Extracted:
    """Returns what was seen of the parts that have lost no view; the other views of the rest join
    those left out.
    """
    kept = {record.path for record in whole_units(seen.records, before)}
    if not kept:
        raise DatasetError(
            "no unit found of which every view can be read, the first that cannot: "
            f"{seen.left_out[0]}"
        )
    others = [record.path for record in seen.records if record.path not in kept]
    lines = [f"{path}: another view of its unit could not be read" for path in others]
    whole = (
        seen.subset([record for record in seen.records if record.path in kept]) if others else seen
    )
    return replace(whole, left_out=[*seen.left_out, *lines])


def check_depth(depth: int | None, seen: Extracted) -> None:
    """Refuses a depth that the files do not have: pixels would be too dark, or cut off."""
    found = {bits for _, _, bits, _ in seen.facts}
    if depth is not None and found != {depth}:
        said = " and ".join(map(str, sorted(found)))
        raise DatasetError(
            f"--depth {depth} found, but images of {said} bits a channel: leave it out, or give "
            "their true depth"
        )


def warn(seen: Extracted, alike: str) -> list[str]:
    """Returns what the user must know of the images before they trust a guarantee, a line each."""
    lines = [f"left out: {line}" for line in seen.left_out[:10]]
    if len(seen.left_out) > 10:
        lines.append(f"left out: {len(seen.left_out) - 10} more")
    return [*lines, *depths_text(seen.facts), *([alike] if alike else [])]


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


def leave_out_outliers(
    learnt: Extracted, sets: Sets, space: nn.Module, to_heatmap: Heatmap, device: str
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


def whiten_by(space: nn.Module, learnt: Extracted, to_heatmap: Heatmap) -> None:
    """Fits the whitening of a space that has one, on what a mask lets be inspected."""
    if space.whitening is not None:
        space.whitening.cpu().fit(inspected(learnt.maps, to_heatmap).split(64))


def fit_model(
    options: TrainOptions,
    prepare: Preprocess,
    space: nn.Module,
    to_heatmap: Heatmap,
    learnt: Extracted,
    held_out: Extracted,
    device: str,
    say: Callable[[str], None],
) -> Trained:
    """Fits the model on maps of a whitened space, and in feature and filter space the picture
    decoder.
    """
    share = 1.0 if to_heatmap.coverage is None else float(to_heatmap.coverage.mean())
    groups = [record.group for record in learnt.records]
    fitted = fit_maps(
        options, space, (learnt.maps, held_out.maps), share, options.out, device, say, groups
    )
    model, maps, unseen, history, warnings = fitted
    density = None
    if options.score == TYPICALITY:
        density = DensityOfStates.of(
            states(scores_of(model, unseen, device, to_heatmap=to_heatmap))
        )
    decoder = None
    if space.whitening is not None and rank() == 0:
        with Progress(steps_for(len(maps)), "learning to draw what is expected") as progress:
            decoder = fit_decoder(
                model, maps, learnt.pictures, options.seed, device, lambda: progress.advance(1)
            )
    score = ImageScore(options.score, density)
    parts = (prepare.cpu(), space.cpu(), model.cpu().eval(), to_heatmap.cpu(), score)
    return Trained(*parts, decoder and decoder.cpu(), history, warnings)


def fit_maps(
    options: TrainOptions,
    space: nn.Module,
    raw: tuple[Tensor, Tensor],
    share: float,
    folder: Path,
    device: str,
    say: Callable[[str], None],
    groups: Sequence[str] | None = None,
) -> tuple[nn.Module, Tensor, Tensor, list[dict[str, Any]], list[str]]:
    """Fits a new model on maps of a whitened space; returns it, the maps, its history and warnings.

    ``raw``: to learn from and held out, (n, C, h, w). ``share`` of them is inspected. The
    checkpoint lies in ``folder``. ``groups``: of the maps to learn from; None where these are of
    tiles, whose places are not those of a part.
    """
    maps, held_out = (
        subset[:, : space.channels] if space.whitening is None else subset for subset in raw
    )
    if space.whitening is not None:
        space.whitening.cpu()
        with torch.inference_mode():
            maps, held_out = (whiten_all(space.whitening, subset) for subset in raw)
        space.whitening.to(device)
    model = build_model(options, maps)
    if hasattr(model, "inspected"):
        model.inspected = share
    if hasattr(model, "groups"):
        model.groups = groups
    check_score(options.score, model, maps)
    fit_options = FitOptions(seed=options.seed, device=device)
    if options.epochs is not None:
        fit_options = replace(fit_options, epochs=options.epochs)
    history = fit(
        model, maps, held_out, fit_options, folder / "checkpoint.safetensors", options.resume, say
    )
    if hasattr(model, "finish"):
        model.finish(maps)
    warnings = model.warnings(maps) if hasattr(model, "warnings") else []
    for line in warnings if rank() == 0 else []:
        say(line)
    return model, maps, held_out, history, warnings


def tiling_of(options: TrainOptions, seen: Extracted) -> Tiling | None:
    """Returns the grid of tiles for the median image, None where no tiles are asked for."""
    if options.tile is None:
        return None
    width, height = (int(np.median([fact[axis] for fact in seen.facts])) for axis in (0, 1))
    return Tiling.of(options.tile, options.size or 0, height, width)


def fit_tiles(
    options: TrainOptions,
    tiling: Tiling,
    whole: Trained,
    everything: Extracted,
    sets: tuple[list[Record], list[Record]],
    rule: DecodeRule,
    device: str,
    say: Callable[[str], None],
) -> Tiles:
    """Fits the model of one tile on tiles of the fit set, and its scale and the whole image's on
    the validation set.

    ``sets``: both of them.
    """
    prepare = Preprocess(tiling.height, options.target, whole.prepare.mask, tiling.width).to(device)
    grey = whole.space.whitening is None and whole.space.channels == 1
    space = make_space(tile_space(options.space), options.size, grey).to(device).eval()
    with Progress(
        sum(len(subset) for subset in sets), "looking at tiles", quiet=rank() > 0
    ) as progress:
        (maps, share), (held_out, _) = (
            extract_tiles(
                subset,
                rule,
                prepare,
                space,
                tiling,
                device,
                options.seed,
                most,
                lambda: progress.advance(1),
            )
            for subset, most in zip(sets, MOST_MAPS, strict=True)
        )
    if space.whitening is not None:
        space.whitening.cpu().fit(maps.split(64))
    model, *_, warnings = fit_maps(
        options, space, (maps, held_out), share, options.out / "tiles", device, say
    )
    whole.warnings.extend(warnings)
    # places of the stitched map to a cell: an area within one says nothing
    fine = finer(space.grid) ** 2
    cells = cells_of(options.min_area, everything, math.prod(tiling.stitched(space.grid)) // fine)
    cells = 1 if cells == 1 else cells * fine
    tiles = Tiles(prepare.cpu(), space.cpu(), model.cpu().eval(), tiling, whole.space.grid, cells)
    with Progress(
        len(sets[1]), "bringing tiles and whole to one scale", quiet=rank() > 0
    ) as progress:
        tiles.fit_scale(whole.map_of, sets[1], rule, lambda: progress.advance(1))
    return tiles


def inspected(maps: Tensor, to_heatmap: Heatmap) -> Tensor:
    """Returns the places of maps (n, C, h, w) that a mask lets be inspected, as maps (n, C,
    1, k).
    """
    return (
        maps
        if to_heatmap.coverage is None
        else maps[:, :, to_heatmap.coverage[0].cpu() > 0][:, :, None]
    )


def check_score(name: str, model: nn.Module, maps: Tensor) -> None:
    """Raises TrainingError where the model has no image score of that name."""
    names = score_names(model, maps.shape[1:])
    if name not in names:
        raise TrainingError(
            f"--score {name} found, one of {', '.join(names)} expected of this model in this space"
        )


def build_model(options: TrainOptions, maps: Tensor) -> nn.Module:
    """Returns a new model for maps (n, C, h, w); its weights follow from the seed alone."""
    torch.manual_seed(options.seed)
    _, channels, height, width = maps.shape
    chosen = {} if options.error is None else {"error": options.error}
    return MODELS[options.model](
        channels, height, width, pixels=options.space == "pixels", **chosen
    )


def whiten_all(whitening: nn.Module, maps: Tensor) -> Tensor:
    """Returns whitened maps, a few images at a time, so that memory holds only one copy more."""
    return torch.cat([whitening(subset) for subset in maps.split(64)])


def join(trained: Trained, guard: Guard) -> tuple[DetectorGraph, onnx.ModelProto]:
    """Returns the detector as one torch module and as an ONNX model that has no calibration yet."""
    parts = (trained.prepare, trained.space, trained.model, trained.score)
    graph = DetectorGraph(*parts, guard, trained.to_heatmap, trained.tiles).eval()
    return graph, to_onnx(graph)


def calibrate_on(
    model: onnx.ModelProto,
    records: Sequence[Record],
    rule: DecodeRule,
    options: TrainOptions,
    joined: Mapping[Path, str],
) -> tuple[Calibration | None, list[Record]]:
    """Returns the calibration from the finished graph's own scores (CPU, batch 1) and the images,
    the highest first.

    ``joined``: the group of each image once copies were joined.
    """
    if options.rank_only:
        return None, []
    session, _ = open_session(model.SerializeToString(), "cpu", available_cores())
    scores, kept = [], []
    with Progress(len(records), "setting the threshold") as progress:
        for record, image in decode_all(records, rule, options.size or 0):
            progress.advance(1)
            if isinstance(image, Decoded):
                scores.append(session.run(["score"], {"images": image.pixels[None]})[0][0])
                kept.append(record)
    if options.by_unit is None:
        worst = np.arange(len(kept))
    else:
        scores, worst = worst_per_unit(scores, [r.group for r in kept])
    paths = [kept[i].path for i in worst]
    values, drawn = one_per_group(
        scores, [joined[path] for path in paths], options.seed, [str(path) for path in paths]
    )
    index = worst[drawn]
    order = np.argsort(-values, kind="stable")
    return calibrate(values, options.false_alarm_rate), [kept[int(index[i])] for i in order]


def write(
    options: TrainOptions,
    card: Card,
    graph: DetectorGraph,
    model: onnx.ModelProto,
    trained: Trained,
    records: Sequence[Record],
) -> Card:
    """Checks the file against torch and writes RUN: first what belongs to the detector, last
    detector.onnx itself.
    """
    if card.calibration is not None:
        set_calibration(model, card.calibration)
    sample = [
        image.pixels
        for _, image in decode_all(records[:7], card.decode, card.size)
        if isinstance(image, Decoded)
    ]
    data = model.SerializeToString(deterministic=True)
    unit = score_unit(card.calibration, data, sample)
    parity = check_parity(graph, data, sample, unit)
    tolerance = (
        1e-3 * unit if card.calibration is None else kept_tolerance(1e-3 * unit, card.calibration)
    )
    card = replace(
        card,
        weights=weights_digest(model),
        golden=golden_samples(
            data, golden_sizes(card.size, trained.tiles and trained.tiles.prepare.shape), tolerance
        ),
        training=replace(card.training, parity=parity),
    )
    save_run(options, card, trained, graph)
    set_card(model, card)
    finished = model.SerializeToString(deterministic=True)
    remember(finished)  # its golden samples were scored here just now
    write_atomically(options.out / "detector.onnx", finished)
    return read_card(options.out)


def score_unit(calibration: Calibration | None, data: bytes, images: Sequence[np.ndarray]) -> float:
    """Returns threshold - m, by which differences of scores are judged; without a threshold the
    scores' own size.
    """
    if calibration is not None and calibration.threshold > calibration.median:
        return float(calibration.threshold - calibration.median)
    session, _ = open_session(data, "cpu", available_cores())
    scores = [float(session.run(["score"], {"images": image[None]})[0][0]) for image in images]
    return max(float(np.ptp(scores)), 1e-2 * float(np.abs(scores).max()), 1e-6)


def save_run(options: TrainOptions, card: Card, trained: Trained, graph: DetectorGraph) -> None:
    """Writes explain.onnx and the checkpoint that holds all weights (for sample, reconstruct and
    --resume).
    """
    if trained.decoder is not None:
        explain = to_onnx(
            ExplainGraph(trained.prepare, trained.space, trained.model, trained.decoder)
        )
        onnx.helper.set_model_props(explain, {"weights": card.weights})
        drawn = explain.SerializeToString(deterministic=True)
        remember(drawn)
        write_atomically(options.out / "explain.onnx", drawn)
    path = options.out / "checkpoint.safetensors"
    tensors, facts = load_checkpoint(path)
    if trained.prepare.mask is not None:
        tensors["mask"] = trained.prepare.mask
    parts = {
        "model": trained.model,
        "space": trained.space.whitening,
        "density": trained.score.density,
        "decoder": trained.decoder,
        "tiles.model": trained.tiles and trained.tiles.model,
        "tiles.space": trained.tiles and trained.tiles.space.whitening,
        "guard": graph.guard,
    }
    for prefix, module in parts.items():
        tensors |= {
            f"{prefix}.{name}": value
            for name, value in (module.state_dict() if module else {}).items()
        }
    built = {
        key: getattr(options, key)
        for key in ("model", "space", "size", "error", "score", "seed", "target")
    }
    built["cells"] = trained.to_heatmap.cells
    if trained.tiles is not None:
        tensors["tiles.scale"] = trained.tiles.scale
        built["tiles"] = {**asdict(trained.tiles.tiling), "cells": trained.tiles.to_heatmap.cells}
    built["grey"] = trained.space.whitening is None and trained.space.channels == 1
    save_checkpoint(path, tensors, {**facts, "run": json.dumps(built)})
