"""One JSON object a line on stderr: what a log collector reads."""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
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


class Sparing(logging.Filter):
    """Lets ``burst`` lines of one kind through, and ``rate`` a second from then on; the next one
    says how many were left out.

    Lines of requests that were answered well all pass: others cost a client nothing, so their
    number must not be its choice.
    """

    def __init__(self, burst: int = 100, rate: float = 5.0) -> None:
        super().__init__()
        self.burst, self.rate = burst, rate
        self._lock = threading.Lock()
        self._kinds: dict[tuple[str, str, object], tuple[float, float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        fields = getattr(record, "fields", {})
        code = fields.get("code", 0)
        if 200 <= code < 400 or (record.levelno < logging.WARNING and not code):
            return True
        kind = (record.name, str(record.msg), code)
        with self._lock:
            now = time.monotonic()
            left, at, missed = self._kinds.get(kind, (float(self.burst), now, 0))
            left = min(float(self.burst), left + self.rate * (now - at))
            if left < 1:
                self._kinds[kind] = left, now, missed + 1
                return False
            if len(self._kinds) > 1000:
                self._kinds.clear()
            self._kinds[kind] = left - 1, now, 0
        if missed:
            record.fields = {**fields, "left_out": missed}
        return True


def set_up() -> None:
    """Sends our lines, and the warnings of everything else, to stderr as JSON."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    handler.addFilter(Sparing())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    LOGGER.setLevel(logging.INFO)


def say(
    message: str,
    level: int = logging.INFO,
    exc_info: BaseException | None = None,
    /,
    **fields: object,
) -> None:
    """Writes one line with its fields."""
    LOGGER.log(level, message, extra={"fields": fields}, exc_info=exc_info)
