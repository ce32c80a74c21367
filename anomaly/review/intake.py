"""A score table -> a run in the review database, in one transaction: all of it or nothing."""

from __future__ import annotations

import hashlib
import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from anomaly.detector.card import Card
from anomaly.detector.unit_rule import UnitRule
from anomaly.errors import AnomalyError
from anomaly.files.regular_files import open_regular
from anomaly.files.table import FLOATS, RESULTS, Row, printable, read_table
from anomaly.imaging.listing import file_and_page, page_name
from anomaly.inputs.source import is_url
from anomaly.review import schema
from anomaly.review.evidence import folder_of
from anomaly.review.journal import MAX_NAME_LENGTH, line
from anomaly.review.queries import FINDING, chunks

CHUNK = 5_000  # rows that are inserted at a time
DETECTOR = re.compile(r"(?P<name>.+)@(?P<version>\S+) sha256:(?P<digest>[0-9a-f]{4,64})")
COUNTS = ("images", "flagged", "review", "not_judged")  # of a run
STATUSES = ("ok", "outside", "error")


@dataclass(frozen=True)
class Source:
    """A table to import. ``name``: of the run, None for the file's; ``folder``: what relative paths
    are relative to; ``roots``: the folders that images may be read from, none for the images'
    common one."""

    table: Path
    name: str | None
    folder: Path
    roots: Sequence[Path]
    card: Card | None


def fingerprint(table: Path) -> str:
    """The digest of a table by which it is recognised."""
    try:
        with open_regular(table) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise AnomalyError(
            f"{table}: cannot be read ({error.strerror}); a score table was expected"
        ) from error


def known_run(c: sa.Connection, digest: str) -> int | None:
    """The run that was made of this very table before."""
    found: int | None = c.scalar(
        sa.select(schema.runs.c.id).where(schema.runs.c.fingerprint == digest)
    )
    return found


def insert_run(c: sa.Connection, source: Source, digest: str, by: str, at: str) -> int:
    """Inserts a table's rows as a run and returns its number; AnomalyError where it is no score
    table.
    """
    rows = read_table(source.table)
    first = next(rows, None)
    if first is None:
        raise AnomalyError(
            f"{source.table}: a score table without rows found, at least 1 image expected"
        )
    values = {
        "name": free_name(c, source),
        "source": printable(os.fspath(source.table.absolute())),
        "fingerprint": digest,
        "folder": printable(os.fspath(source.folder)),
        "detector": detector(c, source, first.detector),
        "threshold": first.threshold,
        "imported_at": at,
        "imported_by": by,
        **dict.fromkeys(COUNTS, 0),
    }
    run = int(
        c.execute(schema.runs.insert().values(values).returning(schema.runs.c.id)).scalar_one()
    )
    counts = _insert_rows(c, run, source, first, rows)
    c.execute(schema.runs.update().where(schema.runs.c.id == run).values(counts))
    if c.dialect.name == "postgresql":
        # else it plans as if the table were as small as before
        c.exec_driver_sql("ANALYZE findings")
    folders = {Path(root).resolve() for root in source.roots} or _common_folder(
        c, run, source.folder
    )
    if folders:
        c.execute(
            schema.roots.insert(),
            [{"run": run, "folder": os.fspath(folder)} for folder in sorted(folders)],
        )
    return run


def free_name(c: sa.Connection, source: Source) -> str:
    """The name that was asked for, or the file's, numbered where it is taken."""
    taken = set(c.execute(sa.select(schema.runs.c.name)).scalars())
    if source.name is not None:
        name = line(source.name, "name of a run", MAX_NAME_LENGTH)
        if name in taken:
            raise AnomalyError(
                f"a run {name!r} is there already with another table: choose another --name"
            )
        return name
    stem = (
        "".join(char for char in printable(source.table.stem) if char.isprintable())[
            : MAX_NAME_LENGTH - 10
        ]
        or "run"
    )
    names = chain([stem], (f"{stem}-{number}" for number in range(2, len(taken) + 3)))
    return next(name for name in names if name not in taken)


def detector(c: sa.Connection, source: Source, identity: object) -> int:
    """The number of the detector that a table names, with its card where it is given."""
    match = DETECTOR.fullmatch(identity) if isinstance(identity, str) else None
    if match is None:
        found = str(identity)[:60]
        raise AnomalyError(
            f"{source.table}: detector {found!r} found, NAME@VERSION sha256:DIGEST expected: score "
            "again"
        )
    if source.card is not None and source.card.digest != match["digest"]:
        raise AnomalyError(
            f"{source.table}: scored by {match[0][:80]}, but {source.card.identity} was given: "
            "give the one that scored it"
        )
    table, content = schema.detectors, None if source.card is None else source.card.to_json()
    row = c.execute(
        sa.select(table.c.id, table.c.card).where(table.c.digest == match["digest"])
    ).first()
    if row is None:
        new = table.insert().values(**match.groupdict(), card=content)
        return int(c.execute(new.returning(table.c.id)).scalar_one())
    if row.card is None and content is not None:
        c.execute(table.update().where(table.c.id == row.id).values(card=content))
    return int(row.id)


