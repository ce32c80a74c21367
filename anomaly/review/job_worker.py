"""The worker that runs jobs, a process of its own: `python -m anomaly.review.job_worker`, with
``{"database": ..., "folders": [...]}`` on its standard input.

It works the queue off and ends. The dashboard starts one whenever a job waits and none is alive; it
depends on the dashboard for nothing else, so that one may be stopped and started meanwhile. What it
runs ends with it: a command's standard input closes when the worker is gone.
"""

from __future__ import annotations

import functools
import json
import os
import queue
import re
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import IO, TypeVar

from anomaly.errors import FAILED, AnomalyError
from anomaly.review.job_commands import arguments, checked, environment
from anomaly.review.jobs import Job, Jobs

NOTE_SECONDS = 2.0  # between two times that the lease is renewed and lines are kept
AWAY_SECONDS = 600.0  # that the database may be away
STOP_SECONDS = 20.0  # that a command has to end when it is asked to
COMMAND = (sys.executable, "-m", "anomaly.commands.followed")
Answer = TypeVar("Answer")
PROGRESS = re.compile(r"([^:]+): [\d,]+( of |,).* (left|so far)$")


def work(database: str, folders: list[Path]) -> None:
    """Runs jobs until none waits, or another worker is alive."""
    worker = f"{socket.gethostname()} {os.getpid()} {uuid.uuid4().hex[:8]}"
    jobs = Jobs(database)
    try:
        while (job := jobs.take(worker)) is not None:
            run(jobs, worker, job, database, folders)
    finally:
        jobs.close()


def run(jobs: Jobs, worker: str, job: Job, database: str, folders: list[Path]) -> None:
    """Runs one job, keeps what it prints and its end."""
    lines = Lines(jobs.last_number(job.id))
    try:
        options = checked(job.kind, job.given, folders)
        line = arguments(job.kind, options, database, resume=job.resumed > 0)
    except AnomalyError as error:
        jobs.note(worker, job.id, [lines.number(f"anomaly: {error}")])
        jobs.end(worker, job.id, FAILED)
        return
    command = Command(line, environment(database))
    while (status := command.status()) is None or not command.printed.empty():
        new = [lines.number(text) for text in command.new_lines()]
        if not patiently(functools.partial(jobs.note, worker, job.id, new)):
            command.stop()
        if status is None:
            command.wait(NOTE_SECONDS)
    if status < 0:
        said = f"ended by signal {-status}: killed by a person, or for want of memory"
        patiently(functools.partial(jobs.note, worker, job.id, [lines.number(said)]))
    patiently(functools.partial(jobs.end, worker, job.id, status))


class Lines:
    """Numbers lines; one of progress takes the number of the one before, of the same work."""

    def __init__(self, last: int) -> None:
        self._last, self._work = last, ""

    def number(self, text: str) -> tuple[int, str]:
        found = PROGRESS.match(text)
        work = found[1] if found else ""
        if not work or work != self._work:
            self._last += 1
        self._work = work
        return self._last, text


class Command:
    """An `anomaly` command that runs, with what it prints."""

    def __init__(self, line: list[str], variables: dict[str, str]) -> None:
        self.printed: queue.Queue[str] = queue.Queue()
        self._process = subprocess.Popen(
            COMMAND,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, **variables, "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8"},
            text=True,
            encoding="utf-8",
            errors="replace",
        )
        self._stdin, stdout = self._process.stdin, self._process.stdout
        if self._stdin is None or stdout is None:
            raise AssertionError("both are pipes")
        self._stdin.write(json.dumps(line) + "\n")
        self._stdin.flush()
        self._reader = threading.Thread(target=self._read, args=(stdout,), daemon=True)
        self._reader.start()
        self._until: float | None = None

    def _read(self, stdout: IO[str]) -> None:
        for text in stdout:
            self.printed.put(text.rstrip())

    def new_lines(self) -> list[str]:
        """Returns what was printed since."""
        found = []
        while not self.printed.empty():
            found.append(self.printed.get())
        return found

    def status(self) -> int | None:
        """Returns the exit status, None while it runs; all that it printed is there then."""
        status = self._process.poll()
        if status is not None:
            self._reader.join(NOTE_SECONDS)  # what it started itself may hold the pipe
        elif self._until is not None and time.monotonic() > self._until:
            self._process.kill()
        return status

    def wait(self, seconds: float) -> None:
        """Waits for its end, at most so long."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return

    def stop(self) -> None:
        """Asks it to end, as Ctrl-C does; it is killed where it does not."""
        if self._until is None and self._stdin is not None:
            self._until = time.monotonic() + STOP_SECONDS
            self._stdin.close()


def patiently(act: Callable[[], Answer]) -> Answer:
    """Returns what ``act`` does, tried again while the database is away: the command goes on."""
    until = time.monotonic() + AWAY_SECONDS
    while True:
        try:
            return act()
        except AnomalyError:
            if time.monotonic() > until:
                raise
            time.sleep(NOTE_SECONDS)


if __name__ == "__main__":
    asked = json.loads(sys.stdin.readline())
    work(asked["database"], [Path(folder) for folder in asked["folders"]])
