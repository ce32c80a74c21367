"""Sinks on this machine: a line on standard output, the score table, a folder of images."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

from anomaly.errors import AnomalyError
from anomaly.files.csv_cells import csv_text
from anomaly.files.table import COLUMNS
from anomaly.imaging.find import mark_ours
from anomaly.scoring.watch_table import mend, not_written
from anomaly.station.results import StationResult
from anomaly.station.settings import FolderSink

MORE_COLUMNS = ("seq", "source", "serial", "outcome", "action")  # behind those of the score table
HEADER = ",".join((*COLUMNS, *MORE_COLUMNS)) + "\n"


class Stdout:
    """A JSON line for each result on standard output. What a process that was killed had printed
    last comes again, with the same ids.
    """

    def open(self) -> None:
        return None

    def send(self, results: Sequence[StationResult]) -> None:
        lines = (json.dumps(result.message(), ensure_ascii=False) for result in results)
        sys.stdout.write("".join(f"{line}\n" for line in lines))
        sys.stdout.flush()

    def idle(self) -> None: ...

    def close(self) -> None: ...


class Table:
    """The score table ``path`` (.csv), with a few more columns. Each row is in it once: after a
    kill it is continued after its last whole row.
    """

    def __init__(self, path: Path) -> None:
        if path.suffix.lower() != ".csv":
            raise AnomalyError(f"{path}: {path.suffix or 'no suffix'} found, .csv expected")
        self._path = path
        self._file: BinaryIO | None = None

    def open(self) -> int | None:
        self._file = open(self._path, "a+b")  # noqa: SIM115 - until it is closed
        self._file.seek(0)
        header = self._file.readline()
        if HEADER.encode().startswith(header) and not header.endswith(b"\n"):
            self._file.truncate(0)
            self._file.write(HEADER.encode())
            self._file.flush()
            return None
        if header != HEADER.encode():
            self.close()
            raise AnomalyError(
                f"{self._path}: another table found, a station's expected: choose another path"
            )
        mend(self._file, ".csv")
        return self._last_seq()

    def _last_seq(self) -> int | None:
        assert self._file is not None
        end = self._file.seek(0, os.SEEK_END)
        self._file.seek(max(len(HEADER), end - (1 << 20)))
        # a serial number may hold what splitlines() parts: a barcode's group separator
        text = io.StringIO(self._file.read().decode("utf-8", "replace"), newline="")
        rows = list(csv.reader(text))
        return int(rows[-1][len(COLUMNS)]) if rows else None

    def send(self, results: Sequence[StationResult]) -> None:
        assert self._file is not None
        rows = [
            (*result.row(), *(getattr(result, column) for column in MORE_COLUMNS))
            for result in results
        ]
        try:
            self._file.write(csv_text(rows).encode())
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise not_written(self._path, error) from error

    def idle(self) -> None:
        """A table that was moved away is begun anew."""
        if self._file is not None:
            here = os.fstat(self._file.fileno())
            if not self._path.exists() or self._path.stat().st_ino != here.st_ino:
                self.close()
                self.open()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


class ImageFolder:
    """Copies of images by outcome, called by number and serial number: PATH/flagged/2026-..."""

    def __init__(
        self, settings: FolderSink, images: Path, wait_for: Callable[[int], object]
    ) -> None:
        self._settings, self._images, self._wait_for = settings, images, wait_for

    def open(self) -> None:
        self._settings.path.mkdir(parents=True, exist_ok=True)
        mark_ours(self._settings.path)

    def send(self, results: Sequence[StationResult]) -> None:
        for result in results:
            if result.image is None or result.outcome not in self._settings.outcomes:
                continue
            self._wait_for(result.seq)
            kept = self._images / result.image
            folder = self._settings.path / result.outcome.replace(" ", "-") / result.judged_at[:10]
            folder.mkdir(parents=True, exist_ok=True)
            if kept.exists():
                shutil.copyfile(kept, folder / kept.name)

    def idle(self) -> None: ...

    def close(self) -> None: ...
