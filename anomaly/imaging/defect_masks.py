"""Pictures that mark the pixels of defects: read in whichever way they were drawn, counted where
they are missing.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from anomaly.imaging.decode import decode

LEVELS = 8  # values of a mask that was drawn; one with more has soft edges, or was saved as JPEG

Marked = npt.NDArray[np.bool_]


def read_defect_mask(path: Path) -> Marked:
    """Returns the pixels that a mask marks, bool (H, W): every one that is not zero. ImageError
    where it is no image.

    So masks of 0 and 1, of 0 and 255, of 16 bits, with a palette and with a number for each class
    are read alike. A mask with many values has soft edges: there, what is above half of its largest
    value is marked.
    """
    decode(path)  # checks its size, and that it is whole
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(path) as file:
            image = ImageOps.exif_transpose(file)
            return _marked(_values(image))


def _values(image: Image.Image) -> npt.NDArray[Any]:
    """Returns one value a pixel (H, W), 0 where nothing is marked."""
    if image.mode == "P":
        return (
            np.asarray(image)
            if not np.asarray(image.convert("RGB")).any()
            else _values(image.convert("RGBA"))
        )
    values = np.asarray(image)
    if values.ndim == 2:
        return values
    colours, alpha = (
        (values[..., :-1], values[..., -1])
        if image.mode in ("RGBA", "LA", "PA")
        else (values, None)
    )
    strongest = colours.max(2)
    if alpha is None or not strongest.any():  # black on transparent: what is drawn at all is marked
        return strongest if alpha is None or alpha.all() else alpha
    return np.where(alpha > 0, strongest, 0)


def _marked(values: npt.NDArray[Any]) -> Marked:
    if len(np.unique(values)) <= LEVELS:
        return np.asarray(values != 0)
    return np.asarray(values > np.nanmax(values) / 2)


@dataclass
class MaskNotes:
    """Defect images by what their masks lack. ``of``: all defect images that were judged."""

    of: int = 0
    missing: list[Path] = field(default_factory=list)
    empty: list[Path] = field(default_factory=list)
    large: list[Path] = field(default_factory=list)

    def add(self, image: Path, mask: Marked | None) -> None:
        """Notes one defect image."""
        self.of += 1
        if mask is None:
            self.missing.append(image)
        elif not mask.any():
            self.empty.append(image)
        elif mask.mean() > 0.5:
            self.large.append(image)

    def to_json(self) -> dict[str, Any]:
        names = {"missing": self.missing, "empty": self.empty, "large": self.large}
        return {
            "defects": self.of,
            **{name: [str(path) for path in paths] for name, paths in names.items()},
        }
