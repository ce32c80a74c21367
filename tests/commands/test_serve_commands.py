"""The command line of `anomaly serve`: what it says when it cannot, and without its extra."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from anomaly.commands.main import main


def test_what_is_no_detector_is_said_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", str(tmp_path), "--port", "0"]) == 1
    error = capsys.readouterr().err
    assert (error.count("\n"), "a folder without detector.onnx" in error) == (1, True)


def test_a_project_file_is_refused_with_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", str(tmp_path / "anomaly.toml")]) == 1
    assert (
        "a project file found, run folders or detector files expected: serve all its detectors"
        in capsys.readouterr().err
    )


def test_without_its_extra_it_names_it(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in sys.modules if name.startswith("anomaly.serve")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert main(["serve", str(run)]) == 1
    assert capsys.readouterr().err == (
        "anomaly: the service needs uvicorn, which is not installed: pip install 'anomaly[serve]'\n"
    )


@pytest.mark.parametrize("wrong", [["--port", "-1"], ["--workers", "0"], ["--timeout", "soon"]])
def test_bad_numbers_are_usage_errors(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["serve", "run", *wrong])
    assert "a whole number from" in capsys.readouterr().err


@pytest.mark.parametrize("there", ["nothing", "empty"])
def test_a_mistyped_review_database_is_refused_and_not_made(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], there: str
) -> None:
    typo, images = tmp_path / "reviev.db", tmp_path / "findings"
    if there == "empty":
        typo.touch()
    given = [
        "serve",
        str(run),
        "--port",
        "0",
        "--review",
        str(typo),
        "--review-images",
        str(images),
    ]
    assert main(given) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert (
        "a review database expected: check the name" in line
        and "anomaly serve ... --create-review" in line
    )
    assert not images.exists() and (
        not typo.exists() if there == "nothing" else typo.stat().st_size == 0
    )


def test_create_review_needs_a_review(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", str(tmp_path), "--create-review"]) == 1
    assert "--create-review without --review found, both expected" in capsys.readouterr().err
