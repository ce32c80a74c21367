"""A detector on labelled images: figures, words, pictures."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from anomaly import Scorer
from anomaly.detector.calibration_nodes import set_calibration
from anomaly.errors import DatasetError, ImageError
from anomaly.files.table import read_table
from anomaly.inputs.dataset import Record, labelled_test, read_dataset
from anomaly.quality.evaluate import evaluate_labelled, judge_labelled
from anomaly.quality.moved_threshold import write_review_threshold
from anomaly.quality.reconstructions import reconstructions
from anomaly.reporting.evaluation import figures_text, masks_text
from anomaly.reporting.evaluation_report import build_report, chosen_pictures
from anomaly.reporting.known_defects import missed_text
from anomaly.scoring.evaluation import Judged
from anomaly.scoring.pictures import colour_anchors
from anomaly.statistics.intervals import upper_limit
from tests.detector.test_file import changed, edit_card
from tests.support.runs import Said
from tests.test_scorer import alone

CLASSES = ["chip", "crack", "dent", "missing", "scratch", "stain"]


@pytest.fixture(scope="module")
def labelled(parts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the test images with one that cannot be read and one that is unlike the training
    images.
    """
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
        record.path.name
        for record, result in zip(judged.records, judged.results, strict=True)
        if result.status == "error"
    ] == ["broken.png"]
    assert {name: figures.n for name, figures in e.per_class.items()} == dict.fromkeys(CLASSES, 4)
    assert e.pixels is not None and e.pixels.regions >= 24
    assert e.false_alarms is not None and e.false_alarms.flagged.n == 31
    assert e.detector == judged.scorer.card.identity


def test_figures_follow_from_the_scores(judged: Judged) -> None:
    calibration, e = judged.scorer.card.calibration, judged.evaluation
    assert calibration is not None and e.recall is not None and e.image_auroc is not None
    pairs = [
        pair
        for pair in zip(judged.records, judged.results, strict=True)
        if pair[1].score is not None
    ]
    bad = [result.score for record, result in pairs if record.label != "good"]
    good = [result.score for record, result in pairs if record.label == "good"]
    assert e.recall.flagged == sum(score > calibration.threshold for score in bad)
    assert e.image_auroc.value == pytest.approx(np.mean([b > g for b in bad for g in good]))
    assert e.false_alarms.flagged.flagged == sum(score > calibration.threshold for score in good)


def test_the_words_say_counts_and_what_is_missing(judged: Judged) -> None:
    lines = {line[:24].strip(): line[24:] for line in figures_text(judged).splitlines()}
    assert list(lines) == [
        "ranking (AUROC)",
        "average precision",
        "defects flagged",
        "good images flagged",
        "needs a person",
        "pixels",
        *CLASSES,
        "outside",
        "NOT INSPECTED",
        "time",
    ]
    e = judged.evaluation
    assert lines["defects flagged"].startswith(f"{e.recall.flagged} of 24 (")
    assert lines["good images flagged"].startswith(
        f"{e.false_alarms.flagged.flagged} of 31 good images flagged ("
    )
    assert lines["outside"].startswith("1 good and ")
    assert lines["NOT INSPECTED"] == "1 image could not be judged. Treat as not OK."
    assert lines["time"].endswith("ms an image, decoding included, on cpu")


def test_with_two_thresholds_both_are_counted(run: Path, labelled: Path, tmp_path: Path) -> None:
    two = tmp_path / "two.onnx"
    write_review_threshold(run, two, by="ann", review_rate=0.5, review_score=None)
    found = evaluate_labelled(Scorer(two, device="cpu"), labelled)
    said = found.evaluation.to_json()["review"]
    calibration = found.scorer.card.calibration
    above = [
        record.label == "good"
        for record, result in zip(found.records, found.results, strict=True)
        if result.score is not None and result.score > calibration.review_threshold
    ]
    assert said["threshold"] == float(calibration.review.threshold)
    assert said["false_alarms"]["flagged"] == sum(above)
    assert said["recall"]["flagged"] == len(above) - sum(above)
    assert said["false_alarms"]["guaranteed_rate"] == calibration.review.rate
    assert f"flagged or review       defects: {len(above) - sum(above)} of 24" in figures_text(
        found
    )


