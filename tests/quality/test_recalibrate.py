"""`anomaly calibrate`: a new threshold from good images, without torch."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from anomaly import Scorer
from anomaly.detector.calibration_nodes import set_calibration
from anomaly.detector.file import read_card
from anomaly.errors import CalibrationError, DetectorError
from anomaly.inputs.dataset import labelled_test, normal_training, read_dataset
from anomaly.inputs.used_images import IMAGES
from anomaly.quality.check import check
from anomaly.quality.recalibrate import Asked, GoodImages, recalibrate_on, without_training_images
from anomaly.statistics.calibration import calibrate
from anomaly.statistics.groups import one_per_group
from data.synthetic import write_dataset
from tests.detector.test_file import changed, edit_card
from tests.test_scorer import in_a_fresh_process


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder of 40 good discs that no detector has seen."""
    folder = tmp_path_factory.mktemp("fresh")
    write_dataset(folder, kind="disc", train=40, good=0, per_defect=0, size=64, seed=7)
    return folder / "train" / "good"


def scores_of(run: Path, folder: Path) -> np.ndarray:
    scorer = Scorer(run, device="cpu")
    return np.array([scorer.score(path).score for path in sorted(folder.glob("*.png"))], np.float32)


def test_the_new_threshold_comes_from_the_new_images_alone(
    run: Path, fresh: Path, tmp_path: Path
) -> None:
    card, path, left_out = recalibrate_on(
        run, GoodImages(fresh), out=tmp_path / "new.onnx", asked=Asked(0.1)
    )
    old, scores = read_card(run), scores_of(run, fresh)
    assert path == tmp_path / "new.onnx" and left_out == []
    assert card == read_card(path)
    assert card.calibration == calibrate(scores, 0.1)
    assert (card.calibration.n, card.calibration.k) == (40, 4)
    assert (card.version, card.parent, card.weights) == ("2", old.digest, old.weights)
    assert list(card.training.highest) == [
        f"{i:04}.png" for i in np.argsort(-scores, kind="stable")[:5]
    ]
    assert (card.training.recalibrated_on, card.training.images) == (40, 120)
    flagged = [
        Scorer(path, device="cpu").score(image).score > card.calibration.threshold
        for image in fresh.glob("*.png")
    ]
    assert sum(flagged) == 3  # of k = 4 the last is the threshold itself
    assert Scorer(path, device="cpu").verify_golden() <= 1


def test_explain_still_belongs_to_a_recalibrated_detector(
    run: Path, fresh: Path, tmp_path: Path
) -> None:
    shutil.copy(run / "explain.onnx", tmp_path)
    recalibrate_on(run, GoodImages(fresh), out=tmp_path / "new.onnx", asked=Asked(0.1))
    assert Scorer(tmp_path / "new.onnx", device="cpu").explain(fresh / "0000.png") is not None


def test_without_a_target_rate_that_of_the_detector_stays(
    run: Path, fresh: Path, tmp_path: Path
) -> None:
    first, path, _ = recalibrate_on(
        run, GoodImages(fresh), out=tmp_path / "1.onnx", asked=Asked(0.25)
    )
    again, _, _ = recalibrate_on(path, GoodImages(fresh), out=tmp_path / "2.onnx", asked=Asked())
    assert first.calibration == again.calibration and again.calibration.target_rate == 0.25
    assert (again.version, again.parent) == ("3", first.digest)
    default, _, _ = recalibrate_on(run, GoodImages(fresh), out=tmp_path / "3.onnx", asked=Asked())
    assert (default.calibration.target_rate, default.calibration.k) == (None, 1)


def test_one_image_of_each_group_is_drawn(run: Path, fresh: Path, tmp_path: Path) -> None:
    drawn = [
        recalibrate_on(
            run,
            GoodImages(fresh, group_by=r"(\d\d\d)\d\.png", seed=seed),
            out=tmp_path / f"{i}.onnx",
            asked=Asked(0.25),
        )[0]
        for i, seed in enumerate((0, 0, 1))
    ]
    assert [card.calibration.n for card in drawn] == [4, 4, 4]
    assert drawn[0].calibration == drawn[1].calibration != drawn[2].calibration
    paths = sorted(fresh.glob("*.png"))
    expected, _ = one_per_group(
        scores_of(run, fresh), [path.name[:3] for path in paths], 0, [str(path) for path in paths]
    )
    assert drawn[0].calibration.scores.tolist() == sorted(expected.tolist())
    assert drawn[0].training.grouped


