"""Synthetic defects on normal images: what is chosen by looking at defects is chosen on these,
never on real ones.

A defect changes a blob or a line of a prepared image, at sizes from 3 to 30 % of its side:

    patch      another place of another normal image, cut out and pasted with a hard edge (Li et
               al., "CutPaste", CVPR 2021)
    blend      the same, faded in over its edge and brought to the brightness around it (Schlueter
               et al., "Natural synthetic anomalies", ECCV 2022, who blend by Poisson's equation)
    texture    noise of several octaves laid over it (Zavrtanik et al., "DRAEM", ICCV 2021, with
               Perlin's noise)
    crack      a thin line that wanders, darker or brighter
    stain      darker or brighter, with a soft edge
    blur       out of focus or smeared
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

Plane = NDArray[np.float32]  # (s, s)
Picture = NDArray[np.float32]  # (s, s, 3), 0 to 255


def add_defect(
    pixels: NDArray[np.uint8],
    donor: NDArray[np.uint8],
    kind: str,
    rng: Generator,
    radius: float | None = None,
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Returns a picture with one synthetic defect and its mask, uint8 (s, s, 3) and bool (s, s).

    ``pixels``, ``donor``: normal images of one size, uint8 (s, s, 3); ``kind``: a name of DEFECTS;
    ``radius``: of a blob in pixels, None: any. The mask is where the picture was changed by more
    than a level of grey.
    """
    picture, side = pixels.astype(np.float32), len(pixels)
    alpha = crack_shape(side, rng) if kind == "crack" else blob(side, rng, radius)
    changed = DEFECTS[kind](picture, donor.astype(np.float32), alpha, rng)
    mixed = picture + alpha[..., None] * (changed - picture)
    made = np.clip(np.rint(mixed), 0, 255).astype(np.uint8)
    return made, np.abs(made.astype(np.int16) - pixels).max(2) > 1


def patch(picture: Picture, donor: Picture, alpha: Plane, rng: Generator) -> Picture:
    return shifted(donor, rng)


def blend(picture: Picture, donor: Picture, alpha: Plane, rng: Generator) -> Picture:
    other = shifted(donor, rng)
    inside = alpha > 0.5
    if inside.any():
        other = other + (picture[inside].mean(0) - other[inside].mean(0))
    return other


def texture(picture: Picture, donor: Picture, alpha: Plane, rng: Generator) -> Picture:
    strength = rng.uniform(0.15, 0.6) * 255
    # grey stays grey
    colour = rng.uniform(0.7, 1.0, 3) if (picture[..., :1] != picture).any() else np.ones(3)
    return picture + strength * noise(len(picture), rng)[..., None] * colour.astype(np.float32)


def crack(picture: Picture, donor: Picture, alpha: Plane, rng: Generator) -> Picture:
    return picture + signed(rng, 25, 90)


def stain(picture: Picture, donor: Picture, alpha: Plane, rng: Generator) -> Picture:
    return picture + signed(rng, 12, 60)


def blur(picture: Picture, donor: Picture, alpha: Plane, rng: Generator) -> Picture:
    image = Image.fromarray(picture.astype(np.uint8))
    return np.asarray(
        image.filter(ImageFilter.GaussianBlur(rng.uniform(0.008, 0.03) * len(picture))), np.float32
    )


DEFECTS: dict[str, Callable[[Picture, Picture, Plane, Generator], Picture]] = {
    "patch": patch,
    "blend": blend,
    "texture": texture,
    "crack": crack,
    "stain": stain,
    "blur": blur,
}


# --- shapes ---------------------------------------------------------------------------------------
def blob(side: int, rng: Generator, radius: float | None = None) -> Plane:
    """Returns how much of each pixel is changed, 0 to 1: a turned ellipse with an uneven edge, hard
    or soft.
    """
    drawn = side * np.exp(rng.uniform(np.log(0.015), np.log(0.15)))
    radius = drawn if radius is None else radius
    stretch, angle = np.exp(rng.uniform(0, 0.9)), rng.uniform(0, np.pi)
    cx, cy = rng.uniform(0.05, 0.95, 2) * side
    y, x = np.mgrid[:side, :side].astype(np.float32)
    along, across = (
        ((x - cx) * np.cos(angle) + (y - cy) * np.sin(angle)),
        ((y - cy) * np.cos(angle) - (x - cx) * np.sin(angle)),
    )
    distance = np.hypot(along / stretch, across * stretch) / radius
    edge = rng.uniform(0.05, 0.8)
    return np.clip((1 + 0.35 * noise(side, rng) - distance) / edge, 0, 1).astype(np.float32)


def crack_shape(side: int, rng: Generator) -> Plane:
    """Returns how much of each pixel is changed, 0 to 1: a line of 0.3 to 1.2 % of the side that
    wanders.
    """
    scale = 4  # drawn larger, so that its edge is smooth
    steps, step = int(rng.integers(6, 30)), 0.015 * side * scale
    angle, point = rng.uniform(0, 2 * np.pi), rng.uniform(0.1, 0.9, 2) * side * scale
    points = [tuple(point)]
    for _ in range(steps):
        angle += rng.normal(0, 0.35)
        point = point + step * np.array([np.cos(angle), np.sin(angle)])
        points.append(tuple(point))
    image = Image.new("L", (side * scale, side * scale))
    ImageDraw.Draw(image).line(
        points,
        fill=255,
        width=max(1, round(rng.uniform(0.003, 0.012) * side * scale)),
        joint="curve",
    )
    coverage = np.asarray(image.resize((side, side), Image.Resampling.BOX), np.float32) / 255
    return coverage.astype(np.float32)


def noise(side: int, rng: Generator) -> Plane:
    """Returns noise of several octaves, (s, s), about -1 to 1: what Perlin's noise looks like, by
    enlarging random grids.
    """
    total, first = np.zeros((side, side), np.float32), int(rng.integers(2, 5))
    for octave in range(3):
        grid = rng.uniform(-1, 1, (2 ** (first + octave),) * 2).astype(np.float32)
        total += (
            np.asarray(Image.fromarray(grid).resize((side, side), Image.Resampling.BICUBIC))
            / 2**octave
        )
    return total


def shifted(donor: Picture, rng: Generator) -> Picture:
    """Returns a picture moved by a random way and turned by a quarter or not, so that another place
    of it is seen.
    """
    moved = np.roll(donor, rng.integers(len(donor) // 8, len(donor), 2), (0, 1))
    return np.rot90(moved, int(rng.integers(4)))


def signed(rng: Generator, low: float, high: float) -> np.float32:
    return np.float32(rng.uniform(low, high) * rng.choice((-1, 1)))
