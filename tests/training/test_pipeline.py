"""`anomaly train`: from a folder of good images to a run folder, and what stops it before it has
cost any time.
"""

from __future__ import annotations

import csv
import io
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import FrameType

import numpy as np
import pytest
import torch
from PIL import Image

from anomaly import Scorer
from anomaly.detector.file import read_card
from anomaly.errors import CalibrationError, DatasetError, ImageError, TrainingError
from anomaly.files.table import read_table, shortest
from anomaly.imaging.listing import MARK
from anomaly.inputs.dataset import Record, labelled_test, normal_training, read_dataset
from anomaly.inputs.used_images import IMAGES
from anomaly.quality.audit import CHECKS
from anomaly.quality.evaluate import judge_labelled
from anomaly.quality.marks import HIGHEST
from anomaly.reporting.detector import detector_lines
from anomaly.scoring.batch import score_table
from data.synthetic import make
from tests.training.test_tensors import extracted_of
from training.checkpoint import load_checkpoint
from training.describe import unseen_suspects
from training.kept_maps import MAPS
from training.learnt import learnt_and_held_out
from training.options import TrainOptions, resolve
from training.pipeline import train
from training.reading import warn
from training.restore import sample, verify_images
from training.retrain import options_of
from training.sets import find_images, name_of, three_sets
from training.spaces import PixelSpace
from training.suspects import SUSPECTS, Suspect

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder of 24 small solar cells, all good."""
    folder = tmp_path_factory.mktemp("cells")
    for seed in range(24):
        Image.fromarray(make("cell", seed, 32)[0]).save(folder / f"{seed:02}.png")
    return folder


def options_for(images: Path, out: Path, **others: object) -> TrainOptions:
    given = {"images": images, "out": out, "space": "pixels", "size": 32, "calibrate": "split"}
    return TrainOptions(**{**given, **others})


def sets_of(run: Path) -> dict[str, list[str]]:
    """Returns the names of a run's images by the set they were in."""
    found: dict[str, list[str]] = {"fit": [], "validation": [], "calibration": []}
    with open(run / IMAGES, newline="") as file:
        for row in csv.DictReader(file):
            found[row["set"]].append(Path(row["path"]).name)
    return found


# --- JPEG at reduced scale ------------------------------------------------------------------------
def test_reduced_jpeg_is_used_alike_in_training_calibration_scoring_and_evaluation(
    tmp_path: Path,
) -> None:
    """The rule is in the card; calibration scores are those of the Scorer, in a table and in
    evaluate, to the last bit.
    """
    for seed in range(40):
        folder = tmp_path / (
            "train/good" if seed < 36 else "test/good" if seed < 38 else "test/turned"
        )
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(make("disc", seed, 200)[0]).rotate(90 * (seed > 37)).save(
            folder / f"{seed:02}.jpg", quality=90
        )
    for decode in ("full", "reduced"):
        train(
            options_for(tmp_path, tmp_path / decode, false_alarm_rate=0.2, decode=decode),
            lambda line: None,
        )
    full, reduced = Scorer(tmp_path / "full"), Scorer(tmp_path / "reduced")
    assert (full.card.decode.reduced, reduced.card.decode.reduced) == (False, True)
    calibration = [Path(name) for name in set_paths(tmp_path / "reduced", "calibration")]
    # 1/4: no smaller than the model's 32
    assert reduced.decode(calibration[0]).pixels.shape == (50, 50, 3)
    assert (reduced.decode(calibration[0]).width, full.decode(calibration[0]).pixels.shape) == (
        200,
        (200, 200, 3),
    )
    scores = sorted(np.float32(reduced.score(path).score) for path in calibration)
    assert scores == list(reduced.card.calibration.scores)
    records = labelled_test(read_dataset(tmp_path))
    paths = [record.path for record in records]
    score_table(Scorer(tmp_path / "reduced", threads=1), paths, tmp_path / "t.csv")
    tabled = [row.score for row in read_table(tmp_path / "t.csv")]
    assert tabled == [shortest(reduced.score(path).score) for path in paths]
    assert [shortest(result.score) for result in judge_labelled(reduced, records).results] == tabled
    threshold = reduced.card.calibration
    moved = [abs(reduced.score(path).score - full.score(path).score) for path in paths]
    # another picture, though much the same
    assert 0 < max(moved) < 10 * (threshold.threshold - threshold.median)


