"""How long the test of anomaly/statistics/change_point.py runs until a false alarm, and how late it
is after a change.

    python -m tests.benchmarks.measure_drift

No image in sight: normal scores with fixed seeds, numpy only. Some ten minutes on one core.
"""

from __future__ import annotations

import platform

import numpy as np

from anomaly.statistics.change_point import RUN_LENGTH, bets, follow

SHORT = 2_000.0  # a run length that can be simulated often with real p-values


def independent(runs: int, images: int) -> None:
    """The run length with independent uniform p-values, which is what the theorem is about; cut off
    at ``images``.
    """
    random = np.random.default_rng(0)
    state, lengths = np.zeros((4, runs)), np.full(runs, images)
    for at in range(images):
        state = (state + 1) * np.array(bets(random.random(runs)))
        lengths[(state.mean(0) >= RUN_LENGTH) & (lengths == images)] = at + 1
    early = (lengths <= RUN_LENGTH / 100).sum()
    print(
        f"independent p-values, {runs} runs cut off at {images:,}: mean {lengths.mean():,.0f} "
        f"images, median {np.median(lengths):,.0f}, cut off {(lengths == images).sum()}; within "
        f"{RUN_LENGTH / 100:,.0f} images {early}",
        flush=True,
    )


def conformal(n: int, runs: int) -> None:
    """The first run length at SHORT with sequential conformal p-values, a calibration drawn anew
    each time.
    """
    random, images = np.random.default_rng(n), 20_000
    lengths = []
    for seed in range(runs):
        good = random.gamma(2.0, size=n + images)
        changes = follow(good[:n], good[n:], np.random.default_rng(seed), SHORT).changes
        lengths.append(changes[0].alarm_at + 1 if changes else images)
    error = np.std(lengths) / np.sqrt(runs)
    print(
        f"n = {n}, run length {SHORT:,.0f}: mean of the first {np.mean(lengths):,.0f} +- "
        f"{error:,.0f}, {runs} runs",
        flush=True,
    )


def after_the_first(n: int, images: int, runs: int) -> None:
    """False alarms in long calm series, the first and all others, and the share of the images
    during alarms.
    """
    random = np.random.default_rng(n)
    alarms, during = 0, 0
    for seed in range(runs):
        good = random.normal(size=n + images)
        for change in follow(good[:n], good[n:], np.random.default_rng(seed)).changes:
            alarms += 1
            during += (images if change.ended_at is None else change.ended_at) - change.alarm_at
    per_alarm = runs * images / max(1, alarms)
    print(
        f"n = {n}, {runs} calm series of {images:,}: {alarms} false alarms, one in "
        f"{per_alarm:,.0f} images; {during / (runs * images):.2%} of the images during one",
        flush=True,
    )


def delay(n: int, calm: int, shift: float, runs: int) -> None:
    """Images from a change to its alarm."""
    random, after = np.random.default_rng(n), 3_000
    found = []
    for seed in range(runs):
        scores = random.normal(size=n + calm + after)
        scores[n + calm :] += shift
        changes = follow(scores[:n], scores[n:], np.random.default_rng(seed)).changes
        alarms = [c.alarm_at + 1 - calm for c in changes if c.ended_at is None or c.ended_at > calm]
        found.append(alarms[0] if alarms else after)
    low, middle, high = np.quantile(found, (0.05, 0.5, 0.95))
    missed = sum(one == after for one in found)
    print(
        f"n = {n}, {calm:>7,} calm, shift {shift:+.1f} sd: {middle:,.0f} images (5 to 95 %: "
        f"{low:,.0f} to {high:,.0f}), none within {after:,}: {missed} of {runs}",
        flush=True,
    )


def main() -> None:
    print(
        f"Python {platform.python_version()}, numpy {np.__version__}, run length {RUN_LENGTH:,.0f}"
    )
    independent(400, 600_000)
    for n in (20, 99, 300):
        conformal(n, 300)
    for n in (20, 99, 300):
        after_the_first(n, 1_000_000, 6)
    for shift in (2.0, -2.0, 1.0, 0.5):
        for n, calm, runs in (
            (300, 0, 100),
            (300, 1_000, 100),
            (300, 100_000, 10),
            (99, 0, 100),
            (20, 0, 100),
        ):
            delay(n, calm, shift, runs)


if __name__ == "__main__":
    main()
