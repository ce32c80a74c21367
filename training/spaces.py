"""The space that a generative model models: pixels, filters (fixed Gabor energies), features (a
frozen backbone), both of these, or all (both, with the features of a second backbone).

A space turns prepared pixels, float32 (N, 3, s, s) in 0..1, into maps, float32 (N, C, h, w).
Nothing in it is trained by gradient; filters and features are whitened by the statistics of the fit
set.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.backbone import Backbone
from training.pixels import to_levels
from training.preprocess import triangle_weights
from training.protocols import Space
from training.whitening import SideBySide, Whitening

SPACES = ("pixels", "filters", "features", "both", "all")
# Deep stages carry the anomaly; the shallow ones drown it in texture (see
# docs/research/2026-11-settings.md).
FEATURE_STAGES = {"efficientnet-lite0": (112, 192), "efficientnet-lite2": (120, 208)}
# ... and this one, of cells of 8 pixels, says where it begins and ends
EARLY_STAGE = {"efficientnet-lite0": 40, "efficientnet-lite2": 48}
FEATURE_CHANNELS = 96
# mean and standard deviation of the photographs that the backbone has learnt from
NATURAL_GREY, NATURAL_CONTRAST = 0.45, 0.24
MAX_PIXEL_DEVIATION = 0.6  # how far from 0.5 a pixel can be of what the backbone sees
CELL = 64 / 3  # pixels of the prepared image to one cell of a map: 256 -> 12
LARGE_LEVEL = 128  # pixels a side from which on Gabor energies are taken at every second position
FEWEST_CELLS = 7  # a side of a map of energies, for small images


Shape = tuple[int, int]  # height, width


class Resample(nn.Module):
    """Resamples maps (N, C, *shape) to (N, C, *grid) by an antialiased triangle filter, as two
    constant matrices.
    """

    rows: Tensor
    columns: Tensor

    def __init__(self, shape: Shape, grid: Shape) -> None:
        super().__init__()
        for name, length, cells in zip(("rows", "columns"), shape, grid, strict=True):
            weights = triangle_weights(length, cells, torch.zeros(1))
            self.register_buffer(name, weights, persistent=False)
        self.same = shape == grid

    def forward(self, x: Tensor) -> Tensor:
        return x if self.same else self.rows @ x @ self.columns.transpose(0, 1)


class Highest(nn.Module):
    """Brings maps (N, C, *shape) to (N, C, *grid) by the highest value in each cell.

    What is much smaller than a cell would be averaged away.
    """

    rows: Tensor
    columns: Tensor

    def __init__(self, shape: Shape, grid: Shape) -> None:
        super().__init__()
        for name, length, count in zip(("rows", "columns"), shape, grid, strict=True):
            cells = [
                range(i * length // count, -(-(i + 1) * length // count)) for i in range(count)
            ]
            widest = max(map(len, cells))
            # of a narrow cell the last again
            index = [[cell[min(i, len(cell) - 1)] for i in range(widest)] for cell in cells]
            self.register_buffer(name, torch.tensor(index), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        # As an adaptive pool, which does not export; two gathers, for the exporter takes minutes
        # over a slice for each cell.
        x = x.index_select(2, self.rows.flatten()).unflatten(2, self.rows.shape).amax(3)
        return x.index_select(3, self.columns.flatten()).unflatten(3, self.columns.shape).amax(4)


class PixelSpace(nn.Module):
    """The pixels themselves, (N, 3, s, s) in 0..1, or where all training images are grey (N, 1, s,
    s).
    """

    def __init__(self, shape: Shape, grey: bool = False) -> None:
        super().__init__()
        self.channels, self.grid = 1 if grey else 3, shape
        self.whitening: None = None
        self.early_shape: None = None

    def raw(self, x: Tensor) -> Tensor:
        """Returns all three colours, uint8."""
        return to_levels(x)

    def with_early(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.raw(x), x

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(1, keepdim=True) if self.channels == 1 else x


class FilterSpace(nn.Module):
    """Local contrast normalisation, then Gabor energies: 3 octaves x 8 orientations, and the local
    brightness and contrast.

    No weights at all. Jain & Farrokhnia, "Unsupervised texture segmentation using Gabor filters"
    (1991). ``max_pooled``: a cell has the highest energy in it, not the mean, for defects much
    smaller than a cell.
    """

    kernels: Tensor
    window: Tensor

    def __init__(self, shape: Shape, grid: Shape | None = None, max_pooled: bool = False) -> None:
        super().__init__()
        self.grid = grid or coarse_grid(shape, FEWEST_CELLS)
        self.channels = 26
        self.early_shape: None = None
        self.register_buffer("kernels", gabor_kernels(), persistent=False)
        self.register_buffer("window", gaussian_kernel(min(shape) / 32), persistent=False)
        # An energy varies slower than the wave: every second position of a large level says as
        # much, at a quarter of the cost.
        self.strides = [2 if min(shape) // 2**octave >= LARGE_LEVEL else 1 for octave in range(3)]
        pool = Highest if max_pooled else Resample
        self.octaves = nn.ModuleList(
            pool(level_shape(shape, octave, stride), self.grid)
            for octave, stride in enumerate(self.strides)
        )
        self.resample = Resample(shape, self.grid)
        whitening = Whitening(26, 26, rotate=False)
        # squashed: the highest energy in a smooth picture is what float32 leaves of nothing, and an
        # outlier
        self.whitening: Whitening | SideBySide = (
            SideBySide([whitening], [1.0]) if max_pooled else whitening
        )

    def raw(self, x: Tensor) -> Tensor:
        """Returns the maps before whitening."""
        grey = x.mean(1, keepdim=True)  # (N, 1, s, s)
        mean = self.blur(grey)
        contrast = torch.sqrt(self.blur((grey - mean) ** 2) + 1e-5)
        normalised = (grey - mean) / (contrast + 0.02)
        maps = []
        for octave, (stride, resample) in enumerate(zip(self.strides, self.octaves, strict=True)):
            level = F.avg_pool2d(normalised, 2**octave) if octave else normalised
            level = F.pad(level, (5, 5, 5, 5), mode="replicate")
            pairs = F.conv2d(level, self.kernels, stride=stride)  # even, odd: (N, 16, ., .)
            energy = torch.sqrt(pairs[:, :8] ** 2 + pairs[:, 8:] ** 2 + 1e-6)
            maps.append(torch.log(resample(energy) + 1e-3))
        return torch.cat([*maps, self.resample(mean), torch.log(self.resample(contrast) + 1e-3)], 1)

    def with_early(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.raw(x), x

    def blur(self, x: Tensor) -> Tensor:
        """Returns x (N, 1, h, w) under a Gaussian window, by two passes of one dimension."""
        half = self.window.numel() // 2
        x = F.conv2d(
            F.pad(x, (0, 0, half, half), mode="replicate"), self.window[None, None, :, None]
        )
        return F.conv2d(
            F.pad(x, (half, half, 0, 0), mode="replicate"), self.window[None, None, None, :]
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.whitening(self.raw(x))


class FeatureSpace(nn.Module):
    """Deep stages of a frozen backbone on one grid, whitened; what it sees is exposure normalised
    or, without ``normalised``, as it is.
    """

    def __init__(
        self,
        shape: Shape,
        backbone: str | nn.Module = "efficientnet-lite0",
        grid: Shape | None = None,
        normalised: bool = True,
    ) -> None:
        super().__init__()
        self.grid, self.normalised = grid or coarse_grid(shape, 4), normalised
        if isinstance(backbone, str):
            self.early = 1  # how many stages come before those that are modelled
            backbone = Backbone(backbone, (EARLY_STAGE[backbone], *FEATURE_STAGES[backbone]))
        else:  # see training.own_backbone
            self.early = 0
        self.backbone = backbone
        with torch.inference_mode():
            shapes = [tuple(f.shape[1:]) for f in backbone(torch.zeros(1, 3, *shape))]
        self.early_shape = shapes[0] if self.early else None
        shapes = shapes[self.early :]
        self.resample = nn.ModuleList(Resample((h, w), self.grid) for _, h, w in shapes)
        self.inputs = sum(channels for channels, _, _ in shapes)
        self.channels = min(FEATURE_CHANNELS, self.inputs)
        self.whitening = Whitening(self.inputs, self.channels)

    def raw(self, x: Tensor) -> Tensor:
        """Returns the maps before whitening."""
        return self.with_early(x)[0]

    def with_early(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the maps before whitening, and those of the first stage, an early one where the
        backbone is EfficientNet-Lite.
        """
        features = self.backbone(normalise_exposure(x) if self.normalised else x)
        deep = zip(self.resample, features[self.early :], strict=True)
        return torch.cat([resample(f) for resample, f in deep], 1), features[0]

    def forward(self, x: Tensor) -> Tensor:
        return self.whitening(self.raw(x))


