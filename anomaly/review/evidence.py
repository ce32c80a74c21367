"""A finding's image as it lies on the disk now: the very bytes that were scored, or why not."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from anomaly.errors import AnomalyError, ImageError
from anomaly.files.table import printable
from anomaly.imaging.listing import file_and_page
from anomaly.inputs.source import File, is_url
from anomaly.inputs.sources import expand

MAX_IMAGE_BYTES = 256 << 20


@dataclass(frozen=True)
class ImageFile:
    """A finding's image as it lies on the disk now.

    ``state``: ``same`` as when it was scored, ``changed``, ``unverified`` (no digest was taken),
    ``missing``, ``forbidden`` (outside the run's folders) or ``too large``; ``message`` says so
    unless it is the same. ``data``: the very bytes that were checked, None for the last three.
    ``path``: its file, None for a member of an archive. ``page``: which of the file's pages it is,
    None where the file has only one.
    """

    state: str
    path: Path | None
    data: bytes | None
    message: str
    page: int | None = None


def folder_of(path: str) -> str:
    """The folder of an image; the archive itself of one that is its member; of a URL all but its
    last part.
    """
    return _archive(file_and_page(path)[0]) or os.path.dirname(path)


def read_image(
    base: Path,
    path: str,
    sha256: str | None,
    roots: Sequence[Path],
    max_bytes: int = MAX_IMAGE_BYTES,
) -> ImageFile:
    """The image ``path`` of a table, relative to ``base``, if its file lies under one of ``roots``
    once links are followed.

    A member of an archive on this machine is read out of it. What lies behind a URL is not fetched:
    a table must not make this machine ask others.
    """
    found, file, page = _found(base, path)
    archive = _archive(file)
    if is_url(archive or file):
        return ImageFile(
            "missing",
            None,
            None,
            f"{path} lies behind an address: score it with --flagged to look at a copy",
        )
    if found is None:
        return ImageFile(
            "missing", None, None, f"{path} is not there any more: it was moved, renamed or deleted"
        )
    if not any(found.is_relative_to(root.resolve()) for root in roots):
        return ImageFile(
            "forbidden",
            None,
            None,
            f"{path} lies outside the folders of its run: to show it, import the table again with "
            "--root FOLDER",
        )
    try:
        data = (
            _member(found, file, max_bytes) if archive else File(os.fspath(found)).read(max_bytes)
        )
    except AnomalyError as error:
        if isinstance(error, ImageError) and error.kind == "too large":
            return ImageFile(
                "too large",
                found,
                None,
                f"{path}: more than {max_bytes >> 20} MiB, too large to show",
            )
        return ImageFile("missing", None, None, f"{path} cannot be read: {error}")
    place = None if archive else found
    if sha256 is None:
        what = f"{path} could not be read when it was scored: nothing to compare it with"
        return ImageFile("unverified", place, data, what, page)
    if hashlib.sha256(data).hexdigest() != sha256:
        what = f"{path} is not the image that was scored: it was replaced or edited since"
        return ImageFile("changed", place, data, what, page)
    return ImageFile("same", place, data, "", page)


def _found(base: Path, path: str) -> tuple[Path | None, str, int | None]:
    """Returns where an image lies, what its file is called, and its page; a file may itself be
    called like a page.
    """
    for file, page in dict.fromkeys(((path, None), file_and_page(path))):
        place = _archive(file) or file
        if not is_url(place) and (found := _existing(base, place)) is not None:
            return found, file, page
    return None, file_and_page(path)[0], None


def _archive(path: str) -> str:
    """The archive that a member's name ends with, nothing for other images."""
    return path.rpartition("::")[2] if path.startswith(("zip://", "tar://")) else ""


def _member(archive: Path, path: str, max_bytes: int) -> bytes:
    """The bytes of an archive's member; ImageError."""
    inside = path.rpartition("::")[0]
    for source in expand(os.fspath(archive), max_bytes):
        if printable(source.name).rpartition("::")[0] == inside:
            return source.read(max_bytes)
    raise ImageError("missing", "it is not in the archive any more")


def _existing(base: Path, path: str) -> Path | None:
    """The real path of a file. %XX may stand for a byte of its name that is not UTF-8 (see
    ``table.printable``).
    """
    raw = re.sub(
        rb"%([89A-F][0-9A-F])", lambda match: bytes.fromhex(match[1].decode()), os.fsencode(path)
    )
    for name in dict.fromkeys((path, os.fsdecode(raw))):
        try:
            real = (base / name).resolve(strict=True)
        except (OSError, RuntimeError, ValueError):
            continue
        if real.is_file():
            return real
    return None
