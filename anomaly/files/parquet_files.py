"""Parquet from elsewhere, read a piece at a time: what its footer claims is bounded before a byte
of it is unpacked.

Parquet packs well: a file of a few kilobytes can hold a million rows of one long text. Texts are
therefore read as dictionaries, so that one that is repeated is held once, and rows are counted
before they are read.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

ROWS_A_BYTE = 20  # of the file: a path takes a byte at the least, however well it is packed
FEW_ROWS = 10_000
# of a column in one row group, unpacked: so many, or so many times its packed size
FEW_BYTES, TIMES = 1 << 28, 200
AT_ONCE = 1 << 28  # bytes that repeated values held at a time may take
MAX_TEXT_CHARACTERS = 1 << 16  # characters of a path or another text


class TooLarge(ValueError):
    """A file that unpacks to far more than what it is for."""


def read_parquet(
    arrow: Any, file: BinaryIO, columns: Sequence[str] | None, rows: int, texts: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """Yields the rows of a Parquet file as dicts of ``columns`` (None: all), at most ``rows`` of
    them held at a time.

    ``texts``: columns of short text. Raises TooLarge for a file whose footer or texts are beyond
    bounds, and what pyarrow raises for one that is damaged.
    """
    names = arrow.parquet.read_schema(file).names
    file.seek(0)
    shared = [name for name in texts if name in names]
    table = arrow.parquet.ParquetFile(file, read_dictionary=shared)
    wanted = list(names if columns is None else columns)
    repeated = _check_footer(table.metadata, set(wanted), set(shared), _size(file))
    for batch in table.iter_batches(max(1, min(rows, AT_ONCE // max(1, repeated))), columns=wanted):
        yield from _rows(arrow, batch)


def _size(file: BinaryIO) -> int:
    here = file.tell()
    size = file.seek(0, os.SEEK_END)
    file.seek(here)
    return size


def _check_footer(metadata: Any, wanted: set[str], shared: set[str], size: int) -> int:
    """Returns the largest value that may be repeated, in bytes; TooLarge where rows or bytes cannot
    be honest.
    """
    if metadata.num_rows > FEW_ROWS + ROWS_A_BYTE * size:
        raise TooLarge(f"{metadata.num_rows:,} rows in a file of {size:,} bytes")
    repeated = 0
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        for column in map(group.column, range(group.num_columns)):
            name = column.path_in_schema.partition(".")[0]
            if name not in wanted:
                continue
            unpacked, packed = column.total_uncompressed_size, column.total_compressed_size
            if unpacked > max(FEW_BYTES, TIMES * min(packed, size)):
                raise TooLarge(f"a column {name} of {unpacked:,} bytes packed into {packed:,}")
            if name not in shared and any(
                "DICTIONARY" in encoding for encoding in column.encodings
            ):
                repeated = max(repeated, unpacked if column.physical_type == "BYTE_ARRAY" else 0)
    return repeated


def _rows(arrow: Any, batch: Any) -> Iterator[dict[str, Any]]:
    names = batch.schema.names
    columns = [
        _values(arrow, name, column) for name, column in zip(names, batch.columns, strict=True)
    ]
    for values in zip(*columns, strict=True):
        yield dict(zip(names, values, strict=True))


def _values(arrow: Any, name: str, column: Any) -> list[Any]:
    """Returns a column's values; those of a dictionary are shared, not copied."""
    if not arrow.types.is_dictionary(column.type):
        return list(column.to_pylist())
    known = column.dictionary.to_pylist()
    longest = max((len(value) for value in known if value is not None), default=0)
    if longest > MAX_TEXT_CHARACTERS:
        raise TooLarge(
            f"a {name} of {longest:,} characters, at most {MAX_TEXT_CHARACTERS:,} expected"
        )
    return [None if index is None else known[index] for index in column.indices.to_pylist()]
