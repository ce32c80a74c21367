"""A threaded metal part that lies at any angle and anywhere, seen from above.

It is drawn in its own frame: ``along`` runs from 0 at the head to 1 at the tip, and ``across`` and
all radii are in lengths of the part.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from data.drawing import LIGHT, Flaw, Part, Plane, grid, inside, length, mix, noise, rgb

LENGTH = 1.36  # of the part, where the picture is 2 wide
HEAD_RADIUS = 0.11
MARGIN = 0.05  # between the part and the edge of the picture
OUTLINE = (  # along, and the radius without the crests of the thread
    (0.0, 0.012, 0.03, 0.10, 0.34, 0.36, 0.91, 0.96, 1.0),
    (0.096, HEAD_RADIUS, HEAD_RADIUS, 0.05, 0.05, 0.045, 0.045, 0.028, 0.003),
)
THREADED = ((0.33, 0.37, 0.91, 0.97, 1.0), (0.0, 1.0, 1.0, 0.6, 0.0))  # along, share of the crest
CREST, PITCH = 0.012, 0.036  # height of the thread, and from one turn to the next
MIN_SIZE, MAX_SIZE = 0.02, 0.06  # a defect, in lengths of the part
MIN_PIXELS = 6.0  # of a defect, where the picture is small
EVERYWHERE = 9.0  # a signed distance that is never reached


@dataclass(frozen=True)
class Damage:
    """What a defect does to a part: each a plane, or a number where it does nothing."""

    bent: Plane | float = 0.0  # how far the axis is moved across
    flat: Plane | float = 0.0  # share of the crest that is gone
    gone: Plane | float = EVERYWHERE  # signed distance to what has broken off
    mark: Plane | float = 0.0  # how much of a scratch is seen


@dataclass(frozen=True)
class Pose:
    """Where a part lies, and where the pixels lie on it."""

    along: Plane
    across: Plane
    scale: float  # length of the part, where the picture is 2 wide
    light: tuple[float, float]  # where it comes from, along and across


def screw(rng: Generator, size: int, flaw: Flaw | None, still: bool = False) -> Part:
    """A countersunk screw on a plain ground; ``still``: in the middle, the head to the left."""
    pose, roll = laid(rng, size, still), rng.uniform(0, 1)
    marks = finish(rng, pose)
    ground = 0.69 + 0.010 * noise(rng, size, 3) + 0.004 * noise(rng, size, size // 3)
    whole = outside(pose, roll, Damage())
    ground = ground * (1 - 0.16 * inside(pose.scale * whole - 0.02, 0.12))  # its own shadow

    damage, thinnest = Damage(), MIN_PIXELS * 2 / size / pose.scale
    if flaw is not None:
        extent = max(flaw.rng.uniform(MIN_SIZE, MAX_SIZE), thinnest)
        damage = DAMAGES[flaw.name](flaw.rng, pose, extent)
    good, body = (inside(pose.scale * outside(pose, roll, one)) for one in (Damage(), damage))
    metal = shaded(pose, roll, damage) + marks
    moved = np.maximum(good, body) * (np.abs(damage.bent) > 0)
    touched = body * np.maximum(damage.flat, damage.mark)
    changed = np.maximum(np.maximum(abs(good - body), moved), touched)
    picture = mix(ground * rgb(1.0, 1.0, 1.0), metal * rgb(1.0, 0.99, 0.96), body)
    return Part(picture, body, changed)


def laid(rng: Generator, size: int, still: bool) -> Pose:
    """Returns a pose in which the whole part is in the picture."""
    angle, place = rng.uniform(0, 2 * math.pi), rng.uniform(-1, 1, 2)
    scale = LENGTH * (1 + np.clip(rng.normal(0, 0.008), -0.03, 0.03))
    if still:
        angle, place = 0.0, np.zeros(2)
    cos, sin = math.cos(angle), math.sin(angle)
    half, wide = scale / 2, scale * HEAD_RADIUS
    shift_x = place[0] * (1 - MARGIN - half * abs(cos) - wide * abs(sin))
    shift_y = place[1] * (1 - MARGIN - half * abs(sin) - wide * abs(cos))
    x, y = grid(size)
    u, v = x - np.float32(shift_x), y - np.float32(shift_y)
    light = (LIGHT[0] * cos + LIGHT[1] * sin, LIGHT[1] * cos - LIGHT[0] * sin)
    return Pose((u * cos + v * sin) / scale + 0.5, (v * cos - u * sin) / scale, scale, light)


def outside(pose: Pose, roll: float, damage: Damage) -> Plane:
    """Returns the signed distance to the outline, in lengths of the part."""
    across = pose.across - damage.bent
    radius = radius_at(pose.along, crest(pose.along, across, roll) * (1 - damage.flat))
    ends = abs(pose.along - 0.5) - 0.5
    distance: Plane = np.maximum(np.maximum(abs(across) - radius, ends), -1.0 * damage.gone)
    return distance


def radius_at(along: Plane, relief: Plane | float) -> Plane:
    """Returns the radius of the part where the thread is ``relief`` high, 0 to 1."""
    return np.interp(along, *OUTLINE) + CREST * np.interp(along, *THREADED) * relief


def crest(along: Plane, across: Plane, roll: float) -> Plane:
    """Returns how high the thread is, 0 to 1: turns that are slanted as seen from above."""
    turn = turns(along, across, roll)
    return 1 - 2 * abs(turn - np.floor(turn) - 0.5)


def turns(along: Plane, across: Plane, roll: float) -> Plane:
    """Returns how many turns of the thread lie before a place."""
    around = np.arcsin(np.clip(across / (OUTLINE[1][-3] + CREST), -1, 1)) / (2 * math.pi)
    count: Plane = along / PITCH + around + roll
    return count


def shaded(pose: Pose, roll: float, damage: Damage) -> Plane:
    """Returns the light on round metal, on the flanks of its thread and on the damage."""
    across = pose.across - damage.bent
    side = np.clip(across / radius_at(pose.along, 0.5), -1, 1)
    threaded = np.interp(pose.along, *THREADED) * (1 - damage.flat)
    turn = turns(pose.along, across, roll)
    flank = np.sign(turn - np.floor(turn) - 0.5)
    grey = 0.16 + 0.36 * np.sqrt(1 - side * side) + 0.22 * np.exp(-(((side + 0.1) / 0.3) ** 2))
    grey = grey + 0.05 * pose.light[1] * side
    grey = grey + threaded * (0.30 * crest(pose.along, across, roll) - 0.20)
    grey = grey + threaded * flank * (0.05 + 0.04 * pose.light[0])
    grey = grey + 0.08 * np.maximum(damage.flat, 0)  # what is pressed flat is bright
    scratched: Plane = mix(grey, np.where(grey > 0.5, 0.22, 0.82), 0.9 * np.maximum(damage.mark, 0))
    return scratched


def finish(rng: Generator, pose: Pose) -> Plane:
    """Returns the marks of the lathe on the part: brighter and darker rings, and grain."""
    ring, grain = (rng.standard_normal(shape).astype(np.float32) for shape in ((181, 1), (181, 41)))
    along = np.clip((pose.along + 0.01) * 176, 0, 180).astype(int)
    across = np.clip((pose.across / HEAD_RADIUS / 2.2 + 0.5) * 40, 0, 40).astype(int)
    marks: Plane = 0.010 * ring[along, 0] + 0.008 * grain[along, across]
    return marks


# ---- defects ----


def flattened(rng: Generator, pose: Pose, extent: float) -> Damage:
    """Some turns of the thread are pressed flat."""
    at, side = rng.uniform(0.42, 0.86), rng.choice((-1, 1)) * rng.uniform(0.25, 1.0) * 0.05
    away = length((pose.along - at) / 1.3, pose.across - side) - 0.55 * extent
    return Damage(flat=inside(pose.scale * away, 0.02))


def scratched_head(rng: Generator, pose: Pose, extent: float) -> Damage:
    return scratched(rng, pose, extent, (0.025, 0.08), 0.065)


def scratched_shank(rng: Generator, pose: Pose, extent: float) -> Damage:
    return scratched(rng, pose, extent, (0.13, 0.31), 0.03)


def scratched(
    rng: Generator, pose: Pose, extent: float, along: tuple[float, float], wide: float
) -> Damage:
    """A straight line of that length."""
    at, side, angle = rng.uniform(*along), rng.uniform(-wide, wide), rng.uniform(0, math.pi)
    u, v = pose.along - at, pose.across - side
    far = np.clip(u * math.cos(angle) + v * math.sin(angle), -extent / 2, extent / 2)
    away = length(u - far * math.cos(angle), v - far * math.sin(angle))
    pixel = 2 / len(u) / pose.scale
    return Damage(mark=inside(pose.scale * (away - max(0.003, 0.8 * pixel))))


def damaged_tip(rng: Generator, pose: Pose, extent: float) -> Damage:
    """The tip is bent to a side, or blunt."""
    if rng.random() < 0.5:
        return Damage(gone=1 - extent - pose.along + 0.3 * pose.across)
    start = 0.97 - 1.2 * extent
    reach = np.clip((pose.along - start) / (1 - start), 0, 1)
    return Damage(bent=rng.choice((-1, 1)) * extent * 0.8 * reach**1.5)


def chipped_head(rng: Generator, pose: Pose, extent: float) -> Damage:
    """A piece has broken off the rim of the head."""
    side, at = rng.choice((-1, 1)) * HEAD_RADIUS, rng.uniform(0.0, 0.035)
    ragged = 1 + 0.2 * np.sin(
        7 * np.arctan2(pose.across - side, pose.along - at) + rng.uniform(0, 6)
    )
    return Damage(gone=length(pose.along - at, pose.across - side) - 0.8 * extent * ragged)


DAMAGES: dict[str, Callable[[Generator, Pose, float], Damage]] = {
    "thread": flattened,
    "scratch-head": scratched_head,
    "scratch-shank": scratched_shank,
    "tip": damaged_tip,
    "chip": chipped_head,
}
