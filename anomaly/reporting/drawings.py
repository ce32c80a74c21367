"""The drawings of a report: where each line, dot and tick lies. The templates make SVG of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numpy.typing import ArrayLike

from anomaly.files.numbers import percent
from anomaly.reporting.charts import Scale
from anomaly.reporting.report import NORMAL, ROWS, Report
from anomaly.statistics.calibration import rate_word
from anomaly.statistics.intervals import beta_binomial_limit

POINTS = 400  # of a curve
BINS = 60

Values = npt.NDArray[np.float64]
Ticks = list[tuple[str, str]]  # (coordinate, text)


@dataclass(frozen=True)
class Mark:
    """What is drawn between the axes: a ``polyline`` or ``polygon`` with points, or a dot."""

    shape: str
    kind: str
    points: str


@dataclass(frozen=True)
class Chart:
    """A drawing with axes, 420 x 330; ``said``: what is said beside it, ``keys`` name the
    curves.
    """

    title: str
    x_name: str
    y_name: str
    x_ticks: Ticks
    y_ticks: Ticks
    marks: list[Mark]
    said: str = ""
    keys: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class Axes:
    """Two scales on the area of a chart."""

    x: Scale
    y: Scale

    def across(self, x: float) -> str:
        return f"{64 + 328 * self.x.at(x):.1f}"

    def down(self, y: float) -> str:
        return f"{284 - 268 * self.y.at(y):.1f}"

    def x_ticks(self, ticks: Iterable[tuple[float, str]]) -> Ticks:
        """Returns ticks at places from 0 to 1 with their coordinates."""
        return [(f"{64 + 328 * place:.1f}", text) for place, text in ticks]

    def y_ticks(self, ticks: Iterable[tuple[float, str]]) -> Ticks:
        """Returns ticks at places from 0 to 1 with their coordinates."""
        return [(f"{284 - 268 * place:.1f}", text) for place, text in ticks]

    def line(self, xs: ArrayLike, ys: ArrayLike, kind: str) -> Mark:
        return Mark("polyline", kind, self._points(xs, ys))

    def band(self, xs: ArrayLike, low: ArrayLike, high: ArrayLike) -> Mark:
        x, bottom, top = (np.asarray(values, float) for values in (xs, low, high))
        return Mark("polygon", "band", self._points([*x, *x[::-1]], [*top, *bottom[::-1]]))

    def dot(self, x: float, y: float) -> Mark:
        return self.point(x, y, "dot")

    def point(self, x: float, y: float, kind: str) -> Mark:
        return Mark("circle", kind, self._points([x], [y]))

    def _points(self, xs: ArrayLike, ys: ArrayLike) -> str:
        pairs = zip(np.asarray(xs, float).tolist(), np.asarray(ys, float).tolist(), strict=True)
        return " ".join(f"{self.across(x)} {self.down(y)}" for x, y in pairs)


# ---- scores ----


@dataclass(frozen=True)
class ScoreRow:
    """The histogram of one label: ``bars`` is an SVG path, ``threshold`` its place in percent."""

    label: str
    kind: str
    images: int
    bars: str
    threshold: float | None
    said: str


@dataclass(frozen=True)
class ScoreRows:
    """A histogram for each label on one axis, with the threshold through all of them."""

    rows: list[ScoreRow]
    ticks: list[tuple[float, str]]
    left_out: int
    threshold: float | None


def score_rows(report: Report) -> ScoreRows | None:
    """Returns the histograms, good images first, or None without scores."""
    scores = {name: _finite(values) for name, values in report.scores.items()}
    scores = {name: values for name, values in scores.items() if len(values)}
    if not scores:
        return None
    scale = _score_scale(scores, report.threshold)
    order = sorted(scores, key=lambda name: (name != NORMAL, -float(np.median(scores[name]))))
    return ScoreRows(
        [_score_row(name, scores[name], scale, report.threshold) for name in order[:ROWS]],
        list(scale.ticks()),
        len(order[ROWS:]),
        report.threshold,
    )


def _score_scale(scores: Mapping[str, Values], threshold: float | None) -> Scale:
    """The axis holds nearly all of every label, and the threshold with some room."""
    marks = [] if threshold is None else [threshold]
    low = min([float(np.quantile(values, 0.005)) for values in scores.values()] + marks)
    high = max([float(np.quantile(values, 0.95)) for values in scores.values()] + marks)
    room = 0.04 * (high - low) or max(abs(high), 1.0) * 0.1
    return Scale(low - room, high + room)


def _score_row(name: str, scores: Values, scale: Scale, threshold: float | None) -> ScoreRow:
    counts, _ = np.histogram(
        scores.clip(scale.low, scale.high), np.linspace(scale.low, scale.high, BINS + 1)
    )
    heights = 38 * counts / counts.max()
    width = 100 / BINS
    bars = "".join(
        f"M{i * width:.2f} 40v{-max(height, 0.8):.1f}h{width:.2f}V40"
        for i, height in enumerate(heights)
        if counts[i]
    )
    place, said = None, f"median {np.median(scores):.4g}"
    if threshold is not None:
        place = 100 * scale.at(threshold)
        above = int((scores.astype(np.float32) > np.float32(threshold)).sum())
        said = f"{above:,} above the threshold"
    kind = "good" if name == NORMAL else "defect"
    return ScoreRow(name, kind, len(scores), bars, place, said)


# ---- curves ----


def roc_chart(report: Report) -> Chart | None:
    """Returns how many good and defective images each threshold would have flagged."""
    if report.roc is None:
        return None
    fpr, tpr = (np.asarray(values, np.float64) for values in report.roc)
    kept = _kept(len(fpr))
    figures = report.figures or {}
    auroc, alarms, recall = (
        figures.get(name) for name in ("image_auroc", "false_alarms", "recall")
    )
    axes = Axes(Scale(0, 1), Scale(0, 1))
    marks = [axes.line([0, 1], [0, 1], "chance"), axes.line(fpr[kept], tpr[kept], "curve")]
    said = (
        "Each point of the curve is a threshold that could have been set: how many good and how "
        "many defective images it would have flagged. Chance is the dashed diagonal."
    )
    if alarms and recall and alarms["n"] and recall["n"]:
        x, y = alarms["flagged"] / alarms["n"], recall["flagged"] / recall["n"]
        marks.append(axes.dot(x, y))
        said += (
            f" The dot is the threshold: {percent(x)} of good and {percent(y)} of defective images "
            "flagged."
        )
    ticks = [(value, f"{100 * value:.0f} %") for value in (0, 0.25, 0.5, 0.75, 1)]
    return Chart(
        f"ROC curve, area {auroc['value']:.3f}" if auroc else "ROC curve",
        "good images flagged",
        "defective images flagged",
        axes.x_ticks(ticks),
        axes.y_ticks(ticks),
        marks,
        said,
    )


@dataclass(frozen=True, eq=False)
class LevelCounts:
    """Good test images with p-values up to each of some levels: ``counts``, and the ``low`` and
    ``high`` that 95 of 100 sets of exchangeable images keep to (beta-binomial).
    """

    levels: Values
    counts: npt.NDArray[np.intp]
    low: npt.NDArray[np.int64]
    high: npt.NDArray[np.int64]

    @property
    def outside(self) -> int:
        """The number of levels whose count is not between ``low`` and ``high``."""
        return int(((self.counts < self.low) | (self.counts > self.high)).sum())


def level_counts(p: Values, n: int) -> LevelCounts:
    """Returns the counts of p-values against ``n`` calibration images."""
    ranks = np.unique(np.rint((n + 1) * np.linspace(0, 1, 81)[1:] ** 2).clip(1, n).astype(int))
    levels = ranks / (n + 1)
    # p-values are whole multiples of 1 / (n + 1): half a step away no rounding can move one across
    counts = np.searchsorted(np.sort(p), levels + 0.5 / (n + 1), side="right")
    low, high = (
        np.array([beta_binomial_limit(len(p), int(k), int(n + 1 - k), q) for k in ranks])
        for q in (0.025, 0.975)
    )
    return LevelCounts(levels, counts, low, high)


def calibration_chart(report: Report) -> Chart | None:
    """Returns the share of good test images with p-values up to a level, against that level."""
    calibration = report.card.calibration
    p = np.asarray([] if report.p_values is None else report.p_values, np.float64)
    if calibration is None or not len(p):
        return None
    n, rate, word = calibration.n, calibration.rate, rate_word(calibration)
    flags = "guarantees to flag" if calibration.is_guaranteed else "is estimated to flag"
    found = level_counts(p, n)
    axes, shares = Axes(Scale(0, 1, math.sqrt), Scale(0, 1, math.sqrt)), found.counts / len(p)
    marks = [
        axes.band(found.levels, found.low / len(p), found.high / len(p)),
        axes.line([0, 1], [0, 1], "chance"),
        axes.line([0, *found.levels], [0, *shares], "curve"),
        axes.dot(rate, float(np.interp(rate, found.levels, shares))),
    ]
    ticks = [(axes.x.at(v), f"{100 * v:g} %") for v in (0, 0.01, 0.05, 0.25, 0.5, 1)]
    return Chart(
        f"Good images flagged, {word} and counted",
        f"{word} at a threshold",
        "counted",
        axes.x_ticks(ticks),
        axes.y_ticks(ticks),
        marks,
        f"For every threshold that {n:,} calibration images can set: the share of good images that "
        f"it {flags} at most, and the share of {len(p):,} good test images that it "
        f"flags. The band holds what chance does in 95 of 100 cases at each of {len(found.levels)} "
        f"levels; the curve is outside at {found.outside} (by chance alone about "
        f"{0.05 * len(found.levels):.0f}, often side by side). The dot is the threshold in use. "
        "Axes are square roots, so that small rates can be seen.",
    )


def loss_charts(
    losses: Sequence[Mapping[str, Sequence[float]]], terms: Mapping[str, Sequence[float]]
) -> list[Chart]:
    """Returns a chart for each group of losses, and one of the terms of the held-out losses; none
    where there is no curve.
    """
    found = (
        *(loss_chart(curves, "Loss by epoch") for curves in losses),
        loss_chart(terms, "Terms of the held-out loss by epoch"),
    )
    return [chart for chart in found if chart is not None]


def loss_chart(curves: Mapping[str, Sequence[float]], title: str) -> Chart | None:
    """Returns the curves of at most five values, epoch by epoch."""
    shown = {name: _finite(values) for name, values in list(curves.items())[:5]}
    shown = {name: values for name, values in shown.items() if len(values) > 1}
    if not shown:
        return None
    every = np.concatenate(list(shown.values()))
    low, high, epochs = float(every.min()), float(every.max()), max(map(len, shown.values()))
    logarithmic = low > 0 and high / low > 20
    axes = Axes(
        Scale(1, epochs),
        Scale(low, high, math.log)
        if logarithmic
        else Scale(low, high if high > low else low + (abs(low) or 1.0)),
    )
    if logarithmic:
        losses = [(axes.y.at(v), f"{v:.2g}") for v in np.geomspace(low, high, 4).tolist()]
    else:
        losses = list(axes.y.ticks())
    return Chart(
        title,
        "epoch",
        "loss (logarithmic)" if logarithmic else "loss",
        axes.x_ticks(axes.x.ticks(whole=True)),
        axes.y_ticks(losses),
        [
            axes.line(_kept(len(values)) + 1, values[_kept(len(values))], f"series s{number}")
            for number, values in enumerate(shown.values())
        ],
        keys=[(name, f"{values[-1]:.4g} at the end") for name, values in shown.items()],
    )


def _kept(count: int) -> npt.NDArray[np.intp]:
    """Returns the indices of the points of a curve that are drawn."""
    return np.unique(np.linspace(0, count - 1, min(count, POINTS)).astype(np.intp))


def _finite(values: ArrayLike) -> Values:
    found = np.asarray(values, np.float64).ravel()
    return found[np.isfinite(found)]
