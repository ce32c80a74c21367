"""Regions that people draw on an image: boxes, polygons, strokes of a brush; and their pixels."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

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
