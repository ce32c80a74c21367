"""A detector on labelled images: figures, words, pictures."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from anomaly import Scorer
from anomaly.dataset import labelled_test, read_dataset
from anomaly.errors import DatasetError, ImageError
from anomaly.labelled import (
    Judged,
    build_report,
    chosen_pictures,
    colour_anchors,
    evaluate_labelled,
    figures_text,
    judge,
    reconstructions,
)
from tests.test_detector import changed, edit_card
from tests.test_scorer import alone

CLASSES = ["chip", "crack", "dent", "missing", "scratch", "stain"]


@pytest.fixture(scope="module")
def labelled(parts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the test images with one that cannot be read and one that is unlike the training images."""
    folder = tmp_path_factory.mktemp("labelled") / "parts"
    shutil.copytree(parts / "test", folder / "test")
    shutil.copytree(parts / "ground_truth", folder / "ground_truth")
    (folder / "test" / "good" / "broken.png").write_bytes(b"\xff\xd8\xff")
    Image.new("RGB", (64, 64), (9, 9, 9)).save(folder / "test" / "good" / "dark.png")
    return folder


@pytest.fixture(scope="module")
def judged(run: Path, labelled: Path, tmp_path_factory: pytest.TempPathFactory) -> Judged:
    report = tmp_path_factory.mktemp("report") / "report.html"
    found = evaluate_labelled(Scorer(run, device="cpu"), labelled, report=report)
    page = report.read_text(encoding="utf-8")
    assert page.startswith("<!DOCTYPE html>") and "NOT INSPECTED" in page
    return found


def test_every_image_is_judged_or_counted_as_not_inspected(judged: Judged) -> None:
    e = judged.evaluation
    assert (e.n_normal, e.n_anomalous, e.not_inspected, e.not_inspected_normal) == (31, 24, 1, 1)
    assert [
        record.path.name for record, result in zip(judged.records, judged.results, strict=True) if result.status == "error"
    ] == ["broken.png"]
    assert {name: figures.n for name, figures in e.per_class.items()} == dict.fromkeys(CLASSES, 4)
    assert e.pixels is not None and e.pixels.regions >= 24
    assert e.false_alarms is not None and e.false_alarms.stopped.n == 31
    assert e.detector == judged.scorer.card.identity


def test_figures_follow_from_the_scores(judged: Judged) -> None:
    calibration, e = judged.scorer.card.calibration, judged.evaluation
    assert calibration is not None and e.recall is not None and e.image_auroc is not None
    pairs = [pair for pair in zip(judged.records, judged.results, strict=True) if pair[1].score is not None]
    bad = [result.score for record, result in pairs if record.label != "good"]
    good = [result.score for record, result in pairs if record.label == "good"]
    assert e.recall.flagged == sum(score > calibration.threshold for score in bad)
    assert e.image_auroc.value == pytest.approx(np.mean([b > g for b in bad for g in good]))
    assert e.false_alarms.stopped.flagged == sum(score > calibration.threshold for score in good)


def test_the_words_say_counts_and_what_is_missing(judged: Judged) -> None:
    lines = {line[:24].strip(): line[24:] for line in figures_text(judged).splitlines()}
    assert list(lines) == [
        "ranking (AUROC)", "average precision", "defects stopped", "good images stopped", "pixels", *CLASSES, "outside",
        "NOT INSPECTED", "time",
    ]  # fmt: skip
    e = judged.evaluation
    assert lines["defects stopped"].startswith(f"{e.recall.flagged} of 24 (")
    assert lines["good images stopped"].startswith(f"{e.false_alarms.stopped.flagged} of 31 good images stopped (")
    assert lines["outside"].startswith("1 good and ")
    assert lines["NOT INSPECTED"] == "1 image could not be judged. Treat as not OK."
    assert lines["time"].endswith("ms an image, decoding included, on cpu")


def test_the_report_shows_the_pictures_that_matter(judged: Judged, labelled: Path) -> None:
    chosen = chosen_pictures(judged)
    assert list(chosen) == ["most anomalous", "least anomalous", "false alarms", "misses"]
    scores = [result.score for result in judged.results if result.score is not None]
    assert [result.score for _, result in chosen["most anomalous"]] == sorted(scores, reverse=True)[:8]
    assert [result.score for _, result in chosen["least anomalous"]] == sorted(scores)[:8]
    assert {record.label for record, _ in chosen["false alarms"]} <= {"good"}
    misses = [result.score for _, result in chosen["misses"]]
    assert "good" not in {record.label for record, _ in chosen["misses"]} and misses == sorted(misses)
    report = build_report(judged, labelled, notes=["a note"])
    assert report.title == "run on parts" and report.notes[0] == "a note"
    first = report.galleries["most anomalous"][0]
    assert first.original.shape[2] == 3 and first.heatmap.shape == (7, 7) and first.expected.shape == (96, 96, 3)
    calibration = judged.scorer.card.calibration
    assert (first.median, first.limit) == (float(calibration.median), float(calibration.threshold))
    assert len(report.p_values) == 31


