"""The bytes of an image file; what cannot be read is an ImageError."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from anomaly.errors import ImageError
from anomaly.files.regular_files import open_without_waiting
from anomaly.imaging import listing

# What the system says of every file on a disk or share that has gone: no file is to blame.
GONE_ERRORS = {
    errno.ENODEV,
    errno.ENOTCONN,
    errno.ESTALE,
    errno.EHOSTDOWN,
    errno.EHOSTUNREACH,
    errno.ETIMEDOUT,
}
UNREADABLE = "check its permissions and its disk"


def head_of(path: str) -> bytes | str:
    """Returns the first bytes of a file, or the kind of what has none; a pipe or device is not
    opened.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return listing.DEVICE
        with open(path, "rb", buffering=0, opener=open_without_waiting) as file:
            return file.read(listing.HEAD)
    except FileNotFoundError:
        return listing.DANGLING
    except OSError:
        return listing.UNREADABLE


def read_file(path: str | Path, limit: int) -> bytes:
    """Returns the bytes of a regular file; never waits for a pipe."""
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            what = "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe or a device"
            raise ImageError("not a file", f"is {what}, an image file expected")
        if status.st_size > limit:
            size = f"file of {status.st_size:,} bytes, at most {limit:,}"
            raise ImageError("too large", f"{size} expected: --max-pixels allows more")
        with open(path, "rb", opener=open_without_waiting) as file:
            return file.read(status.st_size)
    except FileNotFoundError as error:
        raise ImageError("missing", "no such file") from error
    except OSError as error:
        kind, advice = (
            ("unreachable", "is the disk still there?")
            if error.errno in GONE_ERRORS
            else ("unreadable", UNREADABLE)
        )
        raise ImageError(kind, f"cannot be read ({error.strerror or error}): {advice}") from error
    except (ValueError, MemoryError) as error:  # ValueError: a zero byte in the name
        raise ImageError("unreadable", f"cannot be read ({error}): {UNREADABLE}") from error


def printable_text(name: str | bytes) -> str:
    """Returns a file's name on one line: line breaks and bytes that are not UTF-8 escaped."""
    name = os.fsdecode(name)
    return name if name.isprintable() else repr(name)[1:-1]
