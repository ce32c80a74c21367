"""Images that are in memory already, as arrays or of Pillow, under the same rules as files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from anomaly.detector.card import Card
from anomaly.errors import ImageError
from anomaly.imaging.decode import Decoded, decode
from anomaly.imaging.pages import several

if TYPE_CHECKING:
    from PIL import Image


def decode_array(array: npt.NDArray[Any]) -> Decoded:
    """Returns uint8 pixels (H, W), (H, W, 1), (H, W, 3) or (H, W, 4: over white) as a decoded RGB
    image.
    """
    if (
        array.dtype != np.uint8
        or array.ndim not in (2, 3)
        or 0 in array.shape
        or array.shape[2:] not in ((), (1,), (3,), (4,))
    ):
        raise ImageError(
            "not an image",
            f"an array {array.dtype} {array.shape} found, uint8 (H, W), (H, W, 3) or (H, W, 4) "
            "expected",
        )
    height, width = array.shape[:2]
    if array.ndim == 2 or array.shape[2] == 1:
        array = np.repeat(array.reshape(height, width, 1), 3, axis=2)
    elif array.shape[2] == 4:
        alpha = array[..., 3:].astype(np.uint16)
        array = ((array[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
    grey = bool((array[..., 0] == array[..., 1]).all() and (array[..., 1] == array[..., 2]).all())
    return Decoded(
        np.ascontiguousarray(array), width, height, bits=8, mode="array", grey=grey, format="array"
    )


PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")


TIFF_MODES = ("I", "I;16B", "I;16L", "F", "CMYK")


def decode_pil(image: Image.Image, card: Card, max_pixels: int) -> Decoded:
    """Returns a PIL image as if it had been read from a lossless file."""
    return decode(lossless(image)[0], card.decode, max_pixels=max_pixels)


def lossless(image: Image.Image) -> tuple[bytes, str]:
    """Returns the bytes of a lossless file of a PIL image, and the suffix of its name; ImageError
    where it is none.
    """
    import io

    if not hasattr(image, "getexif"):
        raise ImageError(
            "not an image",
            f"{type(image).__name__} found; a path, bytes, PIL image or uint8 array expected",
        )
    if (frames := int(getattr(image, "n_frames", 1))) > 1:
        raise ImageError("several pages", f"{several(frames)}, or give a copy() of each frame")
    file = io.BytesIO()
    try:
        exif = image.getexif()
        if image.mode not in PNG_MODES + TIFF_MODES:
            image = image.convert("RGBA" if image.has_transparency_data else "RGB")
        kind, suffix = ("TIFF", ".tif") if image.mode in TIFF_MODES else ("PNG", ".png")
        image.save(file, kind, exif=exif, compress_level=0)
    # Pillow reads files late: whatever is wrong with one can come out here
    except Exception as error:
        raise ImageError(
            "not an image", f"a PIL image of mode {image.mode} that cannot be used: {error}"
        ) from error
    return file.getvalue(), suffix
