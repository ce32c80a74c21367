"""What a threshold guarantees, as whole texts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from anomaly.detector.guarantee import Guarantee
from anomaly.reporting.guarantee import (
    change_rows,
    changes_text,
    enough_rows,
    guarantee_text,
    more_rows,
    needs_text,
    review_lines,
    too_few_text,
)
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
    assert more_rows(50, None, "fresh") == [  # all of them set the threshold
        ("more good images", "49 more: guarantee 1 %, could be 3 %; 99 of 99 set the threshold"),
        ("", "50 more: guarantee 0.99 %, could be 3 %; 100 of 100 set the threshold"),
        ("", "200 more: guarantee 0.8 %, could be 1.9 %; 250 of 250 set the threshold"),
    ]


def test_needs():
    assert needs_text(0.01) == "1 % needs 99 to set the threshold."
    assert needs_text(0.0005) == "0.05 % needs 1,999 to set the threshold."


def test_a_second_threshold_states_its_rate_its_k_and_its_bound():
    found = replace(calibrate(np.arange(1, 200)), review_rate=0.05)
    assert review_lines(Guarantee(found)) == [
        "review above 190        a person looks at scores from here to the threshold",
        "flagged or review       about 1 in 20 good images (5 %; 10 of 200); 95 % confident: at "
        "most 8 in 100 in the long run",
        "                        in 400 good images expect 20; up to 34 is ordinary",
    ]
    named = replace(calibrate(np.arange(1, 200)), review_score=190)
    assert review_lines(Guarantee(named))[1].startswith("flagged or review       estimated about")
    assert "rate: none" in review_lines(Guarantee(found, preview=True))[1]
    assert review_lines(Guarantee(calibrate(np.arange(9)))) == []
    changes = change_rows(Guarantee(calibrate(np.arange(1, 200))), Guarantee(found))
    assert changes[-3:] == [
        ("review threshold", "none", "190"),
        ("flagged or review", "none", "5 % (10 of 200)"),
        ("upper bound (95 %)", "none", "7.76 %"),
    ]


def test_the_columns_before_and_after_stand_apart():
    cross = replace(calibrate(np.arange(1, 161), kind="cross"), review_rate=0.05)
    lines = changes_text(change_rows(Guarantee(cross), Guarantee(cross))).splitlines()
    assert "0.621 % (1 of 161), estimated  0.621 % (1 of 161), estimated" in lines[2]
    assert lines[0].index("after") == lines[2].rindex("0.621")
