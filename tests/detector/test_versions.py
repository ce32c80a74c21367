"""Versions of detectors: none is given twice where the files lie, or where a review knows them."""

from __future__ import annotations

import shutil
from pathlib import Path

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anomaly.detector.file import read_card
from anomaly.detector.versions import GIVEN, identity_of, next_version, versions_of
from anomaly.quality.moved_threshold import nearest, write_moved
from anomaly.quality.recalibrate import Asked, GoodImages, recalibrate_on
from data.synthetic import write_dataset
from tests.detector.test_file import changed, edit_card


def test_versions_follow_each_other() -> None:
    found = [
        next_version(version) for version in ("1", "9", "1.2", "2.0", "²", "b", "٣", "9" * 5000)
    ]
    assert found == ["2", "10", "1.2.1", "2.0.1", "².1", "b.1", "٣.1", "9" * 5000 + ".1"]


def test_a_version_that_is_taken_is_passed_over() -> None:
    assert next_version("1", ["2", "3", "7"]) == "4"
    assert next_version("2.0", ["2.0.1", "2.0.2"]) == "2.0.3"


@given(st.integers(0, 30).map(str) | st.text(max_size=4), st.sets(st.integers(0, 40).map(str)))
def test_the_next_version_is_never_taken(version: str, taken: set[str]) -> None:
    assert next_version(version, taken) not in taken | {version}


@pytest.fixture
def alone(run: Path, tmp_path: Path) -> Path:
    """Returns a run folder of its own, called run, that holds the detector alone."""
    (tmp_path / "runs" / "run").mkdir(parents=True)
    shutil.copy(run / "detector.onnx", tmp_path / "runs" / "run")
    return tmp_path / "runs" / "run"


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fresh")
    write_dataset(folder, kind="disc", train=12, good=0, per_defect=0, size=64, seed=7)
    return folder / "train" / "good"


def test_three_detectors_have_three_versions_wherever_they_are_written(
    alone: Path, fresh: Path
) -> None:
    for name in ("run", "run2", "run3"):
        (alone.parent / name).mkdir(exist_ok=True)
        recalibrate_on(
            alone, GoodImages(fresh), out=alone.parent / name / "new.onnx", asked=Asked()
        )
    card = read_card(alone)
    assert card.calibration is not None
    moved = nearest(card.calibration, float(card.calibration.scores[-5]))
    found = [
        read_card(alone.parent / name / "new.onnx").version for name in ("run", "run2", "run3")
    ]
    found.append(write_moved(alone, moved, alone / "moved.onnx", by="ann").version)
    found.append(
        write_moved(
            alone, moved, alone / "again.onnx", by="ann", known=[("run", "6"), ("other", "7")]
        ).version
    )
    assert found == ["2", "3", "4", "5", "7"]
    assert versions_of("run", alone, alone) == {"1", "2", "3", "4", "5", "7"}


def test_no_version_is_given_twice_wherever_its_file_went(
    alone: Path, fresh: Path, tmp_path: Path
) -> None:
    far = tmp_path / "far" / "off"
    far.mkdir(parents=True)

    def made(run: Path, out: Path | None) -> str:
        return recalibrate_on(run, GoodImages(fresh), out=out, asked=Asked())[0].version

    found = [
        made(alone, far / "a.onnx"),
        made(alone, None),
        made(far / "a.onnx", far / "b.onnx"),
        made(alone, None),
    ]
    (far / "b.onnx").unlink()
    found += [made(alone, None), made(far / "a.onnx", far / "c.onnx")]
    assert found == ["2", "3", "4", "5", "6", "7"]
    with open(alone / GIVEN, "a") as file:
        file.write('{"cut')
    assert versions_of("run", alone, alone) >= {"2", "3", "4", "5", "6", "7"}


def test_versions_of_another_detector_are_no_matter(alone: Path, tmp_path: Path) -> None:
    changed(alone, alone / "other.onnx", lambda model: edit_card(model, name="other", version="2"))
    assert versions_of("run", alone, alone) == {"1"} and versions_of("other", alone, alone) == {"2"}


def test_what_is_no_detector_has_no_identity(alone: Path, tmp_path: Path) -> None:
    assert identity_of(alone / "detector.onnx") == ("run", "1")
    (tmp_path / "empty.onnx").touch()
    (tmp_path / "text.onnx").write_text("the first one was better")
    onnx.save(onnx.ModelProto(), tmp_path / "bare.onnx")
    (tmp_path / "cut.onnx").write_bytes((alone / "detector.onnx").read_bytes()[:2000])
    for name in ("empty", "text", "bare", "cut", "none"):
        assert identity_of(tmp_path / f"{name}.onnx") is None, name
    changed(alone, tmp_path / "odd.onnx", lambda model: edit_card(model, version=2))
    assert identity_of(tmp_path / "odd.onnx") is None
