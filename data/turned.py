"""Writes a copy of a data set in which each image is turned about its centre by a random angle.

    python -m data.turned FOLDER OUT --seed 0

For sets whose parts always lie the same way: what does a detector lose when they do not?
"""

from __future__ import annotations

import argparse
import math
import sys
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from anomaly.errors import AnomalyError, DatasetError
from anomaly.inputs.dataset import Record, read_dataset

FADE_SHARE = 1 / 8  # of the shorter side: how far beyond the edge its pixels are still seen


def write_turned(images: Path, folder: Path, seed: int = 0) -> int:
    """Writes the images of a folder or manifest, turned, and returns how many there are.

    PNG files in the layout of MVTec AD, named as the originals; a mask is turned with its image.
    Angles are uniform in 0 to 360 degrees and depend on the seed and on the image's name. Raises
    DatasetError where two images would get one name.
    """
    records = read_dataset(images)
    places = [place(record) for record in records]
    twice = [str(one) for one, count in Counter(places).items() if count > 1]
    if twice:
        raise DatasetError(f"several images are called {twice[0]}, one expected: rename them")
    for record, at in zip(records, places, strict=True):
        rng = np.random.default_rng([zlib.crc32(str(at).encode()), seed])
        angle = float(rng.uniform(0, 360))
        save(folder / f"{at}.png", turned(pixels_of(record.path), angle))
        if record.mask is not None:
            mask = Image.open(record.mask).convert("L").rotate(angle)
            mask_at = folder / "ground_truth" / at.parent.name / f"{at.name}_mask.png"
            save(mask_at, np.asarray(mask))
    return len(records)


def place(record: Record) -> Path:
    """Returns where an image belongs in the layout, without the suffix."""
    return Path(record.split or "train") / (record.label or "good") / record.path.stem


def pixels_of(path: Path) -> NDArray[np.uint8]:
    """Returns an image as uint8 (H, W) where it is grey, else (H, W, 3)."""
    with Image.open(path) as image:
        upright = ImageOps.exif_transpose(image)
        return np.asarray(upright.convert("L" if upright.mode == "L" else "RGB"))


def save(path: Path, pixels: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, compress_level=1)


def turned(pixels: NDArray[np.uint8], degrees: float) -> NDArray[np.uint8]:
    """Returns an image turned anticlockwise about its centre, of the same shape, by bicubic
    interpolation.

    ``pixels``: uint8 (H, W) or (H, W, 3). Corners that nothing was photographed in show the
    nearest pixel of the edge, and farther away the median colour of the border.
    """
    height, width = pixels.shape[:2]
    margin = math.ceil((math.hypot(height, width) - min(height, width)) / 2) + 2
    whole = Image.fromarray(surrounded(pixels, margin))
    centre = whole.rotate(degrees, Image.Resampling.BICUBIC)
    return np.asarray(centre.crop((margin, margin, margin + width, margin + height)))


def surrounded(pixels: NDArray[np.uint8], margin: int) -> NDArray[np.uint8]:
    """Returns an image with a margin of background on each side."""
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    around = ((margin, margin), (margin, margin), (0, 0))[: pixels.ndim]
    wide = np.pad(pixels.astype(np.float32), around, mode="edge")
    down, across = (
        np.maximum(np.abs(np.arange(n + 2 * margin) - margin - (n - 1) / 2) - (n - 1) / 2, 0)
        for n in pixels.shape[:2]
    )
    outside = np.hypot(down[:, None], across) / (FADE_SHARE * min(pixels.shape[:2]))
    amount = np.clip(outside, 0, 1).reshape(*wide.shape[:2], *(1,) * (pixels.ndim - 2))
    made: NDArray[np.uint8] = np.rint(wide + amount * (np.median(border, 0) - wide)).astype(
        np.uint8
    )
    return made


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m data.turned", description=__doc__.splitlines()[0]
    )
    parser.add_argument("images", type=Path, help="a folder or manifest")
    parser.add_argument("folder", type=Path, help="where the copy is written")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    try:
        print(f"{write_turned(options.images, options.folder, options.seed)} images turned")
    except AnomalyError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
