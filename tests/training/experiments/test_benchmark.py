"""The benchmark's tables, on a case that is small enough to run."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from training.experiments.benchmark import Case, broken_guarantees, by_class, cases, run_case, table


@pytest.fixture(scope="module")
def folder(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a copy of the shared run, to which the benchmark adds its files."""
    return Path(shutil.copytree(run, tmp_path_factory.mktemp("benchmark") / "run"))


@pytest.fixture(scope="module")
def row(folder: Path, parts: Path) -> dict[str, object]:
    """Returns the figures of that run, which is there already and is not trained again."""
    return run_case(Case("parts 0", parts, 0, True), folder, {})


def test_a_finished_case_is_not_done_again(
    row: dict[str, object], folder: Path, parts: Path
) -> None:
    assert run_case(Case("parts 0", parts / "gone", 0, True), folder, {}) == row


def test_the_table_gives_counts_and_intervals(row: dict[str, object]) -> None:
    header, rule, line = table([row]).splitlines()
    assert header.count("|") == rule.count("|") == line.count("|") == 9
    alarms = row["false_alarms"]
    assert f"{alarms['flagged']} of 30 ({alarms['ordinary_up_to']})" in line


def test_classes_are_named_with_their_mean(row: dict[str, object]) -> None:
    assert by_class([row]).startswith("parts: mean of 1 ") and "crack " in by_class([row])


def test_a_broken_guarantee_is_named(row: dict[str, object]) -> None:
    assert "all keep their guarantee" in broken_guarantees([row])
    broken = {**row, "false_alarms": {**row["false_alarms"], "flagged": 30}}
    assert "broken by parts 0 (30, limit" in broken_guarantees([broken, row])


def test_without_data_sets_only_the_solar_cells_are_left(tmp_path: Path) -> None:
    pytest.importorskip("elpv_dataset", reason="the package elpv-dataset is not installed")
    assert [case.name for case in cases(tmp_path, tmp_path / "out", [0, 1])] == [
        "solar cells 0",
        "solar cells 1",
    ]
