"""Filters that were saved under a name, for all who use the review."""

from __future__ import annotations

from collections.abc import Mapping

import sqlalchemy as sa

from anomaly.review import journal, schema
from anomaly.review.reader import Reader

MAX_NAME_LENGTH = 60
SAVED = schema.saved_filters.c


class SavedFilters(Reader):
    """The part of a Store that keeps filters."""

    def saved_filters(self) -> dict[str, dict[str, str]]:
        """The saved filters, name -> parameters of the address, by name."""
        query = sa.select(SAVED.name, SAVED.query).order_by(SAVED.name)
        with self._db.read() as c:
            return {row.name: row.query for row in c.execute(query)}

    def save_filters(self, name: str, query: Mapping[str, str], *, by: str) -> None:
        """Keeps parameters of the address under a name, instead of those that had it."""
        said = journal.line(name, "name of filters", MAX_NAME_LENGTH)
        values = {"name": said, "query": dict(query), "made_by": journal.name(by)}
        with self._db.write() as c:
            c.execute(schema.saved_filters.delete().where(SAVED.name == said))
            c.execute(schema.saved_filters.insert().values(made_at=self._db.now_text(c), **values))

    def forget_filters(self, name: str) -> None:
        """Removes saved filters."""
        with self._db.write() as c:
            c.execute(schema.saved_filters.delete().where(SAVED.name == name))