def set_paths(run: Path, wanted: str) -> list[str]:
    """Returns the paths of a run's images that were in one set."""
    with open(run / IMAGES, newline="") as file:
        return [row["path"] for row in csv.DictReader(file) if row["set"] == wanted]


# --- what a run folder holds ----------------------------------------------------------------------
def test_a_run_folder_holds_what_the_manual_says(run: Path, pixel_run: Path) -> None:
    files = {
        "detector.onnx",
        "checkpoint.safetensors",
        "report.html",
        "train.jsonl",
        "good_images.zip",
        SUSPECTS,
        IMAGES,
        HIGHEST,
        MARK,
    }
    # Other tests' `verify` and `evaluate` note in the shared runs what they found.
    assert {path.name for path in run.iterdir()} - {CHECKS} == files | {"explain.onnx", MAPS}
    assert {path.name for path in pixel_run.iterdir()} - {CHECKS} == files
    rows = [json.loads(line) for line in (pixel_run / "train.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2]
    assert "<h3>Suspects</h3>" in (run / "report.html").read_text(encoding="utf-8")


def test_the_card_says_how_it_was_made(run: Path, parts: Path) -> None:
    card = read_card(run)
    assert card.score == "mean of the hottest 5 % of the heatmap"
    assert card.licences == {"weights": "none used", "data": "not stated"}
    facts = card.training
    assert (facts.images, facts.groups, facts.grouped, facts.seed, facts.target) == (
        120,
        120,
        False,
        0,
        "ort",
    )
    assert facts.ranges.to_json() == {
        "aspect": [1.0, 1.0],
        "pixels": [4096, 4096],
        "bits": [8],
        "grey": False,
    }
    assert 0 <= facts.parity <= 1e-3
    assert sorted(Path(name).name for name in facts.highest) == sorted(
        facts.highest[i][-8:] for i in range(5)
    )
    assert all((parts / name).is_file() for name in facts.highest)


def test_calibration_scores_are_those_of_the_finished_file(run: Path, parts: Path) -> None:
    card, scorer = read_card(run), Scorer(run, device="cpu")
    assert card.calibration is not None
    calibration = sets_of(run)["calibration"]
    scores = {
        name: scorer.run(scorer.decode(parts / "train/good" / name).pixels[None])["score"][0]
        for name in calibration
    }
    assert card.calibration.scores.tolist() == sorted(float(score) for score in scores.values())
    highest = sorted(scores, key=lambda name: -scores[name])[:5]
    assert [Path(name).name for name in card.training.highest] == highest


def test_grey_images_of_12_bits_among_files_that_are_none(grey_run: Path) -> None:
    card = read_card(grey_run)
    assert card.decode.bits == 12
    assert card.training.ranges.to_json() == {
        "aspect": [1.0, 1.0],
        "pixels": [2304, 2304],
        "bits": [12],
        "grey": True,
    }
    assert (card.training.images, card.training.groups) == (30, 30)
    warnings = card.training.warnings
    assert [line.split(": ")[0] for line in warnings] == ["left out"] * 2
    assert [line.split("/")[-1].split(": ")[0] for line in warnings] == ["broken.png", "notes.png"]
    assert warnings[1].endswith(
        "begins with b'the ones', which is none of JPEG, PNG, BMP, TIFF, WEBP, GIF, PPM, DIB: "
        "convert it"
    )
    assert sum(card.training.sets.values()) == 30
    assert not {"broken.png", "notes.png"} & {
        name for subset in sets_of(grey_run).values() for name in subset
    }


# --- the same again -------------------------------------------------------------------------------
def test_weights_follow_from_seed_fit_and_validation_images_not_from_those_that_set_the_threshold(
    cells: Path, tmp_path: Path
) -> None:
    first = train(options_for(cells, tmp_path / "first"), lambda line: None)
    assert first is not None and first.calibration is not None
    chosen = sets_of(tmp_path / "first")["calibration"]
    assert len(chosen) == 12
    images = tmp_path / "images"
    shutil.copytree(cells, images)
    permuted = random.Random(0).sample(chosen, len(chosen))
    for name, other in zip(chosen, permuted, strict=True):
        shutil.copy(cells / other, images / name)
    turned = np.asarray(Image.open(images / chosen[1]))[::-1]
    # and one of them is another image altogether
    Image.fromarray(np.ascontiguousarray(turned)).save(images / chosen[1])
    again = train(options_for(images, tmp_path / "again"), lambda line: None)
    assert again is not None and again.calibration is not None
    assert again.weights == first.weights
    ours, theirs = first.calibration.scores.tolist(), again.calibration.scores.tolist()
    assert len(set(theirs) - set(ours)) == len(set(ours) - set(theirs)) == 1
    checkpoints = [
        load_checkpoint(tmp_path / name / "checkpoint.safetensors")[0]
        for name in ("first", "again")
    ]
    assert all(torch.equal(checkpoints[0][name], checkpoints[1][name]) for name in checkpoints[0])


def test_validation_images_are_learnt_from_too_in_closed_form(cells: Path, tmp_path: Path) -> None:
    train(options_for(cells, tmp_path / "run", model="linear"), lambda line: None)
    names = [name for subset in ("fit", "validation") for name in sets_of(tmp_path / "run")[subset]]
    pixels = np.mean(
        [np.asarray(Image.open(cells / name)).reshape(32, 32, -1)[..., 0] / 255 for name in names],
        0,
    )
    mean = load_checkpoint(tmp_path / "run" / "checkpoint.safetensors")[0]["model.mean"].reshape(
        -1, 32, 32
    )[0]
    np.testing.assert_allclose(mean.numpy(), pixels, atol=1e-5)
    assert len(names) == 12


@pytest.mark.parametrize(
    "others", [{"model": "vae"}, {"score": "typicality"}, {"tile": 64}, {"rank_only": True}]
)
def test_validation_images_are_held_out_where_something_needs_them_unseen(
    others: dict, cells: Path, tmp_path: Path
) -> None:
    options = replace(options_for(cells, tmp_path, model="linear"), **others)
    sets = find_images(options)[1]
    assert learnt_and_held_out(options, sets) == (sets.fit, sets.validation) and sets.validation
    assert learnt_and_held_out(options_for(cells, tmp_path, model="linear"), sets) == (
        [*sets.fit, *sets.validation],
        [],
    )


def at_the_call(function: str, number: int) -> Callable[[FrameType, str, object], None]:
    """Returns a profiler that is a Ctrl-C at the n-th call of a function of training/fit.py."""
    calls = []

    def look(frame: FrameType, event: str, _: object) -> None:
        if (
            event == "call"
            and frame.f_code.co_name == function
            and frame.f_code.co_filename.endswith("fit.py")
        ):
            calls.append(1)
            if len(calls) == number:
                sys.setprofile(None)
                raise KeyboardInterrupt

    return look


def test_a_resumed_vae_ends_in_the_same_detector_as_an_undisturbed_one(
    pixel_run: Path, parts: Path, tmp_path: Path
) -> None:
    options = replace(options_for(parts, tmp_path / "pixel-run", model="vae", epochs=2), size=64)
    with pytest.raises(
        KeyboardInterrupt,
        match=r"^stopped; epoch 1 is kept in .*: run the same command with --resume to go on$",
    ):
        try:
            sys.setprofile(at_the_call("mean_loss", 2))  # at the end of the second epoch
            train(options, lambda line: None)
        finally:
            sys.setprofile(None)
    assert not (options.out / "detector.onnx").exists()
    with pytest.raises(
        TrainingError, match=r"checkpoint\.safetensors is there from an earlier run, .*add --resume"
    ):
        train(options, lambda line: None)
    card, whole = train(replace(options, resume=True), lambda line: None), read_card(pixel_run)
    assert card is not None
    assert (card.weights, card.calibration) == (whole.weights, whole.calibration)
    resumed, undisturbed = (
        load_checkpoint(path / "checkpoint.safetensors")[0] for path in (options.out, pixel_run)
    )
    assert resumed.keys() == undisturbed.keys()
    assert all(torch.equal(resumed[name], undisturbed[name]) for name in resumed)


def test_two_processes_write_one_detector(cells: Path, tmp_path: Path) -> None:
    """By a real torchrun, as the README says it."""
    run = tmp_path / "run"
    torchrun = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "anomaly",
    ]
    chosen = [
        "--model",
        "vae",
        "--space",
        "pixels",
        "--size",
        "32",
        "--epochs",
        "1",
        "--device",
        "cpu",
    ]
    command = [*torchrun, "train", str(cells), "--out", str(run), *chosen]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr
    card = read_card(run)
    assert ran.stdout.count("written ") == 1 and card.digest in ran.stdout
    assert len((run / "train.jsonl").read_text().splitlines()) == 1
    assert Scorer(run, device="cpu", verify=True).score(cells / "00.png").status == "ok"
    assert sorted(path.name for path in run.iterdir()) == [
        MARK,
        "checkpoint.safetensors",
        "detector.onnx",
        "good_images.zip",
        HIGHEST,
        IMAGES,
        "report.html",
        SUSPECTS,
        "train.jsonl",
    ]


# --- what stops it --------------------------------------------------------------------------------
def refused(
    images: Path, tmp_path: Path, kind: type[Exception], message: str, **others: object
) -> None:
    """Asserts that a training is refused before anything is fitted or a detector written."""
    with pytest.raises(kind, match=message):
        train(options_for(images, tmp_path / "refused", **others), lambda line: None)
    left = {path.name for path in (tmp_path / "refused").glob("*")}
    assert left <= {MARK}  # which says that the folder holds no images


def test_folders_that_cannot_be_trained_on(cells: Path, tmp_path: Path) -> None:
    one, same = tmp_path / "one", tmp_path / "same"
    for folder, count in ((one, 1), (same, 12)):
        folder.mkdir()
        for i in range(count):
            shutil.copy(cells / "00.png", folder / f"{i}.png")
    refused(tmp_path / "none", tmp_path, DatasetError, r"none: no such folder or manifest")
    refused(one, tmp_path, DatasetError, r"^1 good image \(or groups\) found, at least 5 expected")
    message = (
        r"^1 good image \(or groups\) found, at least 5 expected.*; copies: .* so 12 images count "
        r"as 1 group,"
    )
    refused(same, tmp_path, DatasetError, message)
    refused(same, tmp_path, DatasetError, message, independent=True)
    refused(same, tmp_path, DatasetError, message, rank_only=True)


def test_a_rate_that_the_images_cannot_keep_is_refused_before_training(
    cells: Path, tmp_path: Path
) -> None:
    message = (
        r"^24 good images .* found: 12 of them can set the threshold, so .* rate is 8 %.* "
        r"--false-alarm-rate 0\.08"
    )
    refused(cells, tmp_path, CalibrationError, message, false_alarm_rate=0.01)


def test_a_review_rate_that_the_threshold_itself_takes_up_is_refused_before_training(
    cells: Path, tmp_path: Path
) -> None:
    message = r"the threshold itself flags 1 in 13 good images: give --review-rate 0\.16 or more"
    refused(cells, tmp_path, CalibrationError, message, review_rate=0.1)
    refused(cells, tmp_path, TrainingError, "^--review-rate and --rank-only found",
            review_rate=0.1, rank_only=True)  # fmt: skip


def test_a_second_threshold_and_no_expected_picture(cells: Path, tmp_path: Path) -> None:
    """Both are in the card, and who asks for the picture is told why there is none."""
    asked = {"space": "filters", "expected_picture": False, "review_rate": 0.2}
    run = tmp_path / "run"
    card = train(options_for(cells, run, **asked), say=lambda line: None)
    assert card is not None and card.calibration is not None and card.calibration.review is not None
    review = card.calibration.review
    assert (review.k, review.n, review.target_rate, review.is_guaranteed) == (2, 12, 0.2, True)
    assert not (run / "explain.onnx").exists()
    scorer = Scorer(run)
    assert scorer.card == card and scorer.explain(make("cell", 99, 32)[0]) is None
    said = "\n".join(detector_lines(card, "run"))
    assert "expected picture        none: trained with --no-expected-picture" in said
    assert "flagged or review" in said
    assert "is not available for these" in (run / "report.html").read_text()
    with pytest.raises(TrainingError, match="trained with --no-expected-picture"):
        sample(run, 1, 0)
    again = options_of(card, run)
    assert (again.expected_picture, again.review_rate) == (False, 0.2)
    with pytest.raises(TrainingError, match=r"^--no-expected-picture with --space"):
        resolve(options_for(cells, run, expected_picture=False))


def test_a_rate_that_fails_for_images_that_cannot_be_read_is_refused_before_training_too(
    cells: Path, tmp_path: Path
) -> None:
    images = tmp_path / "images"
    shutil.copytree(cells, images)
    assert (
        len(find_images(options_for(images, tmp_path / "x", false_alarm_rate=0.08))[1].calibration)
        == 12
    )
    for name in ("03.png", "04.png"):
        (images / name).write_bytes(b"")
    refused(
        images,
        tmp_path,
        CalibrationError,
        r"^22 good images \(or groups\) found",
        false_alarm_rate=0.08,
    )


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"size": 33}, r"^--size 33 found, a multiple of 4 between 28 and 1024 expected$"),
        ({"size": 16}, r"^--size 16 found"),
        ({"size": 2048}, r"^--size 2048 found"),
        (
            {"error": "ssim", "space": "filters"},
            r"^--error ssim found, which is for autoencoders of pixels",
        ),
        ({"error": "ssim", "model": "vae"}, r"^--error ssim found"),
    ],
)
def test_options_that_make_no_sense(
    chosen: dict, message: str, cells: Path, tmp_path: Path
) -> None:
    refused(cells, tmp_path, TrainingError, message, **chosen)


