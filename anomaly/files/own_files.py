"""Files that must lie in a run folder themselves: a link would put whatever it leads to into an
archive or a check.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from anomaly.errors import AnomalyError

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
