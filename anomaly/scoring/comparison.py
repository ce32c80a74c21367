"""Two detectors on the same images: what they disagree on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import comb
from typing import Any

from anomaly.inputs.dataset import Record
from anomaly.scorer import Result, Scorer


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
