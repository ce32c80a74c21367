"""Samples that are far from good images are said to be."""

from __future__ import annotations

import torch
from torch import Tensor

from training.models.pixelcnn import PixelCNN
from training.models.sample_distance import far_warning, share_far


def good(count: int, seed: int) -> Tensor:
    """A bright square of 5 pixels somewhere near the middle, and a little noise."""
    random = torch.Generator().manual_seed(seed)
    maps = 0.1 * torch.rand(count, 1, 12, 12, generator=random)
    for image in maps:
        y, x = torch.randint(2, 6, (2,), generator=random).tolist()
        image[:, y : y + 5, x : x + 5] += 0.8
    return maps


def test_new_good_images_are_near_and_noise_is_far() -> None:
    assert share_far(good(200, 1), good(100, 0)) < 0.25
    assert far_warning(good(50, 1), good(100, 0), "") == []
    assert share_far(torch.rand(50, 1, 12, 12), good(100, 0)) == 1.0
    levels = (good(100, 0) * 255).to(torch.uint8)
    assert share_far(torch.rand(50, 1, 12, 12), levels) == 1.0


def test_a_pixelcnn_that_has_learnt_nothing_says_so() -> None:
    torch.manual_seed(0)
    lines = PixelCNN(1, 12, 12, pixels=True).warnings(good(60, 0))
    assert len(lines) == 1 and lines[0].startswith("poor samples: 100 % of what the model draws")
    assert "more --epochs" in lines[0]
    assert PixelCNN(3, 8, 8, pixels=False).warnings(torch.rand(60, 3, 8, 8)) == []
