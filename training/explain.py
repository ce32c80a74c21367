"""A small linear decoder that turns maps of filters or features back into the picture that a model
expected to see.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.folds import seeded_subset
from training.pixels import to_unit
from training.protocols import Model
from training.sets import PICTURE

BATCH = 16
MAX_IMAGES = 400  # whose pictures are learnt
BLOCK = 4  # pixels a side that one location of the enlarged maps draws
RIDGE = 1e-3  # of the mean variance of a channel: so that few images are not learnt by heart


class PictureDecoder(nn.Module):
    """Maps (N, C, g, g) -> pictures (N, 3, 96, 96) in 0..1: the mean picture, changed by what the
    maps differ from the mean maps.
    """

    mean: Tensor
    mean_maps: Tensor

    def __init__(self, channels: int, height: int, width: int) -> None:
        super().__init__()
        self.draw = nn.Conv2d(channels, 3 * BLOCK * BLOCK, 1, bias=False)
        self.register_buffer("mean", torch.full((3, PICTURE, PICTURE), 0.5))
        self.register_buffer("mean_maps", torch.zeros(channels, height, width))

    def enlarged(self, maps: Tensor) -> Tensor:
        """Returns what maps differ from the mean maps, (N, C, 24, 24)."""
        size = (PICTURE // BLOCK, PICTURE // BLOCK)
        return F.interpolate(maps - self.mean_maps, size, mode="bilinear", align_corners=False)

    def forward(self, maps: Tensor) -> Tensor:
        drawn: Tensor = F.pixel_shuffle(self.draw(self.enlarged(maps)), BLOCK)
        return (self.mean + drawn).clamp(0.0, 1.0)


@torch.no_grad()
def fit_decoder(model: Model, maps: Tensor, pictures: Tensor, device: str) -> PictureDecoder:
    """Returns a decoder fitted on what ``model`` reconstructs of normal maps (n, C, g, g) and their
    pictures (n, 3, 96, 96), by ridge regression.

    Least squares, so that what the maps do not tell comes out as the mean: a blur, never an
    invention.
    """
    chosen = seeded_subset(len(maps), MAX_IMAGES)
    maps, pictures = maps[chosen], pictures[chosen]
    expected = torch.cat([model(batch.to(device))[1] for batch in maps.split(BATCH)])
    decoder = PictureDecoder(*maps.shape[1:]).to(device)
    decoder.mean.copy_(pictures.float().mean(0) / 255)
    decoder.mean_maps.copy_(expected.mean(0))
    channels = maps.shape[1]
    within = torch.zeros(channels, channels, dtype=torch.float64)
    across = torch.zeros(channels, 3 * BLOCK * BLOCK, dtype=torch.float64)
    for some, seen in zip(expected.split(BATCH), pictures.split(BATCH), strict=True):
        x = decoder.enlarged(some).movedim(1, -1).flatten(0, 2)
        wanted = F.pixel_unshuffle(to_unit(seen.to(device)) - decoder.mean, BLOCK)
        within += (x.T @ x).double().cpu()
        across += (x.T @ wanted.movedim(1, -1).flatten(0, 2)).double().cpu()
    ridge = RIDGE * within.trace() / channels + torch.finfo(torch.float32).tiny
    weights = torch.linalg.solve(within + ridge * torch.eye(channels), across)
    decoder.draw.weight.copy_(weights.T[..., None, None])
    return decoder.eval()
