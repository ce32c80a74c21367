"""One JSON object a line on stderr: what a log collector reads."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

LOGGER = logging.getLogger("anomaly.serve")


class JsonLines(logging.Formatter):
    """Formats a record as one line of JSON; the fields of a request come in ``record.fields``."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)


def set_up() -> None:
    """Sends our lines, and the warnings of everything else, to stderr as JSON."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    LOGGER.setLevel(logging.INFO)


def say(message: str, level: int = logging.INFO, exc_info: BaseException | None = None, /, **fields: object) -> None:
    """Writes one line with its fields."""
    LOGGER.log(level, message, extra={"fields": fields}, exc_info=exc_info)
