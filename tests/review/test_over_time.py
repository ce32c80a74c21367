from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip(
    "sqlalchemy", reason="SQLAlchemy is not installed: the review database needs it"
)

from anomaly.detector.card import Card
from anomaly.detector.training_facts import TrainingFacts
from anomaly.imaging.decode import DecodeRule
from anomaly.review import Store
from anomaly.review.stream import Sent, Stream
from anomaly.statistics.calibration import calibrate
from tests.benchmarks.bench_review import write_table
from tests.review.test_review import fill, row


@pytest.fixture
def lite(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "review.db") as store:
        yield store


def test_a_file_that_is_scored_again_counts_once_in_a_series(lite: Store, tmp_path: Path) -> None:
    """Not so a camera that sends the same bytes again and again: that is a change, and shows as
    one.
    """
    fill(lite, tmp_path, [row(i, i / 10) for i in range(4)])
    fill(
        lite, tmp_path, [row(i, i / 10, scored_at="2026-02-01T00:00:00.000Z") for i in range(2, 6)]
    )
    fill(lite, tmp_path, [row(i, 0.9, sha256="ab" * 32) for i in range(10, 13)])
    (found,) = lite.series("c0" * 32, depth=0)
    assert sorted(found.scores.tolist()) == pytest.approx(
        [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.9, 0.9, 0.9]
    )


def carded(**training: object) -> Card:
    """The card of DETECTOR with facts of its training."""
    calibration, rule = calibrate(np.arange(200.0)), DecodeRule()
    return Card(
        "units",
        "3",
        "linear",
        "filters",
        64,
        "a score",
        rule,
        calibration,
        TrainingFacts.from_json(training),
        {},
        {},
        None,
        None,
        "w",
        "c0" * 32,
    )


def test_of_a_group_a_series_has_one_image_whatever_its_score(lite: Store, tmp_path: Path) -> None:
    card = carded(group_by=r"lot(\d+)")
    drawn = []
    for shift in (0.0, 100.0):
        rows = [
            row(i, shift + i, path=f"/photos/lot{i // 5}/{i}.png", sha256=f"{i + shift}")
            for i in range(20)
        ]
        table = write_table(
            tmp_path / f"g{shift}.csv",
            [*rows, row(77, shift, path="/photos/77.png", sha256=f"x{shift}")],
        )
        with Store(tmp_path / f"{shift}.db") as store:
            store.import_table(table, card=card)
            (found,) = store.series("c0" * 32, depth=0)
            drawn.append(sorted(score - shift for score in found.scores.tolist()))
    assert len(drawn[0]) == 5 and drawn[1] == drawn[0]


def test_a_series_of_units_has_the_worst_view_of_each(lite: Store, tmp_path: Path) -> None:
    """Views of a unit come from different cameras; one that lacks a view, or has one that was not
    judged, was not judged.
    """
    card = carded(
        by_unit={"pattern": r"u(\d+)", "least": 2, "most": 2},
        guard={"refused": 0.01, "noticed": {}},
    )
    rows = [
        row(2 * i + j, 0.1 * i + 0.05 * j, path=f"/d/cam{j}/u{i}.png")
        for i in range(4)
        for j in range(2)
    ]
    rows[3] = row(3, None, path="/d/cam1/u1.png")
    table = write_table(tmp_path / "u.csv", [*rows[:-1], row(99, 0.9, path="/d/cam0/odd.png")])
    lite.import_table(table, card=card)
    (found,) = lite.series("c0" * 32)
    assert (found.name, found.what) == ("cam0", "unit")
    assert found.not_judged_share == pytest.approx(1 - 0.98**2)
    assert found.scores.tolist() == pytest.approx([0.05, np.nan, 0.25, np.nan, np.nan], nan_ok=True)


def test_of_a_service_only_the_random_sample_is_a_series(lite: Store, tmp_path: Path) -> None:
    """It stores all that it flags: with those, every service would seem to have changed."""
    stream = Stream("service", tmp_path, carded())
    sent = [Sent(row(i, 5.0 if i % 2 else 0.5), 0.001 if i % 3 == 0 else None) for i in range(12)]
    lite.add_findings(stream, sent, 1000, by="service")
    (found,) = lite.series("c0" * 32)
    assert found.scores.tolist() == [0.5, 5.0, 0.5, 5.0]
