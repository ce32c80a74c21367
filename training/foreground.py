"""Where the part is, in a picture of parts on a plain background."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Where = NDArray[np.bool_]  # (h, w)
Plane = NDArray[np.float32]  # (h, w)

COARSE_SIDE = 128  # blocks of the longer side, at which shapes are looked at
LEAST_SHARE, MOST_SHARE = 0.02, 0.8  # of the picture that a part covers
MOST_BORDER = 0.25  # share of the border that a part touches
LEAST_STEP = 4.0  # how far the part is from the background, in spreads of the background
LEAST_LEVELS = 8.0  # and in levels of grey
WEAK_STEP = 2.5  # and beside what is as far
CLOSED_BLOCKS = 2  # half of the width of gaps that are closed
BESIDE = np.ones((3, 3), bool)  # the neighbours of a pixel
MOST_RAGGED = 400.0  # squared length of the outline over the area: 16 for a square
LEAST_PIECE = 0.1  # of the largest piece: smaller ones are dirt


def foreground(pixels: NDArray[np.uint8]) -> Where | None:
    """Returns where the part is, bool (H, W), of uint8 (H, W, 3); None where there is none to be
    told from a plain background.

    The background is what the border shows, with a quadratic shading. The part is what differs from
    it by Otsu's threshold ("A threshold selection method from gray-level histograms", IEEE
    Transactions on Systems, Man, and Cybernetics 9, 1979) on the logarithm of the difference, and
    what is joined to it above the noise; specks are left out, gaps and holes are filled. A shadow
    may count as part. None where it covers less than 2 % or more than 80 % of the picture or
    touches much of the border, where the border is not plain, and where the outline is too ragged.
    """
    height, width = pixels.shape[:2]
    block = max(1, math.ceil(max(height, width) / COARSE_SIDE))
    coarse = block_means(pixels, block)
    ground = background(coarse)
    distance = difference(coarse, ground)
    spread = 1 + float(np.median(border(distance[..., None])))
    threshold = spread * 3 * math.expm1(otsu(np.log1p(distance / (3 * spread))))
    weak = min(threshold, WEAK_STEP * spread)
    found = distance > threshold
    if border(found[..., None]).mean() > MOST_BORDER or not found.any():
        return None
    if float(np.median(distance[found])) < max(LEAST_LEVELS, LEAST_STEP * spread):
        return None
    found = largest(closed(joined(distance > weak, found), CLOSED_BLOCKS))
    found = np.asarray(ndimage.binary_fill_holes(found))
    if not LEAST_SHARE <= found.mean() <= MOST_SHARE or ragged(found) > MOST_RAGGED:
        return None
    if block == 1:
        return found

    def enlarged(plane: NDArray[Any]) -> NDArray[Any]:
        return plane.repeat(block, 0).repeat(block, 1)[:height, :width]

    unlike = difference(pixels, enlarged(ground)) > weak
    return enlarged(~grown(~found)) | (enlarged(grown(found)) & unlike)


def background(picture: Plane) -> Plane:
    """Returns the colours that the border of a picture (h, w, 3) shows, continued by a quadratic
    shading; what is unlike most of the border is left out.
    """
    height, width = picture.shape[:2]
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    terms = np.stack([np.ones_like(x), x, y, x * x, y * y, x * y], 2)
    at, colours = border(terms), border(picture)
    step = np.abs(colours - np.median(colours, 0)).max(1)
    for _ in range(3):
        plain = step <= 3 * np.median(step) + 1
        fitted = np.linalg.lstsq(at[plain], colours[plain], rcond=None)[0]
        step = np.abs(colours - at @ fitted).max(1)
    shade: Plane = np.clip(terms @ fitted, 0, 255).astype(np.float32)
    return shade


def difference(pixels: NDArray[np.uint8] | Plane, ground: Plane) -> Plane:
    """Returns how far each pixel is from the background, in levels of grey, (h, w)."""
    step = np.abs(pixels.astype(np.float32) - ground)
    return 0.5 * (step.max(2) + step.mean(2))


def block_means(pixels: NDArray[np.uint8], block: int) -> Plane:
    """Returns the means of square blocks, (h, w, 3); those at the edge are filled up with it."""
    down, right = (-n % block for n in pixels.shape[:2])
    whole = np.pad(pixels, ((0, down), (0, right), (0, 0)), mode="edge")
    height, width = whole.shape[0] // block, whole.shape[1] // block
    rows = whole.reshape(height, block, width * block, 3).sum(1, dtype=np.uint32)
    means = rows.reshape(height, width, block, 3).sum(2) / block**2
    return means.astype(np.float32)


def border(plane: NDArray[Any]) -> NDArray[Any]:
    """Returns the values at the edge of (h, w, c), as (n, c)."""
    return np.concatenate([plane[0], plane[-1], plane[:, 0], plane[:, -1]])


def otsu(values: Plane) -> float:
    """Returns the threshold that leaves the least variance within the two sides (Otsu, IEEE
    Transactions on Systems, Man, and Cybernetics 1979); where all is the same, that.
    """
    if np.ptp(values) == 0:
        return float(values.flat[0])
    counts, edges = np.histogram(values, 128)
    middles = (edges[1:] + edges[:-1]) / 2
    below = np.cumsum(counts)
    above, sums = below[-1] - below, np.cumsum(counts * middles)
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (sums / below - (sums[-1] - sums) / above) ** 2
    return float(edges[1 + int(np.nanargmax(between[:-1]))])


def grown(found: Where) -> Where:
    """Returns the pixels in or beside those found."""
    return np.asarray(ndimage.binary_dilation(found, BESIDE))


def shrunk(found: Where) -> Where:
    """Returns the pixels found whose neighbours are found too; beyond the edge all are."""
    return np.asarray(ndimage.binary_erosion(found, BESIDE, border_value=1))


def joined(weak: Where, strong: Where) -> Where:
    """Returns the pieces of what is weakly found in which something is strongly found."""
    return np.asarray(ndimage.binary_propagation(strong & weak, mask=weak))


def closed(found: Where, blocks: int) -> Where:
    """Returns what is found with its narrow gaps."""
    wide = np.pad(found, blocks)
    for step in (grown, shrunk):
        for _ in range(blocks):
            wide = step(wide)
    return wide[blocks:-blocks, blocks:-blocks] | found


def largest(found: Where) -> Where:
    """Returns the largest piece and those at least a tenth as large, without specks."""
    number, _ = ndimage.label(grown(shrunk(found)) & found)
    counts = np.bincount(number.ravel())
    counts[0] = 0
    return np.asarray(counts >= max(1.0, LEAST_PIECE * counts.max()))[number]


def ragged(found: Where) -> float:
    """Returns the squared length of the outline over the area."""
    steps = np.diff(found, axis=0).sum() + np.diff(found, axis=1).sum()
    return float(steps) ** 2 / max(1, int(found.sum()))
