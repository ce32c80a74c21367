"""Sources that fail, in a module that worker processes can import."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path

from anomaly.errors import AnomalyError
from anomaly.inputs.source import File


@dataclass(frozen=True)
class Deadly:
    """An image over which the first processes that read it are killed, ``times`` of them."""

    name: str
    marks: Path
    times: int = 1

    def read(self, threshold: int) -> bytes:
        deaths = len(list(self.marks.iterdir()))
        if deaths < self.times:
            (self.marks / str(deaths)).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return File(self.name).read(threshold)


@dataclass(frozen=True)
class Gone:
    """An image on a server that has gone away."""

    name: str

    def read(self, threshold: int) -> bytes:
        raise AnomalyError("s3://bucket: cannot be reached")
