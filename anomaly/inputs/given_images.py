"""Images that a program hands over one by one: written down as a manifest, arrays as files beside
it, so that they are read, told apart and grouped as all others are.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from anomaly.detector.in_memory import decode_array, lossless
from anomaly.errors import DatasetError, ImageError
from anomaly.files.atomic import errors_naming, write_atomically
from anomaly.files.csv_cells import csv_text
from anomaly.inputs.labels import GOOD

if TYPE_CHECKING:
    from PIL import Image

Given: TypeAlias = "str | os.PathLike[str] | npt.NDArray[np.uint8] | Image.Image"
NAMES = "good_images"  # of the manifest in a run folder, and of the folder beside it


def write_given(
    folder: Path,
    images: Iterable[Given],
    *,
    labels: Sequence[str] | None = None,
    groups: Sequence[object] | None = None,
) -> Path:
    """Returns a manifest of images, paths, uint8 arrays (H, W), (H, W, 3), (H, W, 4) or PIL images,
    in the same order; arrays and PIL images are written without loss into a folder beside it.

    ``labels``: "good" or the name of a defect, of each; None: all are good. ``groups``: what part
    or lot each image shows; None: each its own. Raises DatasetError where there is no image, or
    one that is none.
    """
    given = _listed(images)
    for name, values in (("labels", labels), ("groups", groups)):
        if values is not None and len(values) != len(given):
            raise DatasetError(
                f"{len(values)} {name} for {len(given)} images found, one for each expected"
            )
    rows: list[tuple[str, ...]] = [("path", "label", "group")]
    for number, image in enumerate(given):
        path = _path_of(folder, image, number)
        label = GOOD if labels is None else str(labels[number])
        rows.append((path, label, path if groups is None else str(groups[number])))
    manifest = folder / f"{NAMES}.csv"
    write_atomically(manifest, csv_text(rows).encode("utf-8", "surrogateescape"))
    return manifest


def _listed(images: Iterable[Given]) -> list[Given]:
    if isinstance(images, np.ndarray) and (images.ndim < 3 or images.shape[2:] in ((3,), (4,))):
        raise DatasetError(
            f"one array {images.dtype} {images.shape} found, a list of images expected: put it "
            "into a list"
        )
    given = list(images)
    if not given:
        raise DatasetError("no image found, a folder or a list of images expected")
    return given


def _path_of(folder: Path, image: Given, number: int) -> str:
    """Returns what a manifest says of an image: its path, or that of the file written for it."""
    if isinstance(image, str | os.PathLike):
        if os.path.isdir(image):
            raise DatasetError(
                f"image {number}: the folder {os.fspath(image)} found, a file expected: give a "
                "folder by itself, not in a list"
            )
        return os.path.abspath(os.fspath(image))
    try:
        data, suffix = lossless(_picture(image))
    except ImageError as error:
        raise DatasetError(f"image {number}: {error}") from error
    name = f"{NAMES}/{number:06}{suffix}"
    (folder / NAMES).mkdir(exist_ok=True)
    with errors_naming(folder / name):
        (folder / name).write_bytes(data)  # whole once the manifest names it
    return name


def _picture(image: Any) -> Any:
    from PIL import Image

    if not isinstance(image, np.ndarray):
        return image
    decode_array(image)  # says what is wrong with it
    return Image.fromarray(image[..., 0] if image.shape[2:] == (1,) else image)
