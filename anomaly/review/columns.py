"""What the columns of the review database hold: a text where a number belongs is said in one line,
wherever it is read.

SQLite takes any value into any column, so that another program, or a damaged disk, may have put
anything anywhere.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa

from anomaly.errors import AnomalyError


class Words(sa.types.TypeDecorator[str]):
    """Text."""

    impl, cache_ok = sa.Text, True

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> str | None:
        return value if value is None or isinstance(value, str) else refuse(value, "text")


class Whole(sa.types.TypeDecorator[int]):
    """A whole number."""

    impl, cache_ok = sa.BigInteger, True

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> int | None:
        return value if value is None or isinstance(value, int) else refuse(value, "a whole number")


class Real(sa.types.TypeDecorator[float]):
    """A number."""

    impl, cache_ok = sa.Double, True

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> float | None:
        return (
            value if value is None or isinstance(value, float | int) else refuse(value, "a number")
        )


class Flag(sa.Boolean):
    """True or false. A decorated type would write IS with a parameter, which Postgres does not
    take.
    """

    def result_processor(
        self, dialect: sa.Dialect, coltype: object
    ) -> Callable[[Any], bool | None]:
        return _flag  # SQLAlchemy's own takes any text for true


def _flag(value: Any) -> bool | None:
    if value is None or isinstance(value, bool):
        return value
    return (
        bool(value)
        if isinstance(value, int) and value in (0, 1)
        else refuse(value, "true or false")
    )


def read_json(text: str) -> dict[str, Any]:
    """Returns the object of a JSON column."""
    try:
        found = json.loads(text)
    except (TypeError, ValueError, RecursionError):
        found = None
    return found if isinstance(found, dict) else refuse(text, "a JSON object")


def refuse(value: object, expected: str) -> Any:
    """Raises the error for a value that does not belong where it stands."""
    raise AnomalyError(
        f"review database: {str(value)[:40]!r} found where {expected} belongs: another program "
        "wrote it, or the file is damaged: restore a backup"
    )