def rank_only(run: Path, out: Path) -> Scorer:
    def strip(model: onnx.ModelProto) -> None:
        edit_card(model, calibration=None)

    return Scorer(changed(run, out, strip), device="cpu")


def test_without_a_limit_only_the_ranking_is_said(run: Path, labelled: Path, tmp_path: Path) -> None:
    judged = evaluate_labelled(rank_only(run, tmp_path / "rank.onnx"), labelled, report=tmp_path / "report.html")
    e = judged.evaluation
    assert (e.recall, e.false_alarms) == (None, None) and e.image_auroc is not None
    text = figures_text(judged)
    assert "defects stopped         unknown: no limit, or no such images" in text
    assert "good images stopped     unknown: no limit, or no good images" in text
    assert list(chosen_pictures(judged)) == ["most anomalous", "least anomalous"]
    median, top = colour_anchors(judged.scorer, judged.results[0])
    assert median == float(np.median(judged.results[0].heatmap)) and top == float(judged.results[0].heatmap.max())
    assert (tmp_path / "report.html").stat().st_size > 10_000


def test_only_good_or_only_defective_images_give_what_they_can(run: Path, parts: Path, tmp_path: Path) -> None:
    scorer = Scorer(run, device="cpu")
    records = labelled_test(read_dataset(parts))
    good = judge(scorer, [record for record in records if record.label == "good"][:5])
    assert "ranking (AUROC)         needs good and defective images" in figures_text(good)
    assert "pixels" not in figures_text(good)
    bad = judge(scorer, [record for record in records if record.label == "stain"])
    assert "good images stopped     unknown: no limit, or no good images" in figures_text(bad)
    (tmp_path / "manifest.csv").write_text(f"path,split\n{records[0].path},test\n")
    with pytest.raises(DatasetError, match=r"no image with a label found; test/good and test/<defect>, or a label column"):
        evaluate_labelled(scorer, tmp_path / "manifest.csv")


def test_groups_are_counted_once(run: Path, parts: Path) -> None:
    judged = evaluate_labelled(Scorer(run, device="cpu"), parts, group_by=r"/(\d\d\d)\d\.png")
    e = judged.evaluation
    assert (e.n_normal, e.false_alarms.stopped.n, e.recall.n) == (30, 3, 1)
    assert "; of all images " in figures_text(judged)


def test_a_mask_that_cannot_be_read_is_named(run: Path, labelled: Path, tmp_path: Path) -> None:
    copy = tmp_path / "parts"
    shutil.copytree(labelled, copy)
    (copy / "ground_truth" / "stain" / "0001_mask.png").write_bytes(b"")
    with pytest.raises(ImageError, match=r"0001_mask\.png: file of zero bytes"):
        evaluate_labelled(Scorer(run, device="cpu"), copy)


# --- reconstructions --------------------------------------------------------------------------------------------------
def test_reconstructions_stand_beside_the_originals(pixel_run: Path, run: Path, labelled: Path) -> None:
    for path in (pixel_run, run):
        sheet, count, errors = reconstructions(Scorer(path, device="cpu"), labelled, 3)
        assert (sheet.shape, count, errors) == ((3 * 260 + 4, 3 * 260 + 4, 3), 3, [])
    image = labelled / "test" / "good" / "0000.png"
    sheet, count, _ = reconstructions(Scorer(pixel_run, device="cpu"), image, 8)
    assert (sheet.shape, count) == ((264, 784, 3), 1)
    original = np.asarray(Image.open(image).resize((256, 256)))
    np.testing.assert_array_equal(sheet[4:260, 4:260], original)


def test_reconstructions_go_on_after_an_image_that_cannot_be_read(pixel_run: Path, labelled: Path) -> None:
    broken = labelled / "test" / "good" / "broken.png"
    _, count, errors = reconstructions(Scorer(pixel_run, device="cpu"), labelled / "test" / "good", 100)
    assert (count, len(errors)) == (31, 1) and errors[0].startswith(f"{broken}: ")
    with pytest.raises(DatasetError, match=r"no image could be read, the first error: .*broken\.png: JPEG"):
        reconstructions(Scorer(pixel_run, device="cpu"), broken, 8)


def test_without_an_expected_picture_there_is_no_reconstruction(run: Path, labelled: Path, tmp_path: Path) -> None:
    scorer = Scorer(alone(run, tmp_path / "alone"), device="cpu")
    with pytest.raises(DatasetError, match=r"what it expects is not available \(explain\.onnx is not beside it"):
        reconstructions(scorer, labelled, 3)


def test_a_rank_only_detector_has_heatmap_colours_too(run: Path, labelled: Path, tmp_path: Path) -> None:
    scorer = rank_only(run, tmp_path / "rank.onnx")
    shutil.copy(run / "explain.onnx", tmp_path)
    assert reconstructions(scorer, labelled, 1)[1] == 1