def test_a_score_that_the_model_does_not_have_is_refused_before_the_fit(
    cells: Path, tmp_path: Path
) -> None:
    message = (
        r"^--score iwae found, one of hottest, mean, complexity, typicality expected of this model "
        r"in this space$"
    )
    refused(cells, tmp_path, TrainingError, message, score="iwae")


def test_typicality_of_a_pixel_vae_holds_in_the_file(parts: Path, tmp_path: Path) -> None:
    options = options_for(parts, tmp_path / "x", model="dense-vae", score="typicality", epochs=4)
    card = train(options, lambda line: None)
    assert card.score.startswith(
        "rarity of the model's statistics among validation images, two-sided"
    )
    assert 0 <= card.training.parity <= 1e-3
    assert verify_images(tmp_path / "x", parts / "test" / "good", card).startswith(
        "torch against ONNX      30 of your images"
    )


def test_a_finished_run_is_never_written_over(run: Path, parts: Path) -> None:
    before = (run / "detector.onnx").read_bytes()
    with pytest.raises(
        TrainingError, match=r"run holds a finished detector already, a new folder expected"
    ):
        train(TrainOptions(images=parts, out=run), lambda line: None)
    assert (run / "detector.onnx").read_bytes() == before


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is there")
def test_cuda_where_there_is_none(cells: Path, tmp_path: Path) -> None:
    refused(
        cells, tmp_path, TrainingError, "no CUDA device found, one was asked for", device="cuda"
    )


