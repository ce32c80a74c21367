"""Manifests of what to score: CSV and Parquet, read a piece at a time, however many rows they have.

Columns: ``path`` (a file relative to the manifest, or a URL), or the image's bytes: ``image`` in
Parquet (binary, or the struct {bytes, path} of Hugging Face's data sets), ``bytes`` in both (base64
in CSV). Other columns are left alone. A row without an image has a source that says so. (`dataset`
reads manifests whose labels and splits matter.)
"""

from __future__ import annotations

import base64
import binascii
import csv
import os
from collections.abc import Iterator
from typing import Any, BinaryIO

from anomaly.errors import DatasetError
from anomaly.files.csv_cells import unguarded
from anomaly.files.delimited import existing_path, foreign_drive, read_delimited
from anomaly.files.parquet_files import TooLarge, read_parquet
from anomaly.files.regular_files import open_regular
from anomaly.files.table import import_pyarrow
from anomaly.inputs.remote import place_source
from anomaly.inputs.source import Held, Refused, Source, is_url, too_large

COLUMNS = ("path", "image", "bytes")
ROWS = 16  # read at a time: they may hold images
NOTHING = "no path and no bytes of an image in this row of the manifest"


def manifest_sources(place: str, limit: int) -> Iterator[Source]:
    """Yields the images of a manifest, in its order; DatasetError where it is none, or
    breaks off.
    """
    read = _parquet_rows if place.lower().split("::")[0].endswith(".parquet") else _csv_rows
    found = 0
    with _open(place) as file:
        for found, row in enumerate(read(file, place, limit), 1):
            yield _source(place, found, row, limit)
    if not found:
        raise DatasetError(f"{place}: no rows found, images expected")


def _source(place: str, number: int, row: dict[str, Any], limit: int) -> Source:
    image = row.get("image") or {}
    if not isinstance(image, dict):
        image = {"bytes": image} if isinstance(image, bytes) else {"path": image}
    path, data = (
        _text(row.get("path")) or _text(image.get("path")),
        image.get("bytes") or row.get("bytes"),
    )
    name = f"{place}#{path or number}"
    if isinstance(data, str):
        if len(data) > limit * 4 // 3:
            return Refused(name, "too large", str(too_large(len(data) * 3 // 4, limit)))
        try:
            data = base64.b64decode(data, validate=True)
        except (binascii.Error, ValueError) as error:
            return Refused(
                name, "damaged", f"bytes that are not base64 ({error}): write the manifest again"
            )
    if data:
        return Held(name, data)
    if not path:
        return Refused(name, "missing", NOTHING)
    foreign = None if is_url(path) else foreign_drive(path)
    return Refused(path, "missing", foreign) if foreign else place_source(_beside(place, path))


def _text(value: object) -> str | None:
    return (
        os.fsdecode(value)
        if isinstance(value, bytes)
        else value
        if isinstance(value, str)
        else None
    )


def _beside(manifest: str, path: str) -> str:
    """Returns where an image lies that a manifest names, relative to the manifest's folder."""
    if is_url(path) or os.path.isabs(path):
        return path
    if is_url(manifest):
        return f"{manifest.rpartition('/')[0]}/{path}"
    folder = os.path.dirname(manifest)
    return os.path.join(folder, existing_path(folder, path))


def _open(place: str) -> BinaryIO:
    if is_url(place):
        from anomaly.inputs.remote import open_place

        return open_place(place)
    return open_regular(place, DatasetError, "a manifest")


def _check_columns(place: str, found: list[str]) -> list[str]:
    known = [name for name in COLUMNS if name in found]
    if not known:
        shown = ", ".join(repr(name) for name in found[:20]) or "none"
        raise DatasetError(
            f"{place}: columns {shown} found, 'path', 'image' or 'bytes' expected among them"
        )
    twice = next((name for name in known if found.count(name) > 1), None)
    if twice is not None:
        raise DatasetError(f"{place}: column {twice!r} found twice, once expected")
    return known


def _csv_rows(file: BinaryIO, place: str, limit: int) -> Iterator[dict[str, Any]]:
    """Names that are not UTF-8 come through as the file system has them."""
    csv.field_size_limit(max(csv.field_size_limit(), limit // 3 * 4))
    try:
        header, rows = read_delimited(file, COLUMNS)
        known = [(name, header.index(name)) for name in _check_columns(place, header)]
        for number, cells in rows:
            if len(cells) != len(header):
                raise DatasetError(
                    f"{place}, line {number}: {len(cells)} cells found, {len(header)} expected"
                )
            yield {name: unguarded(cells[index]) for name, index in known}
    except (csv.Error, OSError, UnicodeError) as error:
        raise DatasetError(f"{place}: cannot be read as CSV ({error})") from error


def _parquet_rows(file: BinaryIO, place: str, limit: int) -> Iterator[dict[str, Any]]:
    arrow = import_pyarrow("a Parquet manifest")
    try:
        columns = _check_columns(place, arrow.parquet.read_schema(file).names)
        rows = ROWS if columns != ["path"] else 1000 * ROWS
        yield from read_parquet(arrow, file, columns, rows, ["path"])
    except (arrow.ArrowException, OSError, UnicodeDecodeError, TooLarge) as error:
        raise DatasetError(
            f"{place}: cannot be read as Parquet ({' '.join(str(error).split())[:200]})"
        ) from error
