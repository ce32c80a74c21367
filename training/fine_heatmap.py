"""A heatmap at the cells of an early stage of the backbone, so that a scratch looks like one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from anomaly.detector.session import available_cores
from anomaly.imaging.decode import Decoded, DecodeRule
from anomaly.inputs.dataset import Record
from training.folds import seeded_subset
from training.pose import Pose
from training.preprocess import Preprocess
from training.protocols import Space
from training.scores import lowest_outside
from training.sets import batched, decode_all
from training.spaces import Resample, Shape
from training.tensors import one_thread_each

MAX_IMAGES = 400  # that mean and covariance are taken of
BATCH = 32  # images whose early maps are kept at a time
# of the mean variance, added to each: what never varies in few images may vary in the next
RIDGE = 0.01


class FineHeatmap(nn.Module):
    """The geometric mean of the heatmap, enlarged, and of how unusual an early stage's features are
    at each of their own places.

    The second is a squared Mahalanobis distance by the mean of the place (Defard et al., "PaDiM",
    ICPR 2021) and one covariance for all places, in units of its mean over good images. By itself
    it tells good images from defective ones badly, and says best where a defect begins and ends.
    """

    mean: Tensor
    matrix: Tensor
    inside: Tensor | None

    def __init__(self, early: tuple[int, ...], grid: Shape, mask: Tensor | None) -> None:
        """``early``: channels, height and width of the early maps; ``grid``: of the heatmap;
        ``mask``: the share of each place that is inspected, (height, width), None: all of it.
        """
        super().__init__()
        self.register_buffer("mean", torch.zeros(early))
        self.register_buffer("matrix", torch.eye(early[0]))
        self.enlarge = Resample(grid, (early[1], early[2]))
        self.register_buffer("inside", None if mask is None else mask > 0, persistent=False)

    @staticmethod
    def of(space: Space, prepare: Preprocess) -> FineHeatmap | None:
        """Returns one that is not fitted yet; None where the space has no early stage."""
        early = space.early_shape
        if early is None:
            return None
        return FineHeatmap(early, space.grid, prepare.coverage(early[1], early[2]))

    def fit(self, maps: Iterable[Tensor]) -> None:
        """Takes the statistics of batches of early maps (N, C, h, w) of good images."""
        count, total = 0, torch.zeros_like(self.mean).double()
        products = torch.zeros_like(self.matrix).double()
        for batch in maps:
            count += len(batch)
            total += batch.sum(0)
            vectors = batch.double().transpose(0, 1).flatten(1)
            products += vectors @ vectors.T
        mean = total / count
        places = mean[0].numel()
        covariance = (products / count - mean.flatten(1) @ mean.flatten(1).T) / places
        values, directions = torch.linalg.eigh(covariance)
        scale = (values.clamp(min=0) + RIDGE * values.mean()).rsqrt()
        self.mean.copy_(mean)
        self.matrix.copy_(scale[:, None] * directions.T)

    def forward(self, heatmap: Tensor, early: Tensor) -> Tensor:
        """Returns the fine heatmap (N, h, w) from one of fewer cells and early maps
        (N, C, h, w).
        """
        return self.combined(heatmap, self.distance(early))

    def distance(self, early: Tensor) -> Tensor:
        """Returns the squared Mahalanobis distance at each place, (N, h, w), about 1 in a good
        image.
        """
        return F.conv2d(early - self.mean, self.matrix[:, :, None, None]).square().mean(1)

    def combined(self, heatmap: Tensor, distance: Tensor) -> Tensor:
        """Returns the fine heatmap (N, h, w) from one of fewer cells and the distances."""
        enlarged = self.enlarge(heatmap[:, None])[:, 0].clamp(min=0)
        return lowest_outside(torch.sqrt(enlarged * distance), self.inside)


@dataclass(frozen=True)
class Early:
    """What sees the early maps of images."""

    space: Space
    prepare: Preprocess
    pose: Pose | None
    rule: DecodeRule

    def maps(self, records: Sequence[Record]) -> Iterator[tuple[list[Record], Tensor]]:
        """Yields those that can be read, and their early maps (n, C, h, w), some at a time."""
        with one_thread_each(), ThreadPoolExecutor(available_cores()) as pool:
            for some in batched(records, BATCH):
                found = list(decode_all(some, self.rule, max(self.prepare.shape)))
                read = [(record, i) for record, i in found if isinstance(i, Decoded)]
                if read:
                    maps = torch.cat(list(pool.map(self.map_of, (image for _, image in read))))
                    yield [record for record, _ in read], maps

    @torch.inference_mode()
    def map_of(self, image: Decoded) -> Tensor:
        x = self.prepare(torch.from_numpy(image.pixels)[None])
        return self.space.with_early(x if self.pose is None else self.pose(x)[0])[1]


@torch.inference_mode()
def fit_fine_heatmap(
    early: Early, records: Sequence[Record], seen: Callable[[int], object]
) -> FineHeatmap | None:
    """Returns what makes heatmaps fine, from up to 400 of the images that are learnt from; None
    where the space has no early stage. ``seen`` gets how many more were looked at.
    """
    fine = FineHeatmap.of(early.space, early.prepare)
    if fine is None:
        return None
    chosen = [records[i] for i in seeded_subset(len(records), MAX_IMAGES).tolist()]

    def maps() -> Iterator[Tensor]:
        for some, batch in early.maps(chosen):
            yield batch
            seen(len(some))

    fine.fit(maps())
    return fine


@torch.inference_mode()
def distances(fine: FineHeatmap, early: Early, records: Sequence[Record]) -> dict[Path, Tensor]:
    """Returns the distances (h, w) that make the heatmap of each image fine, by its path."""
    return {
        record.path: distance
        for some, maps in early.maps(records)
        for record, distance in zip(some, fine.distance(maps), strict=True)
    }