# --- which images ---------------------------------------------------------------------------------
def test_the_report_says_that_not_all_suspects_have_pictures() -> None:
    suspect = Suspect(
        Record(Path("a.png"), None, "good", "a", None), 2.0, np.zeros((2, 2), np.float32)
    )
    assert unseen_suspects([suspect] * 24, Path("run")) == []
    assert unseen_suspects([suspect] * 40, Path("run")) == [
        "40 suspects are listed in run/suspects.txt: the first 24 have pictures here"
    ]


def test_images_may_be_left_out_by_their_path_or_their_name(cells: Path, tmp_path: Path) -> None:
    listing = tmp_path / "exclude.txt"
    listing.write_bytes(
        f"\ufeff00.png\r\n\r\n  {cells / '05.png'}  \nno such image\n".encode() + b"\xff.png\n"
    )
    records, _ = find_images(options_for(cells, tmp_path / "x", exclude=listing))
    assert [r.path.name for r in records] == [f"{i:02}.png" for i in range(24) if i not in (0, 5)]
    said: list[str] = []
    # as Excel saves a column
    listing.write_bytes('path;\r\n"00.png";\r\n07.png;\r\n'.encode("utf-16"))
    records, _ = find_images(options_for(cells, tmp_path / "x", exclude=listing), said.append)
    assert [r.path.name for r in records] == [f"{i:02}.png" for i in range(24) if i not in (0, 7)]
    assert said == [
        "left out by exclude.txt: 2 images, by 3 lines; 1 lines name none, such as 'path'"
    ]
    listing.write_text("none\n")
    with pytest.raises(
        DatasetError, match=rf"^none of the 1 lines of {listing} names an image of {cells}$"
    ):
        find_images(options_for(cells, tmp_path / "x", exclude=listing))


