"""Synthetic defects on normal images: what is chosen by looking at defects is chosen on these,
never on real ones.

A defect changes a picture at one place, on the part where there is one, at sizes from 1 to 20 % of
the part's side and at strengths near the limit of what is seen, by the contrast around it:

    stain      darker or brighter, with a soft edge or a rim
    pit        a small dark hollow with a bright rim
    scratch    a thin straight line along the structure of the place, or across it
    crack      a thin line that wanders
    fold       a shaded line to which its surroundings are pushed
    worn       a patch without its structure: a flattened thread, print that is gone
    blur       out of focus or smeared
    blend      texture of another place, blended by Poisson's equation (NSA)
    texture    texture of another place, laid over where noise is high (DRAEM)
    moved      a piece that lies a little beside its place
    missing    a piece broken off at the outline of the part
    extra      material that stands out at the outline
    bent       an outline that is pushed in or out
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from training.defect_kinds import LEAST_LEVELS, OUTLINE_KINDS, SURFACE_KINDS, Place

Pixels = NDArray[np.uint8]  # (H, W, 3)
Where = NDArray[np.bool_]  # (H, W)

DEFECTS = SURFACE_KINDS | OUTLINE_KINDS
ON_STRUCTURE = {"fold", "worn", "blur", "moved", *OUTLINE_KINDS}  # are not seen where there is none
MIN_SIZE, MAX_SIZE = 0.01, 0.2  # of a defect, in sides of the part
MAX_PIT_SIZE = 0.05
MIN_PIXELS = 3.0  # pixels
SEEN_CONTRAST = 1.5  # local standard deviations by which most of a change is exceeded if it is seen
REACH = 2.4  # radii that a cut-out goes beyond the centre of a defect
TRIES = 6  # for a defect that is seen; places of which the one with most structure is taken


def kinds_for(part: Where | None) -> tuple[str, ...]:
    """Returns the kinds of defects that can be made on a part, bool (H, W), or without one on a
    surface.
    """
    has_outline = part is not None and bool(part.any()) and not part.all()
    return tuple(DEFECTS if has_outline else SURFACE_KINDS)


def add_defect(
    pixels: Pixels,
    donor: Pixels,
    kind: str,
    rng: Generator,
    radius: float | None = None,
    part: Where | None = None,
) -> tuple[Pixels, Where]:
    """Returns a picture with one synthetic defect and its mask, uint8 (H, W, 3) and bool (H, W).

    ``pixels``, ``donor``: normal images, uint8 (H, W, 3) of any height and width, the second one
    for texture from elsewhere, which on a part is taken from the part; ``kind``: one of
    kinds_for(part); ``radius``: half of the defect's size in pixels, None: any; ``part``: where the
    part is, bool (H, W), None: everywhere. The mask is where the picture was changed by more than a
    level of grey. Raises ValueError for a kind that needs an outline where there is none.
    """
    if kind not in kinds_for(part):
        raise ValueError(
            f"kind {kind!r} found, one of {', '.join(kinds_for(part))} expected "
            f"{'without an outline' if kind in DEFECTS else 'of a defect'}"
        )
    part = part if part is None or part.any() else None
    points = places_for(kind, part)
    best, most = (pixels.copy(), np.zeros(pixels.shape[:2], bool)), 0.0
    for _ in range(TRIES):
        half = drawn_radius(pixels, part, kind, rng) if radius is None else float(radius)
        made, mask, seen = attempt(pixels, donor, kind, rng, half, part, points)
        if seen > most:
            best, most = (made, mask), seen
        if most >= 1:
            break
    return best


def attempt(
    pixels: Pixels,
    donor: Pixels,
    kind: str,
    rng: Generator,
    radius: float,
    part: Where | None,
    points: NDArray[np.intp] | None,
) -> tuple[Pixels, Where, float]:
    """Returns the picture, the mask, and how well the change is seen: from 1 on it is."""
    place, here = cut_out(pixels, donor, a_place(pixels, kind, rng, radius, points), radius, part)
    place = replace(place, other_at=another_place(place.other, rng, points))
    old = pixels[here]
    changed = DEFECTS[kind](place, rng)
    if place.part is not None and kind in SURFACE_KINDS:
        changed = np.where(place.part[..., None], changed, place.picture)
    if (old == old[..., :1]).all():  # grey stays grey
        changed = np.broadcast_to(changed.mean(2, keepdims=True), old.shape)
    made, mask = pixels.copy(), np.zeros(pixels.shape[:2], bool)
    made[here] = np.clip(np.rint(changed), 0, 255).astype(np.uint8)
    difference = np.abs(made[here].astype(np.int16) - old).max(2)
    mask[here] = difference > 1
    limit = max(LEAST_LEVELS, SEEN_CONTRAST * place.contrast())
    changes = difference[difference > 1]
    return made, mask, float(np.quantile(changes, 0.9)) / limit if len(changes) else 0.0


def cut_out(
    pixels: Pixels, donor: Pixels, centre: tuple[int, int], radius: float, part: Where | None
) -> tuple[Place, tuple[slice, slice]]:
    """Returns the surroundings of a place, and where they lie in the picture."""
    far = math.ceil(REACH * radius) + 6
    top, left = (max(0, c - far) for c in centre)
    here = (slice(top, centre[0] + far + 1), slice(left, centre[1] + far + 1))
    place = Place(
        pixels[here].astype(np.float32),
        None if part is None else part[here],
        (centre[0] - top, centre[1] - left),
        radius,
        donor if part is None else pixels,
    )
    return place, here


def another_place(
    pixels: Pixels, rng: Generator, points: NDArray[np.intp] | None
) -> tuple[int, int]:
    """Returns any place, or any of the points."""
    count = pixels.shape[0] * pixels.shape[1]
    index = rng.integers(count) if points is None else points[rng.integers(len(points))]
    return at_index(index, pixels)


def a_place(
    pixels: Pixels, kind: str, rng: Generator, radius: float, points: NDArray[np.intp] | None
) -> tuple[int, int]:
    """Returns where a defect is made: any of the points, or of several the one with most structure
    around it for a kind that does nothing without.
    """
    count = TRIES if kind in ON_STRUCTURE else 1
    height, width = pixels.shape[:2]
    drawn = (
        rng.integers(height * width, size=count)
        if points is None
        else points[rng.integers(len(points), size=count)]
    )
    places = [at_index(one, pixels) for one in drawn]
    if count == 1:
        return places[0]
    far = max(2, round(radius))
    step = max(1, far // 8)
    spreads = [
        float(
            pixels[
                max(0, y - far) : y + far + 1 : step, max(0, x - far) : x + far + 1 : step, 1
            ].std()
        )
        for y, x in places
    ]
    return places[int(np.argmax(spreads))]


def at_index(index: np.integer[Any], pixels: Pixels) -> tuple[int, int]:
    y, x = divmod(int(index), pixels.shape[1])
    return y, x


def places_for(kind: str, part: Where | None) -> NDArray[np.intp] | None:
    """Returns the flat indices of pixels that a defect may be centred on; None: all of them."""
    if part is None:
        return None
    return np.flatnonzero(outline(part) if kind in OUTLINE_KINDS else part)


def outline(part: Where) -> Where:
    """Returns the pixels of the part beside which the background begins, bool (H, W)."""
    around = np.pad(part, 1, mode="edge")
    whole = around[:-2, 1:-1] & around[2:, 1:-1] & around[1:-1, :-2] & around[1:-1, 2:]
    edge: Where = part & ~whole
    return edge


def drawn_radius(pixels: Pixels, part: Where | None, kind: str, rng: Generator) -> float:
    """Returns half of a size in pixels, uniform in its logarithm."""
    side = min(pixels.shape[:2]) if part is None else math.sqrt(part.sum())
    largest = MAX_PIT_SIZE if kind == "pit" else MAX_SIZE
    drawn = side * math.exp(rng.uniform(math.log(MIN_SIZE), math.log(largest)))
    return max(MIN_PIXELS, drawn) / 2
