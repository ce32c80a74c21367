"""How many images are enough: what a dry run says at 20, 50, 200 and 1,000 good images, and that it
says what training does.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from anomaly.errors import CalibrationError, DatasetError, TrainingError
from anomaly.inputs.copies import thumb
from data.synthetic import make
from tests.training.test_sets import photographed_again
from training.options import TrainOptions, chooses_recipe, make_run
from training.pipeline import train
from training.plan import Plan, dry_run
from training.preprocess import Preprocess
from training.tensors import small

ROOT = Path(__file__).parents[2]
SIDE = 32
AT_MOST = "; 95 % confident: at most {} in 100 in the long run"


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder with folders of 20, 50, 200 and 1,000 images of noise, which no two are
    alike.
    """
    root, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for count in (20, 50, 200, 1000):
        (root / str(count)).mkdir()
        for i in range(count):
            Image.fromarray(rng.integers(0, 256, (SIDE, SIDE), np.uint8)).save(
                root / f"{count}/{i:04}.png"
            )
    return root


def options_for(images: Path, out: Path, **others: object) -> TrainOptions:
    given = {"images": images, "out": out, "space": "filters", "size": 64, "calibrate": "split"}
    return TrainOptions(**{**given, **others})


def plan_of(photos: Path, count: int, **others: object) -> Plan:
    return dry_run(options_for(photos / str(count), Path("run"), **others))


def split(rate: float) -> dict[str, object]:
    """Returns what a plan's JSON says of a rate that is guaranteed."""
    return {"kind": "split", "guaranteed_rate": rate, "estimated_rate": None}


def rows_of(plan: Plan) -> list[str]:
    """Returns what a plan says of the guarantee, a line each."""
    lines = plan.text().splitlines()
    return lines[
        lines.index(next(line for line in lines if line.startswith("good images flagged"))) : -1
    ]


def test_the_whole_text_of_20_images(photos: Path) -> None:
    assert plan_of(photos, 20).text().splitlines() == [
        "good images             20 read, 0 left out; 32 x 32 pixels, 8 bits, grey",
        (
            "effective number        20: no groups were declared (--group-by), so every image "
            "counts as independent of the others"
        ),
        "split                   8 images to fit, 2 to validate, 10 to calibrate",
        "model                   linear on filters, 64 x 64 pixels",
        "good images flagged     about 1 in 11 (9.09 %), set by 10 of 20" + AT_MOST.format("26"),
        "                        1 % needs 99 to set the threshold. That takes 198 in all",
        (
            "lowest guaranteed rate  1 in 11 (guarantee 9.1 %, could be 26 %), set by 10, with "
            "--false-alarm-rate 0.1"
        ),
        (
            "more good images        20 more: guarantee 4.8 %, could be 14 %; 20 of 40 set the "
            "threshold"
        ),
        "                        80 more: guarantee 2 %, could be 6 %; 50 of 100 set the threshold",
        (
            "                        178 more: guarantee 1 %, could be 3 %; 99 of 198 set the "
            "threshold"
        ),
        "nothing was trained     leave out --dry-run to train into run",
    ]


@pytest.mark.parametrize(
    ("count", "rows"),
    [
        (
            50,
            [
                "good images flagged     about 1 in 26 (3.85 %), set by 25 of 50"
                + AT_MOST.format("11"),
                "                        1 % needs 99 to set the threshold. That takes 198 in all",
                (
                    "lowest guaranteed rate  1 in 26 (guarantee 3.8 %, could be 11 %), set by 25, "
                    "with --false-alarm-rate 0.04"
                ),
                (
                    "more good images        50 more: guarantee 2 %, could be 6 %; 50 of 100 set "
                    "the threshold"
                ),
                (
                    "                        148 more: guarantee 1 %, could be 3 %; 99 of 198 set "
                    "the threshold"
                ),
                (
                    "                        200 more: guarantee 1 %, could be 3 %; 99 of 250 set "
                    "the threshold"
                ),
            ],
        ),
        (
            200,
            [
                "good images flagged     about 1 in 100 (1 %), set by 99 of 200"
                + AT_MOST.format("3"),
                (
                    "lowest guaranteed rate  1 in 101 (guarantee 0.99 %, could be 3 %), set by "
                    "100, with --false-alarm-rate 0.01"
                ),
                (
                    "more good images        200 more: guarantee 1 %, could be 3 %; 99 of 400 set "
                    "the threshold"
                ),
                (
                    "                        800 more: guarantee 1 %, could be 2.4 %; 199 of 1,000 "
                    "set the threshold"
                ),
            ],
        ),
        (
            1000,
            [
                "good images flagged     about 1 in 100 (1 %), set by 199 of 1,000"
                + AT_MOST.format("2.4"),
                (
                    "lowest guaranteed rate  1 in 501 (guarantee 0.2 %, could be 0.6 %), set by "
                    "500, with --false-alarm-rate 0.002"
                ),
                (
                    "more good images        1,000 more: guarantee 1 %, could be 1.9 %; 399 of "
                    "2,000 set the threshold"
                ),
                (
                    "                        4,000 more: guarantee 1 %, could be 1.6 %; 999 of "
                    "5,000 set the threshold"
                ),
            ],
        ),
    ],
)
def test_what_50_200_and_1000_images_can_guarantee(
    count: int, rows: list[str], photos: Path
) -> None:
    assert rows_of(plan_of(photos, count)) == rows


