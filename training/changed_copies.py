"""Copies of good images: a guard has to refuse some and to accept others."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from training.synthetic_defects import add_defect, kinds_for

Pixels = npt.NDArray[np.uint8]  # (H, W, 3)

MARKED_SIDE = 1024  # pixels a side of the square that a synthetic defect is drawn in


def _stops(stops: float) -> npt.NDArray[np.uint8]:
    """Returns the table that makes sRGB pixels darker by so many stops of light."""
    v = np.arange(256) / 255
    light = np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4) * 0.5**stops
    return np.rint(
        255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    ).astype(np.uint8)


def darker(pixels: Pixels) -> Pixels:
    return _stops(2)[pixels]


def out_of_focus(pixels: Pixels) -> Pixels:
    return np.array(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(2)))


def turned(pixels: Pixels) -> Pixels:
    return np.ascontiguousarray(np.rot90(pixels))


CHANGES: dict[str, Callable[[Pixels], Pixels]] = {
    "two stops darker": darker,
    "out of focus": out_of_focus,
    "turned by 90 degrees": turned,
}


def marked(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """Returns the image with a synthetic defect, up to four tenths of its shorter side
    in radius.
    """
    side = min(*pixels.shape[:2], MARKED_SIDE)
    top, left = (int(rng.integers(length - side + 1)) for length in pixels.shape[:2])
    here, made = (slice(top, top + side), slice(left, left + side)), pixels.copy()
    radius = side * np.exp(rng.uniform(np.log(0.03), np.log(0.4)))
    made[here], _ = add_defect(
        pixels[here], pixels[here][::-1, ::-1], str(rng.choice(kinds_for(None))), rng, radius
    )
    return made


def compressed(pixels: Pixels) -> Pixels:
    """Returns the image as a JPEG of common quality has it."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=75)
    return np.array(Image.open(file).convert("RGB"))
