"""Whitening of maps: unit variance by the statistics of the maps that are learnt from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.folds import all_alike

MAX_MAP_SDS = 4.0  # standard deviations that a number of a map in `both` can reach


class Whitening(nn.Module):
    """PCA whitening of each position's channel vector: unit variance, no correlation, the weakest
    directions dropped.

    Without ``rotate`` every channel is brought to unit variance by itself, and correlations stay:
    where there are few channels the weakest directions are noise, which whitening would make as
    loud as the rest.
    """

    mean: Tensor
    matrix: Tensor

    def __init__(self, inputs: int, channels: int, rotate: bool = True) -> None:
        super().__init__()
        self.rotate, self.inputs = rotate, inputs
        self.register_buffer("mean", torch.zeros(inputs))
        self.register_buffer("matrix", torch.eye(channels, inputs))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x - self.mean[:, None, None], self.matrix[:, :, None, None])

    def fit(self, maps: Iterable[Tensor]) -> None:
        """Sets mean and matrix from batches of maps (N, C, h, w), in one pass and in float64."""
        count, total = 0, torch.zeros_like(self.mean, dtype=torch.float64)
        products = torch.zeros((), dtype=torch.float64)
        for batch in maps:
            vectors = batch.double().permute(1, 0, 2, 3).flatten(1)  # (C, N h w)
            count += vectors.shape[1]
            total += vectors.sum(1)
            products = products + vectors @ vectors.T
        mean = total / count
        covariance = products / count - torch.outer(mean, mean)
        if self.rotate:
            values, directions = (found.flip(-1) for found in torch.linalg.eigh(covariance))
        else:
            values, directions = covariance.diag(), torch.eye(len(covariance), dtype=torch.float64)
        if not values.max() > 1e-10:
            raise all_alike("all training images")
        channels = self.matrix.shape[0]
        scale = torch.sqrt(values[:channels] + 1e-6 * values.max())
        self.mean.copy_(mean)
        self.matrix.copy_((directions[:, :channels] / scale).T)


class SideBySide(nn.Module):
    """Whitens groups of channels by themselves and lets each count by its gain.

    No number counts for more than SQUASH standard deviations: where a photograph of a good part is
    overexposed, the logarithm of an energy of nearly zero would otherwise be farther out than any
    defect and set the threshold.
    """

    def __init__(self, subspaces: Sequence[Whitening | SideBySide], gains: Sequence[float]) -> None:
        super().__init__()
        self.subspaces, self.gains = nn.ModuleList(subspaces), gains
        self.in_order = tuple(subspaces)  # as what they are
        self.sizes: list[int] = [subspace.inputs for subspace in subspaces]
        self.inputs: int = sum(self.sizes)

    def fit(self, maps: Iterable[Tensor]) -> None:
        """Sets all from batches of maps (N, C, h, w)."""
        batches = [batch.split(self.sizes, 1) for batch in maps]
        for subspace, of_subspace in zip(self.in_order, zip(*batches, strict=True), strict=True):
            subspace.fit(of_subspace)

    def forward(self, x: Tensor) -> Tensor:
        pieces = zip(self.in_order, self.gains, x.split(self.sizes, 1), strict=True)
        return torch.cat([gain * squash(subspace(piece)) for subspace, gain, piece in pieces], 1)


def squash(x: Tensor) -> Tensor:
    return MAX_MAP_SDS * torch.tanh(x / MAX_MAP_SDS)
