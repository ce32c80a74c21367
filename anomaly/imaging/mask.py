"""The mask of a detector: which pixels of an image it looks at. The others enter neither the model
nor the score.

A mask is a picture of any size: what is not black is inspected. It is stretched over every image. A
pixel of an image is inspected where all of the mask that lies over it is.
"""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from anomaly.errors import DatasetError, DetectorError, ImageError
from anomaly.imaging.decode import decode
from anomaly.imaging.drawn_regions import Region

Mask = npt.NDArray[np.bool_]  # (h, w), true where it is inspected

# of a mask's side in a detector: a finer one is made coarser, and what is left out grows by that
MAX_CELLS = 1024
LOSSLESS = ("PNG", "BMP", "TIFF")  # a lossy file has no exact black


def read_mask(path: Path) -> Mask:
    """Returns a mask file, bool (h, w), at most 1,024 cells a side; ImageError or DatasetError
    where it cannot be used.
    """
    mask = coarser(mask_from(path, str(path)), MAX_CELLS)
    if not mask.any():
        raise DatasetError(
            f"{path}: what is not black is thinner than a thousandth of the picture: draw it wider"
        )
    return mask


def mask_from(source: Path | bytes, name: str) -> Mask:
    """Returns a mask file, bool (h, w), pixel by pixel; ImageError or DatasetError where it is
    none.
    """
    picture = decode(source)
    if picture.format not in LOSSLESS:
        raise DatasetError(
            f"{name}: a {picture.format} file found, a mask as PNG expected: others have no exact "
            "black"
        )
    whole: Mask = picture.pixels.max(2) > 0
    if whole.all() or not whole.any():
        found = "not a black pixel" if whole.all() else "only black pixels"
        raise DatasetError(
            f"{name}: {found} found; a mask is black where images are not to be inspected, white "
            "elsewhere"
        )
    return whole


def coarser(mask: Mask, cells: int) -> Mask:
    """Returns a mask of at most ``cells`` a side; a cell is inspected where all pixels in
    it are.
    """
    for axis in (0, 1):
        length = mask.shape[axis]
        if length > cells:
            starts = -(-np.arange(cells) * length // cells)
            mask = np.logical_and.reduceat(mask, starts, axis=axis)
    return mask


def of_shapes(
    shapes: Sequence[Mapping[str, Any]], height: int, width: int, base: Mask | None = None
) -> Mask:
    """Returns the mask, bool (height, width), of shapes that were drawn on an image of that size: a
    ``drawn_regions.Region`` each, with ``inspect``, true or false.

    A later one lies over an earlier one, and all over ``base``, a mask of any size. Without that
    the rest is inspected where the first is to be ignored, and ignored where it is to be inspected.
    DatasetError where something else was drawn.
    """
    mask = np.full((height, width), not (shapes and shapes[0].get("inspect")), bool)
    if base is not None:
        rows = np.arange(height) * base.shape[0] // height
        mask = base[rows][:, np.arange(width) * base.shape[1] // width]
    try:
        for shape in shapes:
            mask[Region.from_json(shape).mask(width, height)] = bool(shape["inspect"])
    except (TypeError, ValueError, KeyError) as error:
        raise DatasetError(
            "boxes, polygons or strokes with inspect, true or false, expected: draw them again"
        ) from error
    return mask


def to_png(mask: Mask) -> bytes:
    """Returns a mask as the bytes of a PNG of one bit a pixel, black where it is not inspected."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(mask).save(file, "PNG", optimize=True)
    return file.getvalue()


def mask_facts(path: Path, mask: Mask) -> dict[str, Any]:
    """Returns what the card says of a mask: its file's name and digest, the share that is
    inspected, the mask itself.
    """
    return {
        "file": path.name,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "share": float(mask.mean()),
        "png": base64.b64encode(to_png(mask)).decode("ascii"),
    }


def mask_of(png: str, share: float) -> Mask:
    """Returns the mask that a card holds as a PNG in base 64; DetectorError if it is damaged, or
    inspects another share than the card says.
    """
    try:
        data = base64.b64decode(png, validate=True)
        mask: Mask = decode(data, max_pixels=MAX_CELLS**2).pixels[..., 0] > 0
    except (ValueError, ImageError) as error:
        raise DetectorError(
            f"the card's mask is damaged ({error}): train or copy it again"
        ) from error
    if abs(share - float(mask.mean())) > 1e-6:
        raise DetectorError(
            f"the card says that its mask inspects {share:.6g} of the image, {mask.mean():.6g} by "
            "its pixels: copy it again"
        )
    return mask
