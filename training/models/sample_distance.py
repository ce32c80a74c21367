"""How far samples are from good images, and from each other, by their nearest neighbours."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from training.pixels import to_unit

DISTANCE_QUANTILE = 0.95  # share of good images that are nearer than that to another good one
MAX_FAR_SHARE = 0.5  # share of samples that may be farther: of good ones 0.05 are


def nearest_distance(x: Tensor) -> float:
    """Returns the median distance of an image of x (N, C, h, w) to the other one that is most like
    it, by images averaged in blocks of 4 x 4.
    """
    return nearest_others(F.avg_pool2d(x, 4).flatten(1)).median().item()


def nearest_others(rows: Tensor) -> Tensor:
    """Returns the distance of each row (N, k) to the nearest other one, (N,)."""
    distances = torch.cdist(rows, rows) + torch.diag(
        torch.full((len(rows),), math.inf, device=rows.device)
    )
    return distances.amin(1)


def share_far(drawn: Tensor, maps: Tensor) -> float:
    """Returns the share of samples (n, C, h, w) that are farther from every good image than 95 % of
    good images are from every other one. Good maps are float32, or uint8 that stands for 0..1.

    Images are averaged in blocks of 2 x 2 and brought to one mean and contrast each: an almost
    empty sample would else be near to all whose part is small.
    """
    good = shape_of(to_unit(maps.to(drawn.device)))
    limit = nearest_others(good).quantile(DISTANCE_QUANTILE)
    return float((torch.cdist(shape_of(drawn), good).amin(1) > limit).float().mean())


def shape_of(x: Tensor) -> Tensor:
    """Returns images (N, C, h, w) without their brightness and contrast, (N, k) of length 1."""
    rows = F.avg_pool2d(x, 2).flatten(1)
    return F.normalize(rows - rows.mean(1, keepdim=True))


def far_warning(drawn: Tensor, maps: Tensor, try_this: str) -> list[str]:
    """Returns a line where more than half of the samples are far from all good images."""
    share = share_far(drawn, maps)
    if share <= MAX_FAR_SHARE:
        return []
    return [
        f"poor samples: {100 * share:.0f} % of what the model draws is farther from all good "
        f"images than {100 * DISTANCE_QUANTILE:.0f} % of these are from each other, at most "
        f"{100 * MAX_FAR_SHARE:.0f} % expected: it has not learnt yet what they look like. "
        f"{try_this}"
    ]
