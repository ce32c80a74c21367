"""What all synthetic images are drawn with: noise, edges, lines and light on a grid."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Plane = NDArray[np.floating]  # (H, W), or (3, H, W) for a colour picture; 0 is black, 1 white
Point = tuple[float, float]

LIGHT = (-0.60, -0.80)  # where the light comes from: above, a little from the left


@dataclass(frozen=True)
class Flaw:
    """Which defect, and the random numbers that shape it."""

    name: str
    rng: Generator


@dataclass(frozen=True)
class Part:
    """A part before it is photographed."""

    colour: Plane  # (3, H, W)
    surface: Plane  # 1 where a defect of the surface may lie
    # how far each pixel is changed by a defect of the shape (a hole not drilled, a chip)
    changed: Plane


@lru_cache(8)
def grid(size: int) -> tuple[Plane, Plane]:
    """Returns x (to the right) and y (down) of the pixel centres, -1 to 1."""
    line = ((np.arange(size, dtype=np.float32) + 0.5) * 2 / size - 1).astype(np.float32)
    x, y = np.meshgrid(line, line)
    return x, y


def length(x: Plane, y: Plane) -> Plane:
    """Returns sqrt(x^2 + y^2): a third of the time of np.hypot, which guards against overflow."""
    return np.sqrt(x * x + y * y)


def inside(distance: Plane, soft: float = 0.0) -> Plane:
    """Returns 1 where the signed distance is negative, 0 where positive, a smooth edge of a pixel
    (or more) between.
    """
    width = max(2 / len(distance), soft)
    t = np.clip(0.5 - distance / width, 0, 1)
    smooth: Plane = t * t * (3 - 2 * t)
    return smooth


def mix(below: Plane, above: Plane | float, amount: Plane) -> Plane:
    """Returns ``above`` painted over ``below`` where ``amount`` (H, W) is 1."""
    return below + (above - below) * amount


def noise(rng: Generator, size: int, across: int, down: int | None = None) -> Plane:
    """Returns smooth noise of about unit spread with ``across`` x ``down`` cells."""
    cells = rng.standard_normal((min(down or across, 2 * size), min(across, 2 * size)), np.float32)
    return np.asarray(Image.fromarray(cells).resize((size, size), Image.Resampling.BICUBIC))


def rough(rng: Generator, size: int, coarsest: int, octaves: int, fade: float = 0.6) -> Plane:
    """Returns noise summed over octaves, each finer and weaker by ``fade``."""
    total: Plane = np.zeros((size, size), np.float32)
    for i in range(octaves):
        total = total + noise(rng, size, coarsest << i) * fade**i
    return total


def lit(height: Plane, strength: float) -> Plane:
    """Returns how much brighter a slope of the ``height`` is than level ground, by the direction of
    the light.
    """
    slopes: tuple[Plane, ...] = tuple(np.gradient(height, 2 / len(height)))
    down, across = slopes
    return -strength * (LIGHT[0] * across + LIGHT[1] * down)


def rings(rng: Generator, radius: Plane, count: int) -> Plane:
    """Returns the marks of a tool at each radius (0 to 2): noise that depends on the
    radius only.
    """
    marks = rng.standard_normal(2 * count + 2, np.float32)
    at = np.minimum(radius * count, 2 * count).astype(np.int32)
    return marks[at]


def rgb(red: float, green: float, blue: float) -> Plane:
    """Returns a colour in a shape that multiplies grey values (H, W) to a picture (3, H, W)."""
    return np.array([red, green, blue], np.float32).reshape(3, 1, 1)


# ---- places and lines on a surface ----


def spot(rng: Generator, surface: Plane) -> Point:
    """Returns a random point of the surface, not at the margin of the picture, as x and y."""
    size = len(surface)
    margin = size // 12
    rows, columns = np.nonzero(surface[margin : size - margin, margin : size - margin] > 0.95)
    at = int(rng.integers(len(rows)))
    return (int(columns[at]) + margin + 0.5) * 2 / size - 1, (
        int(rows[at]) + margin + 0.5
    ) * 2 / size - 1


def stroke(points: list[Point], widths: list[float], size: int) -> Plane:
    """Returns the coverage of a line through ``points``, each piece of its own width (in pixels of
    128).
    """
    fine = 4
    canvas = Image.new("L", (size * fine, size * fine))
    draw = ImageDraw.Draw(canvas)
    scaled = [((x + 1) / 2 * size * fine, (y + 1) / 2 * size * fine) for x, y in points]
    for start, end, width in zip(scaled, scaled[1:], widths, strict=False):
        draw.line([start, end], 255, max(1, round(width * fine * size / 128)))
    return np.asarray(canvas.reduce(fine), np.float32) / 255


def walk(
    rng: Generator, start: Point, angle: float, steps: int, step: float, wander: float
) -> list[Point]:
    """Returns a line that changes its direction a little (or much) at every step."""
    points = [start]
    for _ in range(steps):
        angle += rng.normal(0, wander)
        x, y = points[-1]
        points.append((x + step * math.cos(angle), y + step * math.sin(angle)))
    return points


def blob(rng: Generator, size: int, centre: Point, radius: float, ragged: float = 0.35) -> Plane:
    """Returns the signed distance to an uneven round."""
    x, y = grid(size)
    uneven = noise(rng, size, 9) * ragged * 0.5 + noise(rng, size, 22) * ragged * 0.2
    return length(x - centre[0], (y - centre[1]) * rng.uniform(0.8, 1.25)) - radius * (1 + uneven)


def on_surface(part: Part, rng: Generator, steps: int, step: float, wander: float) -> list[Point]:
    """Returns of some random lines the one that lies on the surface for longest."""
    lines = [
        walk(rng, spot(rng, part.surface), rng.uniform(0, 2 * math.pi), steps, step, wander)
        for _ in range(8)
    ]
    size = len(part.surface)
    # (8, steps + 1, 2)
    indices = np.clip((np.array(lines) + 1) / 2 * size, 0, size - 1).astype(int)
    return lines[int(part.surface[indices[..., 1], indices[..., 0]].sum(1).argmax())]
