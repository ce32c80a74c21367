"""Pixels of more than 8 bits a channel become 8: 16-bit grey and colour, float and 32-bit values,
by one rule for a set.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.ImageFile import ImageFile

from anomaly.errors import ImageError

DEPTHS = (10, 12, 14, 16)  # of the cameras whose values lie in 16-bit files
WIDE = 32  # what `bits` says of float and 32-bit values that were scaled by a rule
MARGIN = 0.1  # of the range of a set's values, that others may lie beyond it on either side
BITS, PHOTOMETRIC, SAMPLES, PLANAR, SAMPLE_FORMAT = 258, 262, 277, 284, 339  # TIFF tags

Pixels = NDArray[np.uint8]
Scale = tuple[float, float]  # the values that become 0 and 255


class Eight(NamedTuple):
    """A picture in mode L, RGB or RGBA, and the depth that was found."""

    image: Image.Image
    bits: int


def is_scale(scale: object) -> bool:
    """Whether this is (low, high), finite numbers, the first the lower one."""
    if (
        not isinstance(scale, tuple)
        or len(scale) != 2
        or any(type(value) not in (int, float) for value in scale)
    ):
        return False
    return bool(-sys.float_info.max <= scale[0] < scale[1] <= sys.float_info.max)


PLANAR_FOUND = (
    "planar TIFF (each channel by itself) of other than 8-bit RGB, which is not read: save it with "
    "the channels of a pixel together"
)


def check_kind(image: ImageFile) -> None:
    """Refuses the TIFF files whose values Pillow would misread without a word; ImageError."""
    tags: Any = getattr(image, "tag_v2", {})
    deep = bool(np.max(tags.get(BITS, 1)) > 8)
    if (
        tags.get(PLANAR) == 2
        and tags.get(SAMPLES, 1) > 1
        and (deep or image.mode not in ("RGB", "RGBA", "CMYK"))
    ):
        raise ImageError("unsupported", PLANAR_FOUND)
    name = _raw_mode(image)
    if re.fullmatch(r"(LA|CMYK)X*;16[BLN]", name) or (
        image.format == "PPM" and image.mode == "RGB" and _largest(image) == 65535
    ):
        raise ImageError(
            "unsupported",
            f"{image.mode} of 16 bits a channel, of which 8 could be read: save it as 8 bits",
        )
    if tags and not deep and 2 in np.ravel(tags.get(SAMPLE_FORMAT, 1)):
        raise ImageError(
            "unsupported",
            "TIFF of signed 8-bit values, which is not read: save it as 8-bit grey or RGB",
        )


def is_wide(image: Image.Image) -> bool:
    """Whether an image holds float or 32-bit values; not those of PGM, whose head says how many
    there are.
    """
    return image.mode == "F" or (image.mode == "I" and getattr(image, "format", "") == "TIFF")


def is_deep(image: ImageFile) -> bool:
    """Whether an image that was opened, and not loaded, has more than 8 bits a channel."""
    return image.mode == "F" or image.mode.startswith("I") or _other_byte(image) is not None


def colour_in_full(
    image: ImageFile, again: Callable[[], ImageFile], at_least: int | None
) -> Callable[[], Eight] | None:
    """Returns what makes a picture of 16-bit colour 8-bit once ``image`` is loaded; None where it
    is no such picture.

    Pillow keeps the high byte of each channel. ``again`` opens it once more, to read the low one.
    """
    if (name := _other_byte(image)) is None:
        return None

    def made() -> Eight:
        low = again()
        low.tile = [tile._replace(args=_with_rawmode(tile.args, name)) for tile in low.tile]
        low.load()
        high = np.asarray(image)
        values = high[..., :3].astype(np.uint16) << 8 | np.asarray(low)[..., :3]
        bits = max(at_least or 0, depth_of(int(values.max())))
        scaled = table(bits)[values]
        clear = image.info.get("transparency")
        if isinstance(clear, tuple):  # in a PNG: the one colour that stands for clear
            scaled[(values == clear).all(2)] = 255
        if high.shape[2] == 4 and image.mode == "RGBA":
            # fewer bits than 16, or clear everywhere: black would become white
            if high[..., 3].max() < 255:
                raise ImageError(
                    "unsupported",
                    "16-bit colour whose alpha is nowhere full (65,535): save it as 8 bits",
                )
            scaled = np.concatenate([scaled, high[..., 3:]], 2)
        return Eight(Image.fromarray(scaled), bits)

    return made


def _other_byte(image: ImageFile) -> str | None:
    """Returns under which name Pillow would read the low byte of 16-bit colour: with the order of
    bytes turned around.
    """
    if image.mode not in ("RGB", "RGBA", "RGBX") or not image.tile:
        return None
    found = re.fullmatch(r"(RGB[AXa]?X*);16([BLN])", _raw_mode(image))
    if found is None:
        return None
    little = found[2] == "L" or (found[2] == "N" and sys.byteorder == "little")
    return f"{found[1]};16{'B' if little else 'L'}"


def _raw_mode(image: ImageFile) -> str:
    """Returns how the values lie in the file, as Pillow calls it; empty where it does not say."""
    args = image.tile[0].args if image.tile else None
    name = args[0] if isinstance(args, tuple) and args else args
    return name if isinstance(name, str) else ""


def _largest(image: ImageFile) -> object:
    args = image.tile[0].args if image.tile else None
    return args[-1] if isinstance(args, tuple) and args else None


def _with_rawmode(args: Any, name: str) -> Any:
    return (name, *args[1:]) if isinstance(args, tuple) else name


def grey_in_full(image: Image.Image, at_least: int | None, scale: Scale | None) -> Eight:
    """Returns the 8-bit picture of a loaded one of 16-bit, 32-bit or float values; ImageError where
    they are out of range.
    """
    values = values_of(image)
    low, high = finite_range(values)
    if scale is not None and is_wide(image):
        scaled, bits = _by_scale(values, low, high, scale), WIDE
    else:
        scaled, bits = _alone(values, low, high, at_least, image.mode == "F")
    if getattr(image, "tag_v2", {}).get(PHOTOMETRIC) == 0:  # white is zero
        scaled = 255 - scaled
    if "transparency" in image.info:  # in a 16-bit PNG: the one grey that stands for clear
        scaled[values == image.info["transparency"]] = 255
    return Eight(Image.fromarray(scaled), bits)


def values_of(image: Image.Image) -> NDArray[Any]:
    """Returns the values (H, W) of a loaded grey image; Pillow takes unsigned 32-bit ones for
    signed.
    """
    values = np.asarray(image)
    if not is_wide(image) or image.mode == "F":
        return values
    unsigned = 1 in np.ravel(getattr(image, "tag_v2", {}).get(SAMPLE_FORMAT, 1))
    return np.ascontiguousarray(values).view(np.uint32) if unsigned else values


def finite_range(values: NDArray[Any]) -> Scale:
    """Returns the least and largest value; ImageError where one is not finite."""
    low, high = float(values.min()), float(values.max())
    if not (np.isfinite(low) and np.isfinite(high)):  # min and max carry NaN along
        raise ImageError("not finite", "holds NaN or infinite values: replace them before saving")
    return low, high


def needs_scale(image: Image.Image, low: float, high: float) -> bool:
    """Whether values from ``low`` to ``high`` have no depth of 16-bit files: float, negative, or
    larger ones.
    """
    return image.mode == "F" or low < 0 or high > 65535


def scale_of(low: float, high: float) -> Scale:
    """Returns the scale of a set whose values lie from ``low`` to ``high``: a margin at both ends,
    but not below zero.
    """
    margin = MARGIN * (high - low) or max(abs(low), 1.0) * MARGIN
    return (max(0.0, low - margin) if low >= 0 else low - margin), high + margin


def _by_scale(values: NDArray[Any], low: float, high: float, scale: Scale) -> Pixels:
    if low < scale[0] or high > scale[1]:
        raise ImageError(
            "out of range",
            f"values from {low:g} to {high:g} found, {scale[0]:g} to {scale[1]:g} expected by the "
            "training images: check the sensor and its unit, or train with such images",
        )
    return np.rint((values.astype(np.float64) - scale[0]) * (255 / (scale[1] - scale[0]))).astype(
        np.uint8
    )


def _alone(
    values: NDArray[Any], low: float, high: float, at_least: int | None, is_float: bool
) -> tuple[Pixels, int]:
    """Returns (H, W) and the depth of one image by its own values: of float ones no other image
    need share it.
    """
    if low < 0 or high > 65535:
        found = f"values from {low:g} to {high:g} found"
        raise ImageError("unsupported", f"{found}, 0..1, 0..255 or 0..65535 expected: rescale them")
    if is_float and high <= 255:
        return np.rint(values * np.float32(255.0 if high <= 1 else 1.0)).astype(np.uint8), 8
    whole = np.rint(values).astype(np.uint16) if is_float else values.astype(np.uint16, copy=False)
    bits = max(at_least or 0, depth_of(int(whole.max())))
    return table(bits)[whole], bits


def depth_of(largest: int) -> int:
    """Returns the smallest depth that holds a value."""
    return next(bits for bits in DEPTHS if largest < 1 << bits)


@lru_cache
def table(bits: int) -> Pixels:
    """Returns the table of round(255 v / (2^bits - 1)) for the values v of that depth (halves
    upward).
    """
    top = (1 << bits) - 1
    return ((np.arange(top + 1, dtype=np.int64) * 255 + top // 2) // top).astype(np.uint8)
