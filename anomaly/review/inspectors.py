"""How inspectors agree with each other."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

from anomaly.review.verdicts import MIN_ANSWERS, import_extra, resolve
from anomaly.statistics.calibration import Rate


class Act(NamedTuple):
    """A verdict that was given. ``current``: not undone, and the last one of this inspector on this
    image.
    """

    inspector: str
    finding: int
    verdict: str
    undone: bool
    current: bool
    seconds: float | None


@dataclass(frozen=True)
class Inspector:
    """What one inspector has done: images by current verdict, verdicts taken back, and the time
    that one takes.

    ``known``: hidden images of which the truth is known, how many were judged right (unsure is
    not), of how many.
    """

    name: str
    anomalous: int
    normal: int
    unsure: int
    skipped: int
    undone: int
    median_seconds: float | None
    known: Rate | None

    @property
    def judged(self) -> int:
        return self.anomalous + self.normal + self.unsure


@dataclass(frozen=True)
class Agreement:
    """Two inspectors on the ``n`` images that both called anomalous or normal, ``same`` of them
    alike.

    ``kappa``: Cohen's, 1 for perfect agreement, 0 for what chance would give; None with fewer than
    20 such images (``needed`` more) or where both gave one and the same verdict throughout.
    """

    a: str
    b: str
    n: int
    same: int
    kappa: float | None
    needed: int


@dataclass(frozen=True)
class Team:
    inspectors: list[Inspector]
    agreements: list[Agreement]
    disagreements: int
    unsure: int


def team(acts: Sequence[Act], truths: Mapping[int, str]) -> Team:
    """Returns who has done what and how far they agree. ``truths``: of the hidden known images, by
    finding.
    """
    names = sorted({act.inspector for act in acts})
    current = {
        name: {a.finding: a.verdict for a in acts if a.current and a.inspector == name}
        for name in names
    }
    images: dict[int, list[str]] = {}
    for verdicts in current.values():
        for finding, verdict in verdicts.items():
            images.setdefault(finding, []).append(verdict)
    states = Counter(resolve(verdicts) for verdicts in images.values())
    return Team(
        [
            _inspector(name, [a for a in acts if a.inspector == name], current[name], truths)
            for name in names
        ],
        [agreement(a, b, current[a], current[b]) for a, b in combinations(names, 2)],
        states["disagreement"],
        states["unsure"],
    )


def _inspector(
    name: str, acts: Sequence[Act], current: Mapping[int, str], truths: Mapping[int, str]
) -> Inspector:
    counts = Counter(current.values())
    seconds = [act.seconds for act in acts if act.seconds is not None]
    tested = [
        verdict == truths[finding]
        for finding, verdict in current.items()
        if finding in truths and verdict != "skip"
    ]
    return Inspector(
        name=name,
        anomalous=counts["anomalous"],
        normal=counts["normal"],
        unsure=counts["unsure"],
        skipped=counts["skip"],
        undone=sum(act.undone for act in acts),
        median_seconds=statistics.median(seconds) if seconds else None,
        known=Rate.of(sum(tested), len(tested)) if tested else None,
    )


def agreement(
    a: str, b: str, verdicts_a: Mapping[int, str], verdicts_b: Mapping[int, str]
) -> Agreement:
    """Returns how far two inspectors agree on the images, by finding, that both called anomalous or
    normal.
    """
    both = [
        (verdicts_a[finding], verdicts_b[finding])
        for finding in sorted(verdicts_a.keys() & verdicts_b.keys())
        if {verdicts_a[finding], verdicts_b[finding]} <= {"anomalous", "normal"}
    ]
    same = sum(one == other for one, other in both)
    needed = max(0, MIN_ANSWERS - len(both))
    kappa = None
    if not needed and len({verdict for pair in both for verdict in pair}) == 2:
        kappa = float(
            import_extra("sklearn.metrics", "scikit-learn").cohen_kappa_score(
                *zip(*both, strict=True)
            )
        )
    return Agreement(a, b, len(both), same, kappa, needed)
