"""Which images made a detector what it is: read from the table that training and recalibration
leave beside it.

`images.csv` in a run folder is that of its first detector; one that was recalibrated has its own,
NAME.images.csv.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Collection, Sequence
from pathlib import Path

from anomaly.errors import DatasetError
from anomaly.files.atomic import write_atomically
from anomaly.files.csv_cells import csv_text, unguarded
from anomaly.files.delimited import read_delimited
from anomaly.files.regular_files import open_regular
from anomaly.inputs.dataset import Record

IMAGES = "images.csv"  # in a run folder: which image was used for what
COLUMNS = ("path", "sha256", "set", "group")
DEFECTS = "known defects"
LEARNT = ("fit", "outliers", "validation", DEFECTS)  # what no threshold may be set by
USED = (*LEARNT, "calibration")  # what no figure may be taken of


def listing_of(detector: Path) -> Path | None:
    """Returns the table of the images of a detector's file, None where there is none."""
    places = (detector.with_name(f"{detector.stem}.{IMAGES}"), detector.with_name(IMAGES))
    damaged = next(
        (path for path in places if path.is_file() and _in_a_run(path) and not is_listing(path)),
        None,
    )
    if damaged is not None:
        raise DatasetError(
            f"{damaged}: no table of the images that made the detector found, columns "
            f"{', '.join(COLUMNS)} expected: it is damaged, and without it images would be used "
            "twice; restore it, or train again"
        )
    return next((path for path in places if is_listing(path)), None)


def _in_a_run(path: Path) -> bool:
    """Whether a file lies in a run folder, where it is the table that training wrote: elsewhere
    others may have its name.
    """
    return (
        path.with_name("checkpoint.safetensors").is_file()
        or path.with_name("train.jsonl").is_file()
    )


def is_listing(path: Path) -> bool:
    """Returns whether a file is there and has the columns of such a table: others may have the same
    name.
    """
    if not path.is_file():
        return False
    try:
        with open(path, "rb") as file:
            return {"sha256", "set"} <= set(read_delimited(file, COLUMNS).header)
    except (csv.Error, UnicodeError):
        return False


def read_listing(listing: Path) -> list[dict[str, str]]:
    """Returns the rows of such a table; DatasetError where it is another one."""
    try:
        with open_regular(listing, DatasetError) as file:
            header, rows = read_delimited(file, COLUMNS)
            found = [dict(zip(header, map(unguarded, cells), strict=False)) for _, cells in rows]
    except (csv.Error, OSError, UnicodeError) as error:
        raise DatasetError(
            f"{listing}: cannot be read ({error}), the table that training wrote expected"
        ) from error
    if not {"sha256", "set"} <= set(header):
        shown = ", ".join(header)[:100]
        raise DatasetError(
            f"{listing}: columns {shown} found, sha256 and set expected: take the table that "
            "training wrote"
        )
    return found


def divided(
    records: Sequence[Record], listing: Path, sets: Collection[str]
) -> tuple[list[Record], list[Record]]:
    """Returns the records whose bytes are in none of these sets of a table, and the others."""
    used = {row.get("sha256") for row in read_listing(listing) if row.get("set") in sets}
    fresh: list[Record] = []
    known: list[Record] = []
    for record in records:
        (known if _sha256(record.path) in used else fresh).append(record)
    return fresh, known


def note_calibration(source: Path, target: Path, images: Sequence[Path]) -> None:
    """Writes the table of a recalibrated detector: that of the one it was made of, its threshold
    set by ``images``.

    Nothing where the source has none: then what it learnt from is not known.
    """
    listing = listing_of(source)
    if listing is None:
        return
    rows: list[tuple[str | None, ...]] = [COLUMNS]
    for row in read_listing(listing):
        kind = "earlier calibration" if row.get("set") == "calibration" else row.get("set")
        rows.append((row.get("path"), row.get("sha256"), kind, row.get("group")))
    rows += [(str(path), _sha256(path), "calibration", "") for path in images]
    write_atomically(
        target.with_name(f"{target.stem}.{IMAGES}"),
        csv_text(rows).encode("utf-8", "surrogateescape"),
    )


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
