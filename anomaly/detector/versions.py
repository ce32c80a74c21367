"""Which version a new detector file gets: one that no other file of its name has, as far as can be
seen.

Seen are the folder of the detector that it is made from and those named like it (run2 beside run),
the folder that it is written to, and where a review database is at hand the detectors that it
knows. What was given is noted besides, in a file that only grows, in the folder of the source and
in that of the target; each line names both, so that from either all others are found. So a version
is not given again where its file was written elsewhere, moved or removed.
"""

from __future__ import annotations

import glob
import json
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from anomaly.detector.file import CARD_KEY, MAX_CARD_BYTES
from anomaly.detector.graph import MODEL_METADATA
from anomaly.errors import DetectorError
from anomaly.files.atomic import append_line
from anomaly.files.protobuf import fields

# of which the versions are read: a folder with more detectors than that is an archive
MAX_NOTED_FILES = 2_000
GIVEN = "versions.jsonl"  # in a run folder: the versions that were given, a line each
MAX_NOTES_BYTES = 16 << 20  # of such a file
MAX_NOTED_FOLDERS = 1_000
MAX_VERSION_DIGITS = 9  # digits of a version that is counted on

Identity = tuple[str, str]  # name and version of a detector


def next_version(version: str, taken: Iterable[str] = ()) -> str:
    """Returns the first version after ``version`` that is not ``taken``: 2, 3, ... after 1; 2.0.1,
    2.0.2, ... after 2.0.
    """
    used = set(taken)
    counted = version.isascii() and version.isdecimal() and len(version) <= MAX_VERSION_DIGITS
    names = (str(int(version) + i) if counted else f"{version}.{i}" for i in count(1))
    return next(name for name in names if name not in used)


def versions_of(name: str, source: Path, target: Path, known: Iterable[Identity] = ()) -> set[str]:
    """Returns the versions that detectors called ``name`` have near the folders ``source`` and
    ``target``, and in ``known``.
    """
    found = {version for other, version in known if other == name}
    for file in sorted(_detectors_near(source.resolve(), target.resolve()))[:MAX_NOTED_FILES]:
        identity = identity_of(file)
        if identity is not None and identity[0] == name:
            found.add(identity[1])
    for _, rows in _given(name, (source, target)):
        found |= {str(row["version"]) for row in rows}
    return found


def note_version(name: str, version: str, source: Path, target: Path) -> None:
    """Notes that a detector ``name`` of this version is written from the folder ``source`` into
    ``target``, in both and in all folders that these name. DetectorError where neither can be
    written; other folders may be gone or read-only.
    """
    folders = list(dict.fromkeys((source.resolve(), target.resolve())))
    row = {"name": name, "version": version, "folders": [str(folder) for folder in folders]}
    noted = [
        _append(folder / GIVEN, row)
        for folder in dict.fromkeys([*folders, *(at for at, _ in _given(name, folders))])
    ]
    if not any(noted[: len(folders)]):
        raise DetectorError(
            f"{source / GIVEN}: cannot be written; the versions that were given are noted there: "
            "make it writable"
        )


def _append(file: Path, row: dict[str, Any]) -> bool:
    if not file.parent.is_dir():
        return False
    with suppress(OSError):
        append_line(file, json.dumps(row))
        return True
    return False


def _given(name: str, folders: Iterable[Path]) -> Iterator[tuple[Path, list[dict[str, Any]]]]:
    """Yields folders and what was noted there of ``name``: those given, and all that the notes lead
    to.
    """
    waiting = [folder.resolve() for folder in folders]
    seen = set(waiting)
    while waiting and len(seen) <= MAX_NOTED_FOLDERS:
        folder = waiting.pop()
        rows = [row for row in _noted(folder / GIVEN) if row["name"] == name]
        yield folder, rows
        further = {Path(str(other)) for row in rows for other in row["folders"]} - seen
        seen |= further
        waiting += sorted(further)


def _noted(file: Path) -> Iterator[dict[str, Any]]:
    """Yields the rows of a file of versions; a line that was cut off is passed over."""
    with suppress(OSError):
        if not file.is_file() or file.stat().st_size > MAX_NOTES_BYTES:
            return
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
            with suppress(ValueError, RecursionError):
                row = json.loads(line)
                if (
                    isinstance(row, dict)
                    and isinstance(row.get("folders"), list)
                    and {"name", "version"} <= set(row)
                ):
                    yield row


def identity_of(file: Path) -> Identity | None:
    """Returns name and version of a detector file by its card alone, without loading its graph;
    None where it is none.
    """
    try:
        card = json.loads(_card_text(memoryview(np.memmap(file, np.uint8, mode="r").data)))
    except (OSError, ValueError, DetectorError, RecursionError):
        return None
    name, version = (
        card.get(key) if isinstance(card, dict) else None for key in ("name", "version")
    )
    return (name, version) if isinstance(name, str) and isinstance(version, str) else None


def _card_text(model: memoryview) -> bytes:
    """Returns the bytes of the card in an ONNX file; DetectorError where there is none."""
    for number, value in fields(model):
        if number != MODEL_METADATA or isinstance(value, int):
            continue
        entry = {
            key: bytes(part)
            for key, part in fields(value)
            if not isinstance(part, int) and len(part) <= MAX_CARD_BYTES
        }
        if entry.get(1) == CARD_KEY.encode():
            return entry.get(2, b"")
    raise DetectorError("no card found in the file")


def _detectors_near(source: Path, target: Path) -> set[Path]:
    """Returns the ONNX files of two folders, of those whose names begin like the first (run2 beside
    run), and where they lie beside each other of all folders there."""
    beside = source != target and source.parent == target.parent
    alike = "*" if beside else f"{glob.escape(source.name)}*"
    return {*source.glob("*.onnx"), *target.glob("*.onnx"), *source.parent.glob(f"{alike}/*.onnx")}