def test_the_report_shows_the_pictures_that_matter(judged: Judged, labelled: Path) -> None:
    chosen = chosen_pictures(judged)
    assert list(chosen) == ["most anomalous", "least anomalous", "false alarms", "misses"]
    scores = [result.score for result in judged.results if result.score is not None]
    assert [result.score for _, result in chosen["most anomalous"]] == sorted(scores, reverse=True)[
        :8
    ]
    assert [result.score for _, result in chosen["least anomalous"]] == sorted(scores)[:8]
    assert {record.label for record, _ in chosen["false alarms"]} <= {"good"}
    misses = [result.score for _, result in chosen["misses"]]
    assert "good" not in {record.label for record, _ in chosen["misses"]} and misses == sorted(
        misses
    )
    report = build_report(judged, labelled, notes=["a note"])
    assert report.title == "run on parts" and report.notes[0] == "a note"
    first = report.galleries["most anomalous"][0]
    assert (
        first.original.shape[2] == 3
        and first.heatmap.shape == (7, 7)
        and first.expected.shape == (96, 96, 3)
    )
    calibration = judged.scorer.card.calibration
    assert (first.median, first.threshold) == (
        float(calibration.median),
        float(calibration.threshold),
    )
    assert len(report.p_values) == 31


def rank_only(run: Path, out: Path) -> Scorer:
    def strip(model: onnx.ModelProto) -> None:
        set_calibration(model, None)
        edit_card(model, calibration=None)

    return Scorer(changed(run, out, strip), device="cpu")


def test_without_a_threshold_only_the_ranking_is_said(
    run: Path, labelled: Path, tmp_path: Path
) -> None:
    judged = evaluate_labelled(
        rank_only(run, tmp_path / "rank.onnx"), labelled, report=tmp_path / "report.html"
    )
    e = judged.evaluation
    assert (e.recall, e.false_alarms) == (None, None) and e.image_auroc is not None
    text = figures_text(judged)
    assert "defects flagged         unknown: no threshold, or no such images" in text
    assert "good images flagged     unknown: no threshold, or no good images" in text
    assert list(chosen_pictures(judged)) == ["most anomalous", "least anomalous"]
    median, top = colour_anchors(judged.scorer, judged.results[0])
    assert median == float(np.median(judged.results[0].heatmap)) and top == float(
        judged.results[0].heatmap.max()
    )
    assert (tmp_path / "report.html").stat().st_size > 10_000


def test_only_good_or_only_defective_images_give_what_they_can(
    run: Path, parts: Path, tmp_path: Path
) -> None:
    scorer = Scorer(run, device="cpu")
    records = labelled_test(read_dataset(parts))
    good = judge_labelled(scorer, [record for record in records if record.label == "good"][:5])
    assert "ranking (AUROC)         needs good and defective images" in figures_text(good)
    assert "pixels" not in figures_text(good)
    bad = judge_labelled(scorer, [record for record in records if record.label == "stain"])
    assert "good images flagged     unknown: no threshold, or no good images" in figures_text(bad)
    assert (
        "good images flagged     unknown: all 4 good images were used in training"
        in figures_text(replace(bad, used_good=4))
    )
    (tmp_path / "manifest.csv").write_text(f"path,split\n{records[0].path},test\n")
    with pytest.raises(
        DatasetError,
        match=r"no image with a label found; test/good and test/<defect>, or a label column",
    ):
        evaluate_labelled(scorer, tmp_path / "manifest.csv")


def test_groups_are_counted_once(run: Path, parts: Path) -> None:
    judged = evaluate_labelled(Scorer(run, device="cpu"), parts, group_by=r"/(\d\d\d)\d\.png")
    e = judged.evaluation
    assert (e.n_normal, e.false_alarms.flagged.n, e.recall.n) == (30, 3, 1)
    assert "; of all images " in figures_text(judged)


def test_copies_of_good_images_count_once_in_the_rate(
    run: Path, parts: Path, tmp_path: Path
) -> None:
    good, bad = (sorted((parts / "test" / name).glob("*.png"))[:4] for name in ("good", "crack"))
    records, rng = [], np.random.default_rng(0)
    for path in [*good, *bad]:
        pixels, label = np.asarray(Image.open(path)), path.parent.name
        for i in range(5):  # the first two have the same pixels
            noisy = np.clip(pixels + rng.normal(0, 2 * (i > 1), pixels.shape), 0, 255).astype(
                np.uint8
            )
            name = tmp_path / f"{label}-{path.stem}-{i}.png"
            Image.fromarray(noisy).save(name)
            records.append(Record(name, "test", label, name.name, None))
    found = judge_labelled(Scorer(run, device="cpu"), records)
    assert found.evaluation.false_alarms is not None and found.evaluation.recall is not None
    assert (found.evaluation.false_alarms.flagged.n, found.evaluation.n_normal) == (4, 20)
    assert (found.evaluation.recall.n, found.evaluation.n_anomalous) == (16, 20)
    assert found.copies == (40, 20)
    assert (
        "40 images (or groups) count as 20: copies and near-copies of each other are one"
        in figures_text(found)
    )


