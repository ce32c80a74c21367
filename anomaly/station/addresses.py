"""Addresses and secrets, as STATION.toml gives them."""

from __future__ import annotations

import re
from pathlib import Path

from anomaly.errors import AnomalyError
from anomaly.files.regular_files import read_small_text

MAX_SECRET_BYTES = 1 << 16


def host_and_port(address: str, port: int) -> tuple[str, int]:
    """Returns the two parts of HOST or HOST:PORT, with ``port`` where none is given;
    AnomalyError.
    """
    match = re.fullmatch(r"(\[[^\]]+\]|[^:]+)(?::(\d{1,5}))?", address)
    if match is None:
        raise AnomalyError(f"{address!r} found, HOST or HOST:PORT expected")
    return match[1].strip("[]"), int(match[2] or port)


def secret_in(file: Path) -> str:
    """Returns the secret that a file holds; AnomalyError where it is empty."""
    secret = read_small_text(file, MAX_SECRET_BYTES).strip()
    if not secret:
        raise AnomalyError(f"{file}: empty, a secret expected")
    return secret
