"""Autoregressive model: the exact likelihood of each pixel, or of each feature vector, given those
before it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.models.base import GenerativeModel
from training.models.sample_distance import far_warning
from training.pixels import to_unit

PIXEL_WIDTH, MAP_WIDTH = 32, 64
# Of the layers' windows: as far as the map is wide. Six layers (1, 2, 4, 1, 2, 4) were no better
# for the same time.
PIXEL_DILATIONS, MAP_DILATIONS = (1, 2, 4, 8), (1, 2, 1, 2)
COMPONENTS = 5  # of the mixture over a pixel's levels
MAX_CELLS_A_SIDE = 8  # cells a side, at most, of the heatmap whose density is a score
COMPARED_IMAGES, COMPARED_SAMPLES = 256, 16  # good images and samples whose distance is looked at
# of the cells' mean variance, added to each: without it, directions that hardly vary decide
SHRINKAGE = 0.3


class PixelCNN(GenerativeModel):
    """van den Oord, Kalchbrenner & Kavukcuoglu, "Pixel recurrent neural networks" (ICML 2016):
    p(x) = prod_i p(x_i | x_<i).

    i runs through the locations row by row. Convolutions see what comes before a location and
    nothing else, so that one pass gives all conditional densities: of pixels a mixture of
    discretised logistics, of features Gaussians. A vertical stack sees all rows above, a horizontal
    one what is to the left and what the vertical one says: masked convolutions in one stack would
    never see a part of what is above on the right (van den Oord et al., "Conditional image
    generation with PixelCNN decoders", NeurIPS 2016, section 2.2; without its gates). The heatmap
    is exact, in nats, and sums to -log p(x).
    """

    likelihood: ClassVar[bool] = True
    can_sample: ClassVar[bool] = True
    cells_mean: Tensor
    cells_factor: Tensor

    def __init__(self, channels: int, height: int, width: int, pixels: bool) -> None:
        super().__init__(pixels)
        self.shape = (channels, height, width)
        self.density = DiscretisedLogistics(channels) if pixels else Gaussians(channels)
        hidden = PIXEL_WIDTH if pixels else MAP_WIDTH
        dilations = PIXEL_DILATIONS if pixels else MAP_DILATIONS
        self.above = PaddedConv(channels, hidden, (3, 7), (3, 3, 3))
        self.left = PaddedConv(channels, hidden, (1, 3), (3, 0, 0))
        # parts are aligned: a bias for each location
        self.position = nn.Parameter(torch.zeros(hidden, height, width))
        self.vertical = nn.ModuleList(
            PaddedConv(hidden, hidden, (2, 3), (d, d, d), dilation=d) for d in dilations
        )
        self.horizontal = nn.ModuleList(
            PaddedConv(hidden, hidden, (1, 2), (d, 0, 0), dilation=d) for d in dilations
        )
        self.joins = nn.ModuleList(nn.Conv2d(hidden, hidden, 1) for _ in (0, *dilations))
        self.last = nn.Sequential(
            nn.SiLU(),
            nn.Conv2d(hidden, hidden, 1),
            nn.SiLU(),
            nn.Conv2d(hidden, self.density.parameters_wanted, 1),
        )

        count = self.to_cells(torch.zeros(1, height, width)).shape[1]
        self.register_buffer("cells_mean", torch.zeros(count))
        self.register_buffer("cells_factor", torch.eye(count))

    def loss(self, x: Tensor, noise: Tensor, player: str) -> Tensor:
        """Returns the negative log-likelihood of each map in nats per number of the map, (N,)."""
        return self.forward(x)[0].mean((1, 2)) / self.shape[0]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the heatmap (N, h, w), higher = more anomalous, and the reconstruction (N, C, h,
        w).

        A location's value is -log p of what is there, given all locations before it; its
        reconstruction is what is expected there, given the same.
        """
        x = self.density.prepare(x)
        parameters = self.conditionals(x)
        return -self.density.log_likelihood(x, parameters), self.density.mean(parameters)

    def statistics(self, x: Tensor) -> dict[str, Tensor]:
        """Returns ``cells`` (N,): the squared Mahalanobis distance of the likelihoods of an image's
        cells, for a cell.

        Two-sided: where normal images are always hard to predict, one that is easy there is as
        strange as the reverse. So it is a density of states (Morningstar et al., AISTATS 2021), the
        states being the heatmap on a coarse grid.
        """
        deviation = (self.to_cells(self.forward(x)[0]) - self.cells_mean) @ self.cells_factor.T
        return {"cells": deviation.square().mean(1)}

    @torch.no_grad()
    def finish(self, maps: Tensor) -> None:
        """Fits the Gaussian that ``cells`` measures by to the heatmaps of normal maps; heatmap and
        samples ignore it.
        """
        device = self.cells_mean.device
        heatmaps = (self.forward(to_unit(batch.to(device)))[0] for batch in maps.split(64))
        cells = torch.cat([self.to_cells(heatmap) for heatmap in heatmaps]).double()
        covariance = torch.cov(cells.T)
        ridge = (
            SHRINKAGE
            * covariance.diagonal().mean()
            * torch.eye(len(covariance), dtype=torch.float64, device=device)
        )
        self.cells_mean.copy_(cells.mean(0))
        self.cells_factor.copy_(torch.linalg.inv(torch.linalg.cholesky(covariance + ridge)))

    @torch.no_grad()
    def warnings(self, maps: Tensor) -> list[str]:
        """Returns a line where samples of pixels are far from good images."""
        if not self.pixels:
            return []
        random = torch.Generator().manual_seed(0)
        some = maps[torch.randperm(len(maps), generator=random)[:COMPARED_IMAGES]]
        noise = torch.randn(COMPARED_SAMPLES, self.sample_size(), generator=random)
        drawn = self.sample(noise.to(self.cells_mean.device))
        return far_warning(drawn, some, "Try more --epochs, or fewer pixels (--size)")

    def to_cells(self, heatmap: Tensor) -> Tensor:
        """Returns a heatmap (N, h, w) as means on a grid of at most 8 by 8 cells, (N, cells)."""
        sides = [-(-side // MAX_CELLS_A_SIDE) for side in self.shape[1:]]
        return F.avg_pool2d(
            heatmap[:, None], sides, ceil_mode=True, count_include_pad=False
        ).flatten(1)

    def conditionals(self, x: Tensor) -> Tensor:
        """Returns the density's parameters at each location of maps (N, C, h, w), (N, P, h, w)."""
        return self.along(x, self.from_above(x), self.position)

    def from_above(self, x: Tensor) -> list[Tensor]:
        """Returns what the rows above each location say, for each layer (N, hidden, rows, w), of
        maps or their first rows (N, C, rows, w).
        """
        y = self.above(F.pad(x, (0, 0, 0, -1)))
        found = [y]
        for block in self.vertical:
            y = y + block(F.silu(y))
            found.append(y)
        return found

    def along(self, x: Tensor, above: list[Tensor], position: Tensor) -> Tensor:
        """Returns the density's parameters of rows (N, C, rows, w), given what is above them."""
        y = self.left(F.pad(x, (0, -1))) + position + self.joins[0](F.silu(above[0]))
        for block, join, said in zip(self.horizontal, self.joins[1:], above[1:], strict=True):
            y = y + block(F.silu(y)) + join(F.silu(said))
        return self.last(y).float()  # likelihoods are computed in float32, also under autocast

    def sample_size(self) -> int:
        channels, height, width = self.shape
        return (channels + 1) * height * width

    @torch.no_grad()
    def sample(self, noise: Tensor, advance: Callable[[], None] | None = None) -> Tensor:
        """Returns maps (N, C, h, w) drawn from the model, location by location, from standard
        normal noise.

        Each row costs a pass through the network, each location one through its row; ``advance`` is
        called after each row.
        """
        return self.complete(noise.new_zeros(len(noise), *self.shape), 0, noise, advance)

    @torch.no_grad()
    def complete(
        self, maps: Tensor, first: int, noise: Tensor, advance: Callable[[], None] | None = None
    ) -> Tensor:
        """Returns maps (N, C, h, w) whose rows from ``first`` on are drawn given those above."""
        channels, height, width = self.shape
        noise = noise.reshape(-1, channels + 1, height, width)
        x = self.density.prepare(maps).clone()
        for row in range(first, height):
            line = (..., slice(row, row + 1), slice(None))
            above = [said[line] for said in self.from_above(x[:, :, : row + 1])]
            for column in range(width):
                here = (..., slice(column, column + 1))
                parameters = self.along(x[line], above, self.position[line])[here]
                x[line][here] = self.density.draw(parameters, noise[line][here])
            if advance is not None:
                advance()
        return self.density.restore(x)


class PaddedConv(nn.Module):
    """A convolution of a window (height, width) over maps that are enlarged by zeros on the left,
    on the right and above, so that the window ends where it may.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        window: tuple[int, int],
        pad: tuple[int, int, int],
        dilation: int = 1,
    ) -> None:
        super().__init__()
        self.pad = (*pad, 0)
        self.conv = nn.Conv2d(inputs, outputs, window, dilation=dilation)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(F.pad(x, self.pad))
        return y


class DiscretisedLogistics(nn.Module):
    """A mixture over the 256 levels of a pixel: Salimans et al., "PixelCNN++" (ICLR 2017), sections
    2.1 and 2.2.

    A pixel's channels follow each other: a component's mean moves linearly with the channels
    before.
    """

    centres: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.pairs = [(channel, before) for channel in range(channels) for before in range(channel)]
        self.sizes = (1, channels, channels, len(self.pairs))  # of weight, means, scales and slopes
        self.parameters_wanted = COMPONENTS * sum(self.sizes)
        # Components that begin apart learn to share the range among them.
        self.register_buffer(
            "centres", torch.linspace(-1, 1, COMPONENTS)[:, None, None, None], persistent=False
        )

    def prepare(self, x: Tensor) -> Tensor:
        """Returns pixels 0..1 as -1..1.

        A resized image has values between the levels; they get the mass of the level's width around
        them. Rounding them would let a difference in the last place between two runtimes move a
        pixel by a whole level.
        """
        return x.float() * 2 - 1

    def to_level(self, x: Tensor) -> Tensor:
        """Returns prepared pixels at the nearest of the 256 levels."""
        return ((x + 1) * 127.5).round().clamp(0, 255) / 127.5 - 1

    def restore(self, x: Tensor) -> Tensor:
        return (x + 1) / 2

    def log_likelihood(self, x: Tensor, parameters: Tensor) -> Tensor:
        """Returns log p of prepared pixels (N, C, h, w) at each location, (N, h, w), in nats; over
        the levels it sums to 1.

        A level has the logistic's mass within half a level of it, the lowest and the highest all
        that lies beyond: sigmoid(b) - sigmoid(a) = sigmoid(b) (1 - sigmoid(a)) (1 - e^(a - b)),
        whose logarithm no tail can spoil.
        """
        weights, means, scales, slopes = self.split(parameters)
        x = x[:, None]  # (N, 1, C, h, w)
        z = (x - self.follow(means, slopes, x)) * torch.exp(-scales)
        half = torch.exp(-scales) / 255
        above, below = x < 0.999, x > -0.999  # whether the level ends on that side
        logs = torch.where(above & below, torch.log(-torch.expm1(-2 * half)), 0.0)
        logs = (
            logs
            - torch.where(above, F.softplus(-z - half), 0.0)
            - torch.where(below, F.softplus(z - half), 0.0)
        )
        return torch.logsumexp(weights + logs.sum(2), 1)

    def mean(self, parameters: Tensor) -> Tensor:
        """Returns the pixels that are expected, (N, C, h, w) in 0..1, the channels before at their
        own means.
        """
        weights, means, _, slopes = self.split(parameters)
        means = self.follow(means, slopes, None).clamp(-1.0, 1.0)
        return self.restore((weights.exp()[:, :, None] * means).sum(1))

    def draw(self, parameters: Tensor, noise: Tensor) -> Tensor:
        """Returns prepared pixels (N, C, 1, 1), drawn by standard normal noise (N, C + 1, 1, 1)."""
        weights, *others = self.split(parameters)
        # (N, 1, C, 1, 1)
        means, scales, slopes = (piece[:, None] for piece in choose(weights, noise[:, :1], others))
        noise = noise[:, None, 1:]
        # log (u / (1 - u)) of a uniform u
        logistic = torch.special.log_ndtr(noise) - torch.special.log_ndtr(-noise)
        x = torch.zeros_like(means)
        for channel in range(x.shape[2]):
            drawn = self.follow(means, slopes, x) + scales.exp() * logistic
            x[:, :, channel] = self.to_level(drawn[:, :, channel])
        return x[:, 0]

    def split(self, parameters: Tensor) -> list[Tensor]:
        """Returns log weights (N, K, h, w), means, log scales (N, K, C, h, w) and slopes (N, K,
        pairs, h, w).
        """
        weights, means, scales, slopes = parameters.unflatten(1, (COMPONENTS, -1)).split(
            self.sizes, 2
        )
        return [
            F.log_softmax(weights[:, :, 0], 1),
            means + self.centres,
            (scales - 2.0).clamp(-7.0, 2.0),
            slopes,
        ]

    def follow(self, means: Tensor, slopes: Tensor, x: Tensor | None) -> Tensor:
        """Returns means (N, K, C, h, w) that the pixel's channels before have moved; where x is
        None, by their means.
        """
        moved = list(means.unbind(2))
        for number, (channel, before) in enumerate(self.pairs):
            moved[channel] = moved[channel] + slopes[:, :, number] * (
                moved[before] if x is None else x[:, :, before]
            )
        return torch.stack(moved, 2)


class Gaussians(nn.Module):
    """A Gaussian for each channel of a location, its mean and width by what came before; the maps
    are whitened.

    A mixture of five had the same held-out likelihood and told defects less well.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.parameters_wanted = 2 * channels

    def prepare(self, x: Tensor) -> Tensor:
        return x.float()

    def restore(self, x: Tensor) -> Tensor:
        return x

    def log_likelihood(self, x: Tensor, parameters: Tensor) -> Tensor:
        """Returns log p of feature vectors (N, C, h, w) at each location, (N, h, w), in nats."""
        mean, log_sigma = self.split(parameters)
        z = (x - mean) * torch.exp(-log_sigma)
        return -(0.5 * z**2 + log_sigma + 0.5 * math.log(2 * math.pi)).sum(1)

    def mean(self, parameters: Tensor) -> Tensor:
        return self.split(parameters)[0]

    def draw(self, parameters: Tensor, noise: Tensor) -> Tensor:
        """Returns feature vectors (N, C, 1, 1), drawn by normal noise (N, C + 1, 1, 1), whose first
        is spare.
        """
        mean, log_sigma = self.split(parameters)
        return mean + log_sigma.exp() * noise[:, 1:]

    def split(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Returns means and log standard deviations, (N, C, h, w) each."""
        mean, log_sigma = parameters.chunk(2, 1)
        return mean, log_sigma.clamp(-4.0, 4.0)


def choose(weights: Tensor, noise: Tensor, cells: list[Tensor]) -> list[Tensor]:
    """Returns each of ``cells`` (N, K, ...) at a component (N, ...) drawn by its log weight (N, K,
    1, 1) and one normal.
    """
    below = weights.exp().cumsum(1) < torch.special.ndtr(noise)
    component = below.sum((1, 2, 3)).clamp(max=COMPONENTS - 1)
    return [piece[torch.arange(len(piece), device=piece.device), component] for piece in cells]
