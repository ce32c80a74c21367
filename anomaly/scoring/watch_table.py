"""The table of a watch: it only grows, is the watch's memory, and may be moved away or emptied by
others at any moment.

A log rotation renames a table, or copies and empties it. Rows then go into a new table under the
same name, with its header, and what the former one held is kept in a hidden file beside it
(``.today.csv.before``), so that a later start judges nothing twice: it need not find the former
table, which may be packed or on another disk by then.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from anomaly.errors import AnomalyError
from anomaly.files.atomic import no_room, whole_file
from anomaly.files.table import COLUMNS, Row, encode_rows, read_table
from anomaly.imaging.listing import file_and_page
from anomaly.scoring.locks import lock


class GrowingTable:
    """A table (.csv, .jsonl) that this process alone appends to.

    ``rows``: how many it holds; ``moved``: how many were written since the start and are no longer
    in it; ``before``: how many were moved away before the start. ``say``: gets a line where the
    table was moved or mended. AnomalyError.
    """

    def __init__(self, out: Path, identity: str, say: Callable[[str], object]) -> None:
        self._out, self._suffix, self._identity, self._say = out, out.suffix.lower(), identity, say
        self._journal = out.with_name(f".{out.name}.before")
        self._header = (",".join(COLUMNS) + "\n").encode() if self._suffix == ".csv" else b""
        self._file: BinaryIO | None = None
        self._here: list[tuple[str, str | None]] = []  # path and digest of each row
        self._end = self.moved = self.before = 0

    @property
    def rows(self) -> int:
        return len(self._here)

    def open(self, force: bool) -> bool:
        """Opens or makes the table; returns whether it is new. ``force`` takes an earlier
        one away.
        """
        if force:
            self._out.unlink(missing_ok=True)
            self._journal.unlink(missing_ok=True)
        new = not self._out.exists() or self._out.stat().st_size < len(self._header)
        self._file = self._opened()
        return new

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def remembered(self) -> Iterator[tuple[str, str | None]]:
        """Yields path and digest of the rows of former tables whose images are still there, and
        counts all of them.
        """
        kept: list[tuple[str, str | None]] = []
        found: dict[str, str | None] = {}
        with suppress(FileNotFoundError):
            for line in self._journal.read_text(encoding="utf-8").splitlines():
                # half a line, where a start was cut off
                with suppress(ValueError, KeyError, TypeError):
                    one = json.loads(line)
                    self.before += int(one.get("rows", 1))
                    if "path" in one:
                        found[str(one["path"])] = one["sha256"]
        # What %XX stands for in a path cannot be looked up.
        kept = [
            (path, sha)
            for path, sha in found.items()
            if "%" in path or os.path.lexists(file_and_page(path)[0])
        ]
        if self.before > len(kept) + 1:
            lines = [
                {"rows": self.before - len(kept)},
                *({"path": path, "sha256": sha} for path, sha in kept),
            ]
            with whole_file(self._journal) as file:
                file.write("".join(json.dumps(line) + "\n" for line in lines).encode())
        yield from kept

    def read(self) -> Iterator[Row]:
        """Yields the rows that the table holds, which must be of this detector."""
        for row in read_table(self._out):
            if row.detector != self._identity:
                raise AnomalyError(
                    f"{self._out}: rows of {row.detector} found, of {self._identity} expected: "
                    "choose another --out"
                )
            self._here.append((row.path, row.sha256))
            yield row

    def append(self, rows: Sequence[Row]) -> None:
        """Writes rows to the table's end and to the disk."""
        self.look()
        assert self._file is not None
        data = encode_rows(rows, self._suffix)
        try:
            self._file.write(data)
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise not_written(self._out, error) from error
        self._end += len(data)
        self._here += [(row.path, row.sha256) for row in rows]

    def look(self) -> None:
        """Takes note of a table that was moved, removed, replaced or emptied, and goes on with the
        one of its name.
        """
        assert self._file is not None
        if self._is_ours(self._file):
            return
        before = self._here
        try:
            self._file.close()  # its lock, too: where the table was emptied it is the same file
            self._file, self._here = self._opened(), []
            for _ in self.read():
                pass
            there = set(self._here)
            gone = [one for one in before if one not in there]
            with open(self._journal, "a", encoding="utf-8") as journal:
                journal.writelines(
                    json.dumps({"path": path, "sha256": sha}) + "\n" for path, sha in gone
                )
                journal.flush()
                os.fsync(journal.fileno())
        except OSError as error:
            raise not_written(self._out, error) from error
        self.moved += len(gone)
        what = f"moved away or emptied by another program, {len(gone):,} of its rows with it"
        self._say(f"{self._out}: {what}; a new one is begun")

    def _is_ours(self, file: BinaryIO) -> bool:
        """Whether the file of the table's name still is the one that is open, with all that was
        written.
        """
        try:
            there, here = os.stat(self._out), os.fstat(file.fileno())
        except FileNotFoundError:
            return False
        except OSError:  # a share that does not answer: writing will say so
            return True
        same = (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino)
        return same and here.st_size >= self._end

    def _opened(self) -> BinaryIO:
        """Opens the table of that name, locked, with its header and without half a row at
        its end.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)
        file = os.fdopen(os.open(self._out, flags, 0o666), "r+b")
        try:
            lock(file.fileno(), self._out)
            if os.fstat(file.fileno()).st_size < len(self._header):
                file.truncate(0)
                file.write(self._header)
                file.flush()
                os.fsync(file.fileno())
            elif cut := mend(file, self._suffix):
                self._say(
                    f"{self._out}: half a row of {cut} bytes, of a start that was cut off, is "
                    "taken away"
                )
            self._end = os.fstat(file.fileno()).st_size
        except BaseException:
            file.close()
            raise
        return file


def not_written(out: Path, error: OSError) -> AnomalyError:
    """Returns what is said where a row could not be written."""
    what = "no room left" if no_room(error) else "cannot be written"
    return AnomalyError(
        f"{out}: {what} ({error.strerror}); no image is lost: mend it and start the same command "
        "again"
    )


def mend(table: BinaryIO, suffix: str) -> int:
    """Cuts off what is left of a last row that was not written to its end; returns how many bytes
    that is.
    """
    end = whole = 0
    quotes = 0
    table.seek(0)
    for line in table:
        end += len(line)
        # a cell in quotes may hold a line break
        quotes += line.count(b'"') if suffix == ".csv" else 0
        if line.endswith(b"\n") and quotes % 2 == 0:
            whole = end
    table.truncate(whole)
    return end - whole