def test_the_figures_are_those_of_the_text(photos: Path) -> None:
    found = json.loads(json.dumps(plan_of(photos, 50, false_alarm_rate=0.05).to_json()))
    assert {
        name: found[name]
        for name in (
            "images",
            "groups",
            "groups_told",
            "sets",
            "model",
            "space",
            "size",
            "chooses_recipe",
            "target_rate",
        )
    } == {
        "images": 50,
        "groups": 50,
        "groups_told": 50,
        "sets": {"fit": 25, "validation": 6, "calibration": 19},
        "model": "linear",
        "space": "filters",
        "size": 64,
        "chooses_recipe": False,
        "target_rate": 0.05,
    }
    assert found["guarantee"] == pytest.approx(
        {"groups": 50, "n": 19, "k": 1, **split(0.05), "upper_bound": 0.1459}, abs=1e-4
    )
    assert found["lowest"] == pytest.approx(
        {"groups": 50, "n": 25, "k": 1, **split(1 / 26), "upper_bound": 0.1129}, abs=1e-4
    )
    assert [row["groups"] for row in found["more"]] == [100, 250]


def test_groups_count_and_not_their_images(photos: Path) -> None:
    plan = plan_of(photos, 200, group_by=r"\d(\d\d)\d\.png")
    assert (plan.images, plan.groups, plan.largest) == (200, 20, 10)
    assert plan.text().splitlines()[1:3] == [
        (
            "effective number        20 groups of up to 10 images: a guarantee counts groups, one "
            "image of each"
        ),
        "split                   80 images to fit, 20 to validate, 100 to calibrate",
    ]
    assert rows_of(plan) == rows_of(plan_of(photos, 20))


def test_near_duplicates_are_not_counted_twice(tmp_path: Path) -> None:
    parts, rng = [make("disc", seed, 128)[0] for seed in range(120)], np.random.default_rng(0)
    for i, pixels in enumerate([*parts, *(photographed_again(part, rng) for part in parts[:3])]):
        Image.fromarray(pixels).save(tmp_path / f"{i:03}.png")
    plan = dry_run(options_for(tmp_path, tmp_path / "run", size=128))
    assert (plan.images, plan.told, plan.groups, plan.largest) == (123, 123, 120, 2)
    lines = plan.text().splitlines()
    assert lines[1].endswith(
        "120: copies and near-copies are in one group, 123 were told; a guarantee counts groups"
    )
    assert lines[-2].startswith(
        "warning                 copies: 6 of 123 good images are copies or near-copies of another "
        "one"
    )
    assert "so 123 images count as 120 groups" in lines[-2]
    assert not (tmp_path / "run").exists()
    plan = dry_run(
        options_for(
            tmp_path,
            tmp_path / "run",
            size=128,
            exclude=listed(tmp_path, "120.png", "121.png", "122.png"),
        )
    )
    assert (plan.images, plan.told, plan.groups, plan.warnings) == (120, 120, 120, [])


def listed(folder: Path, *names: str) -> Path:
    """Writes a list of images to leave out and returns it."""
    (folder / "list.txt").write_text("\n".join(names))
    return folder / "list.txt"


def test_a_guarantee_that_cannot_be_given_is_refused(photos: Path, tmp_path: Path) -> None:
    message = (
        r"^20 good images \(or groups\) found: 10 of them can set the threshold, so the lowest "
        r"guaranteed rate is 9 %"
    )
    with pytest.raises(CalibrationError, match=message):
        plan_of(photos, 20, false_alarm_rate=0.01)
    with pytest.raises(
        DatasetError, match=r"^2 good images \(or groups\) found, at least 5 expected"
    ):
        plan_of(photos, 20, group_by=r"00(\d)\d\.png")
    (tmp_path / "detector.onnx").touch()
    with pytest.raises(TrainingError, match="holds a finished detector already"):
        dry_run(options_for(photos / "20", tmp_path))
    assert (
        "good images flagged     no guarantee: --rank-only orders images by score"
        in plan_of(photos, 20, rank_only=True).text()
    )


