"""What is said, as whole texts."""

from __future__ import annotations

import math

import numpy as np
import pytest

from anomaly.detector.unit_rule import UnitRule
from anomaly.reporting.evaluation import realised_text
from anomaly.reporting.guarantee import (
    PREVIEW,
    enough_rows,
    guarantee_text,
    more_rows,
    needs_text,
    too_few_text,
)
from anomaly.reporting.verdict import unit_text, verdict_text
from anomaly.scoring.units import View, judge_unit
from anomaly.statistics.calibration import Rate, calibrate
from anomaly.statistics.prospect import Prospect


def with_threshold(threshold: float, n: int = 200, target_rate: float | None = None):
    """A calibration of n scores, evenly spread, whose threshold is ``threshold``."""
    k = calibrate(np.arange(n), target_rate).k
    return calibrate((np.arange(n) - (n - k)) * abs(threshold) / n + threshold, target_rate)


def test_the_guarantee():
    text = guarantee_text(
        with_threshold(0.4127), 1000, highest=["good/0412.jpg", "good/0077.jpg", "good/0001.jpg"]
    )
    assert text == (
        "threshold 0.4127        set by 200 good images that training did not see\n"
        "good images flagged     about 1 in 100 (0.995 %); 95 % confident: at most 2.3 in 100 in "
        "the long run\n"
        "                        in 400 good images expect 4; up to 11 is ordinary, 12 or more: "
        "anomaly check\n"
        "defects missed          unknown: no defect images were given -> anomaly evaluate RUN "
        "LABELLED\n"
        "holds for               good images like these 200: not for a new lot, light or camera, "
        "not per unit of several views\n"
        "look at these first     good/0412.jpg good/0077.jpg   (the highest 2; if one is a defect, "
        "the threshold is too high)"
    )


def test_the_guarantee_of_groups_with_labelled_defects():
    text = guarantee_text(
        with_threshold(-1234.5, 2000, 0.0005),
        9000,
        highest=["a.png", "b.png"],
        recall=Rate.of(68, 80),
        grouped=True,
        run="runs/cells",
    )
    assert text == (
        "threshold -1234         set by 2,000 good images that training did not see, one of each "
        "group\n"
        "good images flagged     about 1 in 2,001 (0.05 %); 95 % confident: at most 1.5 in 1,000 "
        "in the long run\n"
        "                        in 4,000 good images expect 2; up to 7 is ordinary, 8 or more: "
        "anomaly check\n"
        "defects missed          12 of 80 defect images (15 %; 95 %: 8 to 25 %)\n"
        "holds for               good images like these 2,000: not for a new lot, light or camera, "
        "not per unit of several views\n"
        "look at these first     a.png   (the highest; if it is a defect, the threshold is too "
        "high)"
    )


def test_the_guarantee_of_a_large_rate_set_by_all_images():
    assert guarantee_text(with_threshold(2.0, 40, 0.25), 40, run="runs/cells").splitlines()[:4] == [
        "threshold 2             set by 40 good images",
        (
            "good images flagged     about 24 in 100 (24.4 %); 95 % confident: at most 36 in 100 "
            "in the long run"
        ),
        (
            "                        in 80 good images expect 20; up to 31 is ordinary, 32 or "
            "more: anomaly check"
        ),
        (
            "defects missed          unknown: no defect images were given -> anomaly evaluate "
            "runs/cells LABELLED"
        ),
    ]


def test_too_few():
    assert guarantee_text(calibrate(np.arange(10.0)), 20) == too_few_text(
        calibrate(np.arange(10.0)), 20
    )
    assert too_few_text(calibrate(np.arange(10.0)), 20) == (
        "20 good images: 10 set the threshold. Lowest guaranteed rate 9 % (could be 26 %). 1 % "
        "needs 99 to set the threshold. Add images, or --false-alarm-rate 0.1, or --rank-only "
        "(order, no guarantee)."
    )
    # recalibrated
    assert too_few_text(calibrate(np.arange(10.0)), 10).endswith(
        "Add images, or --false-alarm-rate 0.1."
    )
    assert too_few_text(calibrate([1.0]), 2) == (
        "2 good images: 1 sets the threshold. Lowest guaranteed rate 50 % (could be 95 %). 1 % "
        "needs 99 to set the threshold. Add images, or --false-alarm-rate 0.5, or --rank-only "
        "(order, no guarantee)."
    )


