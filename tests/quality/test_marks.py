"""The images that set a threshold, and what people said of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from anomaly.quality.marks import DEFECT, GOOD, MARKS, UNKNOWN, add_mark, read_highest, read_marks
from tests.support.runs import Said


def test_the_last_mark_counts_and_can_be_taken_back(run_of_its_own: Path) -> None:
    _, highest = read_highest(run_of_its_own)
    first = highest[0]
    for kind, by in ((DEFECT, "ann"), (GOOD, "bo"), (UNKNOWN, "bo"), (DEFECT, "Zoë\n")):
        add_mark(run_of_its_own, first.path, first.sha256, kind, by)
        found = read_marks(run_of_its_own).get(first.sha256)
        assert (None if kind == UNKNOWN else (kind, by)) == (found and (found.mark, found.by))
    # nothing that was said is lost
    assert len((run_of_its_own / MARKS).read_text().splitlines()) == 4


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"mark": 1}',
        "\x00",
        json.dumps({"sha256": "a", "mark": "odd", "by": "", "at": "", "path": ""}),
    ],
)
def test_damaged_marks_are_one_line(
    run_of_its_own: Path, said: Said, text: str, tmp_path: Path
) -> None:
    (run_of_its_own / MARKS).write_text(text + "\n")
    status, _, err = said("retrain", run_of_its_own, "--out", tmp_path / "new")
    assert status == 1 and MARKS in err and err.count("\n") == 1
