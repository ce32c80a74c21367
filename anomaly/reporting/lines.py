"""Lines of a label and what is said: one column of labels for all commands."""

from __future__ import annotations

from collections.abc import Iterable

LABEL_WIDTH = 24  # characters


def line_of(label: str, said: object) -> str:
    """Returns a line of a label and what is said."""
    return f"{label:<{LABEL_WIDTH}}{said}"


def lines_of(rows: Iterable[tuple[str, object]]) -> list[str]:
    """Returns a line for each row; a row without a label goes on with the one before."""
    return [line_of(label, said) for label, said in rows]


def rows_text(rows: Iterable[tuple[str, object]]) -> str:
    """Returns rows as text, a line each."""
    return "\n".join(lines_of(rows))
