"""What two images or maps differ by -> a heatmap; a heatmap -> one score. Higher = more anomalous,
everywhere.

All of it is differentiable (it is also the loss) and exportable to ONNX: no data-dependent shapes
or branches.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from anomaly.errors import TrainingError
from training.area_opening import area_opening
from training.complexity import complexity
from training.known_defects import KnownDefects
from training.pixels import to_unit
from training.protocols import Model

SHARE = 0.05  # of a heatmap's locations, the hottest, make the score
LARGEST_HEATMAP = 64  # cells a side; a finer map is averaged down: a defect is larger than a pixel
TYPICALITY = "typicality"  # the name of the density of states as an image score
MAX_REFERENCES = 1000  # validation images that a density of states remembers


def squared_error(x: Tensor, y: Tensor) -> Tensor:
    """Returns the mean over channels of the squared difference, (N, H, W), from two (N, C, H, W) of
    any unit.
    """
    return ((x - y) ** 2).mean(1)


def ssim_error(x: Tensor, y: Tensor) -> Tensor:
    """Returns 1 - structural similarity, (N, H, W) from 0 (alike) to 2, from two (N, C, H, W) of
    pixels in 0..1.

    Wang et al., "Image quality assessment: from error visibility to structural similarity" (IEEE
    TIP 2004), equation 13, under their Gaussian window of 11 pixels, sigma 1.5; mean over channels;
    as a reconstruction loss and anomaly score: Bergmann et al. (VISAPP 2019).
    """
    c1, c2 = 0.01**2, 0.03**2
    mean_x, mean_y = gaussian_window(x), gaussian_window(y)
    # Variances of the differences from the local mean would need a second window; in 0..1 this form
    # is exact enough.
    var_x = gaussian_window(x * x) - mean_x**2
    var_y = gaussian_window(y * y) - mean_y**2
    covariance = gaussian_window(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    structure = (2 * covariance + c2) / (var_x + var_y + c2)
    return (1 - luminance * structure).mean(1)


def gaussian_window(x: Tensor, side: int = 11, sigma: float = 1.5) -> Tensor:
    """Returns x (N, C, H, W) averaged under a Gaussian window, edges repeated, by two passes of one
    dimension.
    """
    line = torch.arange(side, dtype=x.dtype, device=x.device) - side // 2
    window = torch.exp(-(line**2) / (2 * sigma**2))
    window = (window / window.sum()).expand(x.shape[1], 1, side)
    half = side // 2
    x = F.conv2d(
        F.pad(x, (0, 0, half, half), mode="replicate"), window[:, :, :, None], groups=x.shape[1]
    )
    return F.conv2d(
        F.pad(x, (half, half, 0, 0), mode="replicate"), window[:, :, None, :], groups=x.shape[1]
    )


def gradient_similarity_error(x: Tensor, y: Tensor, scales: int = 4) -> Tensor:
    """Returns 1 - gradient magnitude similarity, mean over scales, (N, H, W) in 0..1, from two (N,
    C, H, W) in 0..1.

    GMS: Xue et al., "Gradient magnitude similarity deviation" (IEEE TIP 2014), equation 4, its
    constant 170 scaled from 0..255 to 0..1; on four scales and as an anomaly map: Zavrtanik et al.,
    "Reconstruction by inpainting for visual anomaly detection" (Pattern Recognition 2021),
    equation 3. It sees structure, not brightness or colour. Scales that would be smaller than 8
    pixels a side are left out.
    """
    c = 170 / 255**2
    size = (x.shape[2], x.shape[3])
    x, y = x.mean(1, keepdim=True), y.mean(1, keepdim=True)
    errors = []
    for scale in range(scales):
        if scale and min(x.shape[2:]) < 16:
            break
        if scale:
            x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
        gx, gy = gradient_magnitude(x), gradient_magnitude(y)
        error = 1 - (2 * gx * gy + c) / (gx**2 + gy**2 + c)
        errors.append(
            F.interpolate(error, size, mode="bilinear", align_corners=False) if scale else error
        )
    return torch.cat(errors, 1).mean(1)


def gradient_magnitude(x: Tensor) -> Tensor:
    """Returns the length of the Prewitt gradient of x (N, 1, H, W), edges repeated."""
    line = torch.tensor([1.0, 0.0, -1.0], dtype=x.dtype, device=x.device) / 3
    kernels = torch.stack([line.expand(3, 3), line.expand(3, 3).T])[:, None]  # (2, 1, 3, 3)
    gradient = F.conv2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), kernels)
    # The square root's slope at 0 is infinite: without the small number a flat image would make the
    # gradient NaN. Not smaller: torch's exporter takes 1e-8 for zero and leaves it out.
    return torch.sqrt((gradient**2).sum(1, keepdim=True) + 1e-6)


ERRORS = {"l2": squared_error, "ssim": ssim_error, "gradient": gradient_similarity_error}


def pool(heatmap: Tensor, share: float = SHARE, places: int | None = None) -> Tensor:
    """Returns the score (N,): the mean of the hottest ``share`` of a heatmap (N, h, w), at least of
    one location.

    ``places``: how many locations instead, or all where there are fewer.

    A hotter heatmap never scores lower.
    """
    flat = heatmap.flatten(1)
    count = max(1, round(share * flat.shape[1])) if places is None else min(places, flat.shape[1])
    return flat.topk(count, dim=1).values.mean(1)


class Heatmap(nn.Module):
    """A map of errors (N, H, W) -> the heatmap (N, h, w), and the heatmap -> the score of its
    hottest places.

    It is averaged over 3 x 3 cells, since a defect is larger than one.
    ``coverage``: the share of each cell of the map that a mask lets be inspected, float32 (H, W);
    None: all of every one. Elsewhere the heatmap has its lowest value. ``cells``: what is high in
    fewer connected cells of the heatmap does not count (see ``area_opening``). ``places``: how many
    hottest ones make the score of a map that was stitched from tiles, and is coarse already; None:
    5 % of all. ``smooth``: False where a place is a part of a cell, and is not averaged.
    """

    coverage: Tensor | None
    inside: Tensor | None
    index: Tensor | None

    def __init__(
        self,
        coverage: Tensor | None = None,
        cells: int = 1,
        places: int | None = None,
        smooth: bool = True,
    ) -> None:
        super().__init__()
        self.cells, self.places, self.smooth = cells, places, smooth
        self.register_buffer(
            "coverage", None if coverage is None else coverage[None], persistent=False
        )
        inside = None if coverage is None else self.coarse(coverage[None])[0] > 0
        self.register_buffer("inside", inside, persistent=False)
        self.register_buffer(
            "index", None if inside is None else inside.flatten().nonzero()[:, 0], persistent=False
        )

    def forward(self, error: Tensor) -> Tensor:
        if self.coverage is None:
            return self.averaged(area_opening(self.coarse(error), self.cells))
        weight = self.coarse(self.coverage)
        heatmap = self.only_inside(self.coarse(error * self.coverage) / weight.clamp(min=1e-6))
        heatmap = area_opening(heatmap, self.cells)
        return self.only_inside(
            self.averaged(heatmap * weight) / self.averaged(weight).clamp(min=1e-6)
        )

    @property
    def weights(self) -> Tensor | None:
        """The share of each cell that is inspected, (1, h, w); None: all of every one."""
        return None if self.coverage is None else self.coarse(self.coverage)

    def averaged(self, heatmap: Tensor) -> Tensor:
        return averaged(heatmap) if self.smooth else heatmap

    def coarse(self, error: Tensor) -> Tensor:
        return coarse(error) if self.places is None else error

    def only_inside(self, heatmap: Tensor) -> Tensor:
        """Returns the heatmap with its lowest value inside the mask wherever the mask
        leaves out.
        """
        return lowest_outside(heatmap, self.inside)

    def pool(self, heatmap: Tensor) -> Tensor:
        """Returns the mean of the hottest inspected places of a heatmap, (N,)."""
        if self.index is not None:
            heatmap = heatmap.flatten(1).index_select(1, self.index)[:, None]
        return pool(heatmap, places=self.places)

    def mean(self, error: Tensor) -> Tensor:
        """Returns the mean of the inspected places of a map of errors, (N,)."""
        return (
            error.mean((1, 2))
            if self.coverage is None
            else (error * self.coverage).sum((1, 2)) / self.coverage.sum()
        )


def lowest_outside(heatmap: Tensor, inside: Tensor | None) -> Tensor:
    """Returns a heatmap (N, h, w), its lowest value ``inside``, bool (h, w), wherever it is not."""
    if inside is None:
        return heatmap
    highest = torch.full_like(heatmap, torch.finfo(heatmap.dtype).max)
    lowest = torch.where(inside, heatmap, highest).amin((1, 2), keepdim=True)
    return torch.where(inside, heatmap, lowest)


def coarse(error: Tensor) -> Tensor:
    """Returns a map (N, H, W) averaged down to at most LARGEST_HEATMAP cells a side."""
    factor = heatmap_factor(max(error.shape[1:]))
    return F.avg_pool2d(error[:, None], factor)[:, 0] if factor > 1 else error


def heatmap_factor(side: int) -> int:
    """Returns how many cells a side of a map of errors become one of the heatmap."""
    return -(-side // LARGEST_HEATMAP)


def heatmap_shape(grid: tuple[int, int]) -> tuple[int, int]:
    """Returns height and width of the heatmap of a map of errors of a shape."""
    factor = heatmap_factor(max(grid))
    return grid[0] // factor, grid[1] // factor


def averaged(heatmap: Tensor) -> Tensor:
    return F.avg_pool2d(heatmap[:, None], 3, 1, 1, count_include_pad=False)[:, 0]


# --- image scores ---------------------------------------------------------------------------------
def image_scores(model: Model, x: Tensor, to_heatmap: Heatmap | None = None) -> dict[str, Tensor]:
    """Returns every image score that a model has for maps x (N, C, h, w), by name, each (N,).

    ``hottest``: the mean of the hottest 5 % of the smoothed heatmap; ``mean``: of the whole map;
    and what the model calls its ``statistics``. Of pixels also ``complexity``: the nats for a
    number that a general compressor needs, whatever the model; and of likelihoods of pixels
    ``corrected``: the nats that the model needs less those (Serra et al., "Input complexity and
    out-of-distribution detection with likelihood-based generative models", ICLR 2020, equation 3).
    """
    heatmap, to_heatmap = model(x)[0], to_heatmap or Heatmap()
    scores = {"hottest": to_heatmap.pool(to_heatmap(heatmap)), "mean": to_heatmap.mean(heatmap)}
    scores |= model.statistics(x)
    if model.pixels:
        scores["complexity"] = complexity(x) / x[0].numel()
    if model.pixels and model.likelihood:
        scores["corrected"] = heatmap.sum((1, 2)) / x[0].numel() - scores["complexity"]
    return scores


def states(scores: dict[str, Tensor]) -> Tensor:
    """Returns what typicality looks at, (N, k), from all image scores: one of each kind.

    Of several that say nearly the same a sum of densities would count each.
    """
    kinds = ("mean", "corrected" if "corrected" in scores else "complexity", "cells")
    return torch.stack([scores[name] for name in kinds if name in scores], 1)


class ImageScore(nn.Module):
    """The one score of an image, (N,): a name of ``image_scores``, or ``typicality``, the density
    of its ``states``. ``known``: what known defects add to it, where some were learnt from.
    """

    def __init__(
        self,
        name: str,
        density: DensityOfStates | None = None,
        known: KnownDefects | None = None,
    ) -> None:
        super().__init__()
        self.name, self.density, self.known = name, density, known

    def forward(self, model: Model, maps: Tensor, heatmap: Tensor, to_heatmap: Heatmap) -> Tensor:
        """``heatmap`` (N, h, w) is what ``to_heatmap`` made of the model's map of errors."""
        if self.name == "hottest":
            return to_heatmap.pool(heatmap)
        scores = image_scores(model, maps, to_heatmap)
        return scores[self.name] if self.density is None else self.density(states(scores))

    def in_words(self) -> str:
        """Returns what the card says of it."""
        if self.name in SCORE_WORDS:
            return SCORE_WORDS[self.name]
        return f"{self.name} of the whole image (a hotter heatmap need not score higher)"


SCORE_WORDS = {
    "hottest": "mean of the hottest 5 % of the heatmap",
    "mean": "mean of the heatmap",
    TYPICALITY: (
        "rarity of the model's statistics among validation images, two-sided (a hotter heatmap "
        "need not score higher: an image may also be too simple)"
    ),
}


def score_names(model: Model, shape: torch.Size) -> list[str]:
    """Returns the names of the image scores that a model has for maps of a shape (C, h, w)."""
    with torch.no_grad():
        return [*image_scores(model.eval(), torch.zeros(1, *shape)), TYPICALITY]


@torch.inference_mode()
def scores_of(
    model: Model,
    maps: Tensor,
    device: str = "cpu",
    batch: int = 64,
    to_heatmap: Heatmap | None = None,
) -> dict[str, Tensor]:
    """Returns all image scores of maps (n, C, h, w), by name, each (n,) on the CPU; uint8 maps
    stand for 0..1.
    """
    to_heatmap = (to_heatmap or Heatmap()).to(device)
    batches = [
        image_scores(model, to_unit(some.to(device)), to_heatmap) for some in maps.split(batch)
    ]
    return {name: torch.cat([scores[name] for scores in batches]).cpu() for name in batches[0]}


class DensityOfStates(nn.Module):
    """How rare a model's own statistics are among validation images: too low counts like too high.

    Morningstar et al., "Density of states estimation for out-of-distribution detection" (AISTATS
    2021), in their form of one kernel density for each statistic. It repairs the paradox that
    simple images get a higher likelihood than the ones that were trained on (Nalisnick et al., ICLR
    2019).
    """

    references: Tensor
    location: Tensor
    bandwidth: Tensor

    def __init__(self, statistics: int = 0, images: int = 0) -> None:
        super().__init__()
        self.register_buffer("references", torch.zeros(images, statistics))
        self.register_buffer("location", torch.zeros(statistics))
        self.register_buffer("bandwidth", torch.ones(statistics))

    @staticmethod
    def of(states: Tensor) -> DensityOfStates:
        """Returns the density of the statistics (n, k) of validation images."""
        if len(states) < 2:
            raise TrainingError(
                f"{len(states)} validation image found, at least 2 expected for this score: add "
                "good images"
            )
        states = states[:MAX_REFERENCES].float()
        density = DensityOfStates(states.shape[1], len(states))
        spread = torch.minimum(
            states.std(0), (states.quantile(0.75, 0) - states.quantile(0.25, 0)) / 1.34
        )
        # Silverman's rule of thumb (1986, equation 3.31); a statistic that never varies must not
        # divide by zero.
        density.bandwidth.copy_(
            0.9 * spread * len(states) ** -0.2 + 1e-6 * states.abs().mean(0) + 1e-12
        )
        density.location.copy_(states.median(0).values)
        density.references.copy_((states - density.location) / density.bandwidth)
        return density

    def forward(self, states: Tensor) -> Tensor:
        """Returns log(1 + nats), (N,), of the negative log-density summed over the statistics (N,
        k), less its least value.

        The logarithm changes no order; without it the score of an image far from all others, which
        grows as the square of its distance, would be so large that rounding alone exceeded the
        distance between good images.
        """
        z = (states - self.location) / self.bandwidth  # (N, k)
        # Offsets from the median: the references of raw statistics would cancel badly in float32.
        log_kernels = -0.5 * (z[:, None] - self.references) ** 2  # (N, n, k)
        nats = math.log(len(self.references)) - log_kernels.logsumexp(1)  # at least 0, (N, k)
        return torch.log1p(nats.sum(1))
