"""The score table: its columns, and how its rows become Parquet, CSV and JSON lines and are read
back.

Text is UTF-8; bytes of a file name that are not are written as %XX. Numbers are never altered:
score and threshold are float32 in their shortest form. In CSV a cell is empty where there is no
value, true and false stand for bool, and text that begins with = + - @ ' tab, CR or LF has one
apostrophe put before it, so that no spreadsheet takes it for a formula (who reads the file with a
program takes one leading apostrophe away again, as ``read_table`` does).
"""

from __future__ import annotations

import csv
import importlib
import io
import json
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from anomaly.errors import AnomalyError, RuntimeMissing
from anomaly.files.csv_cells import csv_text, unguarded
from anomaly.files.delimited import decimal, read_delimited, truth
from anomaly.files.parquet_files import read_parquet
from anomaly.files.regular_files import open_regular

SUFFIXES = (".parquet", ".csv", ".jsonl")
RESERVED = re.compile(
    r"(con|prn|aux|nul|com[\d¹²³]|lpt[\d¹²³])(\.|$)", re.IGNORECASE
)  # devices on Windows, whatever follows the dot
GROUP_ROWS = 20_000  # of a Parquet row group: enough to read fast, few enough to hold


class Row(NamedTuple):
    """One image in the table. ``is_anomaly`` is None where it was not judged: such an image is
    never good.

    ``review_threshold``: None where the detector has one threshold only. ``result``: ``not
    flagged``, ``review`` (above that and not flagged: a person has to look), ``flagged`` or ``not
    judged``; None of a detector that only ranks.
    ``score``: higher is more anomalous. ``box_x`` to ``area``: the hottest region, in pixels of the
    original image. ``defect_type``: of what is flagged or for review, the most likely one of the
    types that the detector has learnt, or ``unknown type``; ``type_score``: how likely, 0 to 1;
    both None where it has learnt none. ``status``: ``ok``, ``outside`` (unlike the training images)
    or ``error``; ``error`` says why. ``scored_at``: UTC, ISO 8601.
    """

    path: str
    sha256: str | None
    width: int | None
    height: int | None
    score: float | None
    p_value: float | None
    threshold: float | None
    review_threshold: float | None
    is_anomaly: bool | None
    result: str | None
    box_x: int | None
    box_y: int | None
    box_w: int | None
    box_h: int | None
    area: int | None
    defect_type: str | None
    type_score: float | None
    status: str
    error: str | None
    detector: str
    scored_at: str


COLUMNS = Row._fields
RESULTS = ("not flagged", "review", "flagged", "not judged")
COUNTED = ("flagged", "review")  # results that a summary counts besides the status
TEXTS = ("path", "sha256", "result", "defect_type", "status", "error", "detector", "scored_at")
FLOATS32 = ("score", "threshold", "review_threshold", "type_score")
FLOATS = (*FLOATS32, "p_value")
MAX_LINE_BYTES = 1 << 20  # bytes of one row in JSON lines
PRESENT = ("path", "status", "detector", "scored_at")  # never null


def table_suffix(out: Path) -> str:
    """Returns the suffix of a table that can be written, or raises AnomalyError; RuntimeMissing
    without pyarrow.
    """
    suffix = out.suffix.lower()
    if suffix not in SUFFIXES:
        raise AnomalyError(
            f"{out}: {suffix or 'no suffix'} found, .parquet, .csv or .jsonl expected for a table"
        )
    if suffix == ".parquet":
        import_pyarrow()
    return suffix


def import_pyarrow(what_for: str = "a Parquet table (not one in .csv or .jsonl)") -> Any:
    """Returns the module pyarrow, or raises RuntimeMissing naming the extra."""
    try:
        importlib.import_module("pyarrow.parquet")
        return importlib.import_module("pyarrow")
    except ImportError as error:
        raise RuntimeMissing.extra("pyarrow", "batch", what_for) from error


def printable(text: str) -> str:
    """Returns text that is valid UTF-8: bytes of a file name that are not become %XX."""
    return text if text.isascii() else re.sub("[\ud800-\udfff]", _percent, text)


