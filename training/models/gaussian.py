"""The Gaussian of whole maps, with what is usual taken out of its heat. Score: the hottest 5 % of the heatmap."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from anomaly.errors import TrainingError
from training.models.autoencoder import LinearAutoencoder, inner_products
from training.sets import parts_of

# By made-up defects, with real ones in the same table: see docs/results.md.
BY_PLACE = 0.7  # how much of a place's usual heat is divided out, as a power: 0 nothing, 1 all
BY_IMAGE = 0.2  # and of the image's own
CONTRAST = 2.0  # the power of what remains: few very hot cells count for more than many warm ones
LEAST = 0.1  # of the mean heat that a place has usually at least: none has where a mask leaves out
MOST = 800  # images that the usual heat is taken of


class Gaussian(LinearAutoencoder):
    """The linear model's Gaussian; each place is compared with its own usual heat, and with the rest of the image.

    The heat of new good images is not the same everywhere: the edge of a part is hotter than a plain surface, and a
    photograph of coarse grain is hotter all over. Heat brought to one scale by good images that the model has not seen:
    Batzner et al., "EfficientAD" (WACV 2024), for whole maps; here for each place. Divided by a mean of the heat around:
    Carandini & Heeger, "Normalization as a canonical neural computation" (Nature Reviews Neuroscience 2012), equation 1.
    """

    groups: Sequence[str] | None = None  # of the maps to fit on, set before the fit; None: a place has no usual heat
    typical: Tensor

    def __init__(self, channels: int, height: int, width: int, pixels: bool) -> None:
        super().__init__(channels, height, width, pixels)
        self.register_buffer("typical", torch.ones(height, width))

    def fit_maps(self, maps: Tensor, products: Tensor | None = None) -> None:
        """Sets the Gaussian from maps (n, C, h, w), and where their groups are known the usual heat of each place."""
        super().fit_maps(maps, products)
        if self.groups is not None:
            self.typical = usual_heat(maps, self.groups).to(self.mean)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the heatmap (N, h, w), higher = more anomalous, and the reconstruction (N, C, h, w)."""
        heat, expected = super().forward(x)
        heat = heat / self.typical**BY_PLACE
        of_image = torch.log(heat + 1e-6).mean((1, 2), keepdim=True)
        return (heat * torch.exp(-BY_IMAGE * of_image)) ** CONTRAST, expected


@torch.no_grad()
def usual_heat(maps: Tensor, groups: Sequence[str]) -> Tensor:
    """Returns the mean heat of each place (h, w), smoothed, in units of the whole map's, for images not seen in the fit.

    Five Gaussians, each without a fifth of the groups, judge the maps (n, C, h, w) of those. Ones where maps are too few or
    too alike for that.
    """
    maps, groups = drawn(maps, groups)
    parts = torch.from_numpy(parts_of(groups))
    products = inner_products(maps.flatten(1))
    total = torch.zeros(maps.shape[2:])
    for part in parts.unique():
        kept = parts != part
        model = LinearAutoencoder(*maps.shape[1:], pixels=False)
        try:
            model.fit_maps(maps[kept], products[kept][:, kept])
        except TrainingError:
            return torch.ones(maps.shape[2:])
        total += sum(model(batch)[0].sum(0) for batch in maps[~kept].split(64))
    smoothed = F.avg_pool2d(total[None], 3, 1, 1, count_include_pad=False)[0]
    return (smoothed / smoothed.mean()).clamp(min=LEAST)


def drawn(maps: Tensor, groups: Sequence[str]) -> tuple[Tensor, list[str]]:
    """Returns maps as float32 and their groups; of more than 800 a random subset, always the same."""
    chosen = torch.randperm(len(maps), generator=torch.Generator().manual_seed(0))[:MOST].sort().values
    maps = maps[chosen].cpu()
    return maps.float() / 255 if maps.dtype == torch.uint8 else maps, [groups[i] for i in chosen.tolist()]
