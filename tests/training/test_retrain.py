"""A threshold that one odd image sets: what it costs is said, a person marks it, and only defects
leave with their groups.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from anomaly.detector.file import read_card
from anomaly.errors import AnomalyError
from anomaly.quality.marks import DEFECT, add_mark, read_highest, training_images
from data.synthetic import write_dataset
from tests.support.runs import Said


def test_what_the_first_image_costs_is_in_the_card_and_said(odd: Path, said: Said) -> None:
    card, highest = read_highest(odd)
    cost = card.training.cost.to_json()
    assert highest[0].group == "part30" and cost["without"] == [highest[0].name]
    assert (
        cost["threshold"]
        == highest[1].score
        < float(card.calibration.threshold)
        == highest[0].score
    )
    assert cost["flagged"] > cost["flagged_now"]
    status, out, _ = said("show", odd)
    assert (
        status == 0
        and f"instead of {card.calibration.threshold:.4g}; flags {cost['flagged']} instead of"
        in out
    )
    page = (odd / "report.html").read_text()
    assert (
        "The threshold" in page
        and "sets the threshold" in page
        and f"original of {highest[0].path[-20:]}"[12:] in page
    )


def test_only_marked_defects_leave_with_their_group_and_before_and_after_are_said(
    run_of_its_own: Path, said: Said
) -> None:
    run, out = run_of_its_own, run_of_its_own.with_name("new")
    card, highest = read_highest(run)
    status, _, err = said("retrain", run, "--out", out)
    assert status == 1 and "no image is marked as a defect" in err and err.count("\n") == 1
    assert (
        said("mark", run, "--defect", highest[0].path, "--good", highest[1].path, "--by", "ann")[0]
        == 0
    )
    for image, why in ((highest[1], "ann marked it as good"), (highest[2], "nobody marked it")):
        (run / "only.txt").write_text(f"{highest[0].path}\n{image.path}\n")
        status, _, err = said("retrain", run, "--out", out, "--only", run / "only.txt")
        assert status == 1 and why in err and not out.exists()
    status, text, err = said("retrain", run, "--out", out)
    assert (
        status == 0
        and "2 good images were left out: marked as defects by ann, or of their groups" in err
    )
    new = read_card(out)
    assert "part30" not in {row["group"] for row in training_images(out)}
    assert len(training_images(out)) == len(training_images(run)) - 2
    asked, again = (one.training.options.to_json() for one in (card, new))
    assert asked | {"exclude": None} == again | {"exclude": None}
    assert asked["seed"] == new.training.seed and asked["group_by"] == r"(part\d+)_"
    assert float(new.calibration.threshold) < float(card.calibration.threshold)
    words = ["threshold", "guaranteed", "upper", "set", "synthetic"]
    assert [line.split()[0] for line in text.splitlines()[-5:]] == words


def test_deleting_good_images_is_no_way_round(
    run_of_its_own: Path, odd_images: Path, said: Said, tmp_path: Path
) -> None:
    _, highest = read_highest(run_of_its_own)
    add_mark(run_of_its_own, highest[0].path, highest[0].sha256, DEFECT, "ann")
    fewer = tmp_path / "good"
    shutil.copytree(odd_images, fewer)
    (fewer / Path(highest[1].path).name).unlink()
    status, _, err = said("retrain", run_of_its_own, "--out", tmp_path / "new", "--images", fewer)
    assert (
        status == 1
        and "1 image of the training not found unchanged" in err
        and not (tmp_path / "new").exists()
    )


def test_a_threshold_that_others_set_is_not_trained_again(
    run_of_its_own: Path, odd_images: Path, said: Said, tmp_path: Path
) -> None:
    fresh = tmp_path / "fresh"
    write_dataset(fresh, kind="disc", train=30, good=0, per_defect=0, size=64, seed=5)
    status, _, err = said(
        "calibrate", run_of_its_own, "--normal", fresh / "train" / "good", "--accept-worse"
    )
    assert (status, err) == (0, "")
    status, _, err = said("retrain", run_of_its_own / "detector-2.onnx", "--out", tmp_path / "new")
    assert status == 1 and "give the run that was trained" in err
    with pytest.raises(AnomalyError, match="other images set its threshold"):
        read_highest(run_of_its_own / "detector-2.onnx")


def test_an_excluded_list_says_what_it_asks_of_the_images(
    odd_images: Path, odd: Path, said: Said, tmp_path: Path
) -> None:
    (tmp_path / "list.txt").write_text("part00_0.png\npart07_1.png\n")
    given = (
        "train",
        odd_images,
        "--out",
        tmp_path / "x",
        "--space",
        "filters",
        "--size",
        64,
        "--no-expected-picture",
        "--exclude",
        tmp_path / "list.txt",
    )
    status, out, _ = said(*given, "--dry-run")
    line = (
        f"2 good images were left out by --exclude {tmp_path / 'list.txt'}: the guarantee holds "
        "only if each of them shows "
    )
    assert status == 0 and line in out
    status, _, err = said(*given)
    assert status == 0 and line in err and line in said("show", tmp_path / "x")[1]
