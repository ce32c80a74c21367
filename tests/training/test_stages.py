"""What stages hand on."""

from __future__ import annotations

from pathlib import Path

import pytest

from training.options import TrainOptions
from training.recipes import square
from training.stages import Job


def test_only_the_first_process_says_what_all_know(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    options = TrainOptions(images=Path("images"), out=Path("run"))
    job = Job(options, options, 64, "hottest", "cpu", None, said.append, square("filters", 64))
    job.tell(["one", "two"])
    monkeypatch.setenv("RANK", "1")
    job.tell(["three"])
    assert said == ["one", "two"]
