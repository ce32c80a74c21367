"""Files that must lie in a run folder themselves: a link would put whatever it leads to into an archive or a check."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from anomaly.errors import AnomalyError


def open_own(path: str, flags: int) -> int:
    """Opens a file that lies in the run folder itself: what a link or a pipe leads to is not the run's."""
    if os.path.islink(path):
        raise AnomalyError(f"{path}: a link found, a file of the run itself expected: copy it there, or remove the link")
    handle = os.open(path, flags | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0), 0o644)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise AnomalyError(f"{path}: no regular file found, one of the run itself expected: remove it")
    return handle


def read_own(path: Path) -> bytes:
    """Returns the bytes of a file that lies in the run folder itself; AnomalyError for a link, a pipe and a folder."""
    try:
        with open(path, "rb", opener=open_own) as file:
            return file.read()
    except OSError as error:
        raise AnomalyError(f"{path}: cannot be read ({error.strerror}), a file of the run expected") from error
