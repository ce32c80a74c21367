"""Diffusion model: noise is added to a map step by step, and a network learns the way back. Score:
what is left of an image's own details once it was half drowned in noise and restored.
"""

from __future__ import annotations

import itertools
import math
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.models.base import GenerativeModel
from training.models.networks import pyramid
from training.scores import squared_error

WIDTHS = (32, 64)  # channels of the network at full size and after each halving; the last repeated
MAP_WIDTHS = (64, 96)  # of filters and features, which have few locations and many channels
EMBEDDING = 64  # numbers that tell the network how much noise there is
FREQUENCIES = 6  # octaves in which it is told
# How far an image is noised before it is restored, as a share of the way to pure noise, in how
# many steps it is restored, and under how many fixed noises: see docs/research/2026-11-settings.md
NOISED = 0.65
STEPS, DRAWS = 1, 2
SAMPLE_STEPS = 50  # of a sample, from pure noise
LEVELS = 8  # of noise, at which ``denoising`` asks for the loss


class Diffusion(GenerativeModel):
    """Ho, Jain & Abbeel, "Denoising diffusion probabilistic models" (NeurIPS 2020), in continuous
    time, with the cosine schedule of Nichol & Dhariwal (ICML 2021):

        x_a = cos(a) x + sin(a) e    e ~ N(0, 1), from a = 0, the map, to a = pi / 2, pure noise

    For anomalies: Wyatt et al., "AnoDDPM" (CVPR workshops 2022): an image is noised part of the way
    and restored; what was normal comes back, what was not is replaced. The noises are constants of
    the file, so that the same image always gets the same score.
    """

    can_sample: ClassVar[bool] = True
    noises: Tensor

    def __init__(self, channels: int, height: int, width: int, pixels: bool) -> None:
        super().__init__(pixels)
        self.shape = (channels, height, width)
        self.network: nn.Module = UNet(channels, height, width, pixels)
        noises = torch.randn(LEVELS, *self.shape, generator=torch.Generator().manual_seed(0))
        self.register_buffer("noises", noises, persistent=False)

    def noise_size(self) -> int:
        return 1 + math.prod(self.shape)

    def loss(self, x: Tensor, noise: Tensor, player: str) -> Tensor:
        """Returns the mean squared error of the predicted velocity, (N,).

        It is that of the noise (Ho et al., equation 14) divided by cos(a)^2, another weight of the
        same bound (Salimans & Ho, section 4). By the noise itself, levels near pure noise would
        hardly count, and there it is decided what an image shows.

        ``noise`` (N, 1 + C h w): the first number of each row sets how much noise there is.
        """
        angle = math.pi / 2 * torch.special.ndtr(noise[:, :1])
        x, added, a = (
            self.centred(x),
            noise[:, 1:].unflatten(1, self.shape),
            angle[:, :, None, None],
        )
        velocity = self.network(noised(x, a, added), angle)
        return squared_error(a.cos() * added - a.sin() * x, velocity).mean((1, 2))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the squared error of the restored map at each location, (N, h, w), higher = more
        anomalous; and that map, (N, C, h, w). Both are means over two noises.
        """
        way = angles(NOISED, STEPS)
        errors, restored = [], []
        for noise in self.noises[:DRAWS]:
            y = self.restored(self.denoised(noised(self.centred(x), way[0], noise), way))
            errors.append(squared_error(x, y))
            restored.append(y)
        return torch.stack(errors).mean(0), torch.stack(restored).mean(0)

    def statistics(self, x: Tensor) -> dict[str, Tensor]:
        """Returns ``denoising`` (N,): the loss at eight levels of noise, under fixed noises.

        Up to weights and a constant it is the negative evidence lower bound (Ho et al., section
        3.4): the less likely an image, the worse its noise is predicted.
        """
        way = [math.pi / 2 * (number + 0.5) / LEVELS for number in range(LEVELS)]
        errors = [
            self.noise_error(self.centred(x), torch.full((1, 1), angle, device=x.device), noise)
            for angle, noise in zip(way, self.noises, strict=True)
        ]
        return {"denoising": torch.stack(errors).mean(0)}

    def sample(self, noise: Tensor) -> Tensor:
        """Returns maps (N, C, h, w) from standard normal noise (N, C h w), in 50 steps."""
        return self.restored(self.denoised(noise.unflatten(1, self.shape), angles(1, SAMPLE_STEPS)))

    def sample_size(self) -> int:
        return math.prod(self.shape)

    def noise_error(self, x: Tensor, angle: Tensor, noise: Tensor) -> Tensor:
        """Returns the mean squared error of the noise, (N,), that is predicted at an angle (N or 1,
        1) of centred maps.
        """
        found = noised(x, angle[:, :, None, None], noise)
        expected = self.expected_noise(found, angle, self.network(found, angle))
        return squared_error(noise.expand_as(expected), expected).mean((1, 2))

    def expected_noise(self, x: Tensor, angle: Tensor, velocity: Tensor) -> Tensor:
        """Returns the noise that is expected in x_a, from the network's velocity v = cos(a) e -
        sin(a) x: it has one size at all levels (Salimans & Ho, "Progressive distillation", ICLR
        2022, section 4 and appendix D).
        """
        angle = angle[:, :, None, None]
        return angle.sin() * x + angle.cos() * velocity

    def denoised(self, x: Tensor, way: list[float]) -> Tensor:
        """Returns centred maps at the last angle of a way, from those at its first, without further
        noise (Song, Meng & Ermon, "Denoising diffusion implicit models", ICLR 2021, equation 12
        with sigma = 0). A way upwards is the inverse.
        """
        for here, there in itertools.pairwise(way):
            velocity = self.network(x, torch.full((1, 1), here, device=x.device))
            clean = math.cos(here) * x - math.sin(here) * velocity
            noise = math.sin(here) * x + math.cos(here) * velocity
            clean = clean.clamp(-1.0, 1.0) if self.pixels else clean
            x = math.cos(there) * clean + math.sin(there) * noise
        return x

    def centred(self, x: Tensor) -> Tensor:
        """Returns pixels 0..1 as -1..1; other maps, which are whitened, as they are."""
        return 2 * x - 1 if self.pixels else x

    def restored(self, x: Tensor) -> Tensor:
        """Returns centred maps as maps."""
        return (x + 1) / 2 if self.pixels else x


def noised(x: Tensor, angle: Tensor | float, noise: Tensor) -> Tensor:
    """Returns cos(a) x + sin(a) noise: of unit variance where both are."""
    angle = torch.as_tensor(angle, device=x.device)
    return angle.cos() * x + angle.sin() * noise


def angles(noised_share: float, steps: int) -> list[float]:
    """Returns the angles of a way of so many even steps, from a share of pure noise to none."""
    return [math.pi / 2 * noised_share * (1 - step / steps) for step in range(steps + 1)]


def widths_for(levels: int, pixels: bool) -> tuple[int, ...]:
    """Returns the channels of each level; the last are repeated."""
    widths = WIDTHS if pixels else MAP_WIDTHS
    return (*widths, *widths[-1:] * levels)[:levels]


class UNet(nn.Module):
    """Noised maps (N, C, h, w) and angles (N or 1, 1) -> velocities (N, C, h, w).

    Ronneberger, Fischer & Brox, "U-Net" (MICCAI 2015), told the level of noise as in Ho et al.
    (appendix B). Pixels are taken two by two, a quarter of the cost; a learned bias tells each
    location where the part is.
    """

    def __init__(self, channels: int, height: int, width: int, pixels: bool) -> None:
        super().__init__()
        self.block = 2 if pixels else 1
        self.padding = (0, -width % self.block, 0, -height % self.block)
        self.size = (height, width)
        first = (-(-height // self.block), -(-width // self.block))
        self.sizes = [first, *(pyramid(*first) if max(first) > 8 else [])]
        widths = widths_for(len(self.sizes), pixels)
        self.embed = nn.Sequential(nn.Linear(2 * FREQUENCIES, EMBEDDING), nn.SiLU())
        self.first = nn.Conv2d(channels * self.block**2, widths[0], 3, padding=1)
        self.place = nn.Parameter(torch.zeros(widths[0], *first))
        self.down = nn.ModuleList(ResidualBlock(width, width) for width in widths)
        self.halve = nn.ModuleList(
            nn.Conv2d(before, after, 4, 2, 1) for before, after in itertools.pairwise(widths)
        )
        self.attention = Attention(widths[-1])
        self.up = nn.ModuleList(
            ResidualBlock(before + after, after)
            for before, after in zip(widths[:0:-1], widths[-2::-1], strict=True)
        )
        self.last = nn.Sequential(
            nn.GroupNorm(8, widths[0]),
            nn.SiLU(),
            nn.Conv2d(widths[0], channels * self.block**2, 3, padding=1),
        )

    def forward(self, x: Tensor, angle: Tensor) -> Tensor:
        octaves = angle * 2.0 ** torch.arange(FREQUENCIES, device=x.device)
        level = self.embed(torch.cat([octaves.sin(), octaves.cos()], 1))
        if self.block > 1:
            x = F.pixel_unshuffle(F.pad(x, self.padding, mode="replicate"), self.block)
        x = self.first(x) + self.place
        passed = []
        for number, down in enumerate(self.down):
            x = down(self.halve[number - 1](x) if number else x, level)
            passed.append(x)
        x = passed[-1] = self.attention(x)
        for up, size, beside in zip(self.up, self.sizes[-2::-1], passed[-2::-1], strict=True):
            x = up(torch.cat([F.interpolate(x, size), beside], 1), level)
        x = self.last(x).float()
        if self.block > 1:
            x = F.pixel_shuffle(x, self.block)[:, :, : self.size[0], : self.size[1]]
        return x


class ResidualBlock(nn.Module):
    """Two convolutions beside the way straight through, told the level of noise (N or 1, 64)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = nn.Sequential(
            nn.GroupNorm(8, inputs), nn.SiLU(), nn.Conv2d(inputs, outputs, 3, padding=1)
        )
        self.level = nn.Linear(EMBEDDING, outputs)
        self.second = nn.Sequential(
            nn.GroupNorm(8, outputs), nn.SiLU(), nn.Conv2d(outputs, outputs, 3, padding=1)
        )
        self.straight = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        y = self.first(x) + self.level(level)[:, :, None, None]
        return self.straight(x) + self.second(y)


class Attention(nn.Module):
    """Every location looks at all others, at the coarsest level (Ho et al., appendix B): one head
    of dot products (Vaswani et al., NeurIPS 2017) beside the way straight through.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(8, channels)
        self.asked = nn.Conv2d(channels, 3 * channels, 1)
        self.answer = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.asked(self.norm(x)).flatten(2).chunk(3, 1)  # (N, C, h w) each
        weights = (query.transpose(1, 2) @ key / math.sqrt(x.shape[1])).softmax(2)
        return x + self.answer((value @ weights.transpose(1, 2)).unflatten(2, x.shape[2:]))
