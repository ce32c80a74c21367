"""A heatmap at the cells of an early stage of the backbone, so that a scratch looks like one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from anomaly.detector.session import available_cores
from anomaly.imaging.decode import Decoded, DecodeRule
from anomaly.inputs.dataset import Record
from training.folds import seeded_subset
from training.pose import Pose
from training.preprocess import Preprocess
from training.scores import lowest_outside
from training.sets import batched, decode_all
from training.spaces import BothSpace, FeatureSpace, Resample, Shape
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
    def of(space: FeatureSpace | BothSpace, prepare: Preprocess) -> FineHeatmap | None:
        """Returns one that is not fitted yet; None where the backbone has no early stage."""
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
        mean = total / max(1, count)
        places = mean[0].numel()
        covariance = (products / count - mean.flatten(1) @ mean.flatten(1).T) / places
        values, directions = torch.linalg.eigh(covariance)
        scale = (values.clamp(min=0) + RIDGE * values.mean()).rsqrt()
        self.mean.copy_(mean)
        self.matrix.copy_(scale[:, None] * directions.T)

    def forward(self, heatmap: Tensor, early: Tensor) -> Tensor:
        """Returns a heatmap (N, h, w) of at least 0 from one of fewer cells and the early maps
        (N, C, h, w).
        """
        w = F.conv2d(early - self.mean, self.matrix[:, :, None, None])
        enlarged = self.enlarge(heatmap[:, None])[:, 0].clamp(min=0)
        return lowest_outside(torch.sqrt(enlarged * w.square().mean(1)), self.inside)


def fit_fine_heatmap(
    space: FeatureSpace | BothSpace,
    prepare: Preprocess,
    pose: Pose | None,
    records: Sequence[Record],
    rule: DecodeRule,
    seen: Callable[[int], object],
) -> FineHeatmap | None:
    """Returns what makes the heatmap of a space fine, from up to 400 of the images that are learnt
    from; None where the backbone has no early stage. ``seen`` gets how many more were looked at.
    """

    def early_of(image: Decoded) -> Tensor:
        with torch.inference_mode():  # a thread has a mode of its own
            x = prepare(torch.from_numpy(image.pixels)[None])
            return space.with_early(x if pose is None else pose(x)[0])[1]

    def maps(pool: ThreadPoolExecutor) -> Iterator[Tensor]:
        chosen = [records[i] for i in seeded_subset(len(records), MAX_IMAGES).tolist()]
        for some in batched(chosen, BATCH):
            images = (image for _, image in decode_all(some, rule, max(prepare.shape)))
            yield torch.cat(list(pool.map(early_of, (i for i in images if isinstance(i, Decoded)))))
            seen(len(some))

    fine = FineHeatmap.of(space, prepare)
    if fine is None:
        return None
    with one_thread_each(), ThreadPoolExecutor(available_cores()) as pool:
        fine.fit(maps(pool))
    return fine
