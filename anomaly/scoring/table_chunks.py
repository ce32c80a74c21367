"""The finished chunks of a score table: written whole or not at all, found again when a run goes
on.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

from anomaly.errors import AnomalyError
from anomaly.files.atomic import whole_file
from anomaly.files.table import encode_rows, join_chunks
from anomaly.imaging.listing import MARK
from anomaly.inputs.source import Source
from anomaly.inputs.stamps import stamp_of
from anomaly.scoring.pictures import Pictures
from anomaly.scoring.rows import Scored
from anomaly.scoring.run_files import (
    DONE,
    LOCK,
    OURS,
    RUN,
    TRACES,
    already_finished,
    says_when_unwritable,
)


@dataclass(frozen=True)
class TableChunk:
    """A finished chunk of a table. ``first``: number of its first row; ``names``: digest of the
    names of its ``files``.

    ``sha256``: of its rows as they are in its file; ``stamps``: digest of what tells that a file of
    images was replaced.
    """

    first: int
    rows: int
    bytes: int
    names: str
    counts: dict[str, int]
    files: int
    sha256: str
    stamps: str

    @classmethod
    def of(cls, found: object) -> TableChunk | None:
        """Returns a chunk as it was written to JSON; None where that was damaged."""
        if not isinstance(found, dict) or found.keys() != cls.__dataclass_fields__.keys():
            return None
        whole = all(
            type(found[name]) is int and found[name] >= 0
            for name in ("first", "rows", "bytes", "files")
        )
        text = all(isinstance(found[name], str) for name in ("names", "sha256", "stamps"))
        counts = found["counts"]
        if not whole or not text or not isinstance(counts, dict) or found["rows"] < 1:
            return None
        return cls(**found) if all(type(count) is int for count in counts.values()) else None


def row_count(chunks: Sequence[TableChunk]) -> int:
    return sum(chunk.rows for chunk in chunks)


def begin_run(
    out: Path, folder: Path, run: dict[str, Any], pictures: Pictures, start_over: bool
) -> None:
    """Makes the folder one of this run, or leaves it as it is for this run to go on."""
    found = None if start_over else read_json(folder / RUN)
    if found is not None and found != run:
        name = next(name for name in [*run, *found] if found.get(name) != run.get(name))
        raise AnomalyError(
            f"{folder}: an unfinished run with {name} {found.get(name)} found, this one has {name} "
            f"{run.get(name)}: --force starts over, another --out keeps both"
        )
    with says_when_unwritable(out):
        if found is not None:
            pictures.go_on()
            return
        clear_folder(folder, first=(DONE, RUN))
        pictures.begin(start_over)
        write_json(folder / RUN, run)


def _chunks_in(folder: Path, suffix: str) -> Iterator[TableChunk]:
    """Yields the chunks of an earlier run, as far as they follow each other."""
    rows = 0
    while chunk := _read_chunk(folder, suffix, rows):
        yield chunk
        rows += chunk.rows


def finished_chunks(
    folder: Path, suffix: str, sources: Iterator[Source]
) -> tuple[list[TableChunk], Iterator[Source], int]:
    """Returns the chunks to go on from, the sources after them, and how many images are scored
    again.

    The sources must be the same ones. From a chunk on that was altered, or whose images were
    replaced, all is scored again.
    """
    kept: list[TableChunk] = []
    for chunk in _chunks_in(folder, suffix):
        taken = list(islice(sources, chunk.files))
        if _digest(source.name for source in taken) != chunk.names:
            raise AnomalyError(
                f"{folder}: an unfinished run over other images found (among images "
                f"{chunk.first + 1:,} to {chunk.first + chunk.rows:,}): --force starts over, "
                "another --out keeps both"
            )
        if _digest(map(stamp_of, taken)) != chunk.stamps:
            sources = chain(taken, sources)
            break
        kept.append(chunk)
    return kept, sources, row_count(_described(folder, suffix, row_count(kept)))


def _described(folder: Path, suffix: str, first: int) -> list[TableChunk]:
    """Returns the chunks from image ``first`` on that were finished once, whatever became of their
    rows.
    """
    found: list[TableChunk] = []
    while (chunk := TableChunk.of(read_json(folder / f"{first:08d}.json"))) and _chunk_files(
        folder, suffix, first
    )[0].exists():
        found.append(chunk)
        first += chunk.rows
    return found


def _same(chunk: TableChunk, sources: Iterator[Source]) -> bool:
    return _digest(source.name for source in islice(sources, chunk.files)) == chunk.names


def chunks_of(
    finished: dict[str, Any],
    out: Path,
    folder: Path,
    run: dict[str, Any],
    sources: Iterator[Source],
) -> list[TableChunk]:
    """Returns the chunks of a finished run that was killed while it tidied up; of any other run the
    table is a finished one.
    """
    listed = finished.get("chunks")
    chunks = [
        chunk for chunk in map(TableChunk.of, listed if isinstance(listed, list) else []) if chunk
    ]
    whole = finished.get("run") == run and isinstance(listed, list) and len(chunks) == len(listed)
    if whole and all(_same(chunk, sources) for chunk in chunks) and next(sources, None) is None:
        return chunks
    clear_folder(folder, last=TRACES)
    raise already_finished(out)


def _read_chunk(folder: Path, suffix: str, first: int) -> TableChunk | None:
    rows, description = _chunk_files(folder, suffix, first)
    found = TableChunk.of(read_json(description)) if rows.exists() else None
    return found if found and found.first == first and _is_whole(rows, found) else None


def _is_whole(rows: Path, chunk: TableChunk) -> bool:
    if rows.stat().st_size != chunk.bytes:
        return False
    with open(rows, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == chunk.sha256


def write_chunk(
    out: Path, folder: Path, suffix: str, first: int, scored: Sequence[Scored]
) -> TableChunk:
    rows = [row for one in scored for row in one.rows]
    data = encode_rows(rows, suffix)
    counts = Counter(name for one in scored for name in one.counted)
    names, stamps = (_digest(getattr(one, kind) for one in scored) for kind in ("name", "stamp"))
    digest = hashlib.sha256(data).hexdigest()
    chunk = TableChunk(
        first, len(rows), len(data), names, dict(counts), len(scored), digest, stamps
    )
    written, description = _chunk_files(folder, suffix, first)
    with says_when_unwritable(out):
        write_json(description, asdict(chunk))
        with whole_file(written) as file:
            file.write(data)
    return chunk


def _chunk_files(folder: Path, suffix: str, first: int) -> tuple[Path, Path]:
    return folder / f"{first:08d}{suffix}", folder / f"{first:08d}.json"


def finish_table(out: Path, folder: Path, suffix: str, chunks: Sequence[TableChunk]) -> None:
    with says_when_unwritable(out), whole_file(out, inside=folder) as file:
        join_chunks(
            [_chunk_files(folder, suffix, chunk.first)[0] for chunk in chunks], suffix, file
        )


def clear_folder(folder: Path, *, first: Sequence[str] = (), last: Sequence[str] = ()) -> None:
    """Removes what a run has written, some of it first or last: what is left at any moment tells
    how far the run was.
    """
    files = list(folder.iterdir())
    foreign = [file.name for file in files if not OURS.fullmatch(file.name)]
    if foreign:
        expected = "only chunks of a table expected: move it, or choose another --out"
        raise AnomalyError(f"{folder}: {foreign[0]} found, {expected}")
    names = [
        *first,
        *(file.name for file in files if file.name not in (LOCK, MARK, *first, *last)),
        *last,
    ]
    for name in names:
        (folder / name).unlink(missing_ok=True)


def _digest(names: Iterable[str]) -> str:
    return hashlib.sha256("\0".join(names).encode(errors="surrogatepass")).hexdigest()


def write_json(path: Path, content: dict[str, Any]) -> None:
    with whole_file(path) as file:
        file.write(json.dumps(content).encode())


def read_json(path: Path) -> dict[str, Any] | None:
    """Returns what a file holds, nothing where there is none, and an empty dict where it is
    damaged.
    """
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
