"""What an input is: a file, bytes held in memory, or one that was refused."""

from __future__ import annotations

import re
from typing import NamedTuple, Protocol

from anomaly.errors import ImageError
from anomaly.imaging.image_file import read_file

URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(://|::)")


class Source(Protocol):
    """Where one image comes from. Every one can be pickled, and is small unless it had to bring its
    bytes along.
    """

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


class Held(NamedTuple):
    """An image whose bytes came with the list."""

    name: str
    data: bytes

    def read(self, limit: int) -> bytes:
        if len(self.data) > limit:
            raise too_large(len(self.data), limit)
        return self.data


class Refused(NamedTuple):
    """What stood in the list and cannot be read; ``kind`` and ``why`` are those of
    an ImageError.
    """

    name: str
    kind: str
    why: str

    def read(self, limit: int) -> bytes:
        raise ImageError(self.kind, self.why)


def too_large(size: int, limit: int) -> ImageError:
    """Returns the error for an image file of too many bytes."""
    return ImageError(
        "too large", f"file of {size:,} bytes, at most {limit:,} expected: --max-pixels allows more"
    )


def is_url(place: str) -> bool:
    return URL.match(place) is not None