def _percent(match: re.Match[str]) -> str:
    code = ord(match[0])
    if 0xDC80 <= code <= 0xDCFF:  # how Python holds one undecodable byte of a file name
        return f"%{code - 0xDC00:02X}"
    return "".join(f"%{byte:02X}" for byte in match[0].encode("utf-8", "surrogatepass"))


def shortest(value: float) -> float:
    """Returns a float32 as the float with the fewest digits that is this float32: 0.4127, not
    0.41269999742507935.
    """
    return float(str(np.float32(value)))


# ---- rows -> bytes ----


def encode_rows(rows: Sequence[Row], suffix: str) -> bytes:
    """Returns a chunk of a table as bytes; chunks of CSV have no header. See ``join_chunks``."""
    return _ENCODERS[suffix](rows)


def _to_csv(rows: Sequence[tuple[Any, ...]]) -> bytes:
    return csv_text(rows).encode()


def _to_json_lines(rows: Sequence[Any]) -> bytes:
    return "".join(json.dumps(row._asdict(), ensure_ascii=False) + "\n" for row in rows).encode()


def _to_parquet(rows: Sequence[Row]) -> bytes:
    arrow, schema, file = import_pyarrow(), parquet_schema(), io.BytesIO()
    columns = dict(zip(COLUMNS, zip(*rows, strict=True), strict=True))
    columns["scored_at"] = tuple(datetime.fromisoformat(value) for value in columns["scored_at"])
    arrays = [arrow.array(columns[field.name], field.type) for field in schema]
    arrow.parquet.write_table(arrow.Table.from_arrays(arrays, schema=schema), file)
    return file.getvalue()


def parquet_schema() -> Any:
    """Returns the pyarrow schema of the table, in the order of COLUMNS."""
    arrow = import_pyarrow()
    types = dict.fromkeys(COLUMNS, arrow.int32()) | dict.fromkeys(TEXTS, arrow.string())
    types |= dict.fromkeys(FLOATS32, arrow.float32()) | {"p_value": arrow.float64()}
    types |= {
        "is_anomaly": arrow.bool_(),
        "area": arrow.int64(),
        "scored_at": arrow.timestamp("ms", "UTC"),
    }
    return arrow.schema(
        [arrow.field(name, types[name], nullable=name not in PRESENT) for name in COLUMNS]
    )


_ENCODERS: dict[str, Callable[[Sequence[Row]], bytes]] = {
    ".parquet": _to_parquet,
    ".csv": _to_csv,
    ".jsonl": _to_json_lines,
}


def join_chunks(chunks: Sequence[Path], suffix: str, file: BinaryIO) -> None:
    """Writes the chunks of a table into one, a piece at a time. The result does not show where the
    chunks were cut.
    """
    if suffix == ".parquet":
        _join_parquet(chunks, file)
        return
    if suffix == ".csv":
        file.write((",".join(COLUMNS) + "\n").encode())
    for chunk in chunks:
        with open(chunk, "rb") as source:
            shutil.copyfileobj(source, file)


def _join_parquet(chunks: Sequence[Path], file: BinaryIO) -> None:
    arrow, schema = import_pyarrow(), parquet_schema()
    held = schema.empty_table()
    with arrow.parquet.ParquetWriter(file, schema) as writer:
        for chunk in chunks:
            # by its path pyarrow would read folders named a=b as columns
            with open(chunk, "rb") as source:
                held = arrow.concat_tables([held, arrow.parquet.ParquetFile(source).read()])
            while held.num_rows >= GROUP_ROWS:
                writer.write_table(held.slice(0, GROUP_ROWS))
                held = held.slice(GROUP_ROWS)
        if held.num_rows:
            writer.write_table(held)


def write_rows(
    rows: Iterable[tuple[Any, ...]], kind: type[NamedTuple], suffix: str, file: BinaryIO
) -> None:
    """Writes a table of rows of another ``kind`` than Row, some at a time."""
    rows = iter(rows)
    if suffix == ".csv":
        file.write((",".join(kind._fields) + "\n").encode())
    if suffix == ".parquet":
        _write_parquet(rows, kind, file)
        return
    while batch := list(islice(rows, GROUP_ROWS)):
        file.write(_to_csv(batch) if suffix == ".csv" else _to_json_lines(batch))


