"""What a page posts, checked: whatever is not as expected is refused in one line."""

from __future__ import annotations

import hmac
from typing import Any

from anomaly.review.findings import is_text
from dashboard.access import AccessError
from dashboard.desk import Desk


def check_seen(desk: Desk, number: int, seen: str) -> None:
    """Raises AccessError unless the page painted the very image that was scored.

    ``seen``: the SHA-256 of the file, which comes with the original's bytes only; "" where none was
    painted.
    """
    finding = desk.store.finding(number)
    if not seen:
        raise AccessError(
            422, "the image was not shown in this browser: a verdict counts after it was looked at"
        )
    if finding.sha256 is None or not hmac.compare_digest(seen.encode(), finding.sha256.encode()):
        raise AccessError(
            422, "the image that was shown is not the one that was scored: score it again"
        )


def seconds(body: dict[str, Any]) -> float | None:
    """Returns how long the inspector looked, where the page says it."""
    value = body.get("seconds")
    return float(value) if isinstance(value, int | float) and abs(value) < 1e9 else None


def whole(body: dict[str, Any], name: str) -> int:
    value = body.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**63:
        raise AccessError(400, f"{name} is {value!r}, a whole number expected")
    return value


def numbers(body: dict[str, Any], name: str) -> list[int]:
    values = body.get(name, [])
    if not isinstance(values, list) or len(values) > 1000:
        raise AccessError(400, f"{name}: a list of at most 1000 whole numbers expected")
    return [whole({name: value}, name) for value in values]


def text(body: dict[str, Any], name: str, longest: int) -> str:
    value = body.get(name) or ""
    if not isinstance(value, str) or len(value) > longest:
        raise AccessError(400, f"{name}: text of at most {longest} characters expected")
    return value


def one_of(body: dict[str, Any], name: str, allowed: tuple[str, ...]) -> str:
    value = body.get(name)
    if value not in allowed:
        raise AccessError(400, f"{name} is {value!r}, one of {', '.join(allowed)} expected")
    return str(value)


def query_of(body: dict[str, Any], name: str) -> dict[str, str]:
    value = body.get(name)
    if not isinstance(value, dict) or not all(
        isinstance(v, str) and is_text(v) for v in value.values()
    ):
        raise AccessError(400, f"{name}: an object of texts expected")
    return value