def test_enough_for_the_rate_that_was_asked_for_is_not_too_few():
    assert guarantee_text(calibrate(np.arange(10.0), 0.1), 20).startswith(
        "threshold 9             set by 10 good images"
    )


@pytest.mark.parametrize(
    ("groups", "target_rate", "said", "lowest"),
    [
        (
            20,
            None,
            "about 1 in 11 (9.09 %), set by 10 of 20",
            "1 in 11 (guarantee 9.1 %, could be 26 %), set by 10",
        ),
        (
            50,
            0.05,
            "about 1 in 20 (5 %), set by 19 of 50",
            "1 in 26 (guarantee 3.8 %, could be 11 %), set by 25",
        ),
        (
            200,
            None,
            "about 1 in 100 (1 %), set by 99 of 200",
            "1 in 101 (guarantee 0.99 %, could be 3 %), set by 100",
        ),
        (
            1000,
            None,
            "about 1 in 100 (1 %), set by 199 of 1,000",
            "1 in 501 (guarantee 0.2 %, could be 0.6 %), set by 500",
        ),
    ],
)
def test_how_many_are_enough(groups, target_rate, said, lowest):
    rows = enough_rows(Prospect.of(groups, target_rate), target_rate)
    assert rows[0][1].startswith(f"{said}; 95 % confident: at most ")
    assert rows[-1][1].startswith(f"{lowest}, with --false-alarm-rate 0.")
    needs = "1 % needs 99 to set the threshold. That takes 198 in all"
    assert [row for row in rows if row[0] == ""] == ([("", needs)] if groups == 20 else [])


def test_what_more_images_would_bring():
    assert more_rows(50, 0.05) == [
        ("more good images", "50 more: guarantee 5 %, could be 15 %; 19 of 100 set the threshold"),
        ("", "200 more: guarantee 5 %, could be 10 %; 59 of 250 set the threshold"),
    ]
    assert more_rows(50, None, training=False) == [  # all of them set the threshold
        ("more good images", "49 more: guarantee 1 %, could be 3 %; 99 of 99 set the threshold"),
        ("", "50 more: guarantee 0.99 %, could be 3 %; 100 of 100 set the threshold"),
        ("", "200 more: guarantee 0.8 %, could be 1.9 %; 250 of 250 set the threshold"),
    ]


def test_needs():
    assert needs_text(0.01) == "1 % needs 99 to set the threshold."
    assert needs_text(0.0005) == "0.05 % needs 1,999 to set the threshold."


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
    assert verdict_text("ok", score, with_threshold(0.411, 1000)) == text


def test_verdict_of_the_design():
    # 1,999 good images, 4 of them as unusual as this one or more
    scores = np.concatenate(
        [np.linspace(0.1, 0.4, 1980), np.full(16, 0.41), np.full(3, 0.7), np.full(0, 1.0), [0.61]]
    )
    assert verdict_text("ok", 0.61, calibrate(scores)) == (
        "FLAGGED. Score 0.61, threshold 0.41. About 1 in 400 good images looks this unusual. "
        "That is not the chance that this part is bad: you decide."
    )


def test_verdict_at_a_large_rate():
    found = with_threshold(1.0, 40, 0.25)
    assert verdict_text("ok", 1.05, found) == (
        "FLAGGED. Score 1.05, threshold 1.00. About 22 in 100 good images look this unusual. "
        "That is not the chance that this part is bad: you decide."
    )


