"""Tallies of what was scored, flagged and judged, by day, shift, line and order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import date

from anomaly.statistics.intervals import Estimate

KINDS = ("day", "shift", "line", "order")  # what a tally may be of


@dataclass(frozen=True)
class Tally:
    """``images`` that were scored, and what became of them; of the ``flagged`` ones
    ``confirmed`` were found anomalous and ``false_alarms`` normal. ``looked_at``: of those not
    judged by the detector.
    """

    images: int = 0
    flagged: int = 0
    confirmed: int = 0
    false_alarms: int = 0
    review: int = 0
    not_judged: int = 0
    looked_at: int = 0

    @property
    def undecided(self) -> int:
        """Flagged images without a verdict that settles them."""
        return self.flagged - self.confirmed - self.false_alarms

    def __add__(self, other: Tally) -> Tally:
        return Tally(*(getattr(self, one.name) + getattr(other, one.name) for one in fields(Tally)))


@dataclass(frozen=True)
class Part:
    """A tally of one order on one line in one shift of one day. ``types``: how many images were
    found anomalous, by defect type; "" where none was given.
    """

    day: str
    shift: str
    line: str
    order: str
    tally: Tally
    types: Mapping[str, int]


@dataclass(frozen=True)
class Audited:
    """What the audit sample of a run says: of the images that passed, how many are defects; of
    the good images, how many were flagged.
    """

    run: str
    escape: Estimate
    overkill: Estimate


@dataclass(frozen=True)
class Pace:
    """How long verdicts took: their number and the median in seconds, of one inspector or, under
    the name "", of all.
    """

    name: str
    verdicts: int
    median_seconds: float


@dataclass(frozen=True)
class Production:
    """What happened from the day ``first`` to ``last``; ``unaudited``: names of runs without an
    answer of an audit sample.
    """

    first: date
    last: date
    parts: list[Part]
    audited: list[Audited]
    unaudited: list[str]
    paces: list[Pace]

    @property
    def total(self) -> Tally:
        return sum((part.tally for part in self.parts), Tally())

    @property
    def types(self) -> dict[str, int]:
        """How many images were found anomalous, by defect type, the most frequent first."""
        found: Counter[str] = Counter()
        for part in self.parts:
            found.update(part.types)
        return dict(sorted(found.items(), key=lambda one: (-one[1], one[0])))

    def by(self, *kinds: str) -> dict[tuple[str, ...], Tally]:
        """Tallies by some of KINDS, in the order of those."""
        found: dict[tuple[str, ...], Tally] = {}
        for part in self.parts:
            key = tuple(getattr(part, kind) for kind in kinds)
            found[key] = found.get(key, Tally()) + part.tally
        return dict(sorted(found.items()))
