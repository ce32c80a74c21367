"""Levels and pixels."""

from __future__ import annotations

import torch

from training.pixels import to_levels, to_unit


def test_every_level_comes_back() -> None:
    levels = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_levels(to_unit(levels)), levels)
    assert to_unit(levels, torch.float64).dtype == torch.float64


def test_what_is_no_level_stays_as_it_is() -> None:
    maps = torch.tensor([-300.0, 0.1, 300.0])
    assert torch.equal(to_unit(maps), maps)