def test_what_cannot_be_read_is_left_out_before_it_is_guaranteed_for(
    grey_parts: Path, tmp_path: Path
) -> None:
    plan = dry_run(options_for(grey_parts, tmp_path / "run"))
    lines = plan.text().splitlines()
    assert lines[0] == "good images             30 read, 2 left out; 48 x 48 pixels, 12 bits, grey"
    assert [Path(line.split(": ")[0].split()[-1]).name for line in lines[1:3]] == [
        "broken.png",
        "notes.png",
    ]
    with pytest.raises(CalibrationError, match=r"^30 good images"):  # 32 could keep it
        dry_run(options_for(grey_parts, tmp_path / "run", false_alarm_rate=0.06))


def test_what_is_no_image_and_what_has_several_is_counted(photos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "good"
    shutil.copytree(photos / "20", folder)
    (folder / "notes.txt").write_text("x")
    (folder / ".DS_Store").write_bytes(b"x")
    shutil.copy(folder / "0000.png", folder / "bare")
    first, second = (Image.open(folder / f"000{n}.png") for n in range(2))
    first.save(folder / "two.tif", save_all=True, append_images=[second])
    (folder / "x.heic").write_bytes(b"\0\0\0\x18ftypheic")
    plan = dry_run(options_for(folder, tmp_path / "run"))
    assert (plan.images, plan.passed_over) == (21, {".txt": 1, "hidden file": 1})
    assert [line.rpartition("/")[2].split(":")[0] for line in plan.left_out] == [
        "two.tif",
        "x.heic",
    ]
    assert "passed over             1 .txt, 1 hidden file" in plan.text()
    assert plan.to_json()["passed_over"] == {".txt": 1, "hidden file": 1}
    with pytest.raises(TrainingError, match=r"is the folder of the images, another one expected"):
        dry_run(options_for(folder, folder / ".." / "good"))


def test_a_run_among_the_images_is_no_image(photos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "good"
    shutil.copytree(photos / "20", folder)
    make_run(folder / "run")
    shutil.copy(folder / "0000.png", folder / "run" / "suspect.png")
    plan = dry_run(options_for(folder, folder / "run2"))
    assert (plan.images, plan.passed_over) == (20, {"folder written by anomaly": 1})
    make_run(folder)  # a folder that was there, with images of others in it, is not marked
    assert dry_run(options_for(folder.parent, folder / "run2")).images == 20


def test_training_does_as_was_said(tmp_path: Path) -> None:
    for seed in range(24):
        Image.fromarray(make("cell", seed, SIDE)[0]).save(tmp_path / f"{seed:02}.png")
    options = options_for(
        tmp_path, tmp_path.parent / f"{tmp_path.name}-run", space="pixels", size=SIDE
    )
    plan, card = dry_run(options), train(options, lambda line: None)
    assert card is not None and card.calibration is not None and plan.prospect is not None
    assert (card.calibration.rate, card.calibration.upper_bound) == (
        plan.prospect.rate,
        plan.prospect.upper_bound,
    )
    assert card.training.sets == plan.to_json()["sets"]
    assert card.training.ranges.to_json() == plan.ranges
    assert (card.model, card.space, card.size) == (
        plan.options.model,
        plan.options.space,
        plan.options.size,
    )
    assert list(card.training.warnings) == plan.warnings


def test_the_small_copies_are_those_that_training_compares() -> None:
    pixels = make("disc", 1, 200)[0]
    ours = thumb(pixels, 128)
    theirs = small(Preprocess(128)(torch.from_numpy(pixels)[None]), 64)[0].mean(0).numpy()
    assert np.abs(ours - theirs).max() < 1e-5


def test_no_torch_is_needed(photos: Path) -> None:
    code = (
        "import sys; from anomaly.commands.main import main; status = main(sys.argv[1:]); "
        "assert not {'torch', 'onnx', 'onnxruntime'} & set(sys.modules), 'heavy'; sys.exit(status)"
    )
    command = [
        sys.executable,
        "-c",
        code,
        "train",
        str(photos / "20"),
        "--out",
        "run",
        "--dry-run",
        "--json",
        "--calibrate",
        "split",
    ]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["guarantee"]["n"] == 10


def test_a_dry_run_says_what_only_training_chooses(photos: Path) -> None:
    plan = plan_of(photos, 20, space="auto", size=None)
    said = (
        "model                   linear; training chooses frame, size and features for these images"
    )
    assert said in plan.text().splitlines() and plan.to_json()["chooses_recipe"]
    asked = plan_of(photos, 20, space="auto", size=64)
    assert " on " in asked.text() and not asked.to_json()["chooses_recipe"]
    free = options_for(photos, Path("run"), space="auto", size=None)
    assert [chooses_recipe(free, n) for n in (19, 20, 8000, 8001)] == [False, True, True, False]
