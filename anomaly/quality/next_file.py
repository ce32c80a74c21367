"""The version of a new detector and the file that it is written to: a detector in use never changes
under its name.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from anomaly.detector.card import Card
from anomaly.detector.versions import Identity, next_version, versions_of
from anomaly.errors import DetectorError


def free_version(
    card: Card, path: Path, out: Path | None, known: Iterable[Identity]
) -> tuple[str, Path]:
    """Returns the version of the new detector and the file that it is written to."""
    folder = path.parent if out is None else out.parent
    version = next_version(card.version, versions_of(card.name, path.parent, folder, known))
    target = out or path.with_name(f"{path.stem}-{version}.onnx")
    check_free(target)
    return version, target


def check_free(target: Path) -> None:
    """Raises DetectorError where a new detector cannot be written under that name."""
    if target.exists():
        raise DetectorError(
            f"{target} is there already; a detector in use must not change under its name: choose "
            "another --out"
        )
    if not target.parent.is_dir():
        raise DetectorError(
            f"{target.parent}: no such folder; make it first, or choose another --out"
        )
