"""Training, measuring and saving from Python: the same as the commands do, for images in memory
too.
"""

from __future__ import annotations

import copy
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anomaly import AnomalyError, Detector, read_card
from anomaly.detector.file import find_detector
from anomaly.errors import DatasetError, TrainingError
from anomaly.inputs.used_images import read_listing
from tests.support.runs import SIZE

OPTIONS = {"space": "filters", "size": SIZE, "calibrate": "split"}


def pixels(folder: Path) -> list[np.ndarray]:
    return [np.asarray(Image.open(path)) for path in sorted(folder.glob("*.png"))]


@pytest.fixture(scope="module")
def good(parts: Path) -> list[np.ndarray]:
    return pixels(parts / "train" / "good")


@pytest.fixture(scope="module")
def detector(good, tmp_path_factory) -> Detector:
    """Returns a detector of the images of the shared run, handed over as arrays, a path and a
    picture of PIL.
    """
    out = tmp_path_factory.mktemp("arrays") / "run"
    images = [*good[:-1], Image.fromarray(good[-1])]
    return Detector.train(images, out=out, say=lambda line: None, **OPTIONS)


def test_arrays_train_the_same_detector_as_their_files(detector, run, parts):
    """The same weights and threshold, to the last bit: the run was trained by the function that
    the command calls.
    """
    expected = Detector.load(run)
    assert detector.card.weights == expected.card.weights
    assert detector.threshold == expected.threshold
    part = parts / "test" / "stain"
    paths = sorted(part.glob("*.png"))
    by_path, by_array = detector.score(paths), expected.score(pixels(part))
    assert [r.score for r in by_path] == [r.score for r in by_array]


def test_arrays_are_kept_as_images_of_the_run(detector, good):
    run = detector.scorer.path.parent
    rows = read_listing(run / "images.csv")
    kept = {Path(row["path"]) for row in rows}
    assert len(kept) == len(good) and {path.parent for path in kept} == {run / "good_images"}
    first = np.asarray(Image.open(run / "good_images" / "000000.png"))
    assert np.array_equal(first, good[0])


def test_evaluation_of_arrays_is_that_of_their_files(detector, parts):
    folders = sorted(path for path in (parts / "test").iterdir() if path.is_dir())
    images = [pixels(folder) for folder in folders]
    labels = [folder.name for folder, some in zip(folders, images, strict=True) for _ in some]
    of_files = detector.evaluate(parts, say=lambda line: None).to_json()
    of_arrays = detector.evaluate([one for some in images for one in some], labels).to_json()
    drawn = ("pixel_auroc", "aupro", "masks", "per_class")  # arrays have no masks of their defects
    assert {"image_auroc", "recall", "false_alarms"} <= of_files.keys() - drawn
    for name in of_files.keys() - drawn:
        assert of_arrays[name] == of_files[name]


def test_images_that_trained_it_measure_nothing(detector, good):
    with pytest.raises(DatasetError, match="all 5 labelled images trained or calibrated"):
        detector.evaluate(good[:5], ["good"] * 5)
    with pytest.raises(DatasetError, match="a list of images without labels found"):
        detector.evaluate(good[:5])


def test_a_detector_is_saved_as_a_file_or_a_run_and_pickled(detector, good, tmp_path):
    file, run = detector.save(tmp_path / "one.onnx"), detector.save(tmp_path / "whole")
    alone = Detector.load(file).save(tmp_path / "alone")
    assert [path.name for path in alone.iterdir()] == ["detector.onnx"]
    assert {"detector.onnx", "images.csv", "report.html"} <= {p.name for p in run.iterdir()}
    assert find_detector(run).read_bytes() == file.read_bytes()
    again = copy.deepcopy(detector)  # by the bytes of its file, as pickle does it
    assert again.score(good[0]).score == detector.score(good[0]).score
    assert repr(again) == f"<Detector {read_card(run).identity}, threshold {detector.threshold}>"
    for taken in (file, run):
        with pytest.raises(AnomalyError, match=r"is there already, a new name expected"):
            detector.save(taken)
    folder = again.scorer.path.parent
    del again
    assert not folder.exists()


def test_a_run_without_a_name_goes_with_its_detector(parts, monkeypatch, tmp_path, caplog):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    paths = sorted((parts / "train" / "good").glob("*.png"))[:24]
    lots = [number // 2 for number in range(24)]
    detector = Detector.train(paths, groups=lots, rank_only=True, space="filters", size=SIZE)
    assert (detector.threshold, detector.card.training.groups) == (None, 12)
    assert [path.name for path in tmp_path.iterdir()] == [detector.scorer.path.parent.name]
    del detector
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(DatasetError, match="1 good image"):
        Detector.train(paths[:1], space="filters", size=SIZE)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"space": "dreams"}, "space='dreams' found, one of auto, pixels"),
        ({"images": []}, "no image found"),
        ({"groups": [1, 2]}, "2 groups for 6 images found"),
        ({"images": "parts", "groups": [1]}, "labels or groups found beside a folder"),
        ({"images": np.zeros((64, 64, 3), np.uint8)}, "one array uint8 (64, 64, 3) found"),
        ({"images": [np.zeros((64, 64))] * 6}, "image 0: an array float64 (64, 64) found"),
        ({"images": ["/"]}, "image 0: the folder / found"),
        ({"images": [3]}, "image 0: int found"),
    ],
)
def test_what_cannot_be_trained_is_said_in_one_line(options, message, good, tmp_path):
    given = {"images": good[:6], "out": tmp_path / "run", **options}
    with pytest.raises((AnomalyError, TrainingError), match=re.escape(message)) as raised:
        Detector.train(**given)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "run" / "detector.onnx").exists()


def test_a_finished_run_is_not_written_over(detector, good):
    run = detector.scorer.path.parent
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with pytest.raises(TrainingError, match="holds a finished detector already"):
        Detector.train(good[:50], out=run, **OPTIONS)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_a_wrong_name_is_a_type_error(good):
    with pytest.raises(TypeError, match="'sizes' found, an option of `anomaly train` expected"):
        Detector.train(good, sizes=3)
