"""What is high in too small an area of a heatmap does not count."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def area_opening(heatmap: Tensor, cells: int) -> Tensor:
    """Returns the highest level at which a place is in a high bar or block of at least ``cells``
    cells, (N, h, w).

    The union of the grey-scale openings by all such rectangles (Serra, "Image analysis and
    mathematical morphology", 1982), which approximates the opening by area (Vincent, "Grayscale
    area openings and closings", 1993) from below: a winding region counts where a rectangle of that
    area fits in. A hotter map is never opened to a lower one.
    """
    if cells <= 1:
        return heatmap
    found = [
        opened_by_rectangle(heatmap[:, None], *sides)
        for sides in rectangles(cells, heatmap.shape[1], heatmap.shape[2])
    ]
    return torch.stack(found).amax(0)[:, 0]


def opened_by_rectangle(heatmap: Tensor, height: int, width: int) -> Tensor:
    # in each rectangle that lies within the map
    lowest = -F.max_pool2d(-heatmap, (height, width), 1)
    edge = (width - 1, width - 1, height - 1, height - 1)
    return F.max_pool2d(
        F.pad(lowest, edge, value=torch.finfo(heatmap.dtype).min), (height, width), 1
    )


def rectangles(cells: int, height: int, width: int) -> list[tuple[int, int]]:
    """Returns the smallest rectangles (height, width) of at least ``cells`` cells that lie within
    height x width.
    """
    sides = [(a, -(-cells // a)) for a in range(1, min(cells, height) + 1)]
    fitting = [(a, b) for a, b in sides if b <= width]
    return [(a, b) for a, b in fitting if (a - 1, b) not in fitting]
