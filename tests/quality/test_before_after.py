"""Before and after a new threshold: always said, and nothing gets worse without a word."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from anomaly.commands.main import main
from anomaly.detector.file import read_card
from anomaly.detector.guarantee import Guarantee
from anomaly.quality.before_after import worse
from anomaly.quality.moved_threshold import nearest, write_moved
from anomaly.reporting.guarantee import guarantee_figures
from anomaly.statistics.calibration import Calibration, calibrate
from data.synthetic import write_dataset
from tests.detector.test_file import changed, edit_card

Calibrate = Callable[..., tuple[int, str, str]]


def of(n: int, target_rate: float | None = None, **more: object) -> Guarantee:
    return Guarantee(calibrate(np.arange(n), target_rate), **more)


# --- what is worse --------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("before", "after", "found"),
    [
        (of(60), of(60), []),
        (
            of(60),
            of(14),
            [
                "guaranteed rate 6.67 % instead of 1.64 %",
                "upper bound 19.3 % instead of 4.87 %",
                "14 calibration images instead of 60",
            ],
        ),
        (
            of(60),
            of(59),
            ["guaranteed rate 1.67 % instead of 1.64 %", "59 calibration images instead of 60"],
        ),
        (of(60), of(98), []),
        (
            of(60),
            Guarantee(calibrate(np.arange(60), kind="cross")),
            ["the rate would be estimated, no longer guaranteed"],
        ),
        (Guarantee(calibrate(np.arange(60), kind="cross")), of(60), []),
        (of(98), of(199), []),
        (
            of(240),
            of(299),
            [],
        ),  # k = 2 of 241 to 3 of 300: higher, but as was asked for, with more images
        (of(198), of(199), []),
        (
            of(199),
            of(99),
            ["upper bound 2.98 % instead of 2.36 %", "99 calibration images instead of 199"],
        ),
        (of(299), of(240), []),
        (
            of(40, 0.1),
            of(20, 0.1),
            ["upper bound 21.6 % instead of 18.3 %", "20 calibration images instead of 40"],
        ),
        (
            of(40, 0.1),
            of(40, 0.3),
            ["guaranteed rate 29.3 % instead of 9.76 %", "upper bound 41.4 % instead of 18.3 %"],
        ),
        (of(40, 0.3), of(20, 0.1), []),
        (Guarantee(None), of(4), []),  # a first threshold
        (
            of(60),
            of(60, preview=True),
            ["no guaranteed rate: a threshold moved after looking at results is a preview"],
        ),
        (of(60, preview=True), of(60), []),
        (
            of(60, preview=True),
            of(20),
            [
                "guaranteed rate 4.76 % instead of 1.64 %",
                "upper bound 13.9 % instead of 4.87 %",
                "20 calibration images instead of 60",
            ],
        ),
        (
            of(60, what="unit"),
            of(60),
            ["the rate would be guaranteed per image, no longer per unit"],
        ),
        (of(60), of(60, what="unit"), []),
    ],
)
def test_what_gets_worse(before: Guarantee, after: Guarantee, found: list[str]) -> None:
    assert worse(before, after) == found


def test_ties_and_identical_scores_change_nothing_of_the_rate() -> None:
    same = Guarantee(calibrate(np.full(60, 3.0)))
    assert worse(of(60), same) == [] and guarantee_figures(same)[:2] == ("3", "1.64 % (1 of 61)")
    tied = Calibration(np.r_[np.arange(55), np.full(5, 90.0)], 3, 0.05)
    assert worse(Guarantee(tied), of(60, 0.05)) == []


# --- anomaly calibrate ----------------------------------------------------------------------------
@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder of 80 good discs that no detector has seen."""
    folder = tmp_path_factory.mktemp("good")
    write_dataset(folder, kind="disc", train=80, good=0, per_defect=0, size=64, seed=11)
    return folder / "train" / "good"


