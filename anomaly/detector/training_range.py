"""Is an image within the training range? What is said of one that is not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anomaly.detector.card import Card
from anomaly.detector.training_facts import Ranges
from anomaly.imaging.decode import Decoded

if TYPE_CHECKING:
    pass


PIXELS_OUTSIDE = (
    "brightness, contrast, colour, sharpness or direction unlike the training images: check "
    "product, camera and light, or train with such images"
)


def outside(card: Card, image: Decoded) -> str:
    """Returns why an image is unlike the training images by its file alone, or an empty string."""
    ranges = card.training.ranges or Ranges()
    if image.mode == "F" and card.decode.scale is None:
        return (
            "float values found, none in the training images that tell their scale: train with "
            "such images"
        )
    bits = ranges.bits
    if bits and image.bits not in bits:
        there = " or ".join(map(str, bits))
        return (
            f"{image.bits} bits a channel found, {there} in the training images: check the "
            "camera's setting"
        )
    aspect = ranges.aspect
    if aspect and not aspect[0] / 1.25 <= image.width / image.height <= aspect[1] * 1.25:
        here = f"{image.width}x{image.height} found, width:height {image.width / image.height:.2f}"
        there = _span(f"{aspect[0]:.2f}", f"{aspect[1]:.2f}")
        return (
            f"{here}, {there} in the training images: check that it is not turned, cut or of "
            "another product"
        )
    size = ranges.pixels
    if size and not size[0] / 4 <= image.width * image.height <= size[1] * 4:
        here = f"{image.width}x{image.height} found, {image.width * image.height:,} pixels"
        return (
            f"{here}, {_span(f'{size[0]:,}', f'{size[1]:,}')} in the training images: check "
            "product and camera"
        )
    # what a mask leaves out may have any colour
    if ranges.grey and not image.grey and not card.training.mask:
        return (
            "a colour image found, only grey ones in the training images: check product and camera"
        )
    return ""


def _span(low: str, high: str) -> str:
    return low if low == high else f"{low} to {high}"
