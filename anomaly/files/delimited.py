"""Delimited text as people's programs write it: the one reader of manifests, score tables and
lists.

Excel writes a byte-order mark, UTF-16 or the code page of Windows, parts cells by semicolons or
tabs where commas are decimal points, pads rows to one length, and on Windows paths have
backslashes. All of these are read as what they mean.
"""

from __future__ import annotations

import codecs
import csv
import io
import os
import re
from collections.abc import Collection, Iterator
from typing import Any, BinaryIO, NamedTuple

MAX_OTHER_CHARACTERS = 1 << 20  # characters of a line beside its longest cell
HEAD = 1 << 16  # bytes looked at to find encoding and separator
MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
SEPARATORS = (",", ";", "\t", "|")
DRIVE = re.compile(r"[A-Za-z]:[\\/]|\\\\[^\\]")
TRUE = ("true", "wahr", "vrai", "vero", "verdadero", "verdadeiro", "waar", "prawda", "истина", "1")
FALSE = ("false", "falsch", "faux", "falso", "onwaar", "fałsz", "ложь", "0")


class Delimited(NamedTuple):
    """A header, and the rows below it with the number of the line that each ends in. Empty lines
    are left out.
    """

    header: list[str]
    rows: Iterator[tuple[int, list[str]]]


def read_delimited(file: BinaryIO, known: Collection[str]) -> Delimited:
    """Returns the header and rows of delimited text, read as they are asked for; csv.Error,
    UnicodeError.

    ``known``: names of columns, by which the separator is found; they may differ in case. Bytes
    that are not UTF-8 come through as the file system has them.
    """
    buffer = io.BufferedReader(_Borrowed(file), HEAD)
    encoding = encoding_of(buffer.peek(HEAD)[:HEAD])
    first = buffer.peek(HEAD)[:HEAD].decode(encoding, "replace").splitlines()[:2]
    errors = "surrogateescape" if encoding.startswith("utf-8") else "strict"
    text = io.TextIOWrapper(buffer, newline="", encoding=encoding, errors=errors)
    separator = re.fullmatch(r"sep=(.)", first[0]) if first else None  # a line that tells Excel
    if separator:
        text.readline()
    chosen = separator[1] if separator else _separator(first[0] if first else "", known)
    lines = csv.reader(_lines(text), delimiter=chosen, strict=True)
    header = [_known(cell, known) for cell in next(lines, [])]
    return Delimited(header, ((lines.line_num, cells) for cells in lines if cells))


def _lines(text: io.TextIOWrapper) -> Iterator[str]:
    """Yields lines; csv.Error where one is longer than any cell may be, instead of holding all that
    comes.
    """
    most = csv.field_size_limit() + MAX_OTHER_CHARACTERS
    while line := text.readline(most):
        if len(line) == most:
            raise csv.Error(f"a line of more than {most:,} characters found")
        yield line


class _Borrowed(io.RawIOBase):
    """A file that whoever opened it closes, not the reader around it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def encoding_of(head: bytes) -> str:
    """Returns the encoding of a text that begins so: by its mark, by zero bytes (UTF-16), else
    UTF-8.
    """
    for mark, encoding in MARKS:
        if head.startswith(mark):
            return encoding
    some = head[:1024]
    if len(some) > 3 and some[1::2].count(0) > 0.8 * len(some[1::2]):
        return "utf-16-le"
    if len(some) > 3 and some[0::2].count(0) > 0.8 * len(some[0::2]):
        return "utf-16-be"
    return "utf-8"


def _separator(header: str, known: Collection[str]) -> str:
    """Returns what parts the cells of a header, by how many known names that gives."""

    def names(separator: str) -> int:
        cells = next(csv.reader([header], delimiter=separator), [])
        return sum(_known(cell, known) in known for cell in cells)

    return max(SEPARATORS, key=names)


def _known(cell: str, known: Collection[str]) -> str:
    bare = cell.strip().casefold()
    return bare if bare in known else cell


def read_lines(data: bytes) -> list[str]:
    """Returns the lines of a list, stripped, without empty ones; a line that Excel wrote as a row
    is its first cell.
    """
    encoding = encoding_of(data[:HEAD])
    text = data.decode(encoding, "surrogateescape" if encoding.startswith("utf-8") else "replace")
    return [line for raw in text.splitlines() if (line := _first_cell(raw.strip()))]


def _first_cell(line: str) -> str:
    """Returns a line without the quotes and empty cells with which a table's only column is
    written.
    """
    bare = line.rstrip(";,\t").rstrip()
    quoted = re.fullmatch(r'"((?:[^"]|"")*)"', bare)
    return quoted[1].replace('""', '"') if quoted else bare


def plain_text(cell: str) -> str:
    """Returns text that was not UTF-8 as Windows' code page 1252 has it."""
    if not re.search("[\ud800-\udfff]", cell):
        return cell
    return os.fsencode(cell).decode("cp1252", "replace")


def path_variants(cell: str) -> list[str]:
    """Returns how a path may be meant: as it stands, then in code page 1252, then with slashes for
    backslashes.
    """
    found = [cell, plain_text(cell)]
    if os.sep == "/":
        found += [one.replace("\\", "/") for one in found]
    return list(dict.fromkeys(found))


def existing_path(folder: str | os.PathLike[str], cell: str) -> str:
    """Returns the variant of a path, relative to ``folder``, under which a file is there; the cell
    itself if there is none.
    """
    variants = path_variants(cell)
    if len(variants) == 1 or os.path.lexists(os.path.join(folder, cell)):
        return cell
    return next((one for one in variants[1:] if os.path.lexists(os.path.join(folder, one))), cell)


def foreign_drive(cell: str) -> str | None:
    """Returns what is wrong with a path that begins with a drive or share of Windows where there is
    none; None: nothing.
    """
    if os.sep != "/" or not DRIVE.match(cell) or os.path.lexists(cell):
        return None
    return (
        f"{plain_text(cell)!r} begins with a drive of Windows, which is not here: write paths "
        "relative to the manifest"
    )


def decimal(cell: str) -> float:
    """Returns a number, with a decimal comma too; ValueError."""
    return float(cell.replace(",", ".") if cell.count(",") == 1 and "." not in cell else cell)


def truth(cell: str) -> bool:
    """Returns a truth value as spreadsheets of several languages write it; ValueError."""
    word = cell.strip().casefold()
    if word not in TRUE + FALSE:
        raise ValueError(f"{cell!r} where true or false is expected")
    return word in TRUE
