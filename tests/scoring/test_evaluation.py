"""Labelled records with their results."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from anomaly.inputs.dataset import Record
from anomaly.scorer import Result
from anomaly.scoring.evaluation import Judged


def test_what_was_not_judged_needs_a_person() -> None:
    records = [
        Record(Path(f"{i}.png"), "test", label, str(i), None)
        for i, label in enumerate(["good", "good", "good", "crack"])
    ]
    results = [Result("ok", 0.1), Result("outside", 0.1), Result("error"), Result("outside", 0.9)]
    evaluation: Any = SimpleNamespace(to_json=dict)
    scorer: Any = None
    judged = Judged(scorer, records, results, evaluation, 1.0)
    assert (judged.needs_a_person(True), judged.needs_a_person(False)) == ((2, 3), (1, 1))
    assert judged.to_json()["needs_a_person"] == {
        "good": {"count": 2, "n": 3},
        "defects": {"count": 1, "n": 1},
    }
