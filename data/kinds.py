"""Five kinds of parts and surfaces before they are photographed."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.random import Generator

from data.drawing import (
    LIGHT,
    Flaw,
    Part,
    Plane,
    grid,
    inside,
    length,
    lit,
    mix,
    noise,
    rgb,
    rings,
    rough,
)
from data.screw import screw


def disc(rng: Generator, size: int, flaw: Flaw | None) -> Part:
    """A turned steel disc with a bore and six bolt holes on a dark brushed plate."""
    x, y = grid(size)
    shift_x, shift_y, turn, scale = (
        rng.normal(0, 0.012),
        rng.normal(0, 0.012),
        rng.normal(0, 0.03),
        rng.normal(1, 0.006),
    )
    u, v = (x - shift_x) / scale, (y - shift_y) / scale
    radius = length(u, v) + 1e-6

    plate = brushed(rng, size)
    plate = plate * (1 - 0.75 * shadow(u, v))

    edge = np.maximum(radius - 0.82, 0.27 - radius)
    bite = np.zeros_like(edge)
    if flaw is not None and flaw.name == "chip":
        broken = chip(flaw.rng, u, v)
        bite = inside(broken) * inside(radius - 0.82)
        edge = np.maximum(edge, -broken)
    body = inside(edge)

    steel = turned(rng, u, v)
    holes, missing = bolt_holes(u, v, turn, flaw)
    rim = inside(abs(holes) - 0.010, 0.03)
    steel = mix(steel, 0.86, 0.55 * rim)
    steel = mix(steel, 0.07 + 0.10 * inside(-holes - 0.05, 0.06), inside(holes))
    picture = mix(plate * rgb(1.0, 1.02, 1.06), steel * rgb(0.98, 1.0, 1.03), body)
    picture = mix(picture, 0.16, 0.8 * inside(abs(edge) - 0.004) * bite)
    surface = inside(np.maximum(edge, -holes) + 0.05)
    return Part(picture, surface, np.maximum(bite, missing))


def shadow(u: Plane, v: Plane) -> Plane:
    """Returns where the disc takes the light from the plate."""
    return inside(length(u + 0.07 * LIGHT[0], v + 0.07 * LIGHT[1]) - 0.84, 0.16)


def turned(rng: Generator, u: Plane, v: Plane) -> Plane:
    """Turned steel: rings that glitter, a raised ring, chamfers at the rim and the bore."""
    radius, size = length(u, v) + 1e-6, len(u)
    towards = (u * LIGHT[0] + v * LIGHT[1]) / radius  # 1 on the side of the light, -1 on the other
    marks = rings(rng, radius, 70) * 0.022 + rings(rng, radius, 23) * 0.018
    # light on turned rings
    fan = np.exp(-(((u * LIGHT[1] - v * LIGHT[0]) / radius + rng.normal(0, 0.03)) ** 2) / 0.10)
    steel: Plane = 0.48 + 0.30 * fan + marks * (0.6 + fan) + noise(rng, size, 5) * 0.008
    for step, rises in ((0.42, 1.0), (0.70, -1.0)):  # a raised ring between two small steps
        steel = steel + 0.30 * rises * -towards * inside(abs(radius - step) - 0.012, 0.03)
    steel = steel + 0.34 * towards * inside(abs(radius - 0.805) - 0.010, 0.03)  # the chamfers
    steel = steel - 0.34 * towards * inside(abs(radius - 0.285) - 0.010, 0.03)
    return steel


def brushed(rng: Generator, size: int) -> Plane:
    """A dark plate, brushed from left to right."""
    streaks = noise(rng, size, 6, size) * 0.030 + noise(rng, size, 20, size // 2) * 0.015
    return (0.27 + streaks + noise(rng, size, 3) * 0.01).astype(np.float32)


def bolt_holes(u: Plane, v: Plane, turn: float, flaw: Flaw | None) -> tuple[Plane, Plane]:
    """Returns the signed distance to six holes, and where a seventh part of them was forgotten."""
    left_out = int(flaw.rng.integers(6)) if flaw is not None and flaw.name == "missing" else None
    distance, missing = np.full_like(u, 9.0), np.zeros_like(u)
    for i in range(6):
        angle = turn + i * math.pi / 3
        hole = length(u - 0.56 * math.cos(angle), v - 0.56 * math.sin(angle)) - 0.085
        if i == left_out:
            missing = inside(hole - 0.02)
        else:
            distance = np.minimum(distance, hole)
    return distance, missing


def chip(rng: Generator, u: Plane, v: Plane) -> Plane:
    """Returns the signed distance to a bite broken out of the rim."""
    angle = rng.uniform(0, 2 * math.pi)
    distance = np.full_like(u, 9.0)
    for _ in range(4):
        at = angle + rng.normal(0, 0.08)
        bite = length(u - 0.85 * math.cos(at), v - 0.85 * math.sin(at)) - rng.uniform(0.06, 0.13)
        distance = np.minimum(distance, bite)
    return distance


def fabric(rng: Generator, size: int, flaw: Flaw | None) -> Part:
    """A plain weave of blue warp and paler weft."""
    x, y = grid(size)
    p, q = threads(rng, x, y)
    column, row = np.floor(p), np.floor(q)
    warp = np.cos((p - column - 0.5) * math.pi) + 0.75 * np.cos((q + column) * math.pi)
    weft = np.cos((q - row - 0.5) * math.pi) - 0.75 * np.cos((p + row) * math.pi)
    missing = np.zeros_like(x)
    if flaw is not None and flaw.name == "thread":
        missing = lost_thread(flaw.rng, x, row)
        weft = weft - 4 * missing
    gains = 1 + 0.05 * rng.standard_normal((2, 64), np.float32)
    over = np.clip((warp - weft) * 2.5 + 0.5, 0, 1)
    fibres = noise(rng, size, 3 * size // 2, size // 2) * over + noise(
        rng, size, size // 2, 3 * size // 2
    ) * (1 - over)
    thickness = np.where(warp > weft, warp, np.maximum(weft, -1.2))
    light = 0.52 + 0.30 * thickness + 0.035 * fibres
    light = light * (1 + 0.02 * noise(rng, size, 3))
    blue = light * gains[0][column.astype(int) % 64] * rgb(0.36, 0.47, 0.66)
    pale = light * gains[1][row.astype(int) % 64] * rgb(0.68, 0.74, 0.80)
    return Part(mix(pale, blue, over), np.ones_like(x), missing)


def threads(rng: Generator, x: Plane, y: Plane) -> tuple[Plane, Plane]:
    """Returns the position across the warp and across the weft, in threads."""
    count, size = 13.0, len(x)
    shift_x, shift_y, shear = rng.uniform(0, 2), rng.uniform(0, 2), rng.normal(0, 0.012)
    p = (x + shear * y) * count + shift_x + noise(rng, size, 6) * 0.07
    q = (y - shear * x) * count + shift_y + noise(rng, size, 6) * 0.07
    return p, q


def lost_thread(rng: Generator, x: Plane, row: Plane) -> Plane:
    """Returns where a thread of the weft has broken and is gone."""
    which = rng.integers(int(row.min()) + 3, int(row.max()) - 3)
    middle, half = rng.uniform(-0.8, 0.8), rng.uniform(0.35, 0.6)
    gone: Plane = (row == which) * inside(abs(x - middle) - half, 0.05)
    return gone


def cell(rng: Generator, size: int, flaw: Flaw | None) -> Part:
    """A solar cell of many crystals, glowing under current; what does not glow is dead."""
    x, y = grid(size)
    u, v = x + rng.normal(0, 0.008), y + rng.normal(0, 0.008)
    edge = np.maximum(abs(u), abs(v)) - 0.955
    edge = np.maximum(edge, (abs(u) + abs(v) - 1.80) / math.sqrt(2))
    glow = crystals(rng, u, v)
    nearest = np.abs((u * 1.5 + 0.5) % 1 - 0.5) / 1.5  # the busbars: three, from top to bottom
    changed = np.zeros_like(x)
    if flaw is not None and flaw.name in ("dead", "finger"):
        changed = (dead_corner if flaw.name == "dead" else cut_fingers)(flaw.rng, u, v)
        glow = glow * (1 - flaw.rng.uniform(0.60, 0.80) * changed)
    glow = glow + 0.05 * np.exp(-nearest * 14)
    glow = mix(glow, 0.17, inside(nearest - 0.018, 0.02))
    body = inside(edge, 0.02)
    grey = mix(np.full_like(x, 0.035), glow, body)
    return Part(grey * rgb(1, 1, 1), inside(edge + 0.08), changed * (body > 0.5))


def crystals(rng: Generator, u: Plane, v: Plane) -> Plane:
    """Returns how bright crystals under fingers glow."""
    size = len(u)
    glow: Plane = 0.60 + 0.035 * noise(rng, size, 3) - 0.10 * np.maximum(abs(u), abs(v)) ** 6
    darker = np.clip(rough(rng, size, 6, 4, 0.7) - 0.55, 0, None)
    glow = glow * (1 - 0.16 * np.minimum(darker, 1.6)) + 0.012 * noise(rng, size, size // 2)
    glow = glow * (1 - 0.10 * (np.cos(v * math.pi * 32) > 0.80))  # the fingers
    return glow


def dead_corner(rng: Generator, u: Plane, v: Plane) -> Plane:
    """Returns a region that a crack has cut off: dark up to the edge."""
    angle = rng.uniform(0, 2 * math.pi)
    along = u * math.cos(angle) + v * math.sin(angle)
    across = v * math.cos(angle) - u * math.sin(angle)
    ragged = 0.05 * np.sin(across * 9 + rng.uniform(0, 6)) + 0.03 * np.sin(
        across * 23 + rng.uniform(0, 6)
    )
    return inside(rng.uniform(0.55, 0.75) + ragged - along, 0.03)


def cut_fingers(rng: Generator, u: Plane, v: Plane) -> Plane:
    """Returns the dark stripes between two busbars where fingers are interrupted."""
    left = -1 / 3 + 2 / 3 * rng.integers(-1, 2) + rng.uniform(0.02, 0.1)
    top, height = rng.uniform(-0.7, 0.4), rng.integers(2, 6) / 16
    box = np.maximum(
        abs(u - left - 0.17) - rng.uniform(0.12, 0.17), abs(v - top - height / 2) - height / 2
    )
    return inside(box, 0.04) * rng.uniform(0.8, 1.0)


def casting(rng: Generator, size: int, flaw: Flaw | None) -> Part:
    """A rough casting with a face milled flat and a bore in it."""
    x, y = grid(size)
    u, v = x + rng.normal(0, 0.012), y + rng.normal(0, 0.012)
    face = length(np.maximum(abs(u) - 0.50, 0), np.maximum(abs(v) - 0.42, 0)) - 0.26
    bore = length(u - 0.34, v + 0.12) - 0.17
    skin = 0.36 + lit(rough(rng, size, 18, 3, 0.6), 0.0034) + 0.012 * noise(rng, size, 4)
    wall = inside(abs(face - 0.03) - 0.035, 0.05)  # the rise from the skin to the face
    skin = skin + lit(-np.clip(face, -0.01, 0.07), 0.30) * wall
    passes = length(u + 2.3, v - 0.1) - 1.2
    milled = (
        0.63
        + 0.030 * rings(rng, passes, 60)
        + 0.018 * rings(rng, passes, 24)
        + 0.05 * (u * LIGHT[0] + v * LIGHT[1])
    )
    milled = milled + 0.012 * noise(rng, size, 4)
    towards = ((u - 0.34) * LIGHT[0] + (v + 0.12) * LIGHT[1]) / 0.17
    milled = milled - 0.22 * towards * inside(abs(bore - 0.012) - 0.014, 0.03)
    depth = 0.10 + 0.16 * np.clip(-towards, 0, 1) * inside(-bore - 0.06, 0.06)
    grey = mix(mix(skin, milled, inside(face)), depth, inside(bore))
    return Part(
        grey * rgb(1.0, 0.985, 0.95), inside(np.maximum(face, -bore) + 0.06), np.zeros_like(x)
    )


KINDS: dict[str, Callable[[Generator, int, Flaw | None], Part]] = {
    "disc": disc,
    "fabric": fabric,
    "cell": cell,
    "casting": casting,
    "screw": screw,
}