def _insert_rows(
    c: sa.Connection, run: int, source: Source, first: Row, rest: Iterator[Row]
) -> Counter[str]:
    """Inserts the rows and returns how many ``images`` they are, how many ``flagged``, for
    ``review`` and ``not_judged``.
    """
    counts: Counter[str] = Counter(dict.fromkeys(COUNTS, 0))
    rule = None if source.card is None else source.card.training.by_unit
    for some in chunks(enumerate(chain([first], rest)), CHUNK):
        values = [
            row_values(run, source.table, position, row, first, rule) for position, row in some
        ]
        c.execute(schema.findings.insert(), values)
        counts["images"] += len(values)
        counts["flagged"] += sum(value["stratum"] == 0 for value in values)
        counts["review"] += sum(value["result"] == "review" for value in values)
        counts["not_judged"] += sum(value["status"] != "ok" for value in values)
    return counts


def row_values(
    run: int, table: Path, position: int, row: Row, first: Row, rule: UnitRule | None = None
) -> dict[str, Any]:
    """A row as it is stored; AnomalyError where it is not one that a score table has."""
    _check(table, position, row)
    if row.detector != first.detector or row.threshold != first.threshold:
        raise AnomalyError(
            f"{table}: two detectors or thresholds found, one for the whole table expected: import "
            "them apart"
        )
    judged, path = row.status == "ok", printable(row.path)
    stored = row._asdict() | {
        "path": path,
        "is_anomaly": row.is_anomaly if judged else None,
        "result": row.result if judged else "not judged",
        "likely_type": row.defect_type,
    }
    for name in ("detector", "review_threshold", "defect_type"):  # that one is of the verdicts
        del stored[name]
    return stored | {
        "run": run,
        "position": position,
        "folder": folder_of(path),
        "image": page_name(row.sha256, file_and_page(path)[1]) if row.sha256 else f"path:{path}",
        "distance": abs(row.score - row.threshold)
        if judged and row.score is not None and row.threshold is not None
        else None,
        "state": "open",
        "stratum": 0 if judged and row.is_anomaly else None,
        "unit": None if rule is None else rule.name_in(row.path),
    }


def _check(table: Path, position: int, row: Row) -> None:
    """Tables come from elsewhere too: a word where a number belongs must not get into
    the database.
    """
    found = row._asdict()
    wrong = [name for name, fits in _FITS.items() if not fits(found[name])]
    if not wrong and row.status == "ok" and row.score is None:
        wrong = ["score"]
    if wrong:
        what = f"{wrong[0]} {str(found[wrong[0]])[:40]!r} found in row {position + 1}"
        raise AnomalyError(f"{table}: {what}: not a score table, or a damaged one; score again")


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value != "" and "\0" not in value


def _is_whole(value: object) -> bool:
    return value is None or (
        isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**53
    )


def _is_number(value: object) -> bool:
    return value is None or (
        isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    )


_FITS = {
    **dict.fromkeys(("path", "scored_at"), _is_text),
    **dict.fromkeys(
        ("sha256", "error", "defect_type"), lambda value: value is None or _is_text(value)
    ),
    **dict.fromkeys(("width", "height", "box_x", "box_y", "box_w", "box_h", "area"), _is_whole),
    **dict.fromkeys(FLOATS, _is_number),
    "is_anomaly": lambda value: value is None or isinstance(value, bool),
    "result": lambda value: value is None or value in RESULTS,
    "status": STATUSES.__contains__,
}


def _common_folder(c: sa.Connection, run: int, base: Path) -> set[Path]:
    """The deepest folder that all images of a run on this machine lie in; none where all lie behind
    URLs.
    """
    folders: Iterable[str] = c.execute(
        sa.select(FINDING.folder).where(FINDING.run == run).distinct()
    ).scalars()
    local = [os.path.realpath(base / folder) for folder in folders if not is_url(folder)]
    if not local:
        return set()
    common = Path(os.path.commonpath(local))
    if common == Path(common.anchor):
        raise AnomalyError(
            f"the images lie under no folder but {common}, which is everything: say where, --root "
            "FOLDER"
        )
    return {common}
