"""A threshold moved by hand: which limits can be guaranteed for, and the file that is written."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anomaly.errors import CalibrationError, DetectorError
from anomaly.quality.moved_threshold import (
    free_name,
    largest_rank,
    nearest,
    with_rank,
    with_review,
    write_moved,
    write_review_threshold,
)
from anomaly.reporting.guarantee import ordinal, place_text
from anomaly.statistics.calibration import Calibration, calibrate

scores = st.lists(st.integers(-50, 50), min_size=1, max_size=80).map(
    lambda values: calibrate(np.array(values, np.float32))
)


@given(scores, st.floats(-100, 100))
def test_the_nearest_threshold_is_a_calibration_score_and_keeps_its_guarantee(
    calibration: Calibration, threshold: float
) -> None:
    moved = nearest(calibration, threshold)
    assert moved.threshold in calibration.scores
    assert (
        np.count_nonzero(moved.is_anomaly(moved.scores)) / (moved.n + 1)
        <= moved.rate
        == moved.k / (moved.n + 1)
    )
    again = nearest(moved, float(moved.threshold))
    assert again.threshold == moved.threshold  # it stands still where it is


@given(st.integers(1, 3000), st.data())
def test_every_rank_up_to_half_can_be_chosen(n: int, data: st.DataObject) -> None:
    calibration = calibrate(np.arange(n, dtype=np.float32))
    k = data.draw(st.integers(1, largest_rank(n)))
    assert with_rank(calibration, k).k == k and float(with_rank(calibration, k).threshold) == n - k


def test_limits_of_a_hundred_images() -> None:
    calibration = calibrate(np.arange(1, 100))
    found = {
        threshold: (
            nearest(calibration, threshold).k,
            float(nearest(calibration, threshold).threshold),
        )
        for threshold in (1000, 97.4, 97.6, -5)
    }
    assert found == {1000: (1, 99.0), 97.4: (3, 97.0), 97.6: (2, 98.0), -5: (50, 50.0)}


def test_no_threshold_stops_more_than_half_of_the_good_images() -> None:
    with pytest.raises(CalibrationError, match="rank 51 found, 1 to 50 of 99 good images expected"):
        with_rank(calibrate(np.arange(99)), 51)


def test_said_with_its_bound() -> None:
    calibration = calibrate(np.arange(99))
    assert place_text(with_rank(calibration, 1)) == (
        "Set by the highest of 99 good images: 1 %; 95 % confident: at most 3 % in the long run."
    )
    assert place_text(with_rank(calibration, 1), "unit") == place_text(
        with_rank(calibration, 1)
    ).replace("images", "units")
    assert place_text(with_rank(calibration, 5)) == (
        "Set by the 5th highest of 99 good images: 5 %; 95 % confident: at most 9 % in the long "
        "run."
    )


def test_ordinals() -> None:
    assert [ordinal(n) for n in (1, 2, 3, 4, 11, 12, 13, 21, 102, 111)] == [
        "1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "102nd", "111th",
    ]  # fmt: skip


def test_names_that_are_free(tmp_path: Path) -> None:
    detector = tmp_path / "detector.onnx"
    assert free_name(detector, "2").name == "detector-2.onnx"
    (tmp_path / "detector-2.onnx").touch()
    assert free_name(detector, "2").name == "detector-2b.onnx"


@pytest.fixture(scope="module")
def run(session_folder: Path) -> Path:
    pytest.importorskip("torch")
    from tests.support.review_server import train_detector

    return train_detector(session_folder / "review")


def test_a_moved_threshold_is_a_new_file_with_the_same_weights(run: Path, tmp_path: Path) -> None:
    from anomaly.detector.file import read_card
    from anomaly.scorer import Scorer

    # versions that other tests took from the shared run are not counted here
    own = tmp_path / "run"
    own.mkdir()
    parts, run = run.parent / "parts", Path(shutil.copy(run / "detector.onnx", own))
    parent = read_card(run)
    assert parent.calibration is not None
    moved = nearest(parent.calibration, float(parent.calibration.scores[-7]))
    moved = with_review(moved, float(moved.median))
    card = write_moved(run, moved, tmp_path / "detector-2.onnx", by="ann")
    assert (card.version, card.parent, card.weights) == ("2", parent.digest, parent.weights)
    assert card.calibration == moved and card.calibration.review is not None
    said = card.training.to_json()
    kept = {name: said[name] for name in ("threshold_moved_by", "threshold_moved_from")}
    assert kept == {
        "threshold_moved_by": "ann",
        "threshold_moved_from": float(parent.calibration.threshold),
    }
    # the graph stops by the new threshold
    image = next((parts / "test" / "good").glob("*.png"))
    old, new = Scorer(run).score(image), Scorer(tmp_path / "detector-2.onnx").score(image)
    assert old.score == new.score and new.is_anomaly == (not new.score <= float(moved.threshold))
    Scorer(tmp_path / "detector-2.onnx", verify=True)


def test_what_is_not_written(run: Path, tmp_path: Path) -> None:
    from anomaly.detector.file import read_card

    calibration = read_card(run).calibration
    assert calibration is not None
    (tmp_path / "there.onnx").touch()
    with pytest.raises(DetectorError, match="is there already; a detector in use must not change"):
        write_moved(run, calibration, tmp_path / "there.onnx", by="ann")
    with pytest.raises(DetectorError, match="its calibration scores are others"):
        write_moved(run, calibrate(np.arange(30)), tmp_path / "new.onnx", by="ann")
    assert list(tmp_path.glob("new*")) == []


@given(scores, st.floats(-1e3, 1e3))
def test_a_review_threshold_anywhere_becomes_one_that_can_be(
    calibration: Calibration, score: float
) -> None:
    found = with_review(calibration, score)
    assert found.threshold == calibration.threshold
    if found.review is None:  # no calibration score lies below the threshold, among the upper half
        upper = calibration.scores[calibration.n - (calibration.n + 1) // 2 :]
        assert not (upper < calibration.threshold).any()
    else:
        assert found.review.threshold < found.threshold
        assert 2 * found.review.k <= calibration.n + 1


def test_a_review_threshold_alone_leaves_the_guarantee_of_the_first(
    run: Path, tmp_path: Path
) -> None:
    from anomaly.detector.file import read_card
    from anomaly.scorer import Scorer

    old = read_card(run).calibration
    assert old is not None
    asked = {"review_rate": 0.5, "review_score": None}
    card, path = write_review_threshold(run, tmp_path / "two.onnx", by="ann", **asked)
    assert card.calibration == replace(old, review_rate=0.5) and card.calibration.review is not None
    assert card.training.threshold_moved is None
    parts = run.parent / "parts"
    before, after = Scorer(run, device="cpu"), Scorer(path, device="cpu")
    said = {"flagged": 0, "review": 0, "not flagged": 0}
    for image in sorted((parts / "test").rglob("*.png")):
        one, two = before.score(image), after.score(image)
        assert (one.score, one.is_anomaly) == (two.score, two.is_anomaly)
        review = two.score > float(card.calibration.review.threshold) and not two.is_anomaly
        assert two.result == ("review" if review else one.result)
        said[str(two.result)] += 1
    assert said["flagged"] and said["review"]
    none, _ = write_review_threshold(path, tmp_path / "one.onnx", by="ann", **dict.fromkeys(asked))
    assert none.calibration == old
