"""What a run keeps of its images, so that more good ones are learnt without reading them again."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from anomaly.inputs.dataset import Record
from training.checkpoint import fitting, load_checkpoint, save_checkpoint
from training.models.autoencoder import LinearAutoencoder
from training.sets import PICTURE
from training.stages import Trained
from training.tensors import Extracted
from training.trained import whiten_all

MAPS = "maps.safetensors"  # in a run folder; without it, learning looks at all images again
MAX_BYTES = 1 << 30  # of maps that are kept


@dataclass(frozen=True)
class KeptMaps:
    """``seen``: of the images of a run, their maps whitened and without pictures. ``distances``:
    of each, (n, h, w), what makes its heatmap fine; empty where nothing does or is needed.
    """

    seen: Extracted
    distances: Tensor

    def joined(self, other: KeptMaps) -> KeptMaps:
        """Returns both, one after the other."""
        mine, others = self.seen, other.seen
        seen = Extracted(
            [*mine.records, *others.records],
            torch.cat([mine.maps, others.maps]),
            torch.cat([mine.pictures, others.pictures]),
            np.concatenate([mine.thumbs, others.thumbs]),
            [*mine.facts, *others.facts],
            [*mine.left_out, *others.left_out],
            [*mine.digests, *others.digests],
        )
        return KeptMaps(seen, torch.cat([self.distances, other.distances]))


def can_update(trained: Trained) -> bool:
    """Returns whether maps are all that a new fit of the model needs: it is the linear Gaussian of
    whole images in a whitened space, and the score is the mean of its hottest places.
    """
    linear = isinstance(trained.model, LinearAutoencoder) and trained.space.whitening is not None
    alone = trained.tiles is None and trained.score.known is None
    return linear and alone and trained.score.name == "hottest"


def kept_maps(trained: Trained, seen: Extracted) -> KeptMaps | None:
    """Returns what a run keeps; None where its model cannot be updated by it, or maps are too many
    to be kept.
    """
    space, rows, columns = trained.space, *trained.space.grid
    size = 4 * len(seen.records) * space.channels * rows * columns
    if not can_update(trained) or space.whitening is None or size > MAX_BYTES:
        return None
    with torch.inference_mode():
        maps = whiten_all(space.whitening, seen.maps)
    distances = [trained.distances.get(record.path) for record in seen.records]
    known = [distance for distance in distances if distance is not None]
    whole = torch.stack(known) if len(known) == len(distances) else torch.zeros(len(distances), 0)
    return KeptMaps(replace(seen, maps=maps, pictures=seen.pictures[:, :0]), whole)


def save_maps(path: Path, kept: KeptMaps) -> None:
    """Writes them as a file that appears whole or not at all."""
    seen = kept.seen
    images = [
        {"path": str(record.path), "group": record.group, "facts": facts, "digest": digest}
        for record, facts, digest in zip(seen.records, seen.facts, seen.digests, strict=True)
    ]
    tensors = {
        "maps": seen.maps,
        "thumbs": torch.from_numpy(seen.thumbs),
        "distances": kept.distances,
    }
    save_checkpoint(path, tensors, {"images": json.dumps(images)})


def load_maps(path: Path) -> KeptMaps:
    """Returns what a run has kept; TrainingError where the file is damaged."""
    tensors, facts = load_checkpoint(path)
    with fitting(path):
        images = json.loads(facts["images"])
        seen = Extracted(
            [Record(Path(i["path"]), "train", "good", i["group"], None) for i in images],
            tensors["maps"],
            torch.zeros(len(images), 0, PICTURE, PICTURE, dtype=torch.uint8),
            tensors["thumbs"].numpy(),
            [tuple(i["facts"]) for i in images],
            [],
            [i["digest"] for i in images],
        )
        return KeptMaps(seen, tensors["distances"])
