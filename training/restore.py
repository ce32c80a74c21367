"""A run folder -> the torch modules it was made of: to compare torch with ONNX on a user's images,
and to draw samples.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from anomaly.detector.card import Card
from anomaly.detector.file import find_detector
from anomaly.detector.training_facts import BackboneFacts
from anomaly.errors import DatasetError, TrainingError
from anomaly.files.progress import Progress
from anomaly.imaging.decode import Decoded
from anomaly.inputs.dataset import read_dataset
from training.checkpoint import fitting, load_checkpoint, tensors_of
from training.explain import PictureDecoder
from training.export import DetectorGraph, check_parity, to_picture, unit_of
from training.fine_heatmap import FineHeatmap
from training.guard import Guard
from training.known_defects import KnownDefects
from training.models import MODELS
from training.models.pixelcnn import PixelCNN
from training.models.vae import VAE
from training.own_backbone import reopen
from training.pose import Pose
from training.preprocess import Preprocess
from training.protocols import Model, Space
from training.recipes import Recipe
from training.scores import DensityOfStates, Heatmap, ImageScore
from training.sets import decode_all
from training.spaces import make_space
from training.tiles import Tiles, Tiling, tile_space


@dataclass(frozen=True)
class Run:
    """The parts of a finished run."""

    graph: DetectorGraph
    decoder: PictureDecoder | None
    facts: dict[str, Any]


def restore(run: Path) -> Run:
    """Returns the torch modules of a run from its checkpoint; TrainingError where it is not there
    or unfinished.
    """
    if not run.exists():
        raise TrainingError(f"{run}: no such run found, a run folder of `anomaly train` expected")
    path = (run if run.is_dir() else run.parent) / "checkpoint.safetensors"
    if not path.is_file():
        raise TrainingError(
            f"{path}: no checkpoint found; this needs the run folder that `anomaly train` wrote, "
            "not the detector alone"
        )
    tensors, metadata = load_checkpoint(path)
    if "run" not in metadata:
        raise TrainingError(
            f"{path}: training has not finished; run anomaly train with --resume first"
        )
    with fitting(path):
        return _restored(json.loads(metadata["run"]), tensors)


def _restored(facts: dict[str, Any], tensors: dict[str, Tensor]) -> Run:
    recipe = Recipe.from_json(facts["recipe"])
    own = facts.get("backbone")  # none: EfficientNet-Lite
    backbone = None if own is None else reopen(BackboneFacts.from_json(own)).module
    space, model = restore_model(recipe.make_space(facts["grey"], backbone), facts, tensors)
    decoder = None
    if weights := tensors_of(tensors, "decoder"):
        decoder = PictureDecoder(space.channels, *space.grid)
        decoder.load_state_dict(weights)
        decoder.eval()
    guard = Guard(**tensors_of(tensors, "guard"), mask=tensors.get("mask"))
    height, width = recipe.picture
    prepare = Preprocess(height, facts["target"], tensors.get("mask"), width)
    pose = None
    if recipe.frame != "whole":
        pose = Pose(recipe.frame, recipe.picture, recipe.shape)
        pose.load_state_dict(tensors_of(tensors, "pose"))
    to_heatmap = Heatmap(prepare.coverage(*space.grid), facts.get("cells", 1))
    tiles = None
    if "tiles" in facts:
        tiles = restore_tiles(facts, tensors, space.grid)
    fine = restore_fine(space, prepare, tensors_of(tensors, "fine"))
    parts = (prepare, space, model, restore_score(facts, tensors), guard, to_heatmap)
    graph = DetectorGraph(*parts, tiles or fine, pose)
    return Run(graph.eval(), decoder, facts)


def restore_score(facts: dict[str, Any], tensors: dict[str, Tensor]) -> ImageScore:
    """Returns the score of an image, with the density or the known defects that belong to it."""
    density, known = None, None
    if states := tensors_of(tensors, "density"):
        density = DensityOfStates(*reversed(states["references"].shape))
        density.load_state_dict(states)
    if learnt := tensors_of(tensors, "known"):
        known = KnownDefects(len(learnt["mean"]), facts["types"])
        known.load_state_dict(learnt)
    return ImageScore(facts["score"], density, known)


def restore_fine(
    space: Space, prepare: Preprocess, weights: dict[str, Tensor]
) -> FineHeatmap | None:
    """Returns what makes the heatmap fine, if anything does."""
    fine = FineHeatmap.of(space, prepare) if weights else None
    if fine is not None:
        fine.load_state_dict(weights)
    return fine


def restore_model(
    space: Space, facts: dict[str, Any], tensors: dict[str, Tensor]
) -> tuple[Space, Model]:
    """Returns the space and the model with their weights, which are among the tensors."""
    if space.whitening is not None:
        space.whitening.load_state_dict(tensors_of(tensors, "space"))
    pixels = space.whitening is None
    model = MODELS[facts["model"]](space.channels, *space.grid, pixels=pixels, error=facts["error"])
    model.load_state_dict(tensors_of(tensors, "model"))
    return space, model


def restore_tiles(
    facts: dict[str, Any], tensors: dict[str, Tensor], whole: tuple[int, int]
) -> Tiles:
    """Returns the model of one tile over its grid; ``whole``: height and width of the whole image's
    map of errors.
    """
    tiling = Tiling(*(facts["tiles"][name] for name in ("size", "height", "width")))
    prepare = Preprocess(tiling.height, facts["target"], tensors.get("mask"), tiling.width)
    space, model = restore_model(
        make_space(tile_space(facts["space"]), facts["size"], facts["grey"]),
        facts,
        tensors_of(tensors, "tiles"),
    )
    tiles = Tiles(prepare, space, model, tiling, whole, facts["tiles"]["cells"])
    tiles.scale.copy_(tensors["tiles.scale"])
    return tiles


def verify_images(run: Path, images: Path, card: Card) -> str:
    """Returns what a comparison of torch and ONNX on a user's images found; TrainingError where
    they differ too much.
    """
    graph = restore(run).graph
    found = [
        image.pixels
        for _, image in decode_all(read_dataset(images, plain=None)[:50], card.decode, card.size)
        if isinstance(image, Decoded)
    ]
    if not found:
        raise DatasetError(
            f"{images}: no image that can be read found, a folder or manifest of images expected"
        )
    unit = card.golden["tolerance"] * 1e3
    model = find_detector(run).read_bytes()
    heatmap = None if card.pooled else unit_of("heatmap", card.heatmap, model, found[:7])
    worst = max(
        check_parity(graph, model, found[i : i + 7], unit, heatmap) for i in range(0, len(found), 7)
    )
    agreement = f"scores agree to {worst:.1e} of (threshold - typical); at most 1e-3 allowed"
    return f"torch against ONNX      {len(found)} of your images: {agreement}"


@torch.inference_mode()
def sample(run: Path, count: int, seed: int, prior: str | None = None) -> np.ndarray:
    """Returns new images drawn from the run's model, uint8 (count, h, w, 3); TrainingError where it
    cannot draw.

    ``prior``: where a VAE's latents come from, ``fitted`` or ``standard``; None: the model's own.
    """
    restored = restore(run)
    model = restored.graph.model
    if not model.can_sample:
        raise TrainingError(
            f"the model {restored.facts['model']} cannot draw new images; train a generative one: "
            "--model vae"
        )
    if prior is not None and not isinstance(model, VAE):
        raise TrainingError(
            f"--prior {prior} found, which is for a VAE, and the model is "
            f"{restored.facts['model']}: leave it out"
        )
    if restored.decoder is None and restored.facts["space"] != "pixels":
        raise TrainingError(
            f"{run}: trained with --no-expected-picture, so there is nothing that draws what the "
            "model has in mind: train without it"
        )
    noise = torch.randn(count, model.sample_size(), generator=torch.Generator().manual_seed(seed))
    if isinstance(model, PixelCNN):  # it draws one location after the other
        with Progress(model.shape[1], "drawing rows") as progress:
            maps = model.sample(noise, lambda: progress.advance(1))
    elif prior == "standard" and isinstance(model, VAE):
        maps = model.decode(noise)
    else:
        maps = model.sample(noise)
    return to_picture(maps if restored.decoder is None else restored.decoder(maps)).numpy()
