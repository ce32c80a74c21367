"""`anomaly compare`: what a new detector would decide otherwise than the old one, on the same
images.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import comb
from pathlib import Path
from typing import Any

from anomaly.imaging.listing import passed_text
from anomaly.inputs.dataset import Record, Say, labelled_test, read_dataset
from anomaly.quality.challenge import calibration_of, judge_records
from anomaly.quality.evaluation_report import GALLERY, gallery_item
from anomaly.reporting.detector import card_text
from anomaly.reporting.page import templates, write_report
from anomaly.reporting.report import Report
from anomaly.scorer import Result, Scorer
from anomaly.statistics.resampling import NORMAL


@dataclass(frozen=True)
class Pairs:
    """Images of one kind under both detectors, those that both judged: how many each of them flags.

    ``now_flagged``: passed by the old one and flagged by the new one; ``now_passed``: the other way
    round.
    """

    images: int
    old: int
    new: int
    now_flagged: int
    now_passed: int

    @property
    def p_value(self) -> float:
        """Of so uneven a division of the flips if both detectors flagged equally many: McNemar's
        test, exact, two-sided.

        It takes images as independent: of photographs of one part it is too small.
        """
        flips, fewer = self.now_flagged + self.now_passed, min(self.now_flagged, self.now_passed)
        return float(min(1.0, 2 * sum(comb(flips, i) for i in range(fewer + 1)) / 2**flips))

    def text(self) -> str:
        return (
            f"{self.old} of {self.images} flagged by the old, {self.new} by the new; "
            f"{self.now_flagged} only by the new, {self.now_passed} only by the old (paired test "
            f"of independent images: p = {self.p_value:.2g})"
        )


@dataclass(frozen=True)
class Comparison:
    """Both detectors on the same images: ``kinds`` by name (all images, and where labels exist good
    and defective ones).
    """

    old: Scorer
    new: Scorer
    records: Sequence[Record]
    results: Sequence[tuple[Result, Result]]
    kinds: dict[str, Pairs]
    not_judged: int
    passed_over: dict[str, int] = field(default_factory=dict)

    def flips(self, flagged: bool) -> list[int]:
        """Returns the indices of images that the new detector flags (or passes) and the old one
        does not, by score.
        """
        found = [
            i
            for i, (old, new) in enumerate(self.results)
            if (old.is_anomaly, new.is_anomaly) == (not flagged, flagged)
        ]
        return sorted(found, key=lambda i: -(self.results[i][1].score or 0.0))

    @property
    def better(self) -> str:
        """Returns which detector is better by the labels, ``old``, ``new`` or ``neither``.

        Better: the paired tests of good and defective images do not speak against it, and one
        speaks for it (5 %).
        """
        sides = {"new": 0, "old": 0}
        for kind, sign in (("good images", -1), ("defective images", 1)):
            pairs = self.kinds.get(kind)
            if pairs is not None and pairs.p_value < 0.05:
                sides["new" if sign * (pairs.new - pairs.old) > 0 else "old"] += 1
        return (
            "neither"
            if bool(sides["new"]) == bool(sides["old"])
            else max(sides, key=lambda side: sides[side])
        )

    def text(self) -> str:
        lines = [("old", self.old.card.identity), ("new", self.new.card.identity)]
        lines += [(kind, pairs.text()) for kind, pairs in self.kinds.items()]
        if len(self.kinds) > 1:
            lines.append(("better by the labels", self.better))
        else:
            lines.append(("better", "unknown: no labels; look at the flips (--report FILE)"))
        for label, flagged in (("now flagged", True), ("now passed", False)):
            names = [str(self.records[i].path) for i in self.flips(flagged)]
            if names:
                lines.append(
                    (
                        label,
                        " ".join(names[:5])
                        + (f" and {len(names) - 5} more" if len(names) > 5 else ""),
                    )
                )
        if self.not_judged:
            lines.append(
                (
                    "not judged",
                    (
                        f"{self.not_judged} images by one of them or both: left out above, treat "
                        "as not OK"
                    ),
                )
            )
        if self.passed_over:
            lines.append(("passed over", passed_text(self.passed_over)))
        return "\n".join(f"{label:<24}{text}" for label, text in lines)

    def to_json(self) -> dict[str, Any]:
        return {
            "old": self.old.card.identity,
            "new": self.new.card.identity,
            "kinds": {
                kind: {
                    "images": p.images,
                    "old": p.old,
                    "new": p.new,
                    "now_flagged": p.now_flagged,
                    "now_passed": p.now_passed,
                    "p_value": p.p_value,
                }
                for kind, p in self.kinds.items()
            },
            "better": self.better if len(self.kinds) > 1 else None,
            "now_flagged": [str(self.records[i].path) for i in self.flips(True)],
            "now_passed": [str(self.records[i].path) for i in self.flips(False)],
            "not_judged": self.not_judged,
            "passed_over": self.passed_over,
        }


def compare(
    old: Scorer,
    new: Scorer,
    images: Path,
    *,
    report: Path | None = None,
    good: Sequence[str] = (),
    say: Say | None = None,
) -> Comparison:
    """Returns how two detectors judge the same images, and writes the flips with pictures where
    asked.

    ``good``: names of the folders or labels of good images; ``say`` gets a line on what is read as
    good and what is not. Raises CalibrationError where one of them has no threshold, DatasetError,
    RuntimeMissing where a report needs Jinja2.
    """
    if report is not None:
        templates()
    calibration_of(old), calibration_of(new)
    passed = Counter[str]()
    # a folder that says nothing: no labels
    given = read_dataset(images, passed=passed, good=good, plain=None, say=say)
    records = [record for record in given if record.split != "train"] or given
    labelled_test(records, say)
    results = list(zip(judge_records(old, records), judge_records(new, records), strict=True))
    both = [
        i for i, pair in enumerate(results) if all(result.is_anomaly is not None for result in pair)
    ]
    kinds = {"all images": _pairs([results[i] for i in both])}
    if any(record.label is not None for record in records):
        for name, normal in (("good images", True), ("defective images", False)):
            kinds[name] = _pairs(
                [
                    results[i]
                    for i in both
                    if records[i].label and (records[i].label == NORMAL) is normal
                ]
            )
    comparison = Comparison(
        old, new, records, results, kinds, len(records) - len(both), dict(passed)
    )
    if report is not None:
        write_report(report, _report(comparison))
    return comparison


def _pairs(results: Sequence[tuple[Result, Result]]) -> Pairs:
    flags = [(bool(old.is_anomaly), bool(new.is_anomaly)) for old, new in results]
    return Pairs(
        images=len(flags),
        old=sum(old for old, _ in flags),
        new=sum(new for _, new in flags),
        now_flagged=flags.count((False, True)),
        now_passed=flags.count((True, False)),
    )


def _report(comparison: Comparison) -> Report:
    new = comparison.new
    galleries = {
        f"{name} ({len(found)})": [
            gallery_item(new, comparison.records[i], comparison.results[i][1])
            for i in found[:GALLERY]
        ]
        for name, found in (
            ("now flagged", comparison.flips(True)),
            ("now passed", comparison.flips(False)),
        )
    }
    return Report(
        title=f"{comparison.old.card.name} against {new.card.name}",
        card=new.card,
        guarantee=card_text(new.card, str(new.path)),
        figures_text=comparison.text(),
        galleries=galleries,
    )
