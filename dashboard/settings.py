"""What `anomaly review` tells the server that it starts. It goes through the environment: a
database's address may hold a password, and every user of a machine can read a process's arguments.
"""

from __future__ import annotations

import getpass
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass

from anomaly.errors import AnomalyError
from dashboard.access import Key

PREFIX = "ANOMALY_REVIEW_"
UPLOAD_MB = 256  # of an image to draw a mask on: 60 megapixels of PNG are up to 180 MB


@dataclass(frozen=True)
class Settings:
    """``database``: its URL. ``secret``: hex of the key that signs. ``hosts``: names this server
    answers to, any where empty. ``login``: whether people log in; ``roles``: e-mail -> role, then.
    ``open_role``: of everybody, where nobody logs in. ``detectors``: files, or folders with files,
    of the detectors that scored (for heatmaps and expected pictures). ``stations``: state folders
    of stations that run. ``jobs``: folders below which admins may start trainings from the pages;
    none: nobody may.
    of stations that run. ``plant``: PLANT.toml, "" without one.
    """

    database: str
    secret: str
    hosts: tuple[str, ...] = ("127.0.0.1", "localhost")
    login: bool = False
    roles: Mapping[str, str] | None = None
    open_role: str = "admin"
    detectors: tuple[str, ...] = ()
    stations: tuple[str, ...] = ()
    jobs: tuple[str, ...] = ()
    plant: str = ""

    @property
    def key(self) -> Key:
        return Key(bytes.fromhex(self.secret))

    def to_environment(self) -> dict[str, str]:
        """Returns the variables for the server's process."""
        return {
            f"{PREFIX}DATABASE": self.database,
            f"{PREFIX}SECRET": self.secret,
            f"{PREFIX}HOSTS": ",".join(self.hosts),
            f"{PREFIX}LOGIN": "1" if self.login else "",
            f"{PREFIX}ROLES": json.dumps(dict(self.roles or {})),
            f"{PREFIX}OPEN_ROLE": self.open_role,
            f"{PREFIX}DETECTORS": json.dumps(self.detectors),
            f"{PREFIX}STATIONS": json.dumps(self.stations),
            f"{PREFIX}JOBS": json.dumps(self.jobs),
            f"{PREFIX}PLANT": self.plant,
        }

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Settings:
        """Returns the settings of this process; AnomalyError where it was not started by
        `anomaly review`.
        """
        try:
            return cls(
                database=environment[f"{PREFIX}DATABASE"],
                secret=environment[f"{PREFIX}SECRET"],
                hosts=tuple(filter(None, environment[f"{PREFIX}HOSTS"].split(","))),
                login=environment[f"{PREFIX}LOGIN"] == "1",
                roles=json.loads(environment[f"{PREFIX}ROLES"]),
                open_role=environment[f"{PREFIX}OPEN_ROLE"],
                detectors=tuple(json.loads(environment[f"{PREFIX}DETECTORS"])),
                stations=tuple(json.loads(environment[f"{PREFIX}STATIONS"])),
                jobs=tuple(json.loads(environment[f"{PREFIX}JOBS"])),
                plant=environment.get(f"{PREFIX}PLANT", ""),
            )
        except KeyError as error:
            raise AnomalyError(
                f"{error.args[0]} is not set: start the dashboard with anomaly review"
            ) from error


def user_of_machine() -> str:
    """Returns the name that verdicts carry until somebody types another, where nobody logs in."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container whose user has no name
        return "inspector"
