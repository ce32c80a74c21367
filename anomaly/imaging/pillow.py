"""Pillow, kept quiet: readers, turning, colour and arrays."""

from __future__ import annotations

import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile
from PIL.BmpImagePlugin import BmpImageFile, DibImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.PpmImagePlugin import PpmImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from anomaly.errors import ImageError
from anomaly.imaging import listing
from anomaly.imaging.listing import HEADS, format_not_read

# The readers are called directly, and not through Image.open, whose own limit (a warning at 89
# million pixels, an error at twice that) would stand beside max_pixels, and which tries every
# format that it knows.
READERS: dict[str, type[ImageFile.ImageFile]] = {
    "JPEG": JpegImageFile,
    "PNG": PngImageFile,
    "BMP": BmpImageFile,
    "TIFF": TiffImageFile,
    "WEBP": WebPImageFile,
    "GIF": GifImageFile,
    "PPM": PpmImageFile,
    "DIB": DibImageFile,
}


FORMATS = tuple(READERS)  # what is ever opened; the content decides which of them it is


TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


ORIENTATION = 0x0112  # the EXIF tag


SUFFIXES = {"JPEG": ".jpg", "TIFF": ".tif"}  # of the other formats it is their name
STRIP_PIXELS = 1 << 17  # copied at a time: a strip stays in the processor's cache


Pixels = NDArray[np.uint8]


def format_of(data: bytes) -> str:
    """Returns the format of a file by its first bytes, one of FORMATS, or nothing."""
    return next((name for name, head in HEADS.items() if head.match(data)), "")


def suffix_of(data: bytes) -> str:
    """Returns the suffix that a file gets by its first bytes: ``.img`` where its format is not
    read.
    """
    name = format_of(data)
    return SUFFIXES.get(name, f".{name.lower()}") if name else ".img"


def reader_for(data: bytes) -> type[ImageFile.ImageFile]:
    if not data:
        raise ImageError("empty", "file of zero bytes: copy it again")
    if format := format_of(data):
        return READERS[format]
    if foreign := format_not_read(data[: listing.HEAD]):
        raise ImageError(
            "unsupported",
            f"an image in a format that is not read ({foreign}): convert it to PNG, TIFF or JPEG",
        )
    raise ImageError(
        "not an image",
        f"begins with {data[:8]!r}, which is none of {', '.join(FORMATS)}: convert it",
    )


_quiet_lock = threading.Lock()


_quiet_threads = 0


_QUIET = ("ignore", None, Warning, re.compile(r"PIL\."), 0)


@contextmanager
def quiet_pillow() -> Iterator[None]:
    """Silences Pillow's warnings while any thread decodes.

    They speak of odd metadata, which is not used, and of Pillow's own size limit, where ours holds;
    turned into errors by the caller's filters they would refuse an image that was accepted in
    training. `catch_warnings` puts back the whole list of filters, which goes wrong among threads,
    so one entry is added and taken away again.
    """
    global _quiet_threads
    filters: list[object] = warnings.filters  # type: ignore[assignment]  # typed as a sequence
    with _quiet_lock:
        _quiet_threads += 1
        if _QUIET not in filters:
            filters.insert(0, _QUIET)
    try:
        yield
    finally:
        with _quiet_lock:
            _quiet_threads -= 1
            if _quiet_threads == 0 and _QUIET in filters:
                filters.remove(_QUIET)


def turn_of(image: Image.Image) -> Image.Transpose | None:
    """Returns how to turn a loaded image upright. (Pillow has turned a TIFF already, and removed
    its tag.)
    """
    try:
        return TURNS.get(image.getexif().get(ORIENTATION, 1))
    except Exception:  # metadata can be broken in as many ways as an image; then it says nothing
        return None


def to_colour(image: Image.Image) -> Image.Image:
    """Returns the image in mode L or RGB, whatever is transparent over white."""
    if image.has_transparency_data:
        clear = image.convert("RGBA")
        white = Image.new("RGB", image.size, (255, 255, 255))
        white.paste(clear, mask=clear.getchannel("A"))
        return white
    if image.mode in ("L", "RGB"):
        return image
    return image.convert("L" if image.mode == "1" else "RGB")


def to_array(image: Image.Image) -> tuple[Pixels, bool]:
    """Returns (H, W, 3) from an image in mode L or RGB, and whether it is grey."""
    width, height = image.size
    pixels = np.empty((height, width, 3), np.uint8)
    if image.mode == "L":
        _fill(pixels, np.asarray(image))
        return pixels, True
    grey = True
    rows = max(1, STRIP_PIXELS // width)
    # Pillow puts all pixels together from pieces: 16 instead of 44 ms in strips
    for top in range(0, height, rows):
        strip = pixels[top : top + rows]
        strip[:] = np.asarray(
            image if rows >= height else image.crop((0, top, width, top + len(strip)))
        )
        grey = grey and _is_grey(strip)
    return pixels, grey


def _fill(pixels: Pixels, values: Pixels) -> None:
    """Writes (H, W) into all channels of (H, W, 3): three strided writes take a quarter of one
    broadcast's time.
    """
    for channel in range(3):
        pixels[..., channel] = values


def _is_grey(pixels: Pixels) -> bool:
    for part in (pixels[:1], pixels):  # one row is enough to see that most pictures have colour
        red, green, blue = part[..., 0], part[..., 1], part[..., 2]
        if not ((red == green).all() and (green == blue).all()):
            return False
    return True
