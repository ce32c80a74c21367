"""What a job may run: three commands, on folders below those that the administrator allowed.

A job is kept as named options, never as a command line: whoever can write into the database can
start nothing else, and the worker checks the folders again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import sqlalchemy as sa

from anomaly.errors import AnomalyError

# Of each kind its options: those that have to be given, and others. Folders have to be there;
# `out` must not hold anything yet.
NEEDED = {"train": ("images", "out"), "calibrate": ("run", "normal"), "learn": ("run", "out")}
OPTIONAL = {
    "train": ("defects", "group_by", "false_alarm_rate", "quality", "space", "size"),
    "calibrate": ("group_by", "false_alarm_rate", "accept_worse"),
    "learn": ("verdicts", "normal", "defects"),
}
FLAGS = ("accept_worse",)
FOLDERS = ("images", "run", "normal", "defects")
SUBJECT = {"train": "images", "calibrate": "run", "learn": "run"}  # what the command is about
RESUMABLE = ("train",)  # goes on from its checkpoint; the others begin anew


def checked(kind: str, given: Mapping[str, str], allowed: Sequence[Path]) -> dict[str, str]:
    """Returns a job's options with whole paths; AnomalyError for what is missing, unknown, not
    there, or not below an ``allowed`` folder.
    """
    if kind not in NEEDED:
        raise AnomalyError(f"job {kind!r} found, one of {', '.join(NEEDED)} expected")
    options = {name: value.strip() for name, value in given.items() if value.strip()}
    known = (*NEEDED[kind], *OPTIONAL[kind])
    strange = [name for name in options if name not in known]
    if strange:
        raise AnomalyError(f"{kind} with {strange[0]} found, one of {', '.join(known)} expected")
    for name in NEEDED[kind]:
        if name not in options:
            raise AnomalyError(f"{kind} without {name} found: choose a folder below {allowed[0]}")
    for name in (*FOLDERS, "out"):
        if name in options:
            path = below(options[name], allowed)
            if name != "out" and not path.is_dir():
                raise AnomalyError(f"{path}: no such folder; one with {name} was expected")
            options[name] = str(path)
    return options


def below(text: str, allowed: Sequence[Path]) -> Path:
    """Returns a path as it really is, links followed; AnomalyError where it is not below an allowed
    folder. A relative one is taken from the first of them.
    """
    roots = [folder.resolve() for folder in allowed]
    path = (roots[0] / text).resolve()
    if any(root in path.parents for root in roots):
        return path
    raise AnomalyError(
        f"{text}: not below {' or '.join(str(root) for root in roots)}: the folders that "
        "anomaly review --jobs allows"
    )


def check_free(options: Mapping[str, str]) -> None:
    """Raises AnomalyError where a new job would write into a folder that holds something."""
    out = Path(options["out"]) if "out" in options else None
    if out is not None and out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise AnomalyError(f"{out} is there already, a new folder expected: choose another one")


def arguments(
    kind: str, options: Mapping[str, str], database: str, *, resume: bool = False
) -> list[str]:
    """Returns the arguments of `anomaly` for a job's checked options; see ``environment`` for the
    password of ``database``.
    """
    line = [kind, options[SUBJECT[kind]]]
    names = [name for name in (*NEEDED[kind], *OPTIONAL[kind]) if name != SUBJECT[kind]]
    for name in names:
        if name == "verdicts" and name in options:
            line += ["--review", without_password(database)[0]]
        elif name in FLAGS and name in options:
            line.append(f"--{name.replace('_', '-')}")
        elif name in options:
            line.append(f"--{name.replace('_', '-')}={options[name]}")
    return [*line, "--resume"] if resume and kind in RESUMABLE else line


def environment(database: str) -> dict[str, str]:
    """Returns the variables that a command needs to open ``database``: the password travels there,
    since a command line is written into the card.
    """
    password = without_password(database)[1]
    return {} if password is None else {"PGPASSWORD": password}


def without_password(database: str) -> tuple[str, str | None]:
    """Returns a database's address without its password, and the password where it had one."""
    if "://" not in database:
        return database, None
    url = sa.engine.make_url(database)
    return url._replace(password=None).render_as_string(), url.password
