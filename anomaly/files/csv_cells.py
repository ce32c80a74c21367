"""How every CSV table of the product is written, and how its cells are read back.

A text that a spreadsheet could take for a formula gets an apostrophe in front, which reading takes
away again: so does one that begins with an apostrophe, or the two could not be told apart. Numbers
stay numbers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

FORMULA = re.compile(r"[=+\-@'\t\r\n]")
QUOTED = re.compile(r'[",;\t\r\n]')  # a semicolon parts cells too, where commas are decimal points
Value = str | float | bool | None


def csv_text(rows: Iterable[Iterable[Value]]) -> str:
    """Rows as the text of a CSV file, each ended by a line feed; None is an empty cell."""
    return "".join(",".join(map(csv_cell, row)) + "\n" for row in rows)


def csv_cell(value: Value) -> str:
    """A value as CSV. (csv.writer leaves a carriage return bare, which csv.reader takes for a
    line's end.)
    """
    if value is None:
        return ""
    if not isinstance(value, str):
        return repr(value).lower()
    value = guarded(value)
    return '"' + value.replace('"', '""') + '"' if QUOTED.search(value) else value


def guarded(text: str) -> str:
    """The text as no spreadsheet takes it for a formula."""
    return f"'{text}" if FORMULA.match(text) else text


def unguarded(text: str) -> str:
    """The text that ``guarded`` was given; one that it cannot have made stays as it is."""
    return text[1:] if text[:1] == "'" and FORMULA.match(text[1:]) else text
