"""A few of the kills that `python -m tests.support.kill_score` does by the fifty."""

from __future__ import annotations

from pathlib import Path

from tests.support.kill_score import Job, inputs_of, kill

KILLS = 10


def test_ten_kills_at_random_moments_lose_and_double_nothing(
    tmp_path: Path, pixel_run: Path, parts: Path
) -> None:
    (tmp_path / "out").mkdir()
    job = Job(pixel_run, inputs_of(parts / "test", tmp_path), tmp_path / "out", ".csv")
    assert kill(job, KILLS, seed=0)["kills"] == KILLS
