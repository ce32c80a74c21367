"""What a run came to, in words."""

from __future__ import annotations

from pathlib import Path

from anomaly.reporting.scoring import summary_text
from anomaly.scoring.summary import Summary


def summary(**changes: object) -> Summary:
    values: dict[str, object] = {
        "out": Path("scores.csv"),
        "images": 404,
        "ok": 400,
        "outside": 2,
        "errors": {"truncated": 1, "missing": 1},
        "flagged": 11,
        "expected": 3.98,
        "ordinary_up_to": 9,
        "resumed": 0,
        "seconds": 7.0,
        "reading": 1.0,
        "judging": 12.0,
    }
    return Summary(**(values | changes))  # type: ignore[arg-type]


def test_a_summary_in_words() -> None:
    assert summary_text(summary()).splitlines() == [
        "scored                  404 images, in 7.0 s (58 a second; the model set the pace)",
        "flagged                 11 of 400 images judged (2.8 %); if all are good expect 4, up to "
        "9 is ordinary, 10 or more: anomaly check",
        (
            "not judged              4 images: 2 unlike the training images, 1 missing, 1 "
            "truncated; treat as not OK"
        ),
        "table                   scores.csv",
    ]
    assert summary_text(summary(resumed=304, reading=13.0, outside=0, errors={})).splitlines()[
        0::2
    ] == [
        "scored                  404 images, 304 of them before this run, in 7.0 s (14 a second; "
        "reading and decoding set the pace)",
        "table                   scores.csv",
    ]


def test_with_two_thresholds_who_looks_is_counted() -> None:
    assert summary_text(summary(review=20, review_expected=23.9, review_up_to=35)).splitlines()[
        2
    ] == (
        "review                  20 of 400 images judged, for a person; flagged or review 31: if "
        "all are good expect 24, up to 35 is ordinary"
    )
    two = summary(review=20, flagged=0)
    assert (two.flagged_in_all, two.review_in_all) == (0, 20)
    assert summary().review_in_all == 0
