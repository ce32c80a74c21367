"""PLANT.toml -> a Plant: when shifts start, how lines and orders are called, and who is told when a
light turns red.
"""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass
from pathlib import Path

from anomaly.errors import AnomalyError
from anomaly.files.regular_files import read_small_text
from anomaly.review.production import Names
from anomaly.review.shifts import Shifts
from anomaly.station.addresses import host_and_port
from anomaly.station.reading import filled
from anomaly.station.settings import WebhookSink

MAX_BYTES = 1 << 20  # bytes of the file


SECURITY = {"starttls": 587, "tls": 465, "none": 25}  # with the port that each has by itself


@dataclass(frozen=True)
class Mail:
    """Mail by a ``server`` (HOST or HOST:PORT) from ``sender`` ``to`` addresses. ``security``:
    one of SECURITY; ``user``, and the file that holds the password, where the server asks;
    ``ca_file``: certificates (PEM) that its own is checked by, instead of the system's.
    """

    server: str
    sender: str
    to: tuple[str, ...]
    security: str = "starttls"
    user: str = ""
    password_file: Path | None = None
    ca_file: Path | None = None
    seconds: float = 20.0

    def __post_init__(self) -> None:
        if self.security not in SECURITY:
            expected = ", ".join(SECURITY)
            raise AnomalyError(
                f"mail: security {self.security!r} found, one of {expected} expected"
            )
        for address in (self.sender, *self.to):
            if "@" not in address or any(char in address for char in " ,;<>\r\n"):
                raise AnomalyError(f"mail: {address!r} found, NAME@HOST expected")
        host_and_port(self.server, SECURITY[self.security])


@dataclass(frozen=True)
class Plant:
    """``shifts``: times at which they start, in order, none for days from midnight; ``zone``: such
    as Europe/Berlin, "" for the time of this machine; ``line`` and ``order``: expressions (see
    ``Names``). ``mail`` and ``webhook``: who is told when a light turns red or one of
    ``stations`` (STATION.toml or state folders) stops; ``page``: the address of the dashboard.
    """

    shifts: tuple[str, ...] = ()
    zone: str = ""
    line: str = ""
    order: str = ""
    stations: tuple[str, ...] = ()
    page: str = ""
    mail: Mail | None = None
    webhook: WebhookSink | None = None

    def __post_init__(self) -> None:
        self.calendar, self.names  # noqa: B018  # raise where a value is wrong

    @property
    def calendar(self) -> Shifts:
        return Shifts.of(self.shifts, self.zone)

    @property
    def names(self) -> Names:
        return Names(self.line, self.order)


def read_plant(file: Path | None) -> Plant:
    """Returns what a file says, the defaults without one; AnomalyError where anything in it is
    wrong.
    """
    if file is None:
        return Plant()
    try:
        content = tomllib.loads(read_small_text(file, MAX_BYTES))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        what = " ".join(str(error).split())
        raise AnomalyError(f"{file}: not a TOML file ({what}): mend it") from error
    try:
        home = file.parent.absolute()
        if "mail" in content:
            content["mail"] = filled(Mail, content["mail"], f"{file}: mail", home)
        if "webhook" in content:
            named = {"name": "webhook", **_table(content["webhook"], f"{file}: webhook")}
            content["webhook"] = filled(WebhookSink, named, f"{file}: webhook", home)
        if isinstance(content.get("stations"), list):
            content["stations"] = [os.path.join(home, str(one)) for one in content["stations"]]
        return filled(Plant, content, str(file), home)
    except AnomalyError as error:
        raise AnomalyError(str(error) if str(file) in str(error) else f"{file}: {error}") from error


def _table(given: object, where: str) -> dict[str, object]:
    if not isinstance(given, dict):
        raise AnomalyError(f"{where}: {given!r} found, a table expected")
    return given
