"""Makes small synthetic images with known defects and masks: for tests, pictures, a first try.

    python -m data.synthetic FOLDER --kind disc

Four kinds: a turned disc with bolt holes, a woven fabric, a solar cell by electroluminescence, a
milled face on a casting. Normal images differ as photographs of good parts do: position, turn,
light, texture, noise. The same seed with and without a defect gives the same part, changed at the
defect only.
"""

from __future__ import annotations

import argparse
import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

Plane = NDArray[np.floating]  # (H, W), or (3, H, W) for a colour picture; 0 is black, 1 white
Point = tuple[float, float]

DEFECTS = {
    "disc": ("scratch", "crack", "chip", "missing", "stain", "dent"),
    "fabric": ("hole", "stain", "thread", "snag"),
    "cell": ("crack", "dead", "finger", "spot"),
    "casting": ("scratch", "crack", "pores", "stain", "dent"),
}
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


def make(
    kind: str, seed: int, size: int = 128, defect: str | None = None
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Returns the picture (size, size, 3) and the mask (size, size) of its defect, all False
    without one.

    Any size from 32 on; below there is no room for the defects.
    """
    if kind not in DEFECTS:
        raise ValueError(f"kind {kind!r} found, one of {', '.join(DEFECTS)} expected")
    if defect is not None and defect not in DEFECTS[kind]:
        raise ValueError(
            f"defect {defect!r} found, one of {', '.join(DEFECTS[kind])} expected for kind {kind!r}"
        )
    scene, camera, shape = (
        np.random.default_rng([zlib.crc32(kind.encode()), seed, i]) for i in range(3)
    )
    flaw = None if defect is None else Flaw(defect, shape)
    part = KINDS[kind](scene, size, flaw)
    colour, changed = part.colour, part.changed
    if flaw is not None and flaw.name in FLAWS:
        colour, changed = FLAWS[flaw.name](part, flaw.rng)
    return photograph(colour, camera), changed > 0.3


def photograph(colour: Plane, rng: Generator) -> NDArray[np.uint8]:
    """Returns the picture that a camera takes: exposure, vignette, a soft lens, noise."""
    x, y = grid(colour.shape[-1])
    falloff = (
        rng.normal(1.0, 0.025)
        - 0.09 * (x * x + y * y)
        + rng.normal(0, 0.012) * x
        + rng.normal(0, 0.012) * y
    )
    exposed = np.clip(colour * (255 * falloff), 0, 255).astype(np.uint8)
    lens = ImageFilter.BoxBlur(0.0045 * len(x))
    soft = np.stack(
        [np.asarray(Image.fromarray(channel).filter(lens), np.float32) for channel in exposed]
    )
    grain = rng.standard_normal(x.shape, np.float32) * (0.9 + 0.12 * np.sqrt(soft[1]))
    return np.ascontiguousarray(
        np.clip(soft + (grain + 0.5), 0, 255).astype(np.uint8).transpose(1, 2, 0)
    )


# ---- the geometry all kinds share ----


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


# ---- the kinds ----


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
    towards = (u * LIGHT[0] + v * LIGHT[1]) / radius  # 1 on the side of the light, -1 on the other

    plate = brushed(rng, size)
    shadow = inside(length(u + 0.07 * LIGHT[0], v + 0.07 * LIGHT[1]) - 0.84, 0.16)
    plate = plate * (1 - 0.75 * shadow)

    edge = np.maximum(radius - 0.82, 0.27 - radius)
    bite = np.zeros_like(edge)
    if flaw is not None and flaw.name == "chip":
        broken = chip(flaw.rng, u, v)
        bite = inside(broken) * inside(radius - 0.82)
        edge = np.maximum(edge, -broken)
    body = inside(edge)

    marks = rings(rng, radius, 70) * 0.022 + rings(rng, radius, 23) * 0.018
    # light on turned rings
    fan = np.exp(-(((u * LIGHT[1] - v * LIGHT[0]) / radius + rng.normal(0, 0.03)) ** 2) / 0.10)
    steel = 0.48 + 0.30 * fan + marks * (0.6 + fan) + noise(rng, size, 5) * 0.008
    for step, rises in ((0.42, 1.0), (0.70, -1.0)):  # a raised ring between two small steps
        steel = steel + 0.30 * rises * -towards * inside(abs(radius - step) - 0.012, 0.03)
    steel = steel + 0.34 * towards * inside(abs(radius - 0.805) - 0.010, 0.03)  # the chamfers
    steel = steel - 0.34 * towards * inside(abs(radius - 0.285) - 0.010, 0.03)

    holes, missing = bolt_holes(u, v, turn, flaw)
    rim = inside(abs(holes) - 0.010, 0.03)
    steel = mix(steel, 0.86, 0.55 * rim)
    steel = mix(steel, 0.07 + 0.10 * inside(-holes - 0.05, 0.06), inside(holes))
    picture = mix(plate * rgb(1.0, 1.02, 1.06), steel * rgb(0.98, 1.0, 1.03), body)
    picture = mix(picture, 0.16, 0.8 * inside(abs(edge) - 0.004) * bite)
    surface = inside(np.maximum(edge, -holes) + 0.05)
    return Part(picture, surface, np.maximum(bite, missing))


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
    threads = 13.0
    shift_x, shift_y, shear = rng.uniform(0, 2), rng.uniform(0, 2), rng.normal(0, 0.012)
    p = (x + shear * y) * threads + shift_x + noise(rng, size, 6) * 0.07
    q = (y - shear * x) * threads + shift_y + noise(rng, size, 6) * 0.07
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
    glow = 0.60 + 0.035 * noise(rng, size, 3) - 0.10 * np.maximum(abs(u), abs(v)) ** 6
    crystals = np.clip(rough(rng, size, 6, 4, 0.7) - 0.55, 0, None)
    glow = glow * (1 - 0.16 * np.minimum(crystals, 1.6)) + 0.012 * noise(rng, size, size // 2)
    glow = glow * (1 - 0.10 * (np.cos(v * math.pi * 32) > 0.80))  # the fingers
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
}


# ---- defects of the surface ----


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


# ---- a large surface ----

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

    def cells(down: float, across: float) -> Plane:
        """Smooth noise of unit spread with cells of ``down`` x ``across`` pixels."""
        grid = scene.standard_normal(
            (round(height / down) + 2, round(width / across) + 2), np.float32
        )
        return np.asarray(Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC))

    grey = 0.55 + 0.03 * cells(height / 2, width / 2)
    for weight, down, across in ((0.030, 3, 90), (0.020, 11, 400), (0.020, 5, 6), (0.015, 24, 30)):
        grey = grey + weight * scene.uniform(0.85, 1.15) * cells(down, across)
    mask = np.zeros((height, width), bool)
    if defect is not None:
        top, left = (
            int(shape.integers(2 * diameter, length - 4 * diameter)) for length in (height, width)
        )
        here = (slice(top, top + 2 * diameter), slice(left, left + 2 * diameter))
        grey[here], mask[here] = small_defect(shape, grey[here], defect, diameter)
    grey = grey + scene.standard_normal((height, width), np.float32) * np.float32(0.008)
    return np.repeat(np.clip(grey * 255, 0, 255).astype(np.uint8)[..., None], 3, axis=2), mask


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


# ---- a data set ----


def write_dataset(
    folder: Path,
    kind: str = "disc",
    train: int = 200,
    good: int = 50,
    per_defect: int = 10,
    size: int = 128,
    seed: int = 0,
) -> None:
    """Writes PNG files in the layout of MVTec AD: train/good, test/good, test/<defect>,
    ground_truth/<defect>.
    """
    seeds = iter(range(seed * 1_000_000, (seed + 1) * 1_000_000))  # no part is made twice
    for split, count in (("train", train), ("test", good)):
        for i in range(count):
            _save(folder / split / "good" / f"{i:04}.png", make(kind, next(seeds), size)[0])
    for defect in DEFECTS[kind]:
        for i in range(per_defect):
            pixels, mask = make(kind, next(seeds), size, defect)
            _save(folder / "test" / defect / f"{i:04}.png", pixels)
            _save(folder / "ground_truth" / defect / f"{i:04}_mask.png", mask * np.uint8(255))


def _save(path: Path, pixels: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, compress_level=1)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m data.synthetic", description=__doc__.splitlines()[0]
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kind", choices=DEFECTS, default="disc")
    parser.add_argument(
        "--train", type=int, default=200, help="normal images to train on (default 200)"
    )
    parser.add_argument(
        "--good", type=int, default=50, help="normal images to test on (default 50)"
    )
    parser.add_argument(
        "--per-defect", type=int, default=10, help="images of each defect (default 10)"
    )
    parser.add_argument("--size", type=int, default=128, help="width and height (default 128)")
    parser.add_argument("--seed", type=int, default=0)
    write_dataset(**vars(parser.parse_args()))


if __name__ == "__main__":
    main()