def test_a_mask_that_cannot_be_read_is_named(run: Path, labelled: Path, tmp_path: Path) -> None:
    copy = tmp_path / "parts"
    shutil.copytree(labelled, copy)
    (copy / "ground_truth" / "stain" / "0001_mask.png").write_bytes(b"")
    with pytest.raises(ImageError, match=r"0001_mask\.png: file of zero bytes"):
        evaluate_labelled(Scorer(run, device="cpu"), copy)


# --- reconstructions ------------------------------------------------------------------------------
def test_reconstructions_stand_beside_the_originals(
    pixel_run: Path, run: Path, labelled: Path
) -> None:
    for path in (pixel_run, run):
        sheet, count, errors = reconstructions(Scorer(path, device="cpu"), labelled, 3)
        assert (sheet.shape, count, errors) == ((3 * 293, 3 * 260 + 4, 3), 3, [])
    image = labelled / "test" / "good" / "0000.png"
    sheet, count, _ = reconstructions(Scorer(pixel_run, device="cpu"), image, 8)
    assert (sheet.shape, count) == ((293, 784, 3), 1)  # under its name and result
    original = np.asarray(Image.open(image).resize((256, 256), Image.Resampling.NEAREST))
    np.testing.assert_array_equal(sheet[33:289, 4:260], original)


def test_reconstructions_go_on_after_an_image_that_cannot_be_read(
    pixel_run: Path, labelled: Path
) -> None:
    broken = labelled / "test" / "good" / "broken.png"
    _, count, errors = reconstructions(
        Scorer(pixel_run, device="cpu"), labelled / "test" / "good", 100
    )
    assert (count, len(errors)) == (31, 1) and errors[0].startswith(f"{broken}: ")
    with pytest.raises(
        DatasetError, match=r"no image could be read, the first error: .*broken\.png: JPEG"
    ):
        reconstructions(Scorer(pixel_run, device="cpu"), broken, 8)


def test_without_an_expected_picture_there_is_no_reconstruction(
    run: Path, labelled: Path, tmp_path: Path
) -> None:
    scorer = Scorer(alone(run, tmp_path / "alone"), device="cpu")
    with pytest.raises(
        DatasetError, match=r"what it expects is not available \(explain\.onnx is not beside it"
    ):
        reconstructions(scorer, labelled, 3)


def test_a_rank_only_detector_has_heatmap_colours_too(
    run: Path, labelled: Path, tmp_path: Path
) -> None:
    scorer = rank_only(run, tmp_path / "rank.onnx")
    shutil.copy(run / "explain.onnx", tmp_path)
    assert reconstructions(scorer, labelled, 1)[1] == 1


def test_images_that_made_the_detector_are_left_out_by_their_bytes(
    run: Path, parts: Path, tmp_path: Path
) -> None:
    shutil.copytree(parts / "test", tmp_path / "x" / "test")
    for i, path in enumerate(sorted((parts / "train" / "good").glob("*.png"))[:20]):
        shutil.copy(path, tmp_path / "x" / "test" / "good" / f"again{i}.png")
    scorer = Scorer(run, device="cpu")
    found = evaluate_labelled(scorer, tmp_path / "x")
    assert len(found.used) == 20 and all("again" in path for path in found.used)
    assert (found.evaluation.n_normal, found.checked) == (30, True)
    assert (
        "left out                20 images that trained or calibrated this detector: "
        "good/again0.png"
    ) in figures_text(found)
    assert found.to_json()["left_out_as_used"] == list(found.used)
    (tmp_path / "only").mkdir()
    shutil.copytree(parts / "train" / "good", tmp_path / "only" / "OK")
    with pytest.raises(
        DatasetError,
        match="all 120 labelled images trained or calibrated this detector, new ones expected",
    ):
        evaluate_labelled(scorer, tmp_path / "only")


def test_of_a_lone_detector_nobody_can_tell_what_made_it(
    run: Path, parts: Path, tmp_path: Path
) -> None:
    shutil.copy(run / "detector.onnx", tmp_path / "lone.onnx")
    found = evaluate_labelled(Scorer(tmp_path / "lone.onnx", device="cpu"), parts)
    assert not found.checked
    assert (
        "not checked             whether these images trained or calibrated it: no images.csv "
        "beside"
    ) in figures_text(found)


