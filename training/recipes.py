"""How an image is looked at before the model sees it: which part, how large, in which maps."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from training.protocols import Space
from training.spaces import Shape, make_space

FRAMES = ("whole", "part", "axis", "match")
STEP = 32  # pixels: the sides of a frame are multiples, as the strides of the backbone want it
FINE_CELL = 16  # pixels of the frame to a cell of a fine grid: of the features' first stage
MAX_ASPECT = 3.0  # longer images are squashed to this ratio of their sides


@dataclass(frozen=True)
class Recipe:
    """How an image is looked at.

    ``frame``: the whole image, or the part before its background: cropped to it (``part``), with
    its principal axis level (``axis``), or turned to agree with the others (``match``). ``shape``:
    pixels of the frame; ``picture``: of the whole image at the same scale. ``fine``: cells of 16
    pixels instead of 21. ``normalised``: whether the backbone sees pictures of one exposure.
    """

    space: str
    shape: Shape
    picture: Shape
    frame: str = "whole"
    fine: bool = False
    normalised: bool = True

    def make_space(self, grey: bool = False, backbone: nn.Module | None = None) -> Space:
        """Returns the space that the model models, not yet whitened."""
        grid = (self.shape[0] // FINE_CELL, self.shape[1] // FINE_CELL) if self.fine else None
        return make_space(self.space, self.shape, grey, backbone, grid, normalised=self.normalised)

    def __str__(self) -> str:
        height, width = self.shape
        words = [self.space, f"{width} x {height}"]
        words += [f"frame {self.frame}"] if self.frame != "whole" else []
        words += ["fine cells"] if self.fine else []
        words += ["exposure as it is"] if not self.normalised else []
        return ", ".join(words)

    def to_json(self) -> dict[str, Any]:
        """Returns the recipe as the checkpoint holds it."""
        return asdict(self)

    @classmethod
    def from_json(cls, facts: dict[str, Any]) -> Recipe:
        """Returns the recipe that ``to_json`` wrote, once it was JSON."""
        shapes = {name: tuple(facts[name]) for name in ("shape", "picture")}
        return cls(**facts | shapes)


def square(space: str, size: int) -> Recipe:
    """Returns the recipe of the whole image, squashed to ``size`` pixels a side."""
    return Recipe(space, (size, size), (size, size))


def shape_of(aspect: float, size: int) -> Shape:
    """Returns height and width of about ``size`` x ``size`` pixels in all, for width : height."""
    aspect = min(max(aspect, 1 / MAX_ASPECT), MAX_ASPECT)
    height, width = size / math.sqrt(aspect), size * math.sqrt(aspect)
    return max(STEP, STEP * round(height / STEP)), max(STEP, STEP * round(width / STEP))
