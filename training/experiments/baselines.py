"""What the field compares with, on the same maps as our models: for the benchmark only, not offered
by `anomaly train`.

They learn nothing of whole images: PaDiM has a Gaussian for each location, PatchCore's memory bank
the nearest known neighbourhood of anywhere.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from training.models import ModelKind
from training.models.base import GenerativeModel

RIDGE = 0.01  # PaDiM's, on the covariance's diagonal
CORESET = 0.01  # share of the neighbourhoods that PatchCore-1 % keeps


class ClosedForm(GenerativeModel):
    """A model that is not trained by gradient, and expects the mean map."""

    closed_form: ClassVar[bool] = True
    mean: Tensor

    def __init__(self, channels: int, height: int, width: int, pixels: bool) -> None:
        super().__init__(pixels)
        self.register_buffer("mean", torch.zeros(channels, height, width))

    def loss(self, x: Tensor, noise: Tensor, player: str) -> Tensor:
        """Returns the mean of each heatmap, (N,)."""
        return self(x)[0].mean((1, 2))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the heatmap (N, h, w), higher = more anomalous, and the mean map for a
        reconstruction.
        """
        return self.heatmap(x), self.mean.expand_as(x)

    def heatmap(self, x: Tensor) -> Tensor:
        """Returns the heatmap of maps, (N, h, w)."""
        raise NotImplementedError


class Padim(ClosedForm):
    """Mahalanobis distance of each location's vector to a Gaussian of that location.

    Defard et al., "PaDiM: a patch distribution modeling framework" (ICPR 2021), equations 1 and 2,
    on all channels.
    """

    def __init__(self, channels: int, height: int, width: int, pixels: bool) -> None:
        super().__init__(channels, height, width, pixels)
        # of the inverse covariances
        self.register_buffer("roots", torch.zeros(height * width, channels, channels))

    def fit_maps(self, maps: Tensor) -> None:
        """Sets a mean and a covariance for each location from maps (n, C, h, w)."""
        self.mean = maps.mean(0)
        vectors = (maps - self.mean).flatten(2).permute(2, 0, 1)  # (h w, n, C)
        covariance = vectors.transpose(1, 2) @ vectors / max(1, len(maps) - 1)
        covariance += RIDGE * torch.eye(maps.shape[1])
        self.roots = torch.linalg.cholesky(torch.linalg.inv(covariance.double())).float()

    def heatmap(self, x: Tensor) -> Tensor:
        vectors = (x - self.mean).flatten(2).permute(2, 0, 1)  # (h w, N, C)
        distances = torch.sqrt((vectors @ self.roots).square().sum(2) + 1e-12)
        return distances.transpose(0, 1).unflatten(1, x.shape[2:])


class MemoryBank(ClosedForm):
    """Distance of each neighbourhood to the nearest one of a bank.

    Roth et al., "Towards total recall in industrial anomaly detection" (PatchCore, CVPR 2022): mean
    over 3 x 3 locations, a coreset by the greedy choice of the farthest (algorithm 1).
    """

    def __init__(self, channels: int, height: int, width: int, pixels: bool) -> None:
        super().__init__(channels, height, width, pixels)
        self.register_buffer("bank", torch.zeros(1, channels))

    def fit_maps(self, maps: Tensor) -> None:
        """Sets the bank from maps (n, C, h, w)."""
        self.mean = maps.mean(0)
        vectors = neighbourhoods(maps)
        chosen = [0]
        nearest = (vectors - vectors[0]).square().sum(1)
        while len(chosen) < max(1, round(CORESET * len(vectors))):
            chosen.append(int(nearest.argmax()))
            nearest = torch.minimum(nearest, (vectors - vectors[chosen[-1]]).square().sum(1))
        self.bank = vectors[chosen]

    def heatmap(self, x: Tensor) -> Tensor:
        vectors = neighbourhoods(x)
        squared = (
            vectors.square().sum(1, keepdim=True)
            - 2 * vectors @ self.bank.T
            + self.bank.square().sum(1)
        )
        nearest = squared.clamp(min=0).amin(1)
        return torch.sqrt(nearest + 1e-12).reshape(len(x), *x.shape[2:])


def neighbourhoods(maps: Tensor) -> Tensor:
    """Returns the mean over 3 x 3 locations as one vector a location, (N h w, C)."""
    return F.avg_pool2d(maps, 3, 1, 1, count_include_pad=False).permute(0, 2, 3, 1).flatten(0, 2)


BASELINES = {
    "padim": ModelKind(Padim, closed_form=True),
    "memory-bank": ModelKind(MemoryBank, closed_form=True),
}