def test_copies_count_once_and_copies_of_training_images_not_at_all(
    run: Path, fresh: Path, tmp_path: Path
) -> None:
    good, rng = tmp_path / "good", np.random.default_rng(0)
    good.mkdir()

    def save(name: str, pixels: np.ndarray, noise: float) -> None:
        Image.fromarray(
            np.clip(pixels + rng.normal(0, noise, pixels.shape), 0, 255).astype(np.uint8)
        ).save(good / name)

    for path in sorted(fresh.glob("*.png"))[:20]:
        for i in range(4):
            # two are the same pixels
            save(f"{path.stem}_{i}.png", np.asarray(Image.open(path)), 1.5 * (i > 1))
    with open(run / IMAGES, newline="") as file:
        learnt = [row["path"] for row in csv.DictReader(file) if row["set"] == "fit"][:3]
    for i, name in enumerate(learnt):
        save(f"learnt{i}.png", np.asarray(Image.open(name)), 1.5)
    card, path, left_out = recalibrate_on(
        run, GoodImages(good), out=tmp_path / "new.onnx", asked=Asked(0.1)
    )
    assert card.calibration.n == 20 and card.training.grouped
    assert [line for line in left_out if "on which this detector was trained" in line] == left_out[
        :3
    ]
    assert left_out[3].startswith(
        "60 of 80 good images are copies or near-copies of others: 20 groups count"
    )
    assert check(run, good).images == 20
    declared = {"group_by": None, "seed": 0, "independent": True}
    card, _, left_out = recalibrate_on(
        run, GoodImages(good, **declared), out=tmp_path / "all.onnx", asked=Asked(0.1)
    )
    assert card.calibration.n == 63 and left_out[0].startswith(
        "20 of 83 good images are copies or near-copies of others"
    )


def test_a_rank_only_detector_gets_a_threshold(run: Path, fresh: Path, tmp_path: Path) -> None:
    def strip(model: onnx.ModelProto) -> None:
        set_calibration(model, None)
        edit_card(model, calibration=None)

    card, path, _ = recalibrate_on(
        changed(run, tmp_path / "rank.onnx", strip),
        GoodImages(fresh),
        out=tmp_path / "new.onnx",
        asked=Asked(0.1),
    )
    assert card.calibration is not None
    assert Scorer(path, device="cpu").score(fresh / "0000.png").is_anomaly is not None


# --- what is left out or refused ------------------------------------------------------------------
def test_images_that_it_was_trained_on_cannot_set_the_threshold(
    run: Path, parts: Path, tmp_path: Path
) -> None:
    with open(run / IMAGES, newline="") as file:
        used = {row["sha256"]: row["set"] for row in csv.DictReader(file)}
    assert {
        name: list(used.values()).count(name) for name in ("fit", "validation", "calibration")
    } == {
        "fit": 49,
        "validation": 11,
        "calibration": 60,
    }
    records = normal_training(read_dataset(parts))
    kept, left_out = without_training_images(records, run / IMAGES)
    assert (len(kept), len(left_out)) == (60, 60)
    assert left_out[0].endswith("this detector was trained on it, so it cannot set its threshold")
    copies = tmp_path / "copies"  # known by their bytes, not by their names
    shutil.copytree(parts / "train" / "good", copies)
    (copies / "0000.png").rename(copies / "renamed.png")
    card, _, left_out = recalibrate_on(
        run, GoodImages(copies), out=tmp_path / "new.onnx", asked=Asked(0.1)
    )
    assert (card.calibration.n, len(left_out)) == (60, 60)
    fitted = tmp_path / "fitted"
    fitted.mkdir()
    for record in set(records) - set(kept):
        shutil.copy(record.path, fitted)
    with pytest.raises(
        CalibrationError,
        match=r"no good image of .*fitted can be used \(.*this detector was trained on it",
    ):
        recalibrate_on(run, GoodImages(fitted), out=tmp_path / "none.onnx", asked=Asked())
    assert not (tmp_path / "none.onnx").exists()


def test_a_detector_alone_or_a_listing_that_is_none_leaves_nothing_out(
    run: Path, parts: Path, tmp_path: Path
) -> None:
    records = normal_training(read_dataset(parts))
    (tmp_path / IMAGES).write_text("some,thing\nelse,here\n")
    for listing in (tmp_path / "none.csv", tmp_path / IMAGES):
        assert without_training_images(records, listing) == (records, [])


