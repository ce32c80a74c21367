"""The demo: where its images come from, the baseline beside it, and the lines that a user decides
by.
"""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from anomaly import Scorer
from anomaly.detector.file import CalibrationImages, recalibrate
from anomaly.errors import DatasetError
from anomaly.inputs.dataset import labelled_test, normal_training, read_dataset
from anomaly.quality.evaluate import judge_labelled
from anomaly.scoring.evaluation import Judged
from anomaly.statistics.calibration import calibrate
from training.demo import ATTRIBUTION, last_lines, pixel_pca, prepare


@pytest.fixture(scope="module")
def judged(run: Path, parts: Path, tmp_path_factory: pytest.TempPathFactory) -> Judged:
    """Returns the parts judged by a detector with a threshold of 2 %, as a demo's larger training
    would set it.
    """
    path = tmp_path_factory.mktemp("demo") / "detector.onnx"
    scores = np.linspace(0.4, 1.0, 99, dtype=np.float32)
    recalibrate(
        run,
        calibrate(scores, 0.02),
        path,
        CalibrationImages(highest=["a.png", "b.png"], count=99, groups=99),
        version="2",
    )
    return judge_labelled(Scorer(path, device="cpu"), labelled_test(read_dataset(parts)))


def test_the_last_lines_are_at_most_fifteen_and_say_all_that_decides(
    judged: Judged, tmp_path: Path
) -> None:
    lines = last_lines(judged, "", 0.61, tmp_path, 40.0, "")
    assert len(lines) == 13
    said = {line[:24].strip(): line[24:] for line in lines if line[:24].strip()}
    assert list(said) == [
        "ranking",
        "good images flagged",
        "defects flagged",
        "by kind",
        "threshold 0.9939",
        "guarantee",
        "torch against ONNX",
        "speed",
        "detector",
        "scores and report",
        "next",
    ]
    e = judged.evaluation
    assert said["ranking"].startswith(f"AUROC {e.image_auroc.value:.3f} (95 %: ")
    assert said["ranking"].endswith("good against defects; pixel PCA 0.610")
    assert (
        f"{e.false_alarms.flagged.flagged} of 30 good images flagged" in said["good images flagged"]
    )
    assert "expected 0.6, up to 2 is ordinary" in said["good images flagged"]
    assert said["by kind"].count(" of 4") == 6
    assert said["threshold 0.9939"] == "set by 99 good images"
    assert said["guarantee"].startswith("about 1 in 50 (2 %); 95 % confident: at most ")
    assert said["speed"] == "25.0 ms an image with decoding (40 images/s) on cpu"
    assert said["detector"] == str(tmp_path / "run" / "detector.onnx")
    command = Path(sys.executable).with_name("anomaly")
    assert [line[24:] for line in lines[-3:]] == [
        f"{command} show {tmp_path / 'run'}",
        f"{command} score {tmp_path / 'run'} YOUR_IMAGES --out scores.csv",
        f"{command} train YOUR_GOOD_IMAGES --out run",
    ]


def test_with_a_sure_class_the_others_are_weak_and_the_licence_is_said(
    judged: Judged, tmp_path: Path
) -> None:
    lines = last_lines(judged, "stain", 0.61, tmp_path, 40.0, ATTRIBUTION)
    assert len(lines) == 15
    e = judged.evaluation
    assert "good against stain; pixel PCA 0.610" in lines[0]
    assert lines[1].startswith(f"{'':24}AUROC {e.image_auroc.value:.3f} (95 %: ")
    assert lines[1].endswith("), good against all 24 defects, weak ones too")
    assert f"{'stain flagged':24}{e.per_class['stain'].recall.flagged} of 4 (" in lines[3]
    assert lines[4].startswith(f"{'weak defects flagged':24}chip ") and "stain" not in lines[4]
    assert lines[11] == f"{'data':24}{ATTRIBUTION}"
    assert (
        "CC BY-NC-SA" in ATTRIBUTION and "non-commercial: do not ship this detector" in ATTRIBUTION
    )


def test_too_few_images_for_the_default_rate_are_said_too(
    judged: Judged, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calibration = calibrate(np.linspace(0.4, 1.0, 20, dtype=np.float32))
    monkeypatch.setattr(judged.scorer, "card", replace(judged.scorer.card, calibration=calibration))
    lines = last_lines(judged, "", 0.61, tmp_path, 40.0, "")
    assert len(lines) <= 15
    assert "Lowest guaranteed rate" in "\n".join(lines)


def test_synthetic_images_need_no_package(tmp_path: Path) -> None:
    images, sure, attribution = prepare("synthetic", tmp_path, train=3, good=2, per_defect=1)
    assert (images, sure, attribution) == (tmp_path / "images", "", "")
    records = read_dataset(images)
    assert (len(normal_training(records)), len(labelled_test(records))) == (3, 2 + 6)


@pytest.mark.skipif(
    importlib.util.find_spec("elpv_dataset") is None, reason="needs the package elpv-dataset"
)
def test_the_photographs_come_with_their_licence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest, sure, attribution = prepare("solar-cells", tmp_path)
    assert (sure, attribution) == ("defective", ATTRIBUTION)
    assert capsys.readouterr().err == ATTRIBUTION + "\n"
    assert len(normal_training(read_dataset(manifest))) == 1206


def test_outside_a_checkout_the_demo_says_where_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("data.synthetic", "data.elpv"):
        monkeypatch.setitem(sys.modules, name, None)
    for data in ("synthetic", "solar-cells"):
        with pytest.raises(
            DatasetError, match=r"^the demo's images are made by the folder data/ of the repository"
        ):
            prepare(data, tmp_path)


def test_the_baseline_ranks_what_pixels_can_rank(parts: Path) -> None:
    records = read_dataset(parts)
    baseline = pixel_pca(normal_training(records), labelled_test(records))
    assert baseline == pixel_pca(normal_training(records), labelled_test(records))
    assert 0.5 < baseline <= 1
    good = [record for record in labelled_test(records) if record.label == "good"]
    same = [replace(record, label="twin") for record in good]
    assert pixel_pca(normal_training(records), [*good, *same]) == pytest.approx(0.5)