def test_only_the_good_images_of_the_training_split_are_taken(parts: Path, tmp_path: Path) -> None:
    records, sets = find_images(options_for(parts, tmp_path / "x"))
    assert len(records) == 120 and {r.path.parent for r in records} == {parts / "train" / "good"}
    assert sets == three_sets(normal_training(read_dataset(parts)), 0, None)


def test_images_are_named_as_the_user_knows_them(tmp_path: Path) -> None:
    (tmp_path / "photos" / "a").mkdir(parents=True)
    (tmp_path / "list.csv").touch()
    image = Record(tmp_path / "photos" / "a" / "1.png", None, "good", "", None)
    assert name_of(image, tmp_path / "photos") == "a/1.png"
    assert name_of(image, tmp_path / "list.csv") == "photos/a/1.png"
    assert name_of(image, tmp_path / "elsewhere" / "list.csv") == "a/1.png"


# --- warnings -------------------------------------------------------------------------------------
def test_what_could_not_be_read_is_said_a_page_at_the_most(cells: Path) -> None:
    seen, _ = extracted_of(read_dataset(cells), PixelSpace((64, 64)))
    lines = warn(replace(seen, left_out=[f"{i}.png: empty" for i in range(25)]), "")
    assert lines[0] == "left out: 0.png: empty"
    assert lines[10] == "left out: 15 more"
    assert len(lines) == 11


