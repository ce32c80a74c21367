"""Who may do what: roles, signed tokens for the pages' requests, signed links to pictures,
addresses that are public.

    viewer      sees everything
    inspector   gives verdicts
    admin       writes detectors, edits the defect types, hides known images in the queue

The pages run behind the login; the HTTP routes do not see it. So each page run hands its component
a token, signed with the server's key, that says who asks and until when. It travels in a header of
its own, which no other web site can make a browser send (that is what protects from forged
requests), and never in an address. Pictures are fetched by links that are signed too: each names
one finding, one kind of picture and an hour; none names a path.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import ipaddress
import json
import re
import time
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from anomaly.errors import AnomalyError
from anomaly.files.regular_files import read_small_text

ROLES = ("viewer", "inspector", "admin")  # each may do what those before it may
TOKEN_SECONDS = 12 * 3600  # a long shift; a page that reconnects gets a new one
LINK_SECONDS = 3600
MAX_NAME_LENGTH = 200


class AccessError(AnomalyError):
    """Somebody asks for what they may not have; ``status`` is HTTP's."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Person:
    """Who asks: the e-mail of the login, or on one's own machine the name typed in."""

    name: str
    role: str

    def may(self, role: str) -> bool:
        """Whether this person has at least ``role``."""
        return ROLES.index(self.role) >= ROLES.index(role)


@dataclass(frozen=True)
class Key:
    """The server's secret: 32 bytes or more; what it signs holds for this server only."""

    secret: bytes

    def __post_init__(self) -> None:
        if len(self.secret) < 32:
            raise AccessError(
                500,
                f"a key of {len(self.secret)} bytes found, at least 32 expected: restart anomaly "
                "review",
            )

    def token(self, person: Person, now: float | None = None) -> str:
        """Returns what a page shows the routes: who it is, good for twelve hours."""
        until = int(_now(now) + TOKEN_SECONDS)
        said = _pack(json.dumps([person.name, person.role, until]).encode())
        return f"{said}.{self._sign('token', said)}"

    def person(self, token: str | None, now: float | None = None) -> Person:
        """Returns whom a token names; AccessError 401 where it is missing, forged or too old."""
        said, _, signature = (token or "").partition(".")
        if not said or not hmac.compare_digest(
            self._sign("token", said).encode(), signature.encode()
        ):
            raise AccessError(401, "this page is not signed in here: reload it")
        name, role, until = json.loads(_unpack(said))
        if until < _now(now):
            raise AccessError(401, "this page has been open too long: reload it")
        return Person(name, role)

    def link(self, finding: int, kind: str, now: float | None = None) -> str:
        """Returns the address of one picture of a finding, good for one to two hours.

        The end is a full hour, so that the browser meets the same address again and takes the
        picture from its cache.
        """
        return self.signed(f"/evidence/{finding}/{kind}", now)

    def signed(self, path: str, now: float | None = None) -> str:
        """Returns an address of this server that is good for one to two hours, as ``link``."""
        until = (int(_now(now)) // LINK_SECONDS + 2) * LINK_SECONDS
        return f"{path}?until={until}&sign={self._sign('link', f'{path}/{until}')}"

    def check_link(self, path: str, until: str, signature: str, now: float | None = None) -> None:
        """Raises AccessError 403 unless ``signed`` made these and they have not expired."""
        expected = self._sign("link", f"{path}/{until}")
        if not hmac.compare_digest(expected.encode(), signature.encode()) or int(until) < _now(now):
            raise AccessError(403, "this link is not signed, or too old: open the page again")

    def _sign(self, purpose: str, said: str) -> str:
        # the purpose is signed too: a token is no link, whatever it says
        return hmac.new(
            self.secret, f"{purpose}\n{said}".encode("utf-8", "replace"), hashlib.sha256
        ).hexdigest()


def _now(now: float | None) -> float:
    return time.time() if now is None else now


def _pack(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _unpack(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def read_roles(path: Path) -> dict[str, str]:
    """Returns e-mail -> role of a TOML file with lines like ``"ann@example.com" = "inspector"``."""
    try:
        found = tomllib.loads(read_small_text(path, 1 << 20))
    except (AnomalyError, ValueError, RecursionError) as error:
        raise AnomalyError(
            f'{path}: cannot be read as roles ({error}); lines like "ann@example.com" = '
            '"inspector" expected'
        ) from error
    for name, role in found.items():
        if role not in ROLES:
            raise AnomalyError(
                f"{path}: role {role!r} of {name} found, one of {', '.join(ROLES)} expected"
            )
    return {name.strip().lower(): role for name, role in found.items()}


def role_of(email: str, roles: Mapping[str, str]) -> str:
    """Returns the role of who has logged in; AccessError 403 for who is in no list."""
    role = roles.get(email.strip().lower())
    if role is None:
        raise AccessError(
            403, f"{email} has no role here: ask an admin to add it to the roles file"
        )
    return role


def clean_name(text: str) -> str:
    """Returns a name as it is stored: one line, trimmed, at most 200 characters; control characters
    are dropped.
    """
    return " ".join("".join(c for c in text if c.isprintable() or c.isspace()).split())[
        :MAX_NAME_LENGTH
    ]


def is_private(host: str) -> bool:
    """Whether an address to bind to can be reached from this machine only."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_host_name(host: str) -> str:
    """Returns a name for the list of allowed hosts; AnomalyError for what is no host name."""
    if not re.fullmatch(r"(\*\.)?[A-Za-z0-9.:\[\]-]{1,253}", host):
        raise AnomalyError(f"allowed host {host!r} found, a name like review.example.com expected")
    return host.lower()
