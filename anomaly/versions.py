"""Which version a new detector file gets: one that no other file of its name has, as far as can be seen.

Seen are the folder of the detector that it is made from and those named like it (run2 beside run), the folder that it is
written to, and where a review database is at hand the detectors that it knows.
"""

from __future__ import annotations

import glob
import json
from collections.abc import Iterable
from itertools import count
from pathlib import Path

import numpy as np

from anomaly.detector import CARD_KEY, MAX_CARD_BYTES
from anomaly.errors import DetectorError
from anomaly.graph import MODEL_METADATA
from anomaly.protobuf import fields

MOST_FILES = 2_000  # of which the versions are read: a folder with more detectors than that is an archive
LONGEST = 9  # digits of a version that is counted on

Identity = tuple[str, str]  # name and version of a detector


def next_version(version: str, taken: Iterable[str] = ()) -> str:
    """Returns the first version after ``version`` that is not ``taken``: 2, 3, ... after 1; 2.0.1, 2.0.2, ... after 2.0."""
    used = set(taken)
    counted = version.isascii() and version.isdecimal() and len(version) <= LONGEST
    names = (str(int(version) + i) if counted else f"{version}.{i}" for i in count(1))
    return next(name for name in names if name not in used)


def versions_of(name: str, source: Path, target: Path, known: Iterable[Identity] = ()) -> set[str]:
    """Returns the versions that detectors called ``name`` have near the folders ``source`` and ``target``, and in ``known``."""
    found = {version for other, version in known if other == name}
    for file in sorted(_detectors_near(source.resolve(), target.resolve()))[:MOST_FILES]:
        identity = identity_of(file)
        if identity is not None and identity[0] == name:
            found.add(identity[1])
    return found


def identity_of(file: Path) -> Identity | None:
    """Returns name and version of a detector file by its card alone, without loading its graph; None where it is none."""
    try:
        card = json.loads(_card_text(memoryview(np.memmap(file, np.uint8, mode="r").data)))
    except (OSError, ValueError, DetectorError, RecursionError):
        return None
    name, version = (card.get(key) if isinstance(card, dict) else None for key in ("name", "version"))
    return (name, version) if isinstance(name, str) and isinstance(version, str) else None


def _card_text(model: memoryview) -> bytes:
    """Returns the bytes of the card in an ONNX file; DetectorError where there is none."""
    for number, value in fields(model):
        if number != MODEL_METADATA or isinstance(value, int):
            continue
        entry = {key: bytes(part) for key, part in fields(value) if not isinstance(part, int) and len(part) <= MAX_CARD_BYTES}
        if entry.get(1) == CARD_KEY.encode():
            return entry.get(2, b"")
    raise DetectorError("no card found in the file")


def _detectors_near(source: Path, target: Path) -> set[Path]:
    """Returns the ONNX files of two folders, of those whose names begin like the first (run2 beside run), and where they
    lie beside each other of all folders there."""
    beside = source != target and source.parent == target.parent
    alike = "*" if beside else f"{glob.escape(source.name)}*"
    return {*source.glob("*.onnx"), *target.glob("*.onnx"), *source.parent.glob(f"{alike}/*.onnx")}
