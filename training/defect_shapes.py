"""Shapes and fields that synthetic defects are made of, on a cut-out of a picture.

Lengths are in pixels, angles in radians from x (to the right) towards y (down).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter
from scipy.fft import dstn, idstn

Plane = NDArray[np.float32]  # (h, w)
Picture = NDArray[np.float32]  # (h, w, 3), 0 to 255
Point = tuple[float, float]  # y, x

SHARP = 4  # times larger a line is drawn than it is, so that its edge is smooth


def away(shape: tuple[int, int], centre: Point, angle: float = 0.0) -> tuple[Plane, Plane]:
    """Returns how far each pixel is from a point along a direction and across it, (h, w) each."""
    y = (np.arange(shape[0], dtype=np.float32) - np.float32(centre[0]))[:, None]
    x = (np.arange(shape[1], dtype=np.float32) - np.float32(centre[1]))[None]
    cos, sin = np.float32(math.cos(angle)), np.float32(math.sin(angle))
    return x * cos + y * sin, y * cos - x * sin


def noise(shape: tuple[int, int], cell: float, rng: Generator, octaves: int = 3) -> Plane:
    """Returns noise (h, w), about -1 to 1, whose coarsest of several octaves changes over ``cell``
    pixels: what Perlin's noise looks like, by enlarging random grids.
    """
    total = np.zeros(shape, np.float32)
    for octave in range(octaves):
        height, width = (max(2, math.ceil(n * 2**octave / cell) + 1) for n in shape)
        cells = rng.uniform(-1, 1, (min(height, 2 * shape[0]), min(width, 2 * shape[1])))
        grid = Image.fromarray(cells.astype(np.float32))
        total += np.asarray(grid.resize(shape[::-1], Image.Resampling.BICUBIC)) / 2**octave
    return total


def blob(
    shape: tuple[int, int], centre: Point, radius: float, rng: Generator, edge: float
) -> Plane:
    """Returns how much of each pixel is covered, 0 to 1, by a turned ellipse with an uneven edge,
    which is soft over a share ``edge`` of the radius, or a pixel.
    """
    stretch = math.exp(rng.uniform(0, 0.6))
    along, across = away(shape, centre, rng.uniform(0, math.pi))
    distance = np.sqrt((along / stretch) ** 2 + (across * stretch) ** 2) / radius
    uneven = 1 + 0.3 * noise(shape, 2 * radius, rng)
    soft = max(edge, 1 / radius)
    return np.clip((uneven - distance) / soft + 0.5, 0, 1).astype(np.float32)


def crack_line(
    shape: tuple[int, int], centre: Point, size: float, width: float, rng: Generator
) -> Plane:
    """Returns how much of each pixel is covered, 0 to 1, by a line of that size that wanders."""
    steps = int(rng.integers(6, 20))
    angles = rng.uniform(0, 2 * math.pi) + np.cumsum(rng.normal(0, 0.35, steps))
    points = np.cumsum(np.stack([np.sin(angles), np.cos(angles)], 1), 0)
    points = (points - points.mean(0)) * size / max(np.ptp(points, axis=0).max(), 1e-6)
    image = Image.new("L", (shape[1] * SHARP, shape[0] * SHARP))
    drawn = [((x + centre[1]) * SHARP, (y + centre[0]) * SHARP) for y, x in points.tolist()]
    ImageDraw.Draw(image).line(drawn, 255, max(1, round(width * SHARP)), joint="curve")
    return np.asarray(image.reduce(SHARP), np.float32) / np.float32(255)


def taper(along: Plane, half: float) -> Plane:
    """Returns 1 in the middle of a line, 0 beyond its ends."""
    return np.clip(1.5 - 1.5 * np.abs(along) / half, 0, 1)


def warped(picture: Picture, down: Plane, right: Plane) -> Picture:
    """Returns a picture that shows at each pixel what lies ``down`` and ``right`` of it, by
    bilinear interpolation, the edge repeated.
    """
    height, width = picture.shape[:2]
    y = np.clip(np.arange(height, dtype=np.float32)[:, None] + down, 0, height - 1)
    x = np.clip(np.arange(width, dtype=np.float32) + right, 0, width - 1)
    top, left = (np.floor(n).astype(np.intp) for n in (y, x))
    below, beside = np.minimum(top + 1, height - 1), np.minimum(left + 1, width - 1)
    down_by, right_by = (y - top)[..., None], (x - left)[..., None]
    upper = picture[top, left] * (1 - right_by) + picture[top, beside] * right_by
    lower = picture[below, left] * (1 - right_by) + picture[below, beside] * right_by
    mixed: Picture = upper * (1 - down_by) + lower * down_by
    return mixed


def blurred(picture: Picture, sigma: float) -> Picture:
    """Returns a picture filtered by a Gaussian, in whole levels of grey."""
    image = Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))
    return np.asarray(image.filter(ImageFilter.GaussianBlur(float(sigma))), np.float32)


def seamless(source: Picture, target: Picture) -> Picture:
    """Returns ``source`` with the border of ``target``, both (h, w, 3), its gradients kept: the
    solution of Poisson's equation (Perez et al., "Poisson image editing", SIGGRAPH 2003) by a sine
    transform, which diagonalises the discrete Laplacian on a rectangle.
    """
    if min(target.shape[:2]) < 3:  # nothing but border
        return target.copy()
    step = target - source
    load = np.zeros((step.shape[0] - 2, step.shape[1] - 2, 3), np.float32)
    load[0] += step[0, 1:-1]
    load[-1] += step[-1, 1:-1]
    load[:, 0] += step[1:-1, 0]
    load[:, -1] += step[1:-1, -1]
    down, across = (
        2 - 2 * np.cos(np.pi * np.arange(1, n + 1) / (n + 1)).astype(np.float32)
        for n in load.shape[:2]
    )
    spectrum = dstn(load, type=1, axes=(0, 1)) / (down[:, None] + across)[..., None]
    made = target.copy()
    made[1:-1, 1:-1] = source[1:-1, 1:-1] + idstn(spectrum, type=1, axes=(0, 1))
    return made


def main_direction(grey: Plane) -> float:
    """Returns the angle along which a picture changes least, by its structure tensor (Bigun and
    Granlund, ICCV 1987).
    """
    down, right = (
        np.gradient(grey, axis=axis) if grey.shape[axis] > 1 else np.zeros_like(grey)
        for axis in (0, 1)
    )
    gradient = math.atan2(
        2 * float((down * right).sum()), float((right * right).sum() - (down * down).sum())
    )
    return gradient / 2 + math.pi / 2


def local_contrast(grey: Plane) -> float:
    """Returns the robust standard deviation, in levels of grey, of what a place has finer than
    itself: its noise and texture, but not its shading nor a single edge.
    """
    sigma = max(1.0, min(grey.shape) / 8)
    coarse = np.asarray(
        Image.fromarray(np.clip(grey, 0, 255).astype(np.uint8)).filter(ImageFilter.BoxBlur(sigma)),
        np.float32,
    )
    return 1.4826 * float(np.median(np.abs(grey - coarse)))
