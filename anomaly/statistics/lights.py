"""A light for each line and day: are more images flagged, or not judged, than is ordinary for good
ones?

Each day is looked at by itself. Of good images, on 99 of 100 days no light is red, and on 95 none
is amber or red: the levels are shared by all counts of a day (Bonferroni). The count of flagged
images is beta-binomial, that of images not judged binomial.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from anomaly.statistics.calibration import Calibration
from anomaly.statistics.drift import NOT_JUDGED, Series, ordinary_flagged
from anomaly.statistics.intervals import binomial_limit

RED, AMBER, GREEN = "red", "amber", "green"
LEVELS = {RED: 0.99, AMBER: 0.95}  # probability that no light of a day of good images turns


@dataclass(frozen=True)
class DayCount:
    """What was scored on a line on a day: ``images`` (or units: ``what``), of which so many were
    ``flagged`` and ``not_judged``.
    """

    day: str
    line: str
    images: int
    flagged: int
    not_judged: int
    what: str = "image"

    def __add__(self, other: DayCount) -> DayCount:
        return DayCount(
            self.day,
            self.line,
            self.images + other.images,
            self.flagged + other.flagged,
            self.not_judged + other.not_judged,
            self.what,
        )


@dataclass(frozen=True)
class Light:
    """A count with its ``colour``, red, amber or green; ``because``: which counts made it so
    (flagged, not judged). ``expected``: flagged ones if all are good; None of a detector that only
    ranks. ``flagged_up_to`` and ``not_judged_up_to``: what is ordinary; above that it is amber, far
    above red.
    """

    count: DayCount
    colour: str
    because: tuple[str, ...]
    expected: float | None
    flagged_up_to: int | None
    not_judged_up_to: int


def lights(
    counts: Sequence[DayCount], calibration: Calibration | None, not_judged: float = NOT_JUDGED
) -> list[Light]:
    """Returns the light of each count. ``not_judged``: the share of good images that are not
    judged, at the most.
    """
    of_day = Counter(one.day for one in counts)
    kinds = 1 if calibration is None else 2
    return [_light(one, calibration, not_judged, kinds * of_day[one.day]) for one in counts]


def _light(count: DayCount, calibration: Calibration | None, share: float, tests: int) -> Light:
    limits = {
        colour: _limits(count, calibration, share, 1 - (1 - level) / tests)
        for colour, level in LEVELS.items()
    }
    found = {"flagged": count.flagged, "not judged": count.not_judged}
    above = {
        colour: tuple(kind for kind, limit in limits[colour].items() if found[kind] > limit)
        for colour in LEVELS
    }
    colour = next((colour for colour in LEVELS if above[colour]), GREEN)
    judged = count.images - count.not_judged
    return Light(
        count,
        colour,
        above.get(colour, ()),
        None if calibration is None else calibration.expected(judged),
        limits[AMBER].get("flagged"),
        limits[AMBER]["not judged"],
    )


def _limits(
    count: DayCount, calibration: Calibration | None, share: float, level: float
) -> dict[str, int]:
    judged = count.images - count.not_judged
    flagged = (
        {} if calibration is None else {"flagged": ordinary_flagged(calibration, judged, level)}
    )
    return {**flagged, "not judged": max(1, binomial_limit(count.images, share, level))}


def by_day(
    series: Iterable[Series], calibration: Calibration | None, days: Sequence[tuple[str, str, str]]
) -> list[DayCount]:
    """Returns the counts of each series on each of ``days`` (name, start, end as its times are
    written), where there are any.
    """
    found = []
    for one in series:
        for day, start, end in days:
            scores = one.scores[bisect_left(one.times, start) : bisect_left(one.times, end)]
            judged = scores[np.isfinite(scores)]
            flagged = 0 if calibration is None else int(calibration.is_anomaly(judged).sum())
            if len(scores):
                blind = len(scores) - len(judged)
                found.append(DayCount(day, one.name, len(scores), flagged, blind, one.what))
    return found
