"""Small files beside images and detectors, and those that a run folder must hold itself.

A device, a FIFO, a folder or gigabytes under such a name are refused; of the run's own files a link
is too, as it would put whatever it leads to into an archive or a check.
"""

from __future__ import annotations

import os
import stat
from io import BufferedReader
from pathlib import Path

from anomaly.errors import AnomalyError


def open_without_waiting(path: str, flags: int) -> int:
    """Opens a file for `open`. A pipe that took its place after it was looked at gives nothing
    instead of blocking.
    """
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def open_regular(
    path: str | os.PathLike[str], error: type[AnomalyError] = AnomalyError, expected: str = "a file"
) -> BufferedReader:
    """Returns a regular file, opened to be read; ``error`` where it is none or cannot be read. A
    FIFO is not waited for.
    """
    try:
        file = open(path, "rb", opener=open_without_waiting)  # noqa: SIM115  # the caller closes it
    except OSError as found:
        raise error(
            f"{path}: cannot be read ({found.strerror or found}), {expected} expected"
        ) from found
    except ValueError as found:  # a name with a null character
        raise error(
            f"{Path(path).name!r}: cannot be read ({found}), {expected} expected"
        ) from found
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        return file
    file.close()
    raise error(f"{path}: a device, pipe or folder found, {expected} expected")


def read_small(
    path: str | os.PathLike[str], most: int, error: type[AnomalyError] = AnomalyError
) -> bytes:
    """Returns the bytes of a regular file of at most ``most`` bytes; ``error`` where it is none,
    larger or not readable.

    A FIFO is not waited for, and no more is read than ``most`` and one, however long a file says it
    is.
    """
    with open_regular(path, error) as file:
        try:
            data = file.read(most + 1)
        except OSError as found:
            raise error(
                f"{path}: cannot be read ({found.strerror or found}), a file expected"
            ) from found
    if len(data) > most:
        raise error(
            f"{path}: more than {most:,} bytes found, at most that many expected: not such a file"
        )
    return data


def read_small_text(
    path: str | os.PathLike[str],
    most: int,
    error: type[AnomalyError] = AnomalyError,
    *,
    errors: str = "strict",
) -> str:
    """Returns the text of such a file, UTF-8 with or without a byte-order mark, line ends
    as \\n.
    """
    try:
        text = read_small(path, most, error).decode("utf-8-sig", errors)
    except UnicodeDecodeError as found:
        raise error(
            f"{path}: not UTF-8 (byte {found.start}), a text file in UTF-8 expected: save it again "
            "as UTF-8"
        ) from found
    return text.replace("\r\n", "\n").replace("\r", "\n")


MAX_BYTES = 1 << 30  # bytes: that of a detector


def open_own(path: str, flags: int) -> int:
    """Opens a file that lies in the run folder itself: what a link or a pipe leads to is not the
    run's.
    """
    if os.path.islink(path):
        raise AnomalyError(
            f"{path}: a link found, a file of the run itself expected: copy it there, or remove "
            "the link"
        )
    handle = os.open(
        path, flags | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0), 0o644
    )
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise AnomalyError(
            f"{path}: no regular file found, one of the run itself expected: remove it"
        )
    return handle


def read_own(path: Path, most: int = MAX_BYTES) -> bytes:
    """Returns the bytes of a file that lies in the run folder itself.

    AnomalyError for a link, a pipe, a folder, and for more than ``most`` bytes.
    """
    try:
        with open(path, "rb", opener=open_own) as file:
            data = file.read(most + 1)
    except OSError as error:
        raise AnomalyError(
            f"{path}: cannot be read ({error.strerror}), a file of the run expected"
        ) from error
    if len(data) > most:
        raise AnomalyError(
            f"{path}: more than {most:,} bytes found, at most that many expected: not a file of "
            "the run"
        )
    return data