def test_float_images_are_judged_by_the_scale_of_the_training_images(tmp_path: Path) -> None:
    good = tmp_path / "good"
    good.mkdir()
    heights = [
        make("casting", seed, 48)[0].mean(2, dtype=np.float32) / 255 * (0.98 + 0.04 * (seed % 2))
        for seed in range(25)
    ]
    for i, height in enumerate(heights[:24]):
        Image.fromarray(height).save(good / f"{i:02}.tif")
    card = train(options_for(good, tmp_path / "run"), lambda line: None)
    scorer = Scorer(tmp_path / "run", device="cpu")
    assert card is not None and card.decode.scale is not None and card.decode == scorer.card.decode
    assert card.training.ranges.to_json()["bits"] == [32]
    low, high = card.decode.scale

    def file_of(values: np.ndarray) -> bytes:
        file = io.BytesIO()
        Image.fromarray(values).save(file, "TIFF")
        return file.getvalue()

    one, brighter = (scorer.decode(file_of(heights[24] * factor)).pixels for factor in (1, 1.02))
    expected = 255 * (np.float64(heights[24]) - low) / (high - low)
    assert np.abs(one[..., 0] - expected).max() <= 0.51 and int(brighter.max()) > int(one.max())
    with pytest.raises(ImageError, match="expected by the training images"):
        scorer.score(file_of(heights[24] * 1000))  # in another unit
    eight = io.BytesIO()
    Image.fromarray(np.uint8(heights[24] * 200)).save(eight, "PNG")
    assert (scorer.score(eight.getvalue()).status, scorer.score(eight.getvalue()).is_anomaly) == (
        "outside",
        None,
    )