def test_unreadable_images_are_left_out_with_a_line(run: Path, fresh: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    shutil.copytree(fresh, images)
    (images / "0003.png").write_bytes(b"")
    (images / "0005.png").write_bytes(b"XIF89a")
    card, _, left_out = recalibrate_on(
        run, GoodImages(images), out=tmp_path / "new.onnx", asked=Asked(0.1)
    )
    assert card.calibration.n == 38
    assert left_out == [
        f"{images}/0003.png: file of zero bytes: copy it again",
        (
            f"{images}/0005.png: begins with b'XIF89a', which is none of JPEG, PNG, BMP, TIFF, "
            "WEBP, GIF, PPM, DIB: convert it"
        ),
    ]


def test_defects_among_the_labels_never_set_a_threshold(
    run: Path, parts: Path, tmp_path: Path
) -> None:
    lines = [f"{record.path},{record.label}" for record in labelled_test(read_dataset(parts))]
    (tmp_path / "manifest.csv").write_text("path,label\n" + "\n".join(lines) + "\n")
    card, _, _ = recalibrate_on(
        run, GoodImages(tmp_path / "manifest.csv"), out=tmp_path / "a.onnx", asked=Asked(0.1)
    )
    assert card.calibration.n == 30


def test_a_detector_never_changes_under_its_name(run: Path, fresh: Path, tmp_path: Path) -> None:
    before = (run / "detector.onnx").read_bytes()
    with pytest.raises(
        DetectorError,
        match=r"detector\.onnx is there already; a detector in use must not change under",
    ):
        recalibrate_on(run, GoodImages(fresh), out=run / "detector.onnx", asked=Asked())
    assert (run / "detector.onnx").read_bytes() == before
    shutil.copy(run / "detector.onnx", tmp_path)
    _, path, _ = recalibrate_on(tmp_path, GoodImages(fresh), out=None, asked=Asked())
    assert path == tmp_path / "detector-2.onnx"
    # the next free version
    card, path, _ = recalibrate_on(tmp_path, GoodImages(fresh), out=None, asked=Asked())
    assert (path, card.version) == (tmp_path / "detector-3.onnx", "3")
    with pytest.raises(DetectorError, match=r"detector-2\.onnx is there already"):
        recalibrate_on(tmp_path, GoodImages(fresh), out=tmp_path / "detector-2.onnx", asked=Asked())
    with pytest.raises(
        DetectorError, match=r"nowhere: no such folder; make it first, or choose another --out"
    ):
        recalibrate_on(
            tmp_path, GoodImages(fresh), out=tmp_path / "nowhere" / "new.onnx", asked=Asked()
        )


def test_a_target_rate_that_the_images_cannot_keep_is_refused(
    run: Path, fresh: Path, tmp_path: Path
) -> None:
    with pytest.raises(
        CalibrationError,
        match=r"40 good images set the threshold and can guarantee 1 false alarm in 41, not 1 %",
    ):
        recalibrate_on(run, GoodImages(fresh), out=tmp_path / "new.onnx", asked=Asked(0.01))
    assert not (tmp_path / "new.onnx").exists()


def test_it_needs_no_torch_and_names_the_extra_where_onnx_is_missing(
    run: Path, fresh: Path, tmp_path: Path
) -> None:
    code = f"""
import sys
sys.modules["torch"] = None
from anomaly.commands.main import main
print(main(["calibrate", {str(run)!r}, "--normal", {str(fresh)!r},
            "--out", {str(tmp_path / "a.onnx")!r}, "--accept-worse"]))
sys.modules["onnx"] = None
sys.stderr = sys.stdout
print(main(["calibrate", {str(run)!r}, "--normal", {str(fresh)!r},
            "--out", {str(tmp_path / "b.onnx")!r}]))
"""
    lines = in_a_fresh_process(code)
    assert lines[0].startswith(f"written                 {tmp_path / 'a.onnx'}   run@2 sha256:")
    assert lines[-3:] == [
        "0",
        (
            "anomaly: writing a detector file needs onnx, which is not installed: pip install "
            "'anomaly[calibrate]'"
        ),
        "1",
    ]


def test_a_full_disk_names_the_detector_that_could_not_be_written(
    run: Path, parts: Path, small_disk: Path
) -> None:
    (small_disk / "filler").write_bytes(b"x" * 190_000)
    with pytest.raises(OSError, match="No space left") as full:
        recalibrate_on(
            run, GoodImages(parts / "test" / "good"), out=small_disk / "new.onnx", asked=Asked(0.3)
        )
    assert (
        full.value.filename == str(small_disk / "new.onnx")
        and not (small_disk / "new.onnx").exists()
    )