def test_what_needs_a_person_is_counted_beside_what_is_flagged(judged: Judged) -> None:
    assert judged.needs_a_person(True) == (2, 32)  # broken.png and dark.png
    n, of = judged.needs_a_person(False)
    assert of == 24
    assert f"needs a person          not judged: good 2 of 32, defects {n} of 24" in figures_text(
        judged
    )
    assert judged.to_json()["needs_a_person"] == {
        "good": {"count": 2, "n": 32},
        "defects": {"count": n, "n": 24},
    }
    assert build_report(judged, Path("x")).figures == judged.to_json()


def test_only_defects_give_recall_and_no_false_alarms(
    run: Path, parts: Path, tmp_path: Path
) -> None:
    shutil.copytree(parts / "test" / "missing", tmp_path / "test" / "missing")
    said: list[str] = []
    found = evaluate_labelled(Scorer(run, device="cpu"), tmp_path, say=said.append)
    assert found.evaluation.recall is not None and found.evaluation.recall.n == 4
    assert found.evaluation.false_alarms is None
    assert (
        said[0].endswith("false alarms stay unknown")
        and said[1] == "read as defects: test/missing (4)"
    )


def test_masks_of_0_and_1_count_and_those_that_lack_are_named(
    run: Path, parts: Path, tmp_path: Path
) -> None:
    shutil.copytree(parts / "test", tmp_path / "test")
    shutil.copytree(parts / "ground_truth", tmp_path / "ground_truth")
    scorer = Scorer(run, device="cpu")
    whole = evaluate_labelled(scorer, tmp_path)
    masks = sorted((tmp_path / "ground_truth").rglob("*.png"))
    for path in masks:
        Image.fromarray((np.asarray(Image.open(path).convert("L")) > 0).astype(np.uint8)).save(path)
    again = evaluate_labelled(scorer, tmp_path)
    assert again.evaluation.pixels == whole.evaluation.pixels is not None
    assert masks_text(again.masks) == ""
    masks[0].unlink()
    Image.new("L", (64, 64)).save(masks[1])
    lacking = evaluate_labelled(scorer, tmp_path)
    assert "masks                   defect images: 1 of 24 without a mask (chip/" in figures_text(
        lacking
    )
    assert "1 of 24 with an empty mask (chip/" in figures_text(lacking)


def test_a_mirrored_layout_of_cameras_is_evaluated_with_its_masks(
    run: Path, parts: Path, tmp_path: Path
) -> None:
    shutil.copytree(parts / "test" / "good", tmp_path / "cam1" / "OK")
    shutil.copytree(parts / "test" / "missing", tmp_path / "cam1" / "NG")
    shutil.copytree(parts / "ground_truth" / "missing", tmp_path / "cam1" / "ground_truth" / "NG")
    found = evaluate_labelled(Scorer(run, device="cpu"), tmp_path)
    assert (found.evaluation.n_normal, found.evaluation.n_anomalous) == (30, 4)
    assert found.evaluation.pixels is not None and masks_text(found.masks) == ""


def test_masks_by_other_names_are_missed(run: Path, parts: Path, tmp_path: Path) -> None:
    shutil.copytree(parts / "test", tmp_path / "test")
    (tmp_path / "ground_truth").mkdir()
    found = evaluate_labelled(Scorer(run, device="cpu"), tmp_path)
    assert masks_text(found.masks).startswith(
        "defect images: 24 of 24 without a mask (chip/0000.png"
    )


# --- known defects --------------------------------------------------------------------------------
def test_images_that_were_learnt_from_are_left_out_and_misses_have_a_bound(
    known_run: Path, parts: Path, known: Path, tmp_path: Path, said: Said
) -> None:
    labelled = tmp_path / "labelled"
    shutil.copytree(parts / "test", labelled / "test")
    for path in (known / "test" / "stain").iterdir():
        shutil.copy(path, labelled / "test" / "stain" / f"known-{path.name}")
    page = tmp_path / "r.html"
    status, out, _ = said("evaluate", known_run, labelled, "--report", page)
    assert status == 0 and "8 images that trained or calibrated this detector: " in out
    judged = evaluate_labelled(Scorer(known_run), labelled)
    found = judged.to_json()["per_class"]["stain"]
    rate = found["recall"]
    assert found["n"] == rate["n"] == 4
    assert found["missed_at_most"] == upper_limit(4 - rate["flagged"], 4)
    words = missed_text(4 - rate["flagged"], 4)
    assert words in out and words in page.read_text()
    table = tmp_path / "t.csv"
    status, out, _ = said("score", known_run, labelled / "test" / "stain", "--out", table)
    named = [row.defect_type for row in read_table(table) if row.defect_type is not None]
    assert status == 0 and len(named) == sum(bool(row.is_anomaly) for row in read_table(table)) > 0
    assert f"likely types            {named.count('stain')} stain" in out
