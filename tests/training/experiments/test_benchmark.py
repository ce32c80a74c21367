"""The benchmark's tables, on a case that is small enough to run."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.data.test_industrial import btad, mvtec
from training.experiments.anchors import ANCHORS, beside_anchors
from training.experiments.benchmark import (
    INDUSTRIAL,
    Case,
    broken_guarantees,
    by_class,
    cases,
    industrial_cases,
    run_case,
    table,
)


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
    assert "all keep their rate" in broken_guarantees([row])
    broken = {**row, "false_alarms": {**row["false_alarms"], "flagged": 30}}
    assert "broken by parts 0 (30, limit" in broken_guarantees([broken, row])


def test_without_data_sets_only_the_solar_cells_are_left(tmp_path: Path) -> None:
    pytest.importorskip("elpv_dataset", reason="the package elpv-dataset is not installed")
    assert [case.name for case in cases(tmp_path, tmp_path / "out", [0, 1])] == [
        "solar cells 0",
        "solar cells 1",
    ]


def test_each_category_of_an_industrial_set_is_a_case(tmp_path: Path) -> None:
    mvtec(tmp_path / "mvtec")
    btad(tmp_path / "btad")
    folders = dict.fromkeys(INDUSTRIAL.values()) | {
        "MVTec AD": tmp_path / "mvtec",
        "BTAD": tmp_path / "btad",
    }
    found = industrial_cases(folders, tmp_path / "out")
    assert [(case.name, case.guaranteed) for case in found] == [
        ("MVTec AD bottle", False),
        ("BTAD 03", False),
    ]
    assert all(case.images.is_file() for case in found)


def test_the_castings_are_a_case_for_each_seed(tmp_path: Path) -> None:
    (tmp_path / "casting").mkdir()
    found = [case for case in cases(tmp_path, tmp_path / "out", []) if "casting" in case.name]
    assert found == []
    pytest.importorskip("elpv_dataset", reason="the package elpv-dataset is not installed")
    found = [case for case in cases(tmp_path, tmp_path / "out", [0, 2]) if "casting" in case.name]
    assert [(case.name, case.seed, case.images.name) for case in found] == [
        ("castings 0", 0, "casting"),
        ("castings 2", 2, "casting"),
    ]


def test_published_figures_stand_beside_the_mean_of_the_same_set() -> None:
    rows = [
        {"case": f"MVTec AD {name}", "image_auroc": {"value": value}}
        for name, value in (("bottle", 0.9), ("metal_nut", 0.8))
    ]
    lines = beside_anchors([*rows, {"case": "tiles published"}]).splitlines()
    assert lines[0] == "MVTec AD, mean image AUROC (%) of 2 categories: 85.0"
    assert "    99.0  PatchCore of 1 % (Roth et al., PatchCore, CVPR 2022)" in lines
    assert len(lines) == 1 + len(ANCHORS["MVTec AD"])
    assert beside_anchors([{"case": "BTAD 01", "image_auroc": {"value": 1.0}}]).count("\n") == 4
    assert beside_anchors([]) == ""


def test_no_count_is_judged_where_none_can_be(row: dict[str, object]) -> None:
    assert "of no case" in broken_guarantees([{**row, "guaranteed": False}])
