"""Where exactly a defect is: regions that inspectors draw, which are kept with their verdict."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from anomaly.errors import AnomalyError
from anomaly.review.findings import Event

MAX_REGIONS = 50  # of one image
MAX_NUMBERS = 6_000  # of the points of all of them
FEWEST_NUMBERS = {"box": 4, "polygon": 6, "brush": 2}  # of the points, by kind

Marked = NDArray[np.bool_]


@dataclass(frozen=True)
class Region:
    """A place in an image, in pixels of the original: (0, 0) is the top left corner of the first
    one.

    ``points``: of a ``box`` left, top, right and bottom; of a ``polygon`` x and y of each corner;
    of a ``brush`` those of a stroke, which is ``width`` pixels wide. ``defect_type``: None where
    nothing was said.
    """

    kind: str
    points: tuple[float, ...]
    width: float = 0.0
    defect_type: str | None = None

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Self:
        """Returns a region as an event holds it; KeyError, TypeError or ValueError for others."""
        points = tuple(float(value) for value in found["points"])
        kind, width, name = found["kind"], float(found.get("width") or 0), found.get("type") or None
        if len(points) % 2 or len(points) < FEWEST_NUMBERS[kind]:
            raise ValueError
        if kind == "box" and not (len(points) == 4 and _is_box(points)):
            raise ValueError
        if not all(map(math.isfinite, (*points, width))) or (kind == "brush" and width <= 0):
            raise ValueError
        if name is not None and not isinstance(name, str):
            raise TypeError
        return cls(kind, points, width, name)

    def to_json(self) -> dict[str, Any]:
        stroke = {"width": self.width} if self.kind == "brush" else {}
        return {"kind": self.kind, "points": list(self.points), **stroke, "type": self.defect_type}

    @property
    def corners(self) -> list[tuple[float, float]]:
        """The points (x, y); of a box its four corners."""
        if self.kind != "box":
            return list(zip(self.points[::2], self.points[1::2], strict=True))
        left, top, right, bottom = self.points
        return [(left, top), (right, top), (right, bottom), (left, bottom)]

    def mask(self, width: int, height: int) -> Marked:
        """Returns the pixels of an image that lie in the region, bool (height, width); at least
        one.
        """
        picture = Image.new("L", (width, height))
        pen = ImageDraw.Draw(picture)
        centred = [(x - 0.5, y - 0.5) for x, y in self.corners]  # of the pixels that a pen sets
        if self.kind == "box":
            left, top, right, bottom = self.points
            pen.rectangle((round(left), round(top), round(right) - 1, round(bottom) - 1), 1)
        elif self.kind == "polygon":
            pen.polygon(centred, 1, 1)
        else:
            _stroke(pen, centred, self.width)
        marked: Marked = np.asarray(picture) > 0
        if not marked.any():
            x, y = self.corners[0]
            marked = marked.copy()
            marked[min(int(y), height - 1), min(int(x), width - 1)] = True
        return marked


def _is_box(points: Sequence[float]) -> bool:
    left, top, right, bottom = points
    return left < right and top < bottom


def _stroke(pen: ImageDraw.ImageDraw, points: list[tuple[float, float]], width: float) -> None:
    if len(points) > 1:
        pen.line(points, 1, max(1, round(width)))
    for x, y in points:  # its ends and its bends are round
        pen.ellipse((x - width / 2, y - width / 2, x + width / 2, y + width / 2), 1)


def read_regions(values: object, width: int | None, height: int | None) -> list[Region]:
    """Returns what a page sent as the regions of an image; AnomalyError where it is not that.

    ``width``, ``height``: of the image in pixels; None where it could not be read.
    """
    if not values:
        return []
    if width is None or height is None:
        raise AnomalyError("a region of an image of unknown size found: score the image again")
    if not isinstance(values, Sequence) or len(values) > MAX_REGIONS:
        raise AnomalyError(f"at most {MAX_REGIONS} regions of an image expected: remove some")
    try:
        regions = [Region.from_json(value) for value in values]
    except (KeyError, TypeError, ValueError) as error:
        raise AnomalyError(
            "a region that is no box, polygon or brush stroke found: draw it again"
        ) from error
    if sum(len(region.points) for region in regions) > MAX_NUMBERS:
        raise AnomalyError(
            f"regions of more than {MAX_NUMBERS // 2:,} points found: draw them with fewer"
        )
    if not all(0 <= x <= width and 0 <= y <= height for r in regions for x, y in r.corners):
        raise AnomalyError("a region outside the image found: draw it again")
    return regions


def regions_of(event: Event) -> list[Region]:
    """Returns the regions that were drawn with a verdict."""
    return [Region.from_json(found) for found in event.payload.get("regions", ())]


def drawn_regions(standing: Iterable[Event]) -> dict[int, list[Region]]:
    """Returns the regions of each finding that has some: those of the newest verdict that counts
    and has any.

    ``standing``: the verdicts that count, the oldest first.
    """
    found = {event.finding: regions_of(event) for event in standing if "regions" in event.payload}
    return {finding: regions for finding, regions in found.items() if finding is not None}


def mask_of_regions(regions: Iterable[Region], width: int, height: int) -> Marked:
    """Returns the pixels that lie in any of the regions, bool (height, width)."""
    marked = np.zeros((height, width), bool)
    for region in regions:
        marked |= region.mask(width, height)
    return marked


def frame_of(marked: Marked) -> tuple[int, int, int, int]:
    """Returns x, y, width and height of the smallest box round the pixels that are marked."""
    rows, columns = np.flatnonzero(marked.any(1)), np.flatnonzero(marked.any(0))
    left, top = int(columns[0]), int(rows[0])
    return left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top
