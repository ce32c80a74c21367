"""A real `anomaly serve` in a process of its own, for tests and measurements."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.review_server import Answer, request

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Service:
    """A server that answers on ``port``; what it logs is in ``log``."""

    process: subprocess.Popen[str]
    port: int
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        return request(self.port, method, path, body, headers, seconds=60)

    def get(self, path: str) -> Answer:
        return self.ask("GET", path)

    def post(self, path: str, body: bytes, headers: dict[str, str] | None = None) -> Answer:
        return self.ask("POST", path, body, headers)

    def infer(self, name: str, **request: Any) -> Answer:
        return self.post(f"/v2/models/{name}/infer", json.dumps(request).encode())

    def memory(self) -> float:
        """Returns the server's resident memory in MiB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024

    def peak(self) -> float:
        """Returns the most memory that the server has had so far, in MiB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) / 1024

    def processor_seconds(self) -> float:
        """Returns the processor time that the server has taken so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self) -> int:
        """Asks it to stop and returns its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


@contextmanager
def serving(log: Path, *arguments: str | Path) -> Iterator[Service]:
    """Runs `anomaly serve` on a free port until the block ends."""
    command = [sys.executable, "-m", "anomaly", "serve", *map(str, arguments), "--port", "0"]
    with open(log, "ab") as errors:
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=errors, text=True
        )
    try:
        line = process.stdout.readline()  # type: ignore[union-attr]
        if "http://" not in line:
            raise RuntimeError(f"the server did not start: {log.read_text()[-2000:]}")
        yield Service(process, int(line.split()[1].rpartition(":")[2]), log)
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()  # type: ignore[union-attr]
