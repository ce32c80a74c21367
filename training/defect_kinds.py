"""The kinds of synthetic defects: each changes the cut-out of a picture around one place."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image

from training.defect_shapes import (
    Picture,
    Plane,
    Point,
    away,
    blob,
    blurred,
    crack_line,
    local_contrast,
    main_direction,
    noise,
    seamless,
    taper,
    warped,
)

MIN_STRENGTH_SDS, MAX_STRENGTH_SDS = 1.0, 6.0  # of a defect, local ones
LEAST_CONTRAST = 3.0  # levels of grey that count as a standard deviation where all is smooth
LEAST_LEVELS, MOST_LEVELS = 6.0, 90.0  # of grey that a defect changes


@dataclass(frozen=True)
class Place:
    """Where a defect is made."""

    picture: Picture  # (h, w, 3), a cut-out with the defect in it
    part: NDArray[np.bool_] | None  # (h, w), where the part is; None: everywhere
    centre: Point  # in the cut-out
    radius: float  # half of the defect's size
    other: NDArray[np.uint8]  # (H, W, 3), a picture to take texture from
    other_at: tuple[int, int] = (0, 0)  # a place on the part in it

    @property
    def shape(self) -> tuple[int, int]:
        return self.picture.shape[0], self.picture.shape[1]

    def near(self) -> Plane:
        """Returns the grey of the surroundings as far as twice the radius, (h', w')."""
        far = max(4, round(2 * self.radius))
        y, x = (round(c) for c in self.centre)
        return self.picture[max(0, y - far) : y + far + 1, max(0, x - far) : x + far + 1].mean(2)

    def contrast(self) -> float:
        """Returns the standard deviation here, in levels of grey."""
        return math.hypot(local_contrast(self.near()), LEAST_CONTRAST)

    def strength(self, rng: Generator) -> float:
        """Returns levels of grey near the limit of what is seen here."""
        times = math.exp(rng.uniform(math.log(MIN_STRENGTH_SDS), math.log(MAX_STRENGTH_SDS)))
        return min(max(times * self.contrast(), LEAST_LEVELS), MOST_LEVELS)

    def blob(self, rng: Generator, edge: float) -> Picture:
        """Returns how much of each pixel is changed, (h, w, 1)."""
        return blob(self.shape, self.centre, self.radius, rng, edge)[..., None]


# --- on the surface -------------------------------------------------------------------------------
def stain(place: Place, rng: Generator) -> Picture:
    """Darker or brighter, of a colour of its own, with a soft edge or a rim."""
    colour = rng.uniform(0.5, 1.0, 3)
    step = signed(place.strength(rng), rng, 0.7) * colour / colour.mean()
    cover = place.blob(rng, rng.uniform(0.1, 0.9))
    if rng.random() < 0.3:  # dried: most of it lies at the rim
        cover = (cover * (1 - 0.7 * cover**2) / 0.54).astype(np.float32)
    return place.picture + cover * step


def pit(place: Place, rng: Generator) -> Picture:
    """A small hollow: dark, with a rim that is bright on the side that faces the light."""
    angle, radius = rng.uniform(0, 2 * math.pi), place.radius
    along, across = away(place.shape, place.centre, angle)
    distance = np.sqrt(along**2 + (across * rng.uniform(0.8, 1.25)) ** 2)
    uneven = distance / (1 + 0.12 * noise(place.shape, 2 * radius, rng))
    dark = np.clip((0.8 * radius - uneven) / max(1.0, 0.4 * radius) + 0.5, 0, 1)
    rim = np.exp(-(((uneven - radius) / max(0.7, 0.2 * radius)) ** 2))
    lit = rim * np.clip(along / np.maximum(distance, 1e-3), 0, 1)
    return place.picture + place.strength(rng) * (0.7 * lit - 1.3 * dark)[..., None]


def scratch(place: Place, rng: Generator) -> Picture:
    """A thin line along the structure of the place or across it, bright with a dark side or the
    other way round.
    """
    angle = main_direction(place.near()) + rng.normal(0, 0.12)
    angle += math.pi / 2 * (rng.random() < 0.5)
    along, across = away(place.shape, place.centre, angle)
    across = across - rng.normal(0, 0.1) * along**2 / place.radius
    width = max(0.55, rng.uniform(0.01, 0.05) * place.radius)
    line = np.exp(-((across / width) ** 2)) - 0.5 * np.exp(-((across / width - 2) ** 2))
    depth = taper(along, place.radius) * (0.8 + 0.4 * noise(place.shape, place.radius, rng, 1))
    return place.picture + (signed(1.6 * place.strength(rng), rng, 0.4) * line * depth)[..., None]


def crack(place: Place, rng: Generator) -> Picture:
    """A thin line that wanders, mostly dark."""
    width = max(0.7, rng.uniform(0.01, 0.05) * place.radius)
    line = crack_line(place.shape, place.centre, 2 * place.radius, width, rng)
    return place.picture + (signed(1.8 * place.strength(rng), rng, 0.85) * line)[..., None]


def fold(place: Place, rng: Generator) -> Picture:
    """What lies beside a line is pushed towards it, and the line is shaded."""
    angle = rng.uniform(0, math.pi)
    along, across = away(place.shape, place.centre, angle)
    width = max(0.8, rng.uniform(0.04, 0.12) * place.radius)
    ends = taper(along, place.radius)
    push = rng.uniform(0.5, 2.0) * width * ends * np.exp(-np.abs(across) / (3 * width))
    push = push * np.tanh(across / width)
    moved = warped(place.picture, push * math.cos(angle), -push * math.sin(angle))
    shade = across / width * np.exp(0.5 - 0.5 * (across / width) ** 2)
    return moved + (signed(place.strength(rng), rng, 0.5) * shade * ends)[..., None]


def worn(place: Place, rng: Generator) -> Picture:
    """The structure is interrupted: a patch has little left of it but its mean."""
    plain = blurred(place.picture, max(1.5, 0.5 * place.radius))
    left = rng.uniform(0.0, 0.4)
    shine = rng.normal(0, 2.0)
    cover = place.blob(rng, rng.uniform(0.1, 0.5))
    return place.picture + cover * (1 - left) * (plain + shine - place.picture)


def blur(place: Place, rng: Generator) -> Picture:
    """Out of focus or smeared."""
    sigma = rng.uniform(0.8, 2.5) * max(1.0, place.radius / 15)
    cover = place.blob(rng, rng.uniform(0.2, 0.8))
    return place.picture + cover * (blurred(place.picture, sigma) - place.picture)


def blend(place: Place, rng: Generator) -> Picture:
    """Texture of another place, turned and of another scale, blended by Poisson's equation
    (Schlueter et al., "Natural synthetic anomalies", ECCV 2022).
    """
    half, made = math.ceil(1.6 * place.radius) + 2, place.picture.copy()
    y, x = (round(c) for c in place.centre)
    box = (
        slice(max(0, y - half), min(place.shape[0], y + half + 1)),
        slice(max(0, x - half), min(place.shape[1], x + half + 1)),
    )
    target = place.picture[box]
    source = borrowed(place, (target.shape[0], target.shape[1]), rng)
    contrast = rng.uniform(1.0, 2.0)
    pasted = seamless((source - source.mean((0, 1))) * contrast + target.mean((0, 1)), target)
    cover = place.blob(rng, rng.uniform(0.1, 0.5))[box]
    made[box] = target + cover * (pasted - target)
    return made


def texture(place: Place, rng: Generator) -> Picture:
    """Texture of another place laid over where noise is high (Zavrtanik et al., "DRAEM", ICCV 2021,
    with Perlin's noise and textures of other sets).
    """
    patches = noise(place.shape, rng.uniform(0.4, 1.5) * place.radius, rng)
    cover = np.clip((patches - rng.uniform(-0.2, 0.3)) * 4 + 0.5, 0, 1)[..., None]
    cover = cover * place.blob(rng, 0.3)
    if cover.max() < 0.5:  # a small one between the patches
        cover = place.blob(rng, 0.3)
    step = borrowed(place, place.shape, rng) - place.picture
    if rng.random() < 0.5:
        step = -step  # what is bright there is dark here
    inside = cover[..., 0] > 0.3
    spread = float(np.sqrt((step[inside] ** 2).mean())) if inside.any() else 1.0
    return place.picture + cover * step * min(2.0, place.strength(rng) / max(spread, 1.0))


def moved(place: Place, rng: Generator) -> Picture:
    """A piece lies a little beside where it belongs."""
    angle, far = rng.uniform(0, 2 * math.pi), max(1.5, rng.uniform(0.2, 0.8) * place.radius)
    down, right = (np.full(place.shape, far * f(angle), np.float32) for f in (math.sin, math.cos))
    cover = place.blob(rng, rng.uniform(0.05, 0.2))
    return place.picture + cover * (warped(place.picture, down, right) - place.picture)


# --- at the outline -------------------------------------------------------------------------------
def missing(place: Place, rng: Generator) -> Picture:
    """A piece has broken off: the background is seen."""
    part, inwards = outline_at(place)
    cover = place.blob(rng, 0.05) * part[..., None]
    return place.picture + cover * (shifted(place, part, inwards, -1, rng) - place.picture)


def extra(place: Place, rng: Generator) -> Picture:
    """Material stands out: flash, a burr, something stuck to the part."""
    part, inwards = outline_at(place)
    cover = place.blob(rng, 0.05) * ~part[..., None]
    shade = np.float32(rng.normal(0, 5))
    return place.picture + cover * (shifted(place, part, inwards, 1, rng) + shade - place.picture)


def bent(place: Place, rng: Generator) -> Picture:
    """The outline is pushed in or out, and what lies beside it goes with it."""
    _, inwards = outline_at(place)
    along, across = away(place.shape, place.centre, inwards)
    near = np.exp(-((across / place.radius) ** 2) - (0.7 * along / place.radius) ** 2)
    far = signed(max(1.2, rng.uniform(0.15, 0.5) * place.radius), rng, 0.5)
    push = (far * near).astype(np.float32)
    return warped(place.picture, push * math.sin(inwards), push * math.cos(inwards))


def outline_at(place: Place) -> tuple[NDArray[np.bool_], float]:
    """Returns where the part is, and the direction from the background into it."""
    if place.part is None:
        raise ValueError("no part found, one expected: this kind is made at an outline")
    y, x = np.nonzero(place.part)
    empty_y, empty_x = np.nonzero(~place.part)
    if not len(y) or not len(empty_y):
        return place.part, 0.0
    return place.part, math.atan2(y.mean() - empty_y.mean(), x.mean() - empty_x.mean())


def shifted(
    place: Place, part: NDArray[np.bool_], inwards: float, sign: int, rng: Generator
) -> Picture:
    """Returns the picture moved across the outline, so that at the outline only the part (sign 1)
    or only the background (-1) is seen; where it does not reach, its usual colour with noise.
    """
    far = sign * 2 * place.radius
    down, right = round(far * math.sin(inwards)), round(far * math.cos(inwards))
    y = np.clip(np.arange(place.shape[0]) + down, 0, place.shape[0] - 1)
    x = np.clip(np.arange(place.shape[1]) + right, 0, place.shape[1] - 1)
    wanted = part if sign > 0 else ~part
    seen, fits = place.picture[np.ix_(y, x)], wanted[np.ix_(y, x)]
    usual = np.median(place.picture[wanted], 0) if wanted.any() else place.picture.mean((0, 1))
    grain = local_contrast(place.near()) * rng.standard_normal((*place.shape, 1))
    return np.where(fits[..., None], seen, usual + grain).astype(np.float32)


# --- what they share ------------------------------------------------------------------------------
def borrowed(place: Place, shape: tuple[int, int], rng: Generator) -> Picture:
    """Returns texture of another place on the part, turned and of another scale, (h, w, 3)."""
    scale = math.exp(rng.uniform(-0.7, 0.7))
    sides = [
        max(2, min(round(n * scale), most))
        for n, most in zip(shape, place.other.shape[:2], strict=True)
    ]
    top, left = (
        min(max(0, at - side // 2), most - side)
        for at, side, most in zip(place.other_at, sides, place.other.shape[:2], strict=True)
    )
    seen = place.other[top : top + sides[0], left : left + sides[1]]
    seen = np.ascontiguousarray(np.rot90(seen, int(rng.integers(4))))
    image = Image.fromarray(seen).resize(shape[::-1], Image.Resampling.BILINEAR)
    return np.asarray(image, np.float32)


def signed(value: float, rng: Generator, negative: float) -> float:
    """Returns the value with a minus at that probability."""
    return -value if rng.random() < negative else value


SURFACE_KINDS: dict[str, Callable[[Place, Generator], Picture]] = {
    "stain": stain,
    "pit": pit,
    "scratch": scratch,
    "crack": crack,
    "fold": fold,
    "worn": worn,
    "blur": blur,
    "blend": blend,
    "texture": texture,
    "moved": moved,
}
OUTLINE_KINDS: dict[str, Callable[[Place, Generator], Picture]] = {
    "missing": missing,
    "extra": extra,
    "bent": bent,
}
