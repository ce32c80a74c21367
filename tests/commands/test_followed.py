"""A command that a job runs ends with whoever started it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from anomaly.errors import FAILED, INTERRUPTED

COMMAND = [sys.executable, "-m", "anomaly.commands.followed"]


def test_a_command_is_stopped_once_its_input_closes(tmp_path: Path) -> None:
    waits = ["show", str(tmp_path / "none")]
    command = subprocess.Popen(COMMAND, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert command.stdin is not None and command.stderr is not None
    command.stdin.write(json.dumps(waits) + "\n")
    command.stdin.flush()
    assert command.wait(60) == FAILED  # it goes on while the input is open, to its own end
    assert command.stderr.read().startswith("anomaly: ")
    command.stdin.close()
    command.stderr.close()
    ended = subprocess.run(
        COMMAND, input=json.dumps(["demo"]) + "\n", text=True, timeout=60, cwd=tmp_path
    )
    assert ended.returncode == INTERRUPTED
