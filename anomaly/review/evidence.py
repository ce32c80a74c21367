"""A finding's image as it lies on the disk now: the very bytes that were scored, or why not."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

MAX_IMAGE_BYTES = 256 << 20


@dataclass(frozen=True)
class ImageFile:
    """A finding's image as it lies on the disk now.

    ``state``: ``same`` as when it was scored, ``changed``, ``unverified`` (no digest was taken), ``missing``,
    ``forbidden`` (outside the run's folders) or ``too large``; ``message`` says so unless it is the same. ``data``: the
    very bytes that were checked, None for the last three.
    """

    state: str
    path: Path | None
    data: bytes | None
    message: str


def read_image(base: Path, path: str, sha256: str | None, roots: Sequence[Path], max_bytes: int = MAX_IMAGE_BYTES) -> ImageFile:
    """The file ``path`` of a table, relative to ``base``, if it lies under one of ``roots`` once links are followed."""
    found = _existing(base, path)
    if found is None:
        return ImageFile("missing", None, None, f"{path} is not there any more: it was moved, renamed or deleted")
    if not any(found.is_relative_to(root.resolve()) for root in roots):
        return ImageFile("forbidden", None, None, f"{path} lies outside the folders of its run: an admin can add its folder")
    if found.stat().st_size > max_bytes:
        return ImageFile("too large", found, None, f"{path}: more than {max_bytes >> 20} MiB, too large to show")
    try:
        with open(found, "rb") as file:
            data = file.read(max_bytes + 1)
    except OSError as error:
        return ImageFile("missing", None, None, f"{path} cannot be read: {error.strerror}")
    if sha256 is None:
        return ImageFile("unverified", found, data, f"{path} could not be read when it was scored: nothing to compare it with")
    if hashlib.sha256(data).hexdigest() != sha256:
        return ImageFile("changed", found, data, f"{path} is not the image that was scored: it was replaced or edited since")
    return ImageFile("same", found, data, "")


def _existing(base: Path, path: str) -> Path | None:
    """The real path of a file. %XX may stand for a byte of its name that is not UTF-8 (see ``table.printable``)."""
    raw = re.sub(rb"%([89A-F][0-9A-F])", lambda match: bytes.fromhex(match[1].decode()), os.fsencode(path))
    for name in dict.fromkeys((path, os.fsdecode(raw))):
        try:
            real = (base / name).resolve(strict=True)
        except (OSError, RuntimeError, ValueError):
            continue
        if real.is_file():
            return real
    return None
