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
# a large defect is drawn again until it has this share of the image: some kinds are always thin
LARGE_SHARE, TRIES = 0.3, 5


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


def sharper(pixels: Pixels) -> Pixels:
    """Returns what another camera may make of it: edges stand out, and so does noise."""
    sharp = np.array(Image.fromarray(pixels).filter(ImageFilter.UnsharpMask(2, 150, 0)))
    noise = np.random.default_rng(0).normal(0, 5, pixels.shape[:2])[..., None]
    return np.clip(np.rint(sharp + noise), 0, 255).astype(np.uint8)


CHANGES: dict[str, Callable[[Pixels], Pixels]] = {
    "two stops darker": darker,
    "out of focus": out_of_focus,
    "turned by 90 degrees": turned,
    "sharper and noisier": sharper,
}


def marked(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """Returns the image with a synthetic defect, up to four tenths of its shorter side
    in radius.
    """
    side = min(*pixels.shape[:2], MARKED_SIDE)
    top, left = (int(rng.integers(length - side + 1)) for length in pixels.shape[:2])
    here, made = (slice(top, top + side), slice(left, left + side)), pixels.copy()
    made[here] = _defective(pixels[here], np.exp(rng.uniform(np.log(0.03), np.log(0.4))), rng)[0]
    return made


def large_defects(pixels: Pixels, rng: np.random.Generator) -> list[Pixels]:
    """Returns the image with a synthetic defect over a third of it or more, without one of its
    halves (a piece is missing), and with a half that is turned about (a fold).
    """
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    empty = np.broadcast_to(np.median(border, 0).astype(np.uint8), pixels.shape)
    return [
        _largely_defective(pixels, rng),
        _half_replaced(pixels, empty, rng),
        _half_replaced(pixels, pixels[::-1, ::-1], rng),
    ]


def _largely_defective(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """It is drawn on a square of at most 1,024 pixels a side, to which the image is squashed, and
    what it changes is carried back, so that it has the same share of every image.
    """
    height, width = pixels.shape[:2]
    side = min(max(height, width), MARKED_SIDE)
    grid = np.arange(side)
    square = np.ascontiguousarray(pixels[np.ix_(grid * height // side, grid * width // side)])
    for _ in range(TRIES):
        made, where = _defective(square, rng.uniform(0.35, 0.6), rng)
        if where.mean() >= LARGE_SHARE:
            break
    changed = made.astype(np.int16) - square
    # of a row that stands there several times the first, so that nothing is lost
    rows, columns = (
        np.minimum(-(-np.arange(length) * side // length), side - 1) for length in (height, width)
    )
    return np.clip(pixels + changed[np.ix_(rows, columns)], 0, 255).astype(np.uint8)


def _half_replaced(pixels: Pixels, other: Pixels, rng: np.random.Generator) -> Pixels:
    """Returns the image with one half of the other one: a straight cut through the middle, at any
    angle, because the direction of one long edge is among what the range looks at.
    """
    angle, (height, width) = rng.uniform(0, 2 * np.pi), pixels.shape[:2]
    y, x = np.ogrid[:height, :width]
    side = np.cos(angle) * (x / width - 0.5) + np.sin(angle) * (y / height - 0.5)
    return np.where(side[..., None] > 0, other, pixels)


def _defective(
    square: Pixels, radius: float, rng: np.random.Generator
) -> tuple[Pixels, npt.NDArray[np.bool_]]:
    """Returns a square image with a defect of any kind and of this radius, a share of its side, and
    where it is.
    """
    donor, kind = square[::-1, ::-1], str(rng.choice(kinds_for(None)))
    return add_defect(square, donor, kind, rng, radius * len(square))


def compressed(pixels: Pixels) -> Pixels:
    """Returns the image as a JPEG of common quality has it."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=75)
    return np.array(Image.open(file).convert("RGB"))
