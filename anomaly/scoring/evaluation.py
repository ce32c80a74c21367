"""What an evaluation found."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from anomaly.imaging.defect_masks import MaskNotes
from anomaly.inputs.dataset import Record
from anomaly.scorer import Result, Scorer
from anomaly.statistics.metrics import Evaluation
from anomaly.statistics.resampling import NORMAL


@dataclass(frozen=True)
class Judged:
    """Labelled records with their results, in the same order, and the figures that follow from
    them.
    """

    scorer: Scorer
    records: list[Record]
    results: list[Result]
    evaluation: Evaluation
    milliseconds: float  # of one image, decoding included
    masks: MaskNotes = field(default_factory=MaskNotes)
    # images that were left out: they trained or calibrated this detector
    used: tuple[str, ...] = ()
    used_good: int = 0  # how many of these are good
    checked: bool = True  # whether that could be looked up
    # what folders hold besides images, by kind
    passed_over: dict[str, int] = field(default_factory=dict)
    # groups that were told, and those that are left once copies are joined; equal: none
    copies: tuple[int, int] = (0, 0)

    @property
    def what(self) -> str:
        """What is counted: images, or units by the worst view of each."""
        return "image" if self.scorer.card.training.by_unit is None else "unit"

    def needs_a_person(self, good: bool) -> tuple[int, int]:
        """Returns how many good (or defective) images were not judged (outside, or errors), and of
        how many.
        """
        pairs = zip(self.records, self.results, strict=True)
        statuses = [result.status for record, result in pairs if (record.label == NORMAL) is good]
        return sum(status != "ok" for status in statuses), len(statuses)

    def to_json(self) -> dict[str, Any]:
        """The figures of the evaluation, and what they do not cover."""
        counts = {
            name: self.needs_a_person(good) for name, good in (("good", True), ("defects", False))
        }
        return {
            **self.evaluation.to_json(),
            "needs_a_person": {
                name: {"count": count, "n": n} for name, (count, n) in counts.items()
            },
            "left_out_as_used": list(self.used),
            "left_out_good": self.used_good,
            "checked_for_used": self.checked,
            "masks": self.masks.to_json(),
        }
