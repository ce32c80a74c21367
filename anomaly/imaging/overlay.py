"""Pictures of heatmaps: overlays, grids, smaller pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from anomaly.imaging.colours import heatmap_colours, heatmap_scale, over
from anomaly.imaging.pillow import Pixels

SIDE = 320  # pixels of a picture in the page at most: sharp at twice its size on the screen


OUTLINE = (20, 28, 36)  # of what reaches the threshold: yellow alone is lost on a bright part


def stretched(pixels: Pixels, over: Pixels) -> Pixels:
    """Returns what a model expected, which it has seen squashed to a square, in the shape of the
    picture it belongs to.
    """
    from PIL import Image

    return np.asarray(Image.fromarray(pixels).resize(over.shape[1::-1], Image.Resampling.BILINEAR))


def shrink(pixels: Pixels, side: int = SIDE) -> Pixels:
    """Returns a picture (h, w, 3) of at most ``side`` pixels a side, for the eye only."""
    from PIL import Image

    picture = Image.fromarray(pixels)
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    return np.asarray(picture)


def overlay(
    pixels: Pixels,
    heatmap: npt.NDArray[np.float32],
    median: float,
    threshold: float,
    opacity: float = 0.8,
) -> Pixels:
    """Returns ``pixels`` (H, W, 3) with the heatmap (h, w) laid over it, uint8 (H, W, 3).

    Colours go by (v - median) / (threshold - median) alone, never by the other pixels of the image.
    What reaches the threshold is outlined.
    """
    from PIL import Image, ImageFilter

    height, width = pixels.shape[:2]
    t = Image.fromarray(heatmap_scale(heatmap, median, threshold)).resize(
        (width, height), Image.Resampling.BILINEAR
    )
    smooth = np.asarray(t)
    laid = over(pixels, heatmap_colours(smooth, 0.0, 1.0), opacity)
    above = Image.fromarray((smooth >= 1).astype(np.uint8))
    edge = np.asarray(above.filter(ImageFilter.MaxFilter(5))) - np.asarray(above)
    return np.where(edge[..., None] == 1, OUTLINE, laid).astype(np.uint8)


def grid(images: Sequence[Pixels] | Pixels, columns: int, gap: int = 4) -> Pixels:
    """Returns the images (h, w, 3), row by row, on one white sheet; smaller ones are centred in
    their cell.
    """
    height, width = (max(image.shape[axis] for image in images) for axis in (0, 1))
    rows = math.ceil(len(images) / columns)
    sheet = np.full((rows * (height + gap) + gap, columns * (width + gap) + gap, 3), 255, np.uint8)
    for number, image in enumerate(images):
        row, column = divmod(number, columns)
        top = gap + row * (height + gap) + (height - image.shape[0]) // 2
        left = gap + column * (width + gap) + (width - image.shape[1]) // 2
        sheet[top : top + image.shape[0], left : left + image.shape[1]] = image
    return sheet
