"""Known defects, as the models of good images see them."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from anomaly.errors import DatasetError
from anomaly.files.progress import Progress
from anomaly.imaging.defect_masks import read_defect_mask
from anomaly.inputs.copies import Copies, regrouped
from anomaly.inputs.dataset import Record
from anomaly.inputs.known_defects import read_defects
from training.known_defects import FEWEST_IMAGES, Defects, descriptor
from training.options import TrainOptions
from training.protocols import Model, Space
from training.scores import Heatmap
from training.stages import Split
from training.tensors import Extracted, extract

BATCH = 32  # maps that are described at a time


@dataclass(frozen=True)
class LabelledMaps:
    """Known defects: their records, raw maps (m, C, h, w), and which places a mask marks as the
    defect, (m, h, w), 1 everywhere without one.
    """

    records: list[Record]
    maps: Tensor
    places: Tensor

    @classmethod
    def unmarked(cls, seen: Extracted) -> LabelledMaps:
        """Returns defects of which all places count alike."""
        return cls(seen.records, seen.maps, torch.ones(len(seen.maps), *seen.maps.shape[2:]))

    @property
    def types(self) -> list[str]:
        return [record.label or "" for record in self.records]

    def judged_by(self, space: Space, model: Model, to_heatmap: Heatmap) -> Defects:
        """Returns the defects as a model of a space sees them."""
        described, scores = describe_maps(space, model, to_heatmap, self.maps, self.places)
        return Defects(described, scores, self.types, [record.group for record in self.records])


@torch.inference_mode()
def describe_maps(
    space: Space, model: Model, to_heatmap: Heatmap, raw: Tensor, places: Tensor | None = None
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Returns descriptors (n, d) and scores (n,) of raw maps of a whitened space.

    ``places``: which of their places describe them, (n, h, w); None: all.
    """
    assert space.whitening is not None
    described, scores = [], []
    for number, batch in enumerate(raw.split(BATCH)):
        maps = space.whitening(batch)
        heatmap = to_heatmap(model(maps)[0])
        inside = to_heatmap.weights
        if places is not None:
            marked = places[number * BATCH :][: len(batch)]
            inside = marked if inside is None else marked * inside
        described.append(descriptor(model.deviation(maps), heatmap, inside))
        scores.append(to_heatmap.pool(heatmap))
    return torch.cat(described).double().numpy(), torch.cat(scores).double().numpy()


def find_defects(
    options: TrainOptions, good: list[Record], say: Callable[[str], None] | None = None
) -> list[Record]:
    """Returns the records of known defects; DatasetError where they are too few, or also among the
    good images.
    """
    assert options.defects is not None
    records = read_defects(options.defects, options.group_by, say)
    check_enough(options, records)
    refuse_common(records, good)
    return records


def check_enough(options: TrainOptions, records: list[Record]) -> None:
    """Raises DatasetError where there are too few known defects to learn from."""
    if len(records) < FEWEST_IMAGES:
        raise DatasetError(
            f"{options.defects}: {len(records)} images of defects found, at least {FEWEST_IMAGES} "
            "expected: add some, or leave out --defects"
        )


def look_at_defects(split: Split, to_heatmap: Heatmap) -> LabelledMaps:
    """Returns the known defects as the recipe looks at them, those of the same pixels in one group;
    DatasetError where they are too few, or also among the good images.
    """
    job, options = split.job, split.job.options
    records = find_defects(options, split.records, job.say)
    with Progress(len(records), "looking at known defects") as progress:
        seen = extract(
            records,
            split.rule,
            split.prepare.to(job.device),
            split.space.to(job.device),
            job.device,
            lambda: progress.advance(1),
            None if split.pose is None else split.pose.to(job.device),
        )
    job.tell(f"known defects, not read: {line}" for line in seen.left_out)
    check_enough(options, seen.records)
    rows, columns = split.space.grid
    places = [places_of(record.mask, rows, columns, split) for record in seen.records]
    copies = Copies.of(seen.thumbs, [r.group for r in seen.records], seen.digests, same_only=True)
    return LabelledMaps(regrouped(seen.records, copies), seen.maps, torch.stack(places))


def places_of(mask: Path | None, rows: int, columns: int, split: Split) -> Tensor:
    """Returns which cells a mask marks, float32 (rows, columns); all without a mask, with an empty
    one, or where the part is looked at in a frame of its own.
    """
    marked = None if mask is None or split.pose is not None else read_defect_mask(mask)
    if marked is None or not marked.any():
        return torch.ones(rows, columns)
    pixels = torch.from_numpy(marked.astype(np.float32))[None, None]
    return (F.adaptive_avg_pool2d(pixels, (rows, columns))[0, 0] > 0).float()


def refuse_common(defects: list[Record], good: list[Record]) -> None:
    """Raises DatasetError where an image is among the good ones and among the defects."""
    known = {hashlib.sha256(r.path.read_bytes()).digest(): r.path for r in good if r.path.is_file()}
    for record in defects:
        if not record.path.is_file():
            continue
        twin = known.get(hashlib.sha256(record.path.read_bytes()).digest())
        if twin is not None:
            raise DatasetError(
                f"{record.path}: a defect by --defects found, and a good image by {twin}, one of "
                "them expected: remove it from the good images or from the defects"
            )


def counts_text(types: list[str]) -> str:
    """Returns how many defects of each type there are, the most frequent first."""
    return ", ".join(f"{count} {name}" for name, count in Counter(types).most_common())
