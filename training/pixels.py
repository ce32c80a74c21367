"""uint8 levels <-> pixels in 0..1, everywhere in training."""

from __future__ import annotations

import torch
from torch import Tensor


def to_unit(maps: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Returns maps as floating-point numbers; uint8 stands for 0..1."""
    return maps.to(dtype) / 255 if maps.dtype == torch.uint8 else maps.to(dtype)


def to_levels(x: Tensor) -> Tensor:
    """Returns pixels in 0..1 at the nearest of 256 levels, uint8."""
    return (x * 255.0).round().to(torch.uint8)
