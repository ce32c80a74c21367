"""Defects that lie on a surface, whatever the part: how it looks, and where it is changed."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.random import Generator

from data.drawing import (
    LIGHT,
    Part,
    Plane,
    blob,
    grid,
    inside,
    length,
    mix,
    noise,
    on_surface,
    rgb,
    spot,
    stroke,
    walk,
)


def scratch(part: Part, rng: Generator) -> tuple[Plane, Plane]:
    """A tool has slipped: a bright line with a dark side."""
    size = len(part.surface)
    line = on_surface(part, rng, int(rng.integers(8, 16)), 0.04, 0.06)
    widths = [1.6 * math.sin(math.pi * (i + 1) / (len(line) + 1)) + 0.6 for i in range(len(line))]
    bright = stroke(line, widths, size) * part.surface
    dark = stroke([(x + 0.018, y + 0.018) for x, y in line], widths, size) * part.surface
    return mix(mix(part.colour, 0.10, 0.85 * dark), 1.0, 0.95 * bright), np.maximum(bright, dark)


def crack(part: Part, rng: Generator) -> tuple[Plane, Plane]:
    """A dark jagged line with a branch."""
    size = len(part.surface)
    line = on_surface(part, rng, int(rng.integers(14, 24)), 0.035, 0.42)
    (x, y), (ahead_x, ahead_y) = line[len(line) // 2 : len(line) // 2 + 2]
    angle = math.atan2(ahead_y - y, ahead_x - x) + (0.9 if rng.random() < 0.5 else -0.9)
    branch = walk(rng, (x, y), angle, len(line) // 2, 0.03, 0.42)
    taper = [1.9 - 1.2 * i / len(line) for i in range(len(line))]
    gap = np.maximum(stroke(line, taper, size), stroke(branch, taper[len(line) // 2 :], size)) * (
        part.surface > 0.2
    )
    return mix(part.colour, 0.07, 0.9 * gap), gap


def stain(part: Part, rng: Generator) -> tuple[Plane, Plane]:
    """Oil or rust: a brown veil, darker at its rim."""
    size = len(part.surface)
    distance = blob(rng, size, spot(rng, part.surface), rng.uniform(0.11, 0.2), 0.5)
    veil = inside(distance, 0.05) * np.clip(part.surface * 2, 0, 1)
    rim = inside(abs(distance + 0.02) - 0.012, 0.04) * veil
    brown = part.colour * rgb(0.62, 0.44, 0.28)
    return mix(mix(part.colour, brown, 0.85 * veil), brown * 0.7, 0.5 * rim), veil


def dent(part: Part, rng: Generator) -> tuple[Plane, Plane]:
    """A hollow: dark towards the light, bright on the other side."""
    x, y = grid(len(part.surface))
    at, radius = spot(rng, part.surface), rng.uniform(0.08, 0.13)
    hollow = np.exp(-((x - at[0]) ** 2 + (y - at[1]) ** 2) / radius**2)
    shade = (
        ((x - at[0]) * LIGHT[0] + (y - at[1]) * LIGHT[1])
        / radius
        * hollow
        * np.clip(part.surface * 2, 0, 1)
    )
    return part.colour - (0.75 * shade + 0.10 * hollow), hollow * (part.surface > 0.2) * 1.6


def hole(part: Part, rng: Generator) -> tuple[Plane, Plane]:
    """Torn through: dark, with pale frayed threads at the rim."""
    size = len(part.surface)
    distance = blob(rng, size, spot(rng, part.surface), rng.uniform(0.09, 0.16), 0.45)
    frayed = inside(abs(distance) - 0.015, 0.03) * (noise(rng, size, size // 2) > -0.2)
    gone = inside(distance, 0.03)
    return mix(mix(part.colour, 0.05, gone), 0.72, 0.7 * frayed), np.maximum(gone, frayed)


def snag(part: Part, rng: Generator) -> tuple[Plane, Plane]:
    """A thread pulled out, lying in a loop on the cloth."""
    size = len(part.surface)
    line = on_surface(part, rng, 22, 0.045, 0.35)
    thread = stroke(line, [2.6] * len(line), size)
    shadow = stroke([(x + 0.022, y + 0.03) for x, y in line], [3.0] * len(line), size)
    pale = rgb(0.80, 0.83, 0.86)
    return mix(mix(part.colour, 0.10, 0.6 * shadow), pale, thread), np.maximum(thread, shadow)


def dark_spot(part: Part, rng: Generator) -> tuple[Plane, Plane]:
    """A round that gives no light."""
    size = len(part.surface)
    dull = inside(blob(rng, size, spot(rng, part.surface), rng.uniform(0.07, 0.13), 0.2), 0.07)
    return mix(part.colour, 0.09, 0.9 * dull), dull


def pores(part: Part, rng: Generator) -> tuple[Plane, Plane]:
    """Gas was caught in the metal: a cluster of small pits, each lit at its far rim."""
    x, y = grid(len(part.surface))
    colour, changed = part.colour, np.zeros_like(x)
    centre = spot(rng, part.surface)
    for _ in range(int(rng.integers(4, 9))):
        at = (centre[0] + rng.normal(0, 0.07), centre[1] + rng.normal(0, 0.07))
        distance = length(x - at[0], y - at[1]) - rng.uniform(0.018, 0.045)
        pit = inside(distance) * (part.surface > 0.2)
        rim = inside(abs(distance - 0.008) - 0.008, 0.02) * (
            (x - at[0]) * LIGHT[0] + (y - at[1]) * LIGHT[1] < 0
        )
        colour = mix(mix(colour, 0.85, 0.6 * rim * (part.surface > 0.2)), 0.08, pit)
        changed = np.maximum(changed, pit)
    return colour, changed


FLAWS: dict[str, Callable[[Part, Generator], tuple[Plane, Plane]]] = {
    "scratch": scratch,
    "crack": crack,
    "stain": stain,
    "dent": dent,
    "hole": hole,
    "snag": snag,
    "spot": dark_spot,
    "pores": pores,
}
