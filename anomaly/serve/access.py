"""API keys: who may ask."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
from collections.abc import Mapping
from pathlib import Path

from anomaly.errors import AnomalyError
from anomaly.files.regular_files import read_small_text

MAX_BYTES = 1 << 20  # bytes of a file of keys
MIN_KEY_CHARACTERS = 16  # characters of a key: `openssl rand -hex 32` makes a good one


class Keys:
    """The keys of a service: none lets everybody in. Held as digests, and compared in constant
    time.
    """

    def __init__(self, keys: Mapping[str, str] | None = None) -> None:
        self._digests = {
            name: hashlib.sha256(key.encode()).digest() for name, key in (keys or {}).items()
        }

    def __bool__(self) -> bool:
        return bool(self._digests)

    def holder(self, headers: Mapping[str, str]) -> str | None:
        """Returns whose key a request carries (``Authorization: Bearer KEY`` or
        ``X-API-Key: KEY``), None for nobody's.
        """
        if not self:
            return None
        given = headers.get("x-api-key") or headers.get("authorization", "").partition("Bearer ")[2]
        digest = hashlib.sha256(given.encode()).digest()
        matching = [
            name for name, known in self._digests.items() if hmac.compare_digest(known, digest)
        ]
        return matching[0] if matching and given else None


def read_keys(file: Path) -> Keys:
    """Returns the keys of a file with a line ``NAME KEY`` for each client; # starts a comment.
    Raises AnomalyError.
    """
    try:
        lines = read_small_text(file, MAX_BYTES).splitlines()
    except AnomalyError as error:
        raise AnomalyError(f"{error}; lines NAME KEY were expected") from error
    keys: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        words = line.partition("#")[0].split()
        if words and (
            len(words) != 2
            or words[0] in keys
            or len(words[1]) < MIN_KEY_CHARACTERS
            or not re.fullmatch(r"[!-~]+", words[1])
        ):
            raise AnomalyError(
                f"{file}, line {number}: NAME KEY expected, each name once, a key of at least "
                f"{MIN_KEY_CHARACTERS} plain (openssl rand -hex 32 makes one)"
            )
        if words:
            keys[words[0]] = words[1]
    if not keys:
        raise AnomalyError(f"{file}: no key found, at least one line NAME KEY expected")
    return Keys(keys)


def is_own(host: str) -> bool:
    """Whether an address to listen on can be reached from this machine only."""
    try:
        return host.lower() == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
