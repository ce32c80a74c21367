"""Normalising flow: a map and its latent are each other's picture, so that the likelihood of a map
is exact.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.models.base import GenerativeModel

STEPS = 6  # couplings
HIDDEN = 32  # channels of their subnetworks on maps
PIXEL_HIDDEN = 64  # on pixels, where four pixels are one location of the subnetwork
# standard deviation of the noise on whitened maps in training: without it the held-out likelihood
# falls
NOISE = 0.25
PIXEL_NOISE = 0.05  # on pixels of 0..1: what is constant there has no density
# log scale of a coupling at most, softly: DifferNet and FastFlow clamp theirs too
MAX_LOG_SCALE = 1.0
# What is learned for each location learns so much faster than the weights, or it would not arrive
# in time
LOCATION_RATE_FACTOR = 10.0
# mean square of a location's latent under the model: the reconstruction's may be no larger
LATENT_MEAN_SQUARE = 1.0
TEMPERATURE = 0.7  # of the latents that samples come from


class Flow(GenerativeModel):
    """Affine couplings of whole maps, after Dinh, Sohl-Dickstein & Bengio, "Density estimation
    using Real NVP" (ICLR 2017).

    For anomalies: Rudolph et al., "Same same but DifferNet" (WACV 2021); with convolutional
    subnetworks over maps: Rudolph et al., "Fully convolutional cross-scale-flows" (WACV 2022), Yu
    et al., "FastFlow" (2021). No step moves a number to another location, so that the latent has
    the locations of the map; that neighbours matter is the subnetworks' part.
    """

    can_sample: ClassVar[bool] = True

    def __init__(self, channels: int, height: int, width: int, pixels: bool) -> None:
        super().__init__(pixels)
        self.shape = (channels, height, width)
        self.noise = PIXEL_NOISE if pixels else NOISE
        # What is learned for each number alone: its mean and spread, as a first affine step.
        self.shift = nn.Parameter(torch.zeros(self.shape))
        self.log_scale = nn.Parameter(torch.zeros(self.shape))
        couplings = [Coupling(*self.shape, pixels, number) for number in range(STEPS)]
        self.couplings, self.in_order = nn.ModuleList(couplings), tuple(couplings)

    def noise_size(self) -> int:
        return math.prod(self.shape)

    def loss(self, x: Tensor, noise: Tensor, player: str) -> Tensor:
        """Returns the negative log-likelihood of each map under noise, in nats per number of the
        map, (N,).

        The noise makes 8-bit pixels continuous (Theis, van den Oord & Bethge, "A note on the
        evaluation of generative models", ICLR 2016) and keeps the flow from putting spikes on the
        maps it was fitted to (Rothfuss et al., "Noise regularization for conditional density
        estimation", 2019).
        """
        return self.negative_log_likelihood(x + self.noise * noise.unflatten(1, self.shape))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the heatmap (N, h, w), higher = more anomalous, and the reconstruction (N, C, h,
        w).

        A location's value is 0.5 z^2, the mean over its channels: the latent's part of the negative
        log-likelihood. The volume's part is left out: it is no measure of what is unexpected. The
        reconstruction is the map whose latent is nowhere longer than is typical.
        """
        z, _ = self.encode_map(x)
        square = (z**2).mean(1, keepdim=True)
        y = self.decode(z * torch.sqrt(LATENT_MEAN_SQUARE / square.clamp(min=LATENT_MEAN_SQUARE)))
        return 0.5 * square[:, 0], y.clamp(0.0, 1.0) if self.pixels else y

    def statistics(self, x: Tensor) -> dict[str, Tensor]:
        """Returns the exact negative log-likelihood, (N,), in nats per number of the map."""
        return {"likelihood": self.negative_log_likelihood(x)}

    def sample(self, noise: Tensor) -> Tensor:
        """Returns maps (N, C, h, w) from standard normal noise (N, C h w), at temperature 0.7."""
        y = self.decode(TEMPERATURE * noise.unflatten(1, self.shape))
        return y.clamp(0.0, 1.0) if self.pixels else y

    def sample_size(self) -> int:
        return math.prod(self.shape)

    def negative_log_likelihood(self, x: Tensor) -> Tensor:
        """Returns -log p(x) / (C h w), (N,), by the change of variables (Dinh et al.,
        equation 2).
        """
        z, log_determinant = self.encode_map(x)
        return (
            (0.5 * z**2).mean((1, 2, 3))
            + 0.5 * math.log(2 * math.pi)
            - log_determinant / x[0].numel()
        )

    def encode_map(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the latent z (N, C, h, w) of maps and the log-determinant of dz/dx, (N,)."""
        log_scale = LOCATION_RATE_FACTOR * self.log_scale
        z = (x - LOCATION_RATE_FACTOR * self.shift) * log_scale.exp()
        log_determinant = log_scale.sum()
        for coupling in self.couplings:
            z, more = coupling(z)
            log_determinant = log_determinant + more
        return z, log_determinant

    def decode(self, z: Tensor) -> Tensor:
        """Returns the maps (N, C, h, w) of latents: the exact inverse of ``encode_map``."""
        for coupling in reversed(self.in_order):
            z = coupling.inverse(z)
        return (
            z * (-LOCATION_RATE_FACTOR * self.log_scale).exp() + LOCATION_RATE_FACTOR * self.shift
        )


class Coupling(nn.Module):
    """z = m x + (1 - m) (x exp(s(m x)) + t(m x)) (Dinh et al., equation 9): what the mask m keeps
    tells the rest.

    On maps the mask is a random half of the channels, always the same. On pixels it is a
    checkerboard, in turn of single pixels and of blocks of four pixels a side, which the neighbours
    alone do not tell.
    """

    mask: Tensor

    def __init__(self, channels: int, height: int, width: int, pixels: bool, number: int) -> None:
        super().__init__()
        if pixels:
            mask = checkerboard(height, width, block=(1, 1, 4, 4)[number % 4]).expand(
                channels, height, width
            )
            mask = 1 - mask if number % 2 else mask
        else:
            mask = halves(channels, number).expand(channels, height, width)
        self.register_buffer("mask", mask.clone(), persistent=False)
        self.subnetwork = Subnetwork(channels, height, width, pixels)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the latent of x (N, C, h, w), and the log-determinant, (N,)."""
        s, t = self.scale_and_shift(x)
        return x * s.exp() + t, s.sum((1, 2, 3))

    def inverse(self, z: Tensor) -> Tensor:
        s, t = self.scale_and_shift(z)  # the same as of x: the mask keeps what they depend on
        return (z - t) * (-s).exp()

    def scale_and_shift(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the log scale and the shift, (N, C, h, w) each, zero where the mask is one."""
        s, t = self.subnetwork(self.mask * x).to(x.dtype).chunk(2, 1)  # float32 under autocast too
        return (1 - self.mask) * MAX_LOG_SCALE * torch.tanh(s / MAX_LOG_SCALE), (1 - self.mask) * t


class Subnetwork(nn.Module):
    """Maps (N, C, h, w) -> (N, 2C, h, w): two convolutions, with a learned bias for each location
    between them.

    Pixels are taken two by two, the last row or column repeated where their number is odd: a
    quarter of the cost, and twice the field of view. The bias tells where the part is: the held-out
    likelihood of features is better for it.
    """

    def __init__(self, channels: int, height: int, width: int, pixels: bool) -> None:
        super().__init__()
        self.block = 2 if pixels else 1
        self.size = (height, width)
        hidden, many = PIXEL_HIDDEN if pixels else HIDDEN, self.block**2
        self.padding = (0, -width % self.block, 0, -height % self.block)
        self.first = nn.Conv2d(channels * many, hidden, 3, padding=1)
        self.place = nn.Parameter(
            torch.zeros(hidden, -(-height // self.block), -(-width // self.block))
        )
        self.last = nn.Conv2d(hidden, 2 * channels * many, 3, padding=1)
        with torch.no_grad():  # the flow starts as the identity
            for parameter in self.last.parameters():
                parameter.zero_()

    def forward(self, x: Tensor) -> Tensor:
        if self.block > 1:
            x = F.pixel_unshuffle(F.pad(x, self.padding, mode="replicate"), self.block)
        y = self.last(F.silu(self.first(x) + LOCATION_RATE_FACTOR * self.place))
        return (
            F.pixel_shuffle(y, self.block)[:, :, : self.size[0], : self.size[1]]
            if self.block > 1
            else y
        )


def halves(channels: int, number: int) -> Tensor:
    """Returns the mask (C, 1, 1) of a coupling: a random half of the channels, then the other half,
    then a new one.
    """
    order = torch.randperm(channels, generator=torch.Generator().manual_seed(number // 2))
    mask = torch.zeros(channels, 1, 1)
    mask[order[: channels // 2]] = 1.0
    return 1 - mask if number % 2 else mask


def checkerboard(height: int, width: int, block: int) -> Tensor:
    """Returns 0 and 1 (h, w) in turn, in squares of ``block`` pixels a side."""
    y, x = torch.arange(height)[:, None] // block, torch.arange(width) // block
    return ((y + x) % 2).float()
