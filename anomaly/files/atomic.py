"""Files that appear whole or not at all, and lines that are added in one write."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


def no_room(error: OSError) -> bool:
    """Whether a file could not be written because its disk or a quota is full."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def errors_naming(path: Path, temporary: Path | None = None) -> Iterator[None]:
    """Names the file in an OSError that does not (a full disk), or that names the ``temporary`` one
    in its place.
    """
    try:
        yield
    except OSError as error:
        if error.filename is not None and error.filename != str(temporary):
            raise
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error


@contextmanager
def whole_file(path: Path, inside: Path | None = None) -> Iterator[BinaryIO]:
    """Opens a file that appears under its name when it is complete and on the disk; on an error it
    never does.

    Until then it lies hidden beside it, or in the folder ``inside``, which must be on the same file
    system. An OSError names the file, also where the system does not (a full disk).
    """
    temporary = (inside or path.parent) / f".{path.name}.{os.getpid()}.tmp"
    try:
        with errors_naming(path, temporary):
            with open(temporary, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Makes a rename last through a loss of power."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:  # some network file systems do not sync folders, nor need it
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


def write_atomically(path: Path, data: bytes) -> None:
    """Writes a file that appears whole or not at all (see `whole_file`)."""
    with whole_file(path) as file:
        file.write(data)


def append_line(path: Path, line: str) -> None:
    """Adds a line to a file in one write, so that two processes lose nothing; it is on the disk
    when this returns.
    """
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(handle, (line + "\n").encode())
        os.fsync(handle)
    finally:
        os.close(handle)
