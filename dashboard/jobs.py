"""Jobs that the pages start: their queue, the worker that is started for it, dry runs, and the
folders to choose from.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from anomaly.errors import AnomalyError
from anomaly.review import job_commands
from anomaly.review.jobs import Job, Jobs
from dashboard.access import AccessError, Person
from dashboard.settings import PREFIX, Settings

DRY_RUN_SECONDS = 600
DEPTH, MOST_FOLDERS = 3, 300  # of what is offered to choose from


@dataclass
class JobDesk:
    """The jobs of a server that was started with ``--jobs``; threads may share it."""

    folders: list[Path]
    database: str
    queue: Jobs
    _worker: subprocess.Popen[str] | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def of(cls, settings: Settings) -> JobDesk | None:
        """Returns the jobs that the settings allow, or None."""
        if not settings.jobs:
            return None
        given = settings.database
        database = given if "://" in given else os.path.abspath(given)
        return cls([Path(folder) for folder in settings.jobs], database, Jobs(database))

    def start(self, person: Person, kind: str, given: Mapping[str, str], key: str) -> Job:
        """Puts a job into the queue, once for a key; AnomalyError where it may not be."""
        self.check(person)
        options = job_commands.checked(kind, given, self.folders)
        job_commands.check_free(options)
        for job in self.queue.all():
            if not job.ended and "out" in options and job.given.get("out") == options["out"]:
                raise AnomalyError(f"job {job.id} writes into {options['out']}: choose another one")
        job = self.queue.put(kind, options, by=person.name, key=key)
        self.wake()
        return job

    def resume(self, person: Person, number: int) -> None:
        """Puts a job that ended early into the queue again."""
        self.check(person)
        self.queue.resume(number)
        self.wake()

    def stop(self, person: Person, number: int) -> None:
        """Asks for a job's end."""
        self.check(person)
        self.queue.stop(number)

    def check(self, person: Person) -> None:
        """Raises AccessError unless this person may start and stop jobs."""
        if not person.may("admin"):
            raise AccessError(403, f"a {person.role} may not do this, admin expected")

    def wake(self) -> None:
        """Starts a worker where a job waits and none is alive. It outlives this server."""
        with self._lock:
            starting = self._worker is not None and self._worker.poll() is None
            if not starting and self.queue.needs_worker():
                self._worker = start_worker(self.database, self.folders)

    def dry_run(self, person: Person, given: Mapping[str, str]) -> tuple[bool, str]:
        """Returns whether a training could start, and what `anomaly train --dry-run` says."""
        self.check(person)
        options = job_commands.checked("train", given, self.folders)
        job_commands.check_free(options)
        line = job_commands.arguments("train", options, self.database)
        try:
            done = subprocess.run(
                [sys.executable, "-m", "anomaly", *line, "--dry-run"],
                capture_output=True,
                text=True,
                encoding="utf-8",
                timeout=DRY_RUN_SECONDS,
                env={**own_environment(), "PYTHONIOENCODING": "utf-8"},
            )
        except subprocess.TimeoutExpired:
            raise AnomalyError(
                f"{options['images']}: looking at the images took longer than "
                f"{DRY_RUN_SECONDS // 60} minutes: run anomaly train --dry-run by hand"
            ) from None
        said = done.stdout if done.returncode == 0 else done.stderr.strip().rpartition("\n")[2]
        return done.returncode == 0, said.strip().removeprefix("anomaly: ")

    def places(self) -> tuple[list[str], list[str]]:
        """Returns folders to choose from, those without a detector and run folders."""
        found = [path for folder in self.folders for path in _below(folder, DEPTH)][:MOST_FOLDERS]
        runs = [str(path) for path in found if (path / "detector.onnx").is_file()]
        return [str(path) for path in found if str(path) not in runs], runs


def start_worker(database: str, folders: list[Path]) -> subprocess.Popen[str]:
    """Starts a worker that goes on when this process ends, Ctrl-C in its terminal included."""
    flags = 0
    if sys.platform == "win32":
        flags = subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.DETACHED_PROCESS
    worker = subprocess.Popen(
        [sys.executable, "-m", "anomaly.review.job_worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        creationflags=flags,
        env=own_environment(),
        text=True,
    )
    if worker.stdin is None:
        raise AssertionError("it is a pipe")
    with contextlib.suppress(OSError), worker.stdin as stdin:  # one that died is started again
        stdin.write(json.dumps({"database": database, "folders": [*map(str, folders)]}) + "\n")
    return worker


def own_environment() -> dict[str, str]:
    """Returns this process's variables without those of the server: its key signs, and nobody else
    needs it.
    """
    return {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}


def _below(folder: Path, depth: int) -> list[Path]:
    """Returns the folders below one, as deep as ``depth``, in order; hidden ones are left out."""
    try:
        inner = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    except OSError:  # not ours to read
        return []
    return [
        path
        for one in inner[:MOST_FOLDERS]
        for path in (one, *(_below(one, depth - 1) if depth > 1 else ()))
    ]


def free_folder(folder: Path, name: str) -> Path:
    """Returns a folder that is not there yet: ``name``, or with a number behind it."""
    names = (name if at == 1 else f"{name}-{at}" for at in range(1, 1000))
    return next((folder / one for one in names if not (folder / one).exists()), folder / name)
