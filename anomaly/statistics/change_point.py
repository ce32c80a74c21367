"""When did scores cease to be like those that set the threshold? A test that restarts, on
sequential conformal p-values.

Each new score gets a p-value among the calibration scores and all new ones before it, ties broken
at random. While all of them are exchangeable, these p-values are independent and uniform (Vovk,
Gammerman and Shafer 2005). P-values against the calibration scores alone would not be: they share
the luck of its draw.

A bet b is a density on [0, 1]: on average b(p) is 1 while p is uniform. The evidence of the bet is
M = (M + 1) b(p), the Shiryaev-Roberts e-detector (Shin, Ramdas and Rinaldo 2024, "E-detectors"):
one gambler enters with each image, so that however long nothing happened, M never sinks to where a
change would have to make up for it. ``evidence`` is the mean of M over the bets, and an alarm is
raised where it reaches ``run_length``.

Proven, for exchangeable scores and the first alarm: evidence less the number of images is a
martingale, so that the mean number of images until a false alarm is at least ``run_length``, and
the probability of one among n images is at most n / ``run_length`` (Doob). Not proven: what follows
the first alarm, where the p-values are no longer independent of what was seen;
tests/benchmarks/measure_drift.py measures it.

No bet pays more than 3.4 for one image, so that nine images in a row, at the least, are needed:
single defects do not do it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

RUN_LENGTH = 100_000.0
BLOCK = 512

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Change:
    """An alarm: at the image of index ``alarm_at``; the scores look changed from ``changed_at`` on,
    an estimate.

    ``direction``: where the scores went, ``higher`` or ``lower``. ``ended_at``: index of the image
    at which the evidence had fallen to the square root of ``run_length``; None while it has not.
    """

    alarm_at: int
    changed_at: int
    direction: str
    ended_at: int | None = None


class Path(NamedTuple):
    """``evidence`` after each image, float64 (n,), and the alarms in order. During an alarm the
    evidence is capped.
    """

    evidence: Array
    changes: list[Change]


def bets(p: Array) -> tuple[Array, Array, Array, Array]:
    """What four bets pay for p-values: gentle and firm on small ones (higher scores), gentle and
    firm on large ones.
    """
    q = 1 - p
    return 0.5 + q, 0.2 + 3.2 * q**3, 0.5 + p, 0.2 + 3.2 * p**3


DIRECTIONS = ("higher", "higher", "lower", "lower")
State = tuple[float, float, float, float]
Scores = NDArray[np.float32]


def follow(
    calibration: ArrayLike,
    scores: ArrayLike,
    random: np.random.Generator,
    run_length: float = RUN_LENGTH,
) -> Path:
    """The evidence of a change along ``scores`` (n,), finite and in the order of time, and the
    alarms.

    During an alarm scores are compared with those before the change, none is added to them, and the
    evidence is capped. When it has fallen to the square root of ``run_length`` the test starts
    anew, without the scores of the alarm.
    """
    new = np.asarray(scores, dtype=np.float32)
    evidence = np.empty(len(new))
    bag, u, at = np.sort(np.asarray(calibration, dtype=np.float32)), 1 - random.random(len(new)), 0
    changes: list[Change] = []
    while at < len(new):
        seen, state, raised = _until_alarm(bag, new[at:], u[at:], evidence[at:], run_length)
        if not raised:
            break
        changed, alarm = at + _changed(seen, state), at + len(seen) - 1
        bag = np.sort(np.concatenate([bag, new[at:changed]]))
        at, state, ended = _until_calm(bag, new, u, evidence, alarm + 1, state, run_length)
        changes.append(
            Change(alarm, changed, DIRECTIONS[int(np.argmax(state))], at - 1 if ended else None)
        )
    return Path(evidence, changes)


def _until_alarm(
    bag: Scores, new: Scores, u: Array, evidence: Array, run_length: float
) -> tuple[Array, State, bool]:
    """Fills ``evidence`` up to an alarm; returns the p-values up to it, the evidence of each bet,
    and whether there is one.
    """
    state: State = (0.0, 0.0, 0.0, 0.0)
    seen: list[Array] = [np.empty(0)]
    raised = False
    for block in _online(bag, new, u):
        done, state, raised = _bet(block, state, evidence[sum(map(len, seen)) :], high=run_length)
        seen.append(block[:done])
        if raised:
            break
    return np.concatenate(seen), state, raised


def _until_calm(
    bag: Scores, new: Scores, u: Array, evidence: Array, at: int, state: State, run_length: float
) -> tuple[int, State, bool]:
    """Fills ``evidence`` from ``at`` until it is low again; returns the index after that, and of
    each bet what it was at last.

    The state is that before the end, where it still tells the direction.
    """
    ended = False
    while at < len(new) and not ended:
        block = _against(bag, new[at : at + BLOCK], u[at : at + BLOCK])
        done, now, ended = _bet(
            block, state, evidence[at:], low=math.sqrt(run_length), cap=4 * run_length
        )
        state, at = state if ended else now, at + done
    return at, state, ended


def _bet(
    p: Array,
    state: State,
    evidence: Array,
    *,
    low: float = -1.0,
    high: float = math.inf,
    cap: float = math.inf,
) -> tuple[int, State, bool]:
    """Bets until the evidence is below ``low`` or at ``high``: images taken, that of each bet,
    whether it came to that.
    """
    a, b, c, d = state
    for i, (x, y, z, w) in enumerate(zip(*(one.tolist() for one in bets(p)), strict=True)):
        a, b, c, d = (
            min(cap, (a + 1) * x),
            min(cap, (b + 1) * y),
            min(cap, (c + 1) * z),
            min(cap, (d + 1) * w),
        )
        evidence[i] = total = (a + b + c + d) / 4
        if total < low or total >= high:
            return i + 1, (a, b, c, d), True
    return len(p), (a, b, c, d), False


def _changed(p: Array, state: State) -> int:
    """The image from which on the bet with the most evidence paid off: where its product is lowest,
    the last time.
    """
    paid = np.cumsum([0.0, *np.log(bets(p)[int(np.argmax(state))])])
    return min(len(p) - 1, int(np.flatnonzero(paid == paid.min())[-1]))


def online_p_values(
    calibration: ArrayLike, scores: ArrayLike, random: np.random.Generator
) -> Array:
    """The p-value of each of ``scores`` (n,) among the calibration scores and those before it,
    float64 (n,) in (0, 1].

    (number above + u times number equal, itself included) / number in all, u uniform. Small =
    higher than usual.
    """
    bag = np.sort(np.asarray(calibration, dtype=np.float32))
    new = np.asarray(scores, dtype=np.float32)
    return np.concatenate([np.empty(0), *_online(bag, new, 1 - random.random(len(new)))])


def _online(bag: Scores, new: Scores, u: Array) -> Iterator[Array]:
    """Yields the p-values of ``new`` by blocks; each block joins the sorted ``bag`` before the
    next.
    """
    for start in range(0, len(new), BLOCK):
        block = new[start : start + BLOCK]
        low, high = np.searchsorted(bag, block, "left"), np.searchsorted(bag, block, "right")
        earlier = np.tri(len(block), k=-1, dtype=bool)  # [i, j]: j came before i
        above = len(bag) - high + (earlier & (block[None, :] > block[:, None])).sum(1)
        equal = high - low + (earlier & (block[None, :] == block[:, None])).sum(1) + 1
        yield (above + u[start : start + BLOCK] * equal) / (len(bag) + 1 + np.arange(len(block)))
        bag = np.sort(np.concatenate([bag, block]), kind="stable")


def _against(bag: Scores, new: Scores, u: Array) -> Array:
    """The p-values of ``new`` among ``bag`` alone, which it does not join."""
    low, high = np.searchsorted(bag, new, "left"), np.searchsorted(bag, new, "right")
    return np.asarray((len(bag) - high + u * (high - low + 1)) / (len(bag) + 1), dtype=np.float64)
