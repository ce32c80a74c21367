"""What is said of one image or unit."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from anomaly.detector.unit_rule import UnitRule
from anomaly.reporting.guarantee import (
    PREVIEW,
    guarantee_text,
)
from anomaly.reporting.pictures import row_text
from anomaly.reporting.result import result_text, unit_text
from anomaly.scorer import Result
from anomaly.scoring.units import View, judge_unit
from anomaly.statistics.calibration import calibrate
from tests.reporting.test_guarantee import with_threshold


@pytest.mark.parametrize(
    ("score", "text"),
    [
        (
            0.9,
            "FLAGGED. Score 0.90, threshold 0.41. More unusual than all 1,000 good images checked. "
            "That is not the chance that this part is bad: you decide.",
        ),
        (
            0.4129,
            "FLAGGED. Score 0.413, threshold 0.411. About 1 in 167 good images looks this unusual. "
            "That is not the chance that this part is bad: you decide.",
        ),
        (0.39, "Not flagged. This does not mean free of defects."),
        (-5.0, "Not flagged. This does not mean free of defects."),
        (math.nan, "NOT INSPECTED: the score is not a finite number. Treat as not OK."),
        (math.inf, "NOT INSPECTED: the score is not a finite number. Treat as not OK."),
        (None, "NOT INSPECTED: the score is not a finite number. Treat as not OK."),
    ],
)
def test_verdict(score, text):
    assert result_text("ok", score, with_threshold(0.411, 1000)) == text


def test_verdict_of_the_design():
    # 1,999 good images, 4 of them as unusual as this one or more
    scores = np.concatenate(
        [np.linspace(0.1, 0.4, 1980), np.full(16, 0.41), np.full(3, 0.7), np.full(0, 1.0), [0.61]]
    )
    assert result_text("ok", 0.61, calibrate(scores)) == (
        "FLAGGED. Score 0.61, threshold 0.41. About 1 in 400 good images looks this unusual. "
        "That is not the chance that this part is bad: you decide."
    )


def test_verdict_at_a_large_rate():
    found = with_threshold(1.0, 40, 0.25)
    assert result_text("ok", 1.05, found) == (
        "FLAGGED. Score 1.05, threshold 1.00. About 22 in 100 good images look this unusual. "
        "That is not the chance that this part is bad: you decide."
    )


def test_verdict_of_what_was_not_inspected():
    found = with_threshold(0.41)
    assert result_text("error", None, found, "file is truncated") == (
        "NOT INSPECTED: file is truncated. Treat as not OK."
    )
    assert result_text("outside", 0.2, found) == (
        "NOT INSPECTED: unlike the training images in brightness, contrast or sharpness. Treat as "
        "not OK."
    )
    assert (
        result_text("outside", 0.9, found, "too dark")
        == "NOT INSPECTED: too dark. Treat as not OK."
    )


def test_verdict_of_a_view_of_a_part():
    assert result_text("ok", 0.3, with_threshold(0.411, 1000), what="unit") == (
        "Not flagged by this view. This does not mean free of defects."
    )
    assert "About 1 in 167 good units looks this unusual." in result_text(
        "ok", 0.4129, with_threshold(0.411, 1000), what="unit"
    )


@pytest.mark.parametrize(
    ("views", "text"),
    [
        (
            [("a.png", False), ("line/b.png", True)],
            "FLAGGED by its view b.png, whatever the others show.",
        ),
        ([("a.png", True)], "FLAGGED by its view a.png, whatever the others show."),
        ([("a.png", False), ("b.png", False)], "All its 2 views were judged, none flags it."),
        ([("a.png", False)], "NOT JUDGED: 1 of 2 views found. Treat as not OK."),
        # a detector that ranks only
        ([("a.png", None), ("b.png", None)], "All its 2 views were judged."),
        (
            [("a.png", False), ("b.png", "review")],
            "REVIEW. No view flags it, but one lies above the review threshold: you decide.",
        ),
    ],
)
def test_verdict_of_a_part(views, text):
    said = {True: "flagged", False: "not flagged", None: None, "review": "review"}
    flags = {True: True, False: False, None: None, "review": False}
    seen = [
        View(path, 1.0 + bool(found), 0.5, 1.0, flags[found], said[found], "ok")
        for path, found in views
    ]
    assert unit_text(judge_unit("7", seen, UnitRule("x", 2, 2), "d")) == text


def test_the_threshold_has_two_digits_however_high_the_score_is():
    found = calibrate(np.full(99, 1.303, dtype=np.float32))
    for score, said in (
        (28.056, "28.1, threshold 1.3"),
        (2861.9, "2861.9, threshold 1.3"),
        (181563.9, "181564, threshold 1"),
    ):
        assert result_text("ok", score, found).startswith(f"FLAGGED. Score {said}. ")
    assert result_text("ok", 0.5, calibrate(np.zeros(99, np.float32))).startswith(
        "FLAGGED. Score 0.50, threshold 0.00. "
    )


def test_verdict_without_a_guarantee():
    assert (
        result_text("ok", 0.61, None)
        == "Score 0.61. No threshold: this detector ranks only, without a guarantee."
    )


def test_scores_that_differ_are_told_apart():
    found = calibrate(np.full(99, 1234.5, dtype=np.float32))
    assert result_text("ok", float(np.nextafter(np.float32(1234.5), np.float32(2000))), found) == (
        "FLAGGED. Score 1234.5001, threshold 1234.5000. More unusual than all 99 good images "
        "checked. That is not the chance that this part is bad: you decide."
    )


def test_no_text_calls_the_p_value_a_chance():
    found = with_threshold(0.41)
    texts = [
        guarantee_text(found, 1000),
        PREVIEW,
        *(result_text("ok", s, found) for s in (0.1, 0.405, 0.412, 0.9)),
    ]
    assert not any("probab" in text or "p-value" in text or "%" in text for text in texts[1:])
    assert PREVIEW == "Preview: the guarantee returns when fresh good images confirm it."


def test_verdict_between_two_thresholds():
    found = replace(calibrate(np.arange(1, 200)), review_rate=0.05)
    assert result_text("ok", 195.0, found).startswith(
        "REVIEW. Score 195 lies between the review threshold 190 and the threshold 198. About 1 in "
        "33 good images looks this unusual. "
    )
    assert result_text("ok", 190.0, found).startswith("Not flagged.")
    assert result_text("ok", 199.0, found).startswith("FLAGGED.")


def test_the_caption_of_a_picture_has_the_same_result():
    said = [
        row_text("a.png", Result("ok", 0.5, is_anomaly=flagged, review=review))
        for flagged, review in ((True, False), (False, True), (False, False), (None, False))
    ]
    assert [text.removeprefix("a.png   score 0.5") for text in said] == [
        ", flagged",
        ", review",
        ", not flagged",
        "",
    ]
    assert row_text("a.png", Result("error")) == "a.png   not judged"