@pytest.fixture
def command(good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Calibrate:
    """Calibrates a detector on the first so many good images; returns status, standard output and
    standard error.
    """

    def calibrate_on(
        detector: Path, images: int, *more: str, out: str = "new.onnx"
    ) -> tuple[int, str, str]:
        folder = tmp_path / f"{images} good"
        if not folder.exists():
            folder.mkdir()
            for path in sorted(good.iterdir())[:images]:
                shutil.copy(path, folder)
        capsys.readouterr()
        status = main(
            [
                "calibrate",
                str(detector),
                "--normal",
                str(folder),
                "--out",
                str(tmp_path / out),
                *more,
            ]
        )
        return status, *capsys.readouterr()

    return calibrate_on


def test_before_and_after_are_said(run: Path, command: Calibrate) -> None:
    status, out, err = command(run, 80)
    assert (status, err) == (0, "")
    lines = {line[:24].strip(): line[24:].split("  ") for line in out.splitlines()[-4:]}
    assert (
        lines["guaranteed rate"][0] == "1.64 % (1 of 61)"
        and lines["guaranteed rate"][-1].strip() == "1.23 % (1 of 81)"
    )
    assert (
        lines["upper bound (95 %)"][0] == "4.87 %"
        and lines["set by"][-1].strip() == "80 good images"
    )


def test_fewer_images_are_refused_and_accepted_when_told(
    run: Path, command: Calibrate, tmp_path: Path
) -> None:
    status, out, err = command(run, 14)
    assert (status, out) == (1, "") and not (tmp_path / "new.onnx").exists()
    assert err == (
        "anomaly: the guarantee would get worse: guaranteed rate 6.67 % instead of 1.64 %; upper "
        "bound 19.3 % instead of 4.87 %; 14 calibration images instead of 60. Nothing was written: "
        "give more good images, or --accept-worse to write it all the same\n"
    )
    assert not [path for path in tmp_path.iterdir() if path.is_file()]
    status, out, err = command(run, 14, "--accept-worse")
    assert status == 0 and "6.67 % (1 of 15)" in out
    assert (
        read_card(tmp_path / "new.onnx").training.accepted_worse[0]
        == "guaranteed rate 6.67 % instead of 1.64 %"
    )


@pytest.mark.parametrize("as_json", [["--json"], ["--json", "-"]])
def test_a_program_reads_before_and_after(
    run: Path, command: Calibrate, tmp_path: Path, as_json: list[str]
) -> None:
    status, out, _ = command(run, 14, "--accept-worse", *as_json)
    found = json.loads(out)
    assert status == 0 and found["path"] == str(tmp_path / "new.onnx")
    old, new = (read_card(path).calibration for path in (run, tmp_path / "new.onnx"))
    for name, calibration, n in (("before", old, 60), ("after", new, 14)):
        assert found[name] == {
            "threshold": float(calibration.threshold),
            "guaranteed_rate": 1 / (n + 1),
            "estimated_rate": None,
            "upper_bound": calibration.upper_bound,
            "n": n,
            "k": 1,
            "counts": "image",
            "review": None,
            "preview": False,
        }
    assert len(found["worse"]) == 3 and found["left_out"] == []
    assert (
        command(run, 14, *as_json, out="other.onnx")[0] == 1
        and not (tmp_path / "other.onnx").exists()
    )


def test_a_threshold_moved_by_hand_gets_its_guarantee_back(
    run: Path, command: Calibrate, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    card = read_card(run)
    moved = write_moved(
        run,
        nearest(card.calibration, float(card.calibration.scores[-7])),
        tmp_path / "moved.onnx",
        by="ann",
    )
    assert Guarantee.of(moved).to_json()["guaranteed_rate"] is None
    assert main(["show", str(tmp_path / "moved.onnx")]) == 0
    shown = capsys.readouterr().out
    assert "guaranteed rate         none: a preview" in shown and "good images flagged" not in shown
    status, out, _ = command(tmp_path / "moved.onnx", 80)
    assert status == 0 and "none: a preview" in out and "11.1 % (9 of 81)" in out
    again = read_card(tmp_path / "new.onnx")
    assert Guarantee.of(again).holds and again.version == "3"


def test_the_first_threshold_of_a_detector_that_ranked(rank_only: Path, command: Calibrate) -> None:
    status, out, _ = command(rank_only, 4)
    assert status == 0 and "none: it only ranks" in out and "20 % (1 of 5)" in out


def test_per_unit_is_said_and_is_not_lost_without_a_word(
    run: Path, command: Calibrate, tmp_path: Path
) -> None:
    status, out, err = command(run, 80, "--by-unit", r"(\d+)\d\.png", "--views", "10")
    assert status == 1 and "guaranteed rate 11.1 % instead of 1.64 %" in err
    status, out, _ = command(
        run, 80, "--by-unit", r"(\d+)\d\.png", "--views", "10", "--accept-worse"
    )
    assert status == 0 and "8 good units" in out
    status, _, err = command(
        tmp_path / "new.onnx", 80, "--group-by", r"(\d+)\.png", out="image.onnx"
    )
    assert status == 1 and "per image, no longer per unit" in err


def test_copies_of_one_image_are_no_way_to_a_guarantee(
    run: Path, good: Path, tmp_path: Path
) -> None:
    """Sixty identical images: whether they count once or sixty times, before and after
    say which.
    """
    folder = tmp_path / "copies"
    folder.mkdir()
    for number in range(60):
        shutil.copy(good / "0000.png", folder / f"{number:02}.png")
    status = main(
        [
            "calibrate",
            str(run),
            "--normal",
            str(folder),
            "--out",
            str(tmp_path / "new.onnx"),
            "--accept-worse",
        ]
    )
    assert status == 0
    calibration = read_card(tmp_path / "new.onnx").calibration
    assert len(set(calibration.scores.tolist())) == 1


def test_what_a_card_says_of_a_move_does_not_outlive_a_calibration(
    run: Path, command: Calibrate, tmp_path: Path
) -> None:
    def move(model: onnx.ModelProto) -> None:
        training = read_card(run).training
        moved = replace(training, threshold_moved="2026-01-01", threshold_moved_by="ann")
        edit_card(model, training=moved.to_json())

    moved = changed(run, tmp_path / "moved.onnx", move)
    command(moved, 80)
    training = read_card(tmp_path / "new.onnx").training
    assert training.threshold_moved is None and training.threshold_moved_by is None
