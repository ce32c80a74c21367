"""The commands that ask whether a detector is still right: what they print, and their
exit status.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from anomaly.commands.main import main


def test_verify_says_how_many_golden_samples_are_right(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", str(run), "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("golden samples          5 of 5 right on cpu, within ")


def test_known_bad_parts_that_are_not_flagged_are_a_failure(
    run: Path, parts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        main(["verify", str(run), "--device", "cpu", "--challenge", str(parts / "test" / "good")])
        == 1
    )
    error = capsys.readouterr().err
    assert (error.count("\n"), "known bad parts were not flagged, all expected" in error) == (
        1,
        True,
    )
