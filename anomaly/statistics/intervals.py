"""Exact intervals of rates and ordinary counts: Clopper-Pearson, beta-binomial."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anomaly.errors import CalibrationError


@dataclass(frozen=True)
class Estimate:
    """A share with its 95 % interval, or None with the reason in ``note`` where too little is
    known.

    ``n``: answers that it rests on; ``needed``: how many more until a figure can be shown, as
    things stand.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int
    needed: int = 0
    method: str = ""
    note: str = ""


def clopper_pearson(flagged: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """The exact interval (low, high) of a rate seen as ``flagged`` of ``n`` independent images
    (Clopper & Pearson).
    """
    if not 0 <= flagged <= n:
        raise CalibrationError(f"{flagged} flagged of {n}: expected a count between 0 and {n}")
    tail = (1 - level) / 2
    low = beta_quantile(tail, flagged, n - flagged + 1) if flagged > 0 else 0.0
    high = beta_quantile(1 - tail, flagged + 1, n - flagged) if flagged < n else 1.0
    return low, high


def upper_limit(count: int, n: int, level: float = 0.95) -> float:
    """The rate that one seen as ``count`` of ``n`` independent images is at most, ``level``
    confident (Clopper & Pearson, one-sided); 1 where there are none.
    """
    if not 0 <= count <= n:
        raise CalibrationError(f"{count} of {n}: expected a count between 0 and {n}")
    return 1.0 if count == n else beta_quantile(level, count + 1, n - count)


def joint_limits(tests: Sequence[tuple[int, int, int]], level: float = 0.95) -> list[int]:
    """Limits that all the counts of ``tests``, each (n, k, images), keep to together with
    probability ``level``.

    Bonferroni: each alone at 1 - (1 - level) / len(tests). Where a test set has groups, ``images``
    is their number.
    """
    return [
        beta_binomial_limit(images, k, n + 1 - k, 1 - (1 - level) / len(tests))
        for n, k, images in tests
    ]


def rate_of(k: int, n: int) -> float:
    """k / (n + 1): the chance that a new normal image is above the k-th largest of n scores is at
    most this.
    """
    return k / (n + 1)


def upper_bound_of(k: int, n: int) -> float:
    """The 95 % point of Beta(k, n + 1 - k): the long-run rate of one detector is at most this, 95 %
    confident.
    """
    return beta_quantile(0.95, k, n + 1 - k)


def beta_quantile(level: float, a: int, b: int) -> float:
    """The ``level`` point of Beta(a, b), integers a, b >= 1: where P(Binomial(a + b - 1, x) >= a)
    is ``level``.
    """
    low, high, x = 0.0, 1.0, a / (a + b)
    for _ in range(200):
        tail, term = _binomial(a, a + b - 1, x)
        low, high = (x, high) if tail < level else (low, x)
        slope = term * a / x  # the density of Beta(a, b) at x
        step = (tail - level) / slope if slope > 0 else math.inf
        # Newton's step, and where it leaves the bracket its middle
        new = x - step if low < x - step < high else (low + high) / 2
        if abs(new - x) <= 1e-15 * x:
            break
        x = new
    return x


def beta_binomial_limit(images: int, a: int, b: int, level: float) -> int:
    """Smallest count that a beta-binomial(images, a, b), integers a, b >= 1, keeps to with
    probability ``level``.
    """
    if images < 0:
        raise CalibrationError(f"{images} images: expected 0 or more")
    j = np.arange(images, dtype=np.float64)
    terms = _terms((images - j) / (j + 1) * (a + j) / (b + images - 1 - j))
    # 1e-12: sums that are the level itself must not fall short of it by their rounding
    return int(np.searchsorted(np.cumsum(terms), level - 1e-12))


def binomial_limit(images: int, rate: float, level: float) -> int:
    """Smallest count that a binomial(images, rate), 0 < rate < 1, keeps to with probability
    ``level``.
    """
    j = np.arange(images, dtype=np.float64)
    terms = _terms((images - j) / (j + 1) * (rate / (1 - rate)))
    return int(np.searchsorted(np.cumsum(terms), level - 1e-12))


def _binomial(k: int, n: int, p: float) -> tuple[float, float]:
    """P(X >= k) and P(X = k) of X ~ Binomial(n, p), 0 < p < 1.

    Summed over 20 standard deviations round the mean: what is left out is below 1e-80.
    """
    mean, reach = n * p, 20 * math.sqrt(n * p * (1 - p)) + 60
    low, high = max(0, int(mean - reach)), min(n, int(mean + reach))
    if not low <= k <= high:
        return float(k < low), 0.0
    j = np.arange(low, high, dtype=np.float64)
    terms = _terms((n - j) / (j + 1) * (p / (1 - p)))
    return float(terms[k - low :].sum()), float(terms[k - low])


def _terms(ratios: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probabilities from the ratios of neighbours (the next by this one), scaled to a sum of 1.

    No factorials: differences of their logarithms lose seven digits at n = 100,000, ratios none.
    """
    logs = np.concatenate([[0.0], np.cumsum(np.log(ratios))])
    terms = np.exp(logs - logs.max())
    return np.asarray(terms / terms.sum(), dtype=np.float64)