def _write_parquet(rows: Iterator[tuple[Any, ...]], kind: type[NamedTuple], file: BinaryIO) -> None:
    arrow = import_pyarrow()
    types = {
        "str": arrow.string(),
        "int": arrow.int64(),
        "float": arrow.float64(),
        "bool": arrow.bool_(),
    }
    # a tuple's class holds them as ForwardRef('int | None')
    written = {
        name: getattr(of, "__forward_arg__", of) for name, of in kind.__annotations__.items()
    }
    kinds = {name: str(of).split(" | ") for name, of in written.items()}
    schema = arrow.schema(
        [
            arrow.field(name, types[one], nullable="None" in more)
            for name, (one, *more) in kinds.items()
        ]
    )
    with arrow.parquet.ParquetWriter(file, schema) as writer:
        while batch := list(islice(rows, GROUP_ROWS)):
            columns = [
                arrow.array(column, of)
                for column, of in zip(zip(*batch, strict=True), schema.types, strict=True)
            ]
            writer.write_table(arrow.Table.from_arrays(columns, schema=schema))


# ---- table -> rows ----


def read_table(path: Path) -> Iterator[Row]:
    """Yields the rows of a table, the same ones whichever format it has; AnomalyError where it is
    not one.
    """
    suffix = table_suffix(path)
    with open_regular(path) as file:
        try:
            for values in _READERS[suffix](file):
                yield Row(**values)
        # pyarrow's own errors are ValueErrors
        except (
            ValueError,
            TypeError,
            KeyError,
            AttributeError,
            RecursionError,
            csv.Error,
        ) as error:
            what = " ".join(str(error).split())[:200]
            raise AnomalyError(
                f"{path}: not a score table, or a damaged one ({what}): write it again"
            ) from error


def _from_csv(file: BinaryIO) -> Iterator[dict[str, Any]]:
    header, rows = read_delimited(file, COLUMNS)
    missing = [name for name in COLUMNS if header.count(name) != 1]
    if missing:
        raise ValueError(
            f"columns {', '.join(header)[:120] or 'none'} found, {', '.join(missing)[:60]} expected"
        )
    for _, cells in rows:
        if not any(cells):  # Excel writes rows that were emptied
            continue
        given = dict(zip(header, cells, strict=True))
        yield {name: _value(name, given[name]) for name in COLUMNS}


def _value(name: str, cell: str) -> str | float | bool | None:
    if name in TEXTS:
        return unguarded(cell) or None
    if not cell:
        return None
    if name == "is_anomaly":
        return truth(cell)
    return decimal(cell) if name in FLOATS else int(cell)


def _from_json_lines(file: BinaryIO) -> Iterator[dict[str, Any]]:
    while line := file.readline(MAX_LINE_BYTES + 1):
        if len(line) > MAX_LINE_BYTES:
            raise ValueError(f"a line of more than {MAX_LINE_BYTES:,} bytes")
        yield json.loads(line)


def _from_parquet(file: BinaryIO) -> Iterator[dict[str, Any]]:
    for values in read_parquet(import_pyarrow(), file, None, GROUP_ROWS, TEXTS[:-1]):
        for name in FLOATS32:
            values[name] = None if values[name] is None else shortest(values[name])
        values["scored_at"] = utc_text(values["scored_at"])
        yield values


_READERS: dict[str, Callable[[BinaryIO], Iterator[dict[str, Any]]]] = {
    ".parquet": _from_parquet,
    ".csv": _from_csv,
    ".jsonl": _from_json_lines,
}


def utc_text(moment: datetime) -> str:
    """Returns a moment as the table has it: 2026-01-31T23:59:59.123Z."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


# ---- files that appear whole or not at all ----


def portable(name: str) -> str:
    """Returns a name under which every system can have a file or folder: no separators, none that
    Windows reserves.
    """
    plain = re.sub(r'[<>:"/\\|?*\x00-\x1f]', "_", name).rstrip(". ")
    return f"_{plain}" if RESERVED.match(plain) or not plain else plain
