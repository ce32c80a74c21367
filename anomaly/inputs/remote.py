"""Images behind URLs: everything that fsspec opens (s3://, gs://, https://, memory://,
zip://member::archive ...).
"""

from __future__ import annotations

import re
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, BinaryIO, NamedTuple, cast

from anomaly.errors import AnomalyError, DatasetError, ImageError, RuntimeMissing
from anomaly.imaging import listing
from anomaly.imaging.find import depth_first, listed
from anomaly.imaging.listing import Passed, count
from anomaly.inputs.source import File, Source, is_url, too_large


class Remote(NamedTuple):
    """An image behind a URL."""

    name: str

    def read(self, limit: int) -> bytes:
        with _said():
            files, path = file_system(self.name)
            data = _read(files, path, limit)
        if len(data) > limit:
            raise too_large(len(data), limit)
        return data


def file_system(url: str) -> tuple[Any, str]:
    """Returns fsspec's file system of a URL and the path in it; RuntimeMissing where what opens it
    is not installed.
    """
    try:
        from fsspec.core import url_to_fs
    except ImportError as error:
        raise RuntimeMissing.extra("fsspec", "batch", f"an address like {url[:40]}") from error
    try:
        # Listings are not kept: they would grow with the bucket.
        found: tuple[Any, str] = (
            url_to_fs(url) if "::" in url else url_to_fs(url, use_listings_cache=False)
        )
        return found
    except ImportError as error:
        raise RuntimeMissing(f"{url[:40]}: {error}") from error


def open_place(place: str) -> BinaryIO:
    """Opens an archive or manifest behind a URL to be read at any position; AnomalyError."""
    try:
        with _said():
            files, path = file_system(place)
            return cast(BinaryIO, files.open(path, "rb"))
    except ImageError as error:
        raise DatasetError(f"{place}: {error}") from error


def remote_kind(url: str) -> str:
    """Returns ``file``, ``directory`` or ``other`` (not there, for one, which its row says)."""
    try:
        with _said():
            files, path = file_system(url)
            return str(files.info(path)["type"])
    except ImageError as error:
        if error.kind == "unreachable":
            raise DatasetError(f"{url}: {error}") from error
        return "other"


def walk_remote(url: str, passed: Passed) -> Iterator[str]:
    """Yields the images below a folder, as `find.walk_images` does; one folder's names are held
    at a time.
    """
    files, root = file_system(url)
    given = f"{root.rstrip('/')}/"

    def names(folder: str) -> list[str]:
        try:
            with _said():
                entries = files.ls(folder.rstrip("/"), detail=True)
        except ImageError as error:
            raise DatasetError(f"{folder}: {error}") from error
        found = ((entry["name"].rstrip("/").rpartition("/")[2], entry) for entry in entries)
        inside = [
            (name, entry)
            for name, entry in found
            if name and entry["name"].strip("/") != folder.strip("/")
        ]
        if folder != given and any(name == listing.MARK for name, _ in inside):
            count(passed, listing.OURS)
            return []
        told = (
            (name, entry["type"] == "directory", partial(_head, files, entry["name"]))
            for name, entry in inside
        )
        return listed(told, passed)

    return (files.unstrip_protocol(path) for path in depth_first(given, names))


def _head(files: Any, path: str) -> bytes | str:
    """Returns the first bytes of a file; the kind of one that cannot be read, or that is not looked
    into from afar.
    """
    kind = listing.kind_of(path.rpartition("/")[2])
    if kind in listing.SIDECARS:
        return kind
    try:
        with _said():
            found: bytes = files.cat_file(path, start=0, end=listing.HEAD)
            return found
    except ImageError as error:
        if error.kind == "unreachable":
            raise DatasetError(f"{path}: {error}") from error
        return listing.UNREADABLE


def remote_glob(pattern: str) -> Iterator[str]:
    """Yields what matches a pattern, sorted."""
    files, path = file_system(pattern)
    with _said():
        found = files.glob(path, detail=True)
    for name in sorted(found):
        yield files.unstrip_protocol(name) + ("/" if found[name]["type"] == "directory" else "")


def _read(files: Any, path: str, limit: int) -> bytes:
    # the size that a web server tells may be missing or false: only so much is taken
    if "http" in files.protocol:
        with files.open(path, "rb", block_size=0, size=1) as file:
            return _take(file, limit + 1)
    size = files.info(path)["size"]
    if size is not None and size > limit:
        raise too_large(size, limit)
    data: bytes = files.cat_file(path)
    return data


def _take(file: Any, most: int) -> bytes:
    """Returns what a stream holds, at most ``most`` bytes: its read may return less than was asked
    for.
    """
    pieces, left = [], most
    while left > 0 and (piece := file.read(min(left, 1 << 20))):
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)


@contextmanager
def _said() -> Iterator[None]:
    """Turns what fsspec and the libraries below it raise into an ImageError with a kind and one
    line.
    """
    try:
        yield
    except AnomalyError:
        raise
    except FileNotFoundError as error:
        raise ImageError("missing", "no such file") from error
    except (PermissionError, NotADirectoryError, ValueError, NotImplementedError) as error:
        raise ImageError(
            "unreadable",
            f"cannot be read ({_line(error)}): check the address and what you may read",
        ) from error
    except IsADirectoryError as error:
        raise ImageError("not a file", "is a folder, an image file expected") from error
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise ImageError(
            "damaged", f"an archive that is damaged ({_line(error)}): copy it again"
        ) from error
    # each library has its own: aiohttp, botocore, google-auth, asyncio ...
    except Exception as error:
        if 400 <= getattr(error, "status", 0) < 500:
            raise ImageError(
                "unreadable", f"cannot be read ({_line(error)}): check the address"
            ) from error
        raise ImageError("unreachable", f"cannot be reached ({_line(error)})") from error


def _line(error: Exception) -> str:
    text = " ".join(str(error).split())
    # what follows may be a secret signature
    return re.sub(r"[?&]\S+", "?...", text)[:200] or type(error).__name__


def place_source(place: str) -> Source:
    """Returns the source of one image, a file or a URL."""
    return Remote(place) if is_url(place) else File(place)
