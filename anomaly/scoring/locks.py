"""One writer for each table: a lock beside it."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from anomaly.errors import AnomalyError
from anomaly.imaging.find import mark_ours
from anomaly.imaging.listing import MARK
from anomaly.scoring.run_files import LOCK, OURS, PART, RUN, says_when_unwritable

LOCK_AT = 1 << 30  # where the byte lies that is locked on Windows


@contextmanager
def sole_writer(out: Path, folder: Path) -> Iterator[None]:
    """Holds the folder for this process alone; afterwards it is there only if it has chunks to go
    on from.
    """
    with says_when_unwritable(out):
        folder.mkdir(exist_ok=True)
        if all(OURS.fullmatch(file.name) for file in folder.iterdir()):
            mark_ours(folder)
        handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT)
    try:
        lock(handle, out)
        try:
            yield
        finally:
            if not any(PART.fullmatch(file.name) for file in folder.iterdir()):
                (folder / RUN).unlink(missing_ok=True)
                (folder / LOCK).unlink(missing_ok=True)
                (folder / MARK).unlink(missing_ok=True)
                with suppress(OSError):  # something of another's is in it
                    folder.rmdir()
    finally:
        os.close(handle)


def lock(file: int, out: Path) -> None:
    """Takes a lock that ends with this process, however it ends; none where the file system has no
    locks.
    """
    try:
        if sys.platform == "win32":
            import msvcrt

            # far behind the end: what is locked there nobody else may read
            os.lseek(file, LOCK_AT, os.SEEK_SET)
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK):
            what = "another process is writing this table: wait for it, or choose another --out"
            raise AnomalyError(f"{out}: {what}") from error
