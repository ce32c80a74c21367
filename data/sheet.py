"""A large surface with one small defect."""

from __future__ import annotations

import math
import zlib

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image

from data.drawing import (
    Plane,
    inside,
    length,
)

SMALL_DEFECTS = ("pit", "inclusion", "nick")


def sheet(
    seed: int, width: int = 4000, height: int = 3000, defect: str | None = None, diameter: int = 12
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Returns a rolled sheet of metal (height, width, 3), grey, and the mask (height, width) of its
    one small defect.

    Marks of the rolls from left to right, mottled grain, uneven light and camera noise, all of them
    in pixels: a smaller picture is a cut-out. A pit is dark with a bright rim, an inclusion bright,
    a nick a short dark line. The same seed with and without a defect gives the same sheet.
    """
    if defect is not None and defect not in SMALL_DEFECTS:
        raise ValueError(
            f"defect {defect!r} found, one of {', '.join(SMALL_DEFECTS)} expected of a sheet"
        )
    scene, shape = (np.random.default_rng([zlib.crc32(b"sheet"), seed, i]) for i in range(2))

    grey = rolled(scene, width, height)
    mask = np.zeros((height, width), bool)
    if defect is not None:
        top, left = (
            int(shape.integers(2 * diameter, length - 4 * diameter)) for length in (height, width)
        )
        here = (slice(top, top + 2 * diameter), slice(left, left + 2 * diameter))
        grey[here], mask[here] = small_defect(shape, grey[here], defect, diameter)
    grey = grey + scene.standard_normal((height, width), np.float32) * np.float32(0.008)
    return np.repeat(np.clip(grey * 255, 0, 255).astype(np.uint8)[..., None], 3, axis=2), mask


def rolled(scene: Generator, width: int, height: int) -> Plane:
    """Returns the grey of a rolled surface: mottled, with marks of the rolls, in uneven light."""

    def cells(down: float, across: float) -> Plane:
        """Smooth noise of unit spread with cells of ``down`` x ``across`` pixels."""
        grid = scene.standard_normal(
            (round(height / down) + 2, round(width / across) + 2), np.float32
        )
        return np.asarray(Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC))

    grey = 0.55 + 0.03 * cells(height / 2, width / 2)
    for weight, down, across in ((0.030, 3, 90), (0.020, 11, 400), (0.020, 5, 6), (0.015, 24, 30)):
        grey = grey + weight * scene.uniform(0.85, 1.15) * cells(down, across)
    return grey


def small_defect(
    rng: Generator, grey: Plane, defect: str, diameter: int
) -> tuple[Plane, NDArray[np.bool_]]:
    """Returns a square of twice the diameter with a defect in its middle, and where it is."""
    line = (np.arange(2 * diameter, dtype=np.float32) + 0.5) / diameter - 1  # 0.5 is the radius
    x, y = np.meshgrid(line, line)
    angle, stretch = rng.uniform(0, math.pi), rng.uniform(0.85, 1.15)
    along, across = (
        x * math.cos(angle) + y * math.sin(angle),
        (y * math.cos(angle) - x * math.sin(angle)) * stretch,
    )
    across = across * (4 if defect == "nick" else 1)
    amount = inside(length(along, across) - 0.5, 3 / diameter)
    depth = rng.uniform(0.20, 0.30)
    changed = grey + depth * amount if defect == "inclusion" else grey - depth * amount
    if defect == "pit":
        changed = changed + 0.10 * inside(abs(length(along, across) - 0.5) - 0.08, 2 / diameter) * (
            along < 0
        )
    return changed.astype(np.float32), amount > 0.3