class BothSpace(nn.Module):
    """Features and filters of one grid side by side, each with the same total variance: they miss
    different defects.

    The features may be those of several backbones, which share their part.
    """

    def __init__(
        self,
        shape: Shape,
        backbones: Sequence[str | nn.Module] = ("efficientnet-lite0",),
        grid: Shape | None = None,
        normalised: bool = True,
    ) -> None:
        super().__init__()
        features = [FeatureSpace(shape, backbone, grid, normalised) for backbone in backbones]
        self.grid = features[0].grid
        filters = FilterSpace(shape, self.grid)
        self.subspaces = nn.ModuleList([*features, filters])
        # as what they are
        self.first = (features[0],)
        self.in_order: tuple[FeatureSpace | FilterSpace, ...] = (*features, filters)
        self.channels: int = sum(subspace.channels for subspace in self.in_order)
        gains = [1 / math.sqrt(len(features))] * len(features) + [
            math.sqrt(features[0].channels / filters.channels)
        ]
        self.whitening = SideBySide([subspace.whitening for subspace in self.in_order], gains)

    @property
    def features(self) -> FeatureSpace:
        """The features of the first backbone alone; their maps are the first channels."""
        return self.first[0]

    @property
    def early_shape(self) -> tuple[int, ...] | None:
        return self.features.early_shape

    def raw(self, x: Tensor) -> Tensor:
        """Returns the maps before whitening."""
        return self.with_early(x)[0]

    def with_early(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the maps before whitening, and the early ones of the first backbone."""
        first, early = self.features.with_early(x)
        return torch.cat([first, *(subspace.raw(x) for subspace in self.in_order[1:])], 1), early

    def forward(self, x: Tensor) -> Tensor:
        return self.whitening(self.raw(x))


def normalise_exposure(x: Tensor) -> Tensor:
    """Returns pictures (N, 3, h, w), -0.1 to 1.1, of about one mean brightness, contrasts half way
    to one (logarithms).

    A backbone sees a part under another exposure as another part. Not all the way: contrast tells
    something too, and where there is none only noise would be left. Cut off softly: a small bright
    part on black keeps its details. Brightness itself is among the filters, and not seen by
    features alone.
    """
    grey = x.mean(1, keepdim=True)
    mean = grey.mean((2, 3), keepdim=True)
    contrast = (grey - mean).square().mean((2, 3), keepdim=True).sqrt()
    y = NATURAL_GREY - 0.5 + (x - mean) * torch.sqrt(NATURAL_CONTRAST / (contrast + 0.02))
    return 0.5 + MAX_PIXEL_DEVIATION * torch.tanh(y / MAX_PIXEL_DEVIATION)


def make_space(
    name: str,
    shape: Shape | int,
    grey: bool = False,
    backbone: nn.Module | None = None,
    grid: Shape | None = None,
    normalised: bool = True,
) -> Space:
    """Returns the space of that name for prepared images of a shape (h, w), or of so many pixels a
    side, all of them ``grey`` or not.

    ``backbone``: what the features are of; None: EfficientNet-Lite. ``grid``: cells of filters and
    features; None: of about 21 pixels. ``normalised``: as of FeatureSpace.

    Besides SPACES there is ``max_pooled``, filters that small defects show in: see
    training/tiles.py.
    """
    shape = (shape, shape) if isinstance(shape, int) else shape
    if name == "pixels":
        return PixelSpace(shape, grey)
    if name == "max_pooled":
        return FilterSpace(shape, max_pooled=True)
    if name == "all":
        return BothSpace(shape, tuple(FEATURE_STAGES), grid, normalised)
    if name == "filters":
        return FilterSpace(shape, grid)
    features: str | nn.Module = backbone or "efficientnet-lite0"
    if name == "features":
        return FeatureSpace(shape, features, grid, normalised)
    return BothSpace(shape, (features,), grid, normalised)


def coarse_grid(shape: Shape, least: int) -> Shape:
    """Returns the cells of a map of prepared images of a shape, at least ``least`` a side."""
    return max(least, round(shape[0] / CELL)), max(least, round(shape[1] / CELL))


def level_shape(shape: Shape, octave: int, stride: int) -> Shape:
    """Returns the shape of the energies of an octave taken at every ``stride`` positions."""
    height, width = (-(-(length // 2**octave) // stride) for length in shape)
    return height, width


def gabor_kernels(side: int = 11, wavelength: float = 5.0) -> Tensor:
    """Returns 8 even and 8 odd Gabor kernels, (16, 1, side, side), zero mean and unit L1 norm."""
    line = torch.arange(side, dtype=torch.float32) - side // 2
    y, x = torch.meshgrid(line, line, indexing="ij")
    envelope = torch.exp(-(x**2 + y**2) / (2 * (0.5 * wavelength) ** 2))
    kernels = []
    for phase in (torch.cos, torch.sin):
        for step in range(8):
            angle = math.pi * step / 8
            wave = envelope * phase(
                2 * math.pi * (x * math.cos(angle) + y * math.sin(angle)) / wavelength
            )
            wave = wave - envelope * (wave.sum() / envelope.sum())
            kernels.append(wave / wave.abs().sum())
    return torch.stack(kernels)[:, None]


def gaussian_kernel(sigma: float) -> Tensor:
    """Returns a Gaussian of ``sigma`` pixels, cut at 2 sigma, sum 1."""
    half = max(1, round(2 * sigma))
    line = torch.arange(-half, half + 1, dtype=torch.float32)
    kernel = torch.exp(-(line**2) / (2 * sigma**2))
    return kernel / kernel.sum()