def test_verdict_of_what_was_not_inspected():
    found = with_threshold(0.41)
    assert verdict_text("error", None, found, "file is truncated") == (
        "NOT INSPECTED: file is truncated. Treat as not OK."
    )
    assert verdict_text("outside", 0.2, found) == (
        "NOT INSPECTED: unlike the training images in brightness, contrast or sharpness. Treat as "
        "not OK."
    )
    assert (
        verdict_text("outside", 0.9, found, "too dark")
        == "NOT INSPECTED: too dark. Treat as not OK."
    )


def test_verdict_of_a_view_of_a_part():
    assert verdict_text("ok", 0.3, with_threshold(0.411, 1000), what="unit") == (
        "Not flagged by this view. This does not mean free of defects."
    )
    assert "About 1 in 167 good units looks this unusual." in verdict_text(
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
    ],
)
def test_verdict_of_a_part(views, text):
    seen = [View(path, 1.0 + bool(flagged), 0.5, 1.0, flagged, "ok") for path, flagged in views]
    assert unit_text(judge_unit("7", seen, UnitRule("x", 2, 2), "d")) == text


def test_the_threshold_has_two_digits_however_high_the_score_is():
    found = calibrate(np.full(99, 1.303, dtype=np.float32))
    for score, said in (
        (28.056, "28.1, threshold 1.3"),
        (2861.9, "2861.9, threshold 1.3"),
        (181563.9, "181564, threshold 1"),
    ):
        assert verdict_text("ok", score, found).startswith(f"FLAGGED. Score {said}. ")
    assert verdict_text("ok", 0.5, calibrate(np.zeros(99, np.float32))).startswith(
        "FLAGGED. Score 0.50, threshold 0.00. "
    )


def test_verdict_without_a_guarantee():
    assert (
        verdict_text("ok", 0.61, None)
        == "Score 0.61. No threshold: this detector ranks only, without a guarantee."
    )


def test_scores_that_differ_are_told_apart():
    found = calibrate(np.full(99, 1234.5, dtype=np.float32))
    assert verdict_text("ok", float(np.nextafter(np.float32(1234.5), np.float32(2000))), found) == (
        "FLAGGED. Score 1234.5001, threshold 1234.5000. More unusual than all 99 good images "
        "checked. That is not the chance that this part is bad: you decide."
    )


def test_realised_false_alarms():
    found = calibrate(np.arange(300.0))
    assert realised_text(Rate.of(5, 302), found) == (
        "5 of 302 good images flagged (1.7 %; 95 %: 0.54 to 3.8 %); expected 3, up to 8 is ordinary"
    )
    assert realised_text(Rate.of(9, 302), found) == (
        "9 of 302 good images flagged (3 %; 95 %: 1.4 to 6 %); expected 3, up to 8 is ordinary: "
        "more than chance explains, these good images are unlike the ones that set the threshold"
    )
    assert realised_text(Rate.of(5, 302), found, (5, 302)) == realised_text(Rate.of(5, 302), found)
    assert realised_text(Rate.of(5, 302), found, (14, 906)) == (
        "5 of 302 good images flagged (1.7 %; 95 %: 0.54 to 3.8 %, one of each group; 14 of 906 "
        "counting every image); expected 3, up to 8 is ordinary"
    )
    assert realised_text(Rate.of(0, 1), found) == (
        "0 of 1 good image flagged (0 %; 95 %: 0 to 98 %); expected 0.01, up to 0 is ordinary"
    )


def test_no_text_calls_the_p_value_a_chance():
    found = with_threshold(0.41)
    texts = [
        guarantee_text(found, 1000),
        PREVIEW,
        *(verdict_text("ok", s, found) for s in (0.1, 0.405, 0.412, 0.9)),
    ]
    assert not any("probab" in text or "p-value" in text or "%" in text for text in texts[1:])
    assert PREVIEW == "Preview: the guarantee returns when fresh good images confirm it."
