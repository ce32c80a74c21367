"""What there is to score: files, folders and manifests become a stream of sources, read when their turn comes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

from anomaly.errors import DatasetError
from anomaly.images import read_file, walk_images

MANIFESTS = (".csv", ".parquet")


class Source(Protocol):
    """Where one image comes from. Every one can be pickled, and is small unless it had to bring its bytes along."""

    @property
    def name(self) -> str:
        """What stands in the table's column `path`."""

    def read(self, limit: int) -> bytes:
        """Returns the file's bytes, at most ``limit``; ImageError. Threads may call it."""


class File(NamedTuple):
    """A file on this machine."""

    name: str

    def read(self, limit: int) -> bytes:
        return read_file(self.name, limit)


def list_sources(inputs: Iterable[str | os.PathLike[str]]) -> Iterator[Source]:
    """Yields the images of files, folders (searched recursively) and manifests, in order; DatasetError.

    A file is taken as it is: whether it can be read is said in its row. Nothing is listed before it is asked for.
    """
    for given in (os.fspath(one) for one in inputs):
        if os.path.isdir(given):
            yield from _folder(given)
        elif os.path.splitext(given)[1].lower() in MANIFESTS:
            from anomaly.dataset import read_dataset

            yield from (File(os.fspath(record.path)) for record in read_dataset(Path(given)))
        else:
            yield File(given)


def _folder(folder: str) -> Iterator[Source]:
    found = False
    for path in walk_images(folder):
        found = True
        yield File(path)
    if not found:
        raise DatasetError(f"{folder}: no image in this folder; .jpg, .png, .bmp, .tif or .webp files expected")


def as_source(image: Source | str | os.PathLike[str]) -> Source:
    """Returns the source of an image that may be given by its path."""
    return File(os.fspath(image)) if isinstance(image, str | os.PathLike) else image
