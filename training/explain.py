"""A small decoder that turns maps of filters or features back into the picture that the model
expected to see.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.folds import seeded_subset
from training.pixels import to_unit
from training.protocols import Model
from training.sets import PICTURE

BATCH = 16
PASSES, MAX_STEPS = 20, 150
MAX_IMAGES = 400  # whose pictures are learnt
WIDTHS = (64, 48, 24)  # channels at g, 24 and 48 cells a side


class PictureDecoder(nn.Module):
    """Maps (N, C, g, g) -> pictures (N, 3, 96, 96) in 0..1, as a correction of the mean picture."""

    mean: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, WIDTHS[0], 1)
        self.second = nn.Conv2d(WIDTHS[0], WIDTHS[1], 3, padding=1)
        self.third = nn.Conv2d(WIDTHS[1], WIDTHS[2], 3, padding=1)
        self.last = nn.Conv2d(WIDTHS[2], 12, 3, padding=1)  # four pixels of three colours to a cell
        self.register_buffer("mean", torch.full((3, PICTURE, PICTURE), 0.5))

    def unclamped(self, maps: Tensor) -> Tensor:
        """Returns the pictures before the clamp, whose gradient would vanish outside 0..1."""
        x = F.silu(self.first(maps))
        x = F.silu(
            self.second(
                F.interpolate(x, (PICTURE // 4, PICTURE // 4), mode="bilinear", align_corners=False)
            )
        )
        x = F.silu(
            self.third(
                F.interpolate(x, (PICTURE // 2, PICTURE // 2), mode="bilinear", align_corners=False)
            )
        )
        return self.mean + F.pixel_shuffle(self.last(x), 2)

    def forward(self, maps: Tensor) -> Tensor:
        return self.unclamped(maps).clamp(0.0, 1.0)


def steps_for(images: int) -> int:
    """Returns how many steps the fit takes for so many images."""
    return min(MAX_STEPS, -(-images * PASSES // BATCH))


def fit_decoder(
    model: Model,
    maps: Tensor,
    pictures: Tensor,
    seed: int,
    device: str,
    seen: Callable[[], object],
) -> PictureDecoder:
    """Returns a decoder fitted on what ``model`` reconstructs of normal maps (n, C, g, g) and their
    pictures (n, 3, 96, 96).

    Squared error, so that what the maps do not tell comes out as the mean: a blur, never an
    invention.
    """
    torch.manual_seed(seed)
    chosen = seeded_subset(len(maps), MAX_IMAGES)
    maps, pictures = maps[chosen], pictures[chosen]
    with torch.no_grad():
        expected = torch.cat([model(batch.to(device))[1] for batch in maps.split(BATCH)])
    decoder = PictureDecoder(maps.shape[1]).to(device)
    decoder.mean.copy_(pictures.float().mean(0) / 255)
    optimiser = torch.optim.AdamW(decoder.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, 3e-3, total_steps=steps_for(len(maps))
    )
    order = torch.Generator().manual_seed(seed)
    for _ in range(steps_for(len(maps))):
        index = torch.randint(len(maps), (BATCH,), generator=order)
        loss = F.mse_loss(decoder.unclamped(expected[index]), to_unit(pictures[index].to(device)))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        seen()
    return decoder.eval()
