"""Lines of a label and what is said: one column of labels for all commands."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

LABEL_WIDTH = 24  # characters
MAX_NAMES_SHOWN = 5  # in a line


def line_of(label: str, said: object) -> str:
    """Returns a line of a label and what is said."""
    return f"{label:<{LABEL_WIDTH}}{said}"


def lines_of(rows: Iterable[tuple[str, object]]) -> list[str]:
    """Returns a line for each row; a row without a label goes on with the one before."""
    return [line_of(label, said) for label, said in rows]


def rows_text(rows: Iterable[tuple[str, object]]) -> str:
    """Returns rows as text, a line each."""
    return "\n".join(lines_of(rows))


def names_text(names: Sequence[str]) -> str:
    """Returns the first names, and how many more there are."""
    more = len(names) - MAX_NAMES_SHOWN
    return " ".join(names[:MAX_NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")
