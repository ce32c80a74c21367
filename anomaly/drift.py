"""Do new images still look like those that set the limit? Quantiles over time, and a test to be looked at any time.

The test is a conformal test martingale: the Simple Jumper of Vovk, Petej, Nouretdinov, Ahlberg, Carlsson and Gammerman
("Retrain or not retrain", COPA 2021). Each new score gets a p-value against the calibration scores and all new ones
before it, ties broken at random; while images stay exchangeable these are independent and uniform. A gambler bets
against that. Wealth that started at 1 ever reaches 1 / a with probability at most a (Ville 1939), however often and
long one looks. So an alarm at wealth 1 / a has a false-alarm rate of at most a *for good*, not per day.

What it takes: one image of each group, in the order they were taken, and nothing left out. A series with many more
defects than before raises the alarm too, and should.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from anomaly.calibrate import Calibration
from anomaly.errors import AnomalyError

LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)
DEFAULT_FALSE_ALARM_RATE = 0.01
JUMP = 0.01  # share of the wealth that is spread anew over the three bets before each image
BETS = (-1.0, 0.0, 1.0)  # on small p-values (higher scores), on nothing, on large p-values
BLOCK = 512


@dataclass(frozen=True, eq=False)
class Series:
    """Scores of one folder or camera in the order of time: float32 (n,); ``times``: their n moments, text, UTC.

    ``outside``: how many images besides were unlike the training images and were not judged.
    """

    name: str
    scores: NDArray[np.float32]
    times: Sequence[str]
    outside: int = 0


@dataclass(frozen=True, eq=False)
class Window:
    """``images`` consecutive images: quantiles of their scores at LEVELS, float64 (5,), and how many were flagged.

    ``ordinary_up_to``: of so many good images at most so many are flagged, 95 times in 100; None without a limit.
    """

    start: str
    end: str
    images: int
    quantiles: NDArray[np.float64]
    flagged: int | None
    ordinary_up_to: int | None


def calibration_quantiles(calibration: Calibration) -> NDArray[np.float64]:
    """The quantiles at LEVELS of the scores that set the limit, float64 (5,): what windows are compared with."""
    return np.asarray(np.quantile(calibration.scores.astype(np.float64), LEVELS))


def windows(series: Series, calibration: Calibration | None, images: int = 200) -> list[Window]:
    """The series cut into windows of ``images`` images; a last one that is shorter than half joins the one before."""
    if images < 1:
        raise AnomalyError(f"windows of {images} images: expected 1 or more")
    starts = list(range(0, len(series.scores), images)) or [0]
    if len(starts) > 1 and len(series.scores) - starts[-1] < images / 2:
        starts.pop()
    ends = [*starts[1:], len(series.scores)]
    return [_window(series, calibration, start, end) for start, end in zip(starts, ends, strict=True) if end > start]


def _window(series: Series, calibration: Calibration | None, start: int, end: int) -> Window:
    scores = series.scores[start:end]
    return Window(
        start=series.times[start],
        end=series.times[end - 1],
        images=len(scores),
        quantiles=np.asarray(np.quantile(scores.astype(np.float64), LEVELS)),
        flagged=None if calibration is None else int(calibration.is_anomaly(scores).sum()),
        ordinary_up_to=None if calibration is None else calibration.ordinary_up_to(len(scores)),
    )


@dataclass(frozen=True, eq=False)
class Watch:
    """The test on one series. ``log10_wealth``: float64 (n,), after each image; it alarms at ``limit`` or above.

    ``alarm_at``: index of the image that raised the alarm, None where none did; ``changed_at``: of the image from which
    on the scores look changed, an estimate; ``direction``: where they went, ``higher`` or ``lower``.
    """

    name: str
    images: int
    outside: int
    log10_wealth: NDArray[np.float64]
    limit: float
    false_alarm_rate: float
    alarm_at: int | None
    changed_at: int | None
    direction: str | None
    changed_time: str | None

    def text(self) -> str:
        """What was found and, after an alarm, what to do: one line."""
        rate = f"false-alarm rate {100 * self.false_alarm_rate:.3g} % over all folders, for good"
        if self.alarm_at is None or self.changed_at is None:
            peak = 10 ** max(0.0, float(self.log10_wealth.max(initial=0.0)))
            return (
                f"{self.name}: no sign that the scores changed in {self.images:,} images "
                f"(evidence {peak:,.3g} of {10**self.limit:,.0f}; {rate})"
            )
        blind = "; with lower scores defects may pass" if self.direction == "lower" else ""
        return (
            f"{self.name}: the scores are {self.direction} since about image {self.changed_at + 1:,} of {self.images:,} "
            f"({self.changed_time}), so the promised rate of false alarms no longer holds here{blind} ({rate}). Look at "
            "the newest images: light, focus, camera, dirt, a new lot? Mend that if you can; else collect good images of "
            "today and run anomaly check, which says whether to recalibrate or to train again"
        )


def watch(
    series: Sequence[Series],
    calibration: Calibration,
    false_alarm_rate: float = DEFAULT_FALSE_ALARM_RATE,
    seed: int = 0,
) -> list[Watch]:
    """The test on each series. While nothing changes, any of them ever alarms with at most ``false_alarm_rate``.

    That rate is shared out equally (Bonferroni), so the number of series must not depend on what their scores are.
    """
    if not 0 < false_alarm_rate < 1:
        raise AnomalyError(f"a false-alarm rate of {false_alarm_rate} found, above 0 and below 1 expected")
    limit = math.log10(max(1, len(series)) / false_alarm_rate)
    generators = np.random.default_rng(seed).spawn(len(series))
    return [_watch(one, calibration, limit, false_alarm_rate, random) for one, random in zip(series, generators, strict=True)]


def _watch(
    series: Series, calibration: Calibration, limit: float, false_alarm_rate: float, random: np.random.Generator
) -> Watch:
    path = simple_jumper(online_p_values(calibration.scores, series.scores, random))
    above = np.flatnonzero(path.log10_wealth >= limit)
    alarm_at = int(above[0]) if len(above) else None
    changed_at = None if alarm_at is None else _change(path.log10_wealth[: alarm_at + 1])
    return Watch(
        name=series.name,
        images=len(series.scores),
        outside=series.outside,
        log10_wealth=path.log10_wealth,
        limit=limit,
        false_alarm_rate=false_alarm_rate,
        alarm_at=alarm_at,
        changed_at=changed_at,
        direction=None if alarm_at is None else "higher" if path.on_higher[alarm_at] > 0.5 else "lower",
        changed_time=None if changed_at is None else series.times[changed_at],
    )


def _change(wealth: NDArray[np.float64]) -> int:
    """The image after which the wealth, from its lowest point on, only paid off."""
    lowest = int(np.flatnonzero(wealth == wealth.min())[-1])
    return 0 if wealth[lowest] > 0 else min(lowest + 1, len(wealth) - 1)


def online_p_values(calibration: ArrayLike, scores: ArrayLike, random: np.random.Generator) -> NDArray[np.float64]:
    """The p-value of each of ``scores`` (n,) among the calibration scores and those before it, float64 (n,) in (0, 1].

    (number above + u times number equal, itself included) / number in all, u uniform: while all are exchangeable the
    p-values are independent and uniform (Vovk, Gammerman and Shafer 2005), which p-values against the calibration
    scores alone are not. Small = higher than usual.
    """
    bag = np.sort(np.asarray(calibration, dtype=np.float32))
    new = np.asarray(scores, dtype=np.float32)
    u = 1 - random.random(len(new))
    found = np.empty(len(new), dtype=np.float64)
    for start in range(0, len(new), BLOCK):
        block = new[start : start + BLOCK]
        low, high = np.searchsorted(bag, block, "left"), np.searchsorted(bag, block, "right")
        earlier = np.tri(len(block), k=-1, dtype=bool)  # [i, j]: j came before i
        above = len(bag) - high + (earlier & (block[None, :] > block[:, None])).sum(1)
        equal = high - low + (earlier & (block[None, :] == block[:, None])).sum(1) + 1
        total = len(bag) + 1 + np.arange(len(block))
        found[start : start + BLOCK] = (above + u[start : start + BLOCK] * equal) / total
        bag = np.sort(np.concatenate([bag, block]), kind="stable")
    return found


class Path(NamedTuple):
    """``log10_wealth`` after each p-value and the share of it that bets on higher scores, both float64 (n,)."""

    log10_wealth: NDArray[np.float64]
    on_higher: NDArray[np.float64]


def simple_jumper(p_values: NDArray[np.float64], jump: float = JUMP) -> Path:
    """The wealth of the Simple Jumper (Vovk et al. 2021, Algorithm 1) on p-values (n,), starting from 1.

    Bet e multiplies its share by 1 + e (p - 1/2); before each p-value, ``jump`` of the wealth is spread evenly.
    """
    up, still, down = 1 / 3, 1 / 3, 1 / 3
    total = 0.0
    wealth, on_higher = np.empty(len(p_values)), np.empty(len(p_values))
    for i, p in enumerate(p_values.tolist()):
        up = ((1 - jump) * up + jump / 3) * (1 + BETS[0] * (p - 0.5))
        still = (1 - jump) * still + jump / 3
        down = ((1 - jump) * down + jump / 3) * (1 + BETS[2] * (p - 0.5))
        capital = up + still + down  # relative to the capital before
        total += math.log10(capital)
        up, still, down = up / capital, still / capital, down / capital
        wealth[i], on_higher[i] = total, up / (up + down)
    return Path(wealth, on_higher)
