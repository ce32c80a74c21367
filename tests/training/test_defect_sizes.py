"""Synthetic defects of known sizes: how many a finished detector stops, and whether its box meets
them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from anomaly.commands.main import main
from anomaly.detector.file import read_card
from anomaly.detector.training_facts import TrainingFacts
from anomaly.reporting.detector import size_sensitivity_lines
from data.synthetic import make
from training.defect_sizes import DEFECTS_PER_SIZE, KINDS, diameters, drawn, meets
from training.pipeline import TrainOptions, train

PICTURES = [make("casting", seed, 200)[0] for seed in range(3)]


@pytest.mark.parametrize("diameter", [4, 12, 40])
def test_defects_have_about_the_size_they_should(diameter: int) -> None:
    areas = [where.sum() for _, where in drawn(PICTURES, diameter, None, np.random.default_rng(0))]
    assert len(areas) > 0.8 * DEFECTS_PER_SIZE * len(KINDS)
    assert 0.5 * diameter < 2 * np.sqrt(np.median(areas) / np.pi) < 1.6 * diameter


def test_a_drawn_defect_is_where_it_is_said_to_be_and_in_the_mask() -> None:
    mask = np.zeros((20, 10), bool)
    mask[:10] = True
    for number, (made, where) in enumerate(drawn(PICTURES, 20, mask, np.random.default_rng(1))):
        assert made.shape == PICTURES[0].shape and where.any() and not where[100:].any()
        differs = min(((made != picture).any(2) & ~where)[:100].sum() for picture in PICTURES)
        assert differs < 400, number  # by a single level of grey, where a defect fades


def test_diameters_are_in_pixels_of_the_image_and_no_great_part_of_it() -> None:
    assert diameters(15.6, 3000) == [16, 31, 62, 125, 250, 499]
    assert diameters(0.3, 64) == [2, 5, 10]


def test_a_box_meets_a_defect_that_it_holds_a_pixel_of() -> None:
    where = np.zeros((20, 30), bool)
    where[5, 9] = True
    assert meets((9, 5, 1, 1), where) and meets((0, 0, 30, 20), where)
    assert not meets((10, 5, 9, 9), where) and not meets((9, 6, 1, 1), where)


def test_the_card_says_which_sizes_are_flagged_and_boxes_meet_what_is_large(
    run: Path, capsys: pytest.CaptureFixture
) -> None:
    card = read_card(run)
    size_sensitivity = card.training.size_sensitivity.to_json()
    assert size_sensitivity["pixel"] == 1.0 and [
        row["pixels"] for row in size_sensitivity["sizes"]
    ] == [2, 4, 8, 16]
    assert all(
        row["met"] <= row["flagged"] <= row["of"] <= DEFECTS_PER_SIZE * len(KINDS)
        for row in size_sensitivity["sizes"]
    )
    flagged, met = (
        sum(row[key] for row in size_sensitivity["sizes"] if row["pixels"] >= 12)
        for key in ("flagged", "met")
    )
    assert flagged >= 3 and met >= 0.9 * flagged
    assert main(["show", str(run)]) == 0
    shown = capsys.readouterr().out
    assert "smallest defects        one pixel of the model is 1 of yours a side; defects" in shown
    assert all(line in shown for line in size_sensitivity_lines(card.training))


def test_min_area_is_part_of_the_calibrated_score(parts: Path, tmp_path: Path) -> None:
    cards = {}
    for area in (None, 20):
        options = TrainOptions(
            parts,
            tmp_path / str(area),
            space="pixels",
            size=64,
            min_area=area,
            calibrate="split",
        )
        cards[area] = train(options, lambda line: None)
    plain, opened = cards[None], cards[20]
    assert (
        opened.training.min_area,
        opened.training.min_cells,
        plain.training.min_cells,
    ) == (20, 20, 1)
    # of images whose noise is high in single cells
    assert (opened.calibration.scores < plain.calibration.scores).all()
    assert opened.calibration.rate == plain.calibration.rate and opened.training.parity <= 1e-3
    assert size_sensitivity_lines(opened.training)[-1] == (
        "least area              what is high in less than 20 pixels (20 cells of the heatmap) "
        "does not count"
    )


def test_what_is_said_of_sizes() -> None:
    def said(*flagged: int) -> str:
        rows = [
            {"pixels": 4 * 2**i, "flagged": n, "of": 24, "met": 0} for i, n in enumerate(flagged)
        ]
        facts = {"size_sensitivity": {"pixel": 15.6, "sizes": rows}}
        return size_sensitivity_lines(TrainingFacts.from_json(facts))[0].split("; ")[1]

    assert said(0, 3, 12) == "defects smaller than 16 pixels are likely unseen"
    assert said(0, 3, 11) == "defects up to 16 pixels are likely unseen"
    assert said(20, 24) == "most of the smallest that were tried are seen"
    assert size_sensitivity_lines(TrainingFacts(min_area=9, min_cells=1)) == [
        "least area              9 pixels changes nothing: one cell of the heatmap is larger"
    ]
    for nothing in (
        {},
        {"size_sensitivity": None},
        {"size_sensitivity": {"sizes": [], "pixel": 1}},
    ):
        assert size_sensitivity_lines(TrainingFacts.from_json(nothing)) == []


def test_a_new_threshold_counts_the_same_synthetic_defects_anew(
    run: Path, parts: Path, tmp_path: Path
) -> None:
    command = [
        "calibrate",
        str(run),
        "--normal",
        str(parts / "test" / "good"),
        "--out",
        str(tmp_path / "new.onnx"),
    ]
    assert main([*command, "--accept-worse"]) == 0
    old, new = read_card(run), read_card(tmp_path / "new.onnx")
    for card in (old, new):
        rows = card.training.size_sensitivity.to_json()["sizes"]
        assert [row["flagged"] for row in rows] == [
            int(card.calibration.is_anomaly(row["scores"]).sum()) for row in rows
        ]
        assert all(len(row["scores"]) == row["of"] for row in rows)
    assert [row["scores"] for row in old.training.size_sensitivity.to_json()["sizes"]] == [
        row["scores"] for row in new.training.size_sensitivity.to_json()["sizes"]
    ]


def test_an_area_that_no_image_has_is_refused(
    parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    options = ["--space", "pixels", "--size", "64", "--min-area", "4000"]
    assert main(["train", str(parts), "--out", str(tmp_path / "run"), *options]) == 1
    assert (
        "--min-area 4000 found, at most 1024 expected: a quarter of an image"
        in capsys.readouterr().err
    )
