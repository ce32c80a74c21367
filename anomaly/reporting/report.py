"""Reports and pictures: one HTML file that stands alone, bounded in size, and grids of images as
PNG.

The page needs no network and no script: styles and drawings are inline, pictures are small JPEGs in
the page. Whatever comes from outside (paths, labels, cards) is escaped, and a content policy
forbids the page to load or run anything. Nothing is scored here: ``Report`` holds plain data.
"""

from __future__ import annotations

import base64
import html
import io
import json
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.typing import ArrayLike

from anomaly import __version__
from anomaly.files.numbers import percent
from anomaly.files.table import whole_file
from anomaly.imaging.colours import STOPS
from anomaly.imaging.mask import mask_of, mask_said
from anomaly.imaging.overlay import overlay, shrink, stretched
from anomaly.imaging.pillow import Pixels
from anomaly.statistics.intervals import beta_binomial_limit

Scale = Callable[[float], float]  # a value to its place between 0 and 1 of an axis

NORMAL = "good"
PICTURES_A_GALLERY = 24
PICTURE_BYTES = 5_000_000  # of all pictures together
ROWS = 60  # of a table or a list at most
POINTS = 400  # of a curve
BINS = 60
LEGEND_END = 4.0  # the legend's right end, in distances from a typical good image to the threshold

# What a gallery shows, in the order of the page; others follow under their own name.
GALLERIES = {
    "the threshold": (
        "The calibration images with the highest scores set the threshold; one that shows a defect "
        "makes it too high. Look at them before the detector is used. Mark each as good or as a "
        "defect (page Calibration of anomaly review, or anomaly mark); anomaly retrain leaves out "
        "those marked as defects, with their groups. Good ones have to stay."
    ),
    "suspects": (
        "The most unusual of all good images, each judged by models that have not seen it; yellow "
        "and outlined: twice as unusual as a typical good image. Some good images are always "
        "first: look for defects. A model learns to find them good, and where one helps to set the "
        "threshold, the threshold is too high. suspects.txt beside this page names these and the "
        "others of the most unusual 5 %: delete the lines of the good ones, because a threshold "
        "set without them would be too low, and train again with --exclude."
    ),
    "misses": "Defective images that were not flagged, the least unusual first.",
    "false alarms": "Good images that were flagged, the most unusual first.",
    "most anomalous": "The highest scores of all.",
    "least anomalous": "The lowest scores of all.",
}


@dataclass(frozen=True)
class GalleryItem:
    """One picture of a gallery.

    ``original``: uint8 (H, W, 3). ``expected``: uint8 (h, w, 3), what the model expected to see,
    None where there is no such picture. ``heatmap``: float32 (h, w), None where the image was not
    judged; its colours go by ``median`` (a typical good image) and ``threshold`` alone.
    """

    path: str
    caption: str
    original: Pixels
    expected: Pixels | None
    heatmap: npt.NDArray[np.float32] | None
    median: float
    threshold: float


@dataclass(frozen=True)
class Report:
    """What the page shows; sections without data are left out.

    ``card``: the detector's card with ``digest``. ``guarantee``: the lines of
    ``wording.guarantee_text``. ``figures``: what ``Evaluation.to_json`` returns, ``figures_text``
    these or others in words. ``roc``: false-alarm rates and recalls, ascending. ``scores``: by
    label, ``good`` for normal images; ``threshold`` and ``median`` in their unit. ``p_values``: of
    good test images, one for each group. ``curves``: a value for each epoch, by name. ``notes``:
    what a reader must know first (attribution, warnings).
    """

    title: str
    card: Mapping[str, Any]
    guarantee: str
    figures: Mapping[str, Any] | None = None
    figures_text: str = ""
    roc: tuple[ArrayLike, ArrayLike] | None = None
    scores: Mapping[str, ArrayLike] = field(default_factory=dict)
    threshold: float | None = None
    median: float | None = None
    p_values: ArrayLike | None = None
    galleries: Mapping[str, Sequence[GalleryItem]] = field(default_factory=dict)
    curves: Mapping[str, Sequence[float]] = field(default_factory=dict)
    notes: Sequence[str] = ()


def write_report(path: str | os.PathLike[str], report: Report) -> None:
    """Writes the page; it appears whole or not at all, and stays below 8 MB whatever is in the
    report.
    """
    with whole_file(Path(path)) as file:
        file.write(page(report).encode())


def page(report: Report) -> str:
    """Returns the whole page."""
    sections = [
        ("figures", "What it does", _figures(report)),
        ("guarantee", "What is guaranteed", _guarantee(report.guarantee)),
        ("pictures", "Pictures", _galleries(report.galleries)),
        ("classes", "Kinds of defects", _classes(report)),
        ("scores", "Scores", _score_rows(report)),
        ("ranking", "Ranking", _roc(report)),
        ("calibration", "Is the guarantee kept?", _calibration(report)),
        ("training", "Training", _curves(report.curves)),
        ("detector", "The detector", _detector(report.card)),
    ]
    shown = [(name, heading, body) for name, heading, body in sections if body]
    return _PAGE.format(
        title=_text(report.title),
        identity=_text(_identity(report.card)),
        style=_STYLE,
        links="".join(f'<a href="#{name}">{heading}</a>' for name, heading, _ in shown),
        notes=_notes(report.notes),
        body="\n".join(
            (
                f'<section id="{name}" aria-labelledby="{name}-h"><h2 '
                f'id="{name}-h">{heading}</h2>\n{body}\n</section>'
            )
            for name, heading, body in shown
        ),
        version=_text(__version__),
    )


# ---- words ----


def _text(value: object, length: int = 300) -> str:
    """Returns anything as escaped text on one line, its middle left out where it is long."""
    shown = _visible(str(value)[: 10 * length])
    if len(shown) > length:
        shown = f"{shown[: length // 2]} … {shown[-length // 2 :]}"
    return html.escape(shown)


def _visible(line: str) -> str:
    """Returns a line with what has no picture (control characters, turns of direction, lone
    surrogates) escaped.
    """
    return (
        line
        if line.isprintable()
        else "".join(c if c.isprintable() else repr(c)[1:-1] for c in line)
    )


def _identity(card: Mapping[str, Any]) -> str:
    digest = str(card.get("digest", ""))
    return f"{card.get('name', '')}@{card.get('version', '')}" + (
        f" sha256:{digest}" if digest else ""
    )


def _notes(notes: Sequence[str]) -> str:
    if not notes:
        return ""
    items = "".join(f"<li>{_text(note, 1000)}</li>" for note in notes[:ROWS])
    return (
        '<aside class="notes" aria-label="Read '
        f'first"><ul>{items}{_left_out(notes, "li")}</ul></aside>'
    )


def _left_out(items: Sequence[object], tag: str) -> str:
    return f"<{tag}>and {len(items) - ROWS:,} more</{tag}>" if len(items) > ROWS else ""


def _guarantee(text: str) -> str:
    """Returns the lines of a guarantee as a list of terms; text of another form as it is."""
    lines = [
        re.split(r"\s{2,}", line.rstrip(), maxsplit=1) for line in text.splitlines() if line.strip()
    ]
    if not lines or any(len(line) < 2 for line in lines):
        return f"<p>{_text(text, 3000)}</p>" if lines else ""
    return _terms([(label, said) for label, said in lines[:ROWS]], "guarantee")


def _terms(rows: Iterable[tuple[str, object]], kind: str) -> str:
    """Returns a list of terms; a row without a label goes on with the one before."""
    items = "".join(
        (f"<dt>{_text(label)}</dt>" if label else "") + f"<dd>{_text(said, 1000)}</dd>"
        for label, said in rows
    )
    return f'<dl class="{kind}">{items}</dl>'


def _number(value: Any, digits: int = 3) -> str:
    """Returns a figure, or a dash where there is none."""
    number = isinstance(value, int | float) and math.isfinite(value)
    return f"{value:.{digits}f}" if number else "&ndash;"


def _interval(figure: Mapping[str, Any] | None) -> str:
    if not figure:
        return "needs good and defective images"
    return f"95 %: {_number(figure['low'])} to {_number(figure['high'])}"


def _share(rate: Mapping[str, Any]) -> str:
    low, high = (percent(rate[end]).removesuffix(" %") for end in ("low", "high"))
    return f"{percent(rate['value'])}; 95 %: {low} to {high} %"


# ---- figures ----


def _unjudged(needs: Mapping[str, Any] | None) -> str:
    """Returns the counts of images that were not judged: none of them is good before a person has
    looked.
    """
    if not needs:
        return ""
    good, defects = needs["good"], needs["defects"]
    return (
        f" Not judged, so that a person has to look: {good['count']:,} of {good['n']:,} good and "
        f"{defects['count']:,} of {defects['n']:,} defective ones."
    )


def _figures(report: Report) -> str:
    """Returns the figures that a reader decides by, each with its count and interval."""
    figures = report.figures
    if not figures:
        return _guarantee(report.figures_text)
    tiles = [
        _good_tile(figures.get("false_alarms"), figures.get("left_out_good", 0)),
        _defects_tile(figures.get("recall")),
        _ranking_tile("Ranking (AUROC)", figures.get("image_auroc"), "1 is perfect, 0.5 is chance"),
        _ranking_tile("Average precision", figures.get("average_precision"), "1 is perfect"),
    ]
    if figures.get("aupro") is not None or figures.get("pixel_auroc") is not None:
        pixels = f"pixel AUROC {_number(figures.get('pixel_auroc'))}"
        tiles.append(_tile("Where it is (AUPRO)", _number(figures.get("aupro")), pixels))
    counts = (
        f"{figures.get('n_normal', 0):,} good and {figures.get('n_anomalous', 0):,} defective "
        "images were judged."
    )
    counts += _unjudged(figures.get("needs_a_person"))
    words = _details("The same in words", report.figures_text) if report.figures_text else ""
    return f'<div class="tiles">{"".join(tiles)}</div><p>{counts}</p>{words}'


def _details(heading: str, text: str) -> str:
    shown = html.escape("\n".join(map(_visible, text[:20_000].split("\n"))))
    return f"<details><summary>{heading}</summary><pre>{shown}</pre></details>"


def _tile(label: str, value: str, said: str, more: str = "", state: str = "") -> str:
    return (
        f'<div class="tile {state}"><h3>{label}</h3><p class="value">{value}</p><p>{said}</p>'
        + (f"<p>{more}</p>" if more else "")
        + "</div>"
    )


def _good_tile(alarms: Mapping[str, Any] | None, used: int = 0) -> str:
    if not alarms and used:
        return _tile(
            "Good images flagged", "&ndash;", f"all {used} good images were used in training"
        )
    if not alarms:
        return _tile("Good images flagged", "&ndash;", "no threshold, or no good images")
    flagged, n, up_to = alarms["flagged"], alarms["n"], alarms["ordinary_up_to"]
    expected = n * alarms["guaranteed_rate"]
    value = f"{flagged:,} <small>of {n:,}</small>"
    said = (
        f"expected {f'{expected:.0f}' if expected >= 3 else f'{expected:.2g}'}, up to {up_to:,} is "
        "ordinary"
    )
    if flagged <= up_to:
        return _tile("Good images flagged", value, said, "✓ as guaranteed", "kept")
    more = "✗ more than chance explains: these are unlike the images that set the threshold"
    return _tile("Good images flagged", value, said, more, "broken")


def _defects_tile(recall: Mapping[str, Any] | None) -> str:
    if not recall:
        return _tile("Defects flagged", "unknown", "no threshold, or no defective images")
    missed = recall["n"] - recall["flagged"]
    value = f"{recall['flagged']:,} <small>of {recall['n']:,}</small>"
    return _tile("Defects flagged", value, _share(recall), f"{missed:,} missed")


def _ranking_tile(label: str, figure: Mapping[str, Any] | None, meaning: str) -> str:
    return _tile(
        label, _number(figure["value"]) if figure else "&ndash;", _interval(figure), meaning
    )


def _classes(report: Report) -> str:
    """Returns the table of defect classes, the worst ranked first: a mean hides it."""
    classes = (report.figures or {}).get("per_class") or {}
    if not classes:
        return ""
    order = sorted(
        classes.items(),
        key=lambda item: (item[1].get("image_auroc") or {"value": math.inf})["value"],
    )
    rows = "".join(_class_row(name, found) for name, found in order[:ROWS])
    rest = (
        f'<tr><td colspan="4">and {len(order) - ROWS:,} more</td></tr>' if len(order) > ROWS else ""
    )
    head = "".join(
        f'<th scope="col">{name}</th>' for name in ("Kind", "Images", "Ranking (AUROC)", "Flagged")
    )
    return (
        "<p>The worst ranked first. Bars span the 95 % interval; the mark is the figure.</p>"
        "<div "
        f'class="wide"><table><thead><tr>{head}</tr></thead><tbody>{rows}{rest}</tbody></table></div>'
    )


def _class_row(name: str, found: Mapping[str, Any]) -> str:
    auroc, recall = found.get("image_auroc"), found.get("recall")
    ranking = flagged = "&ndash;"
    if auroc:
        ranking = f"{_number(auroc['value'])} {_bar(auroc)}<small>{_interval(auroc)}</small>"
    if recall:
        flagged = (
            f"{recall['flagged']:,} of {recall['n']:,} "
            f"{_bar(recall)}<small>{_share(recall)}</small>"
        )
    cells = "".join(f"<td>{cell}</td>" for cell in (f"{found.get('n', 0):,}", ranking, flagged))
    return f'<tr><th scope="row">{_text(name, 100)}</th>{cells}</tr>'


def _bar(figure: Mapping[str, Any]) -> str:
    low, value, high = (100 * figure[name] for name in ("low", "value", "high"))
    return (
        '<svg class="bar" viewBox="0 0 100 12" preserveAspectRatio="none" aria-hidden="true">'
        '<rect class="track" y="5" width="100" height="2"/>'
        f'<rect class="span" x="{low:.1f}" y="3" width="{max(high - low, 0.5):.1f}" height="6"/>'
        f'<rect class="mark" x="{min(value, 99):.1f}" width="1.2" height="12"/></svg>'
    )


# ---- drawings ----


def _score_rows(report: Report) -> str:
    """Returns a histogram for each label on one axis, with the threshold through all of them."""
    scores = {name: _finite(values) for name, values in report.scores.items()}
    scores = {name: values for name, values in scores.items() if len(values)}
    if not scores:
        return ""
    low, high = _score_range(scores, report.threshold)
    edges = np.linspace(low, high, BINS + 1)
    order = sorted(scores, key=lambda name: (name != NORMAL, -float(np.median(scores[name]))))
    rows = "".join(_score_row(name, scores[name], edges, report.threshold) for name in order[:ROWS])
    rest = f"<p>and {len(order) - ROWS:,} more kinds</p>" if len(order) > ROWS else ""
    places = [(value, f"{value:.{_decimals(high - low)}f}") for value in _ticks(low, high)]
    ticks = "".join(
        f'<span style="left:{_place(v, low, high):.2f}%">{said}</span>' for v, said in places
    )
    threshold = ""
    if report.threshold is not None:
        threshold = (
            f"The dashed line is the threshold, {report.threshold:.4g}: what lies right of it is "
            "flagged. "
        )
    return (
        f"<p>{threshold}Higher is more anomalous. Each row is scaled to its own highest bar; what "
        "lies beyond the axis is "
        f'in the first or last bar.</p><div class="rows">{rows}<div class="axis" '
        'aria-hidden="true">'
        f'<div class="ticks">{ticks}</div></div></div>{rest}'
    )


def _score_range(
    scores: Mapping[str, npt.NDArray[np.float64]], threshold: float | None
) -> tuple[float, float]:
    """The axis holds nearly all of every label, and the threshold with some room."""
    marks = [] if threshold is None else [threshold]
    low = min([float(np.quantile(values, 0.005)) for values in scores.values()] + marks)
    high = max([float(np.quantile(values, 0.95)) for values in scores.values()] + marks)
    room = 0.04 * (high - low) or max(abs(high), 1.0) * 0.1
    return low - room, high + room


def _score_row(
    name: str,
    scores: npt.NDArray[np.float64],
    edges: npt.NDArray[np.float64],
    threshold: float | None,
) -> str:
    low, high = float(edges[0]), float(edges[-1])
    counts, _ = np.histogram(scores.clip(low, high), edges)
    heights = 38 * counts / counts.max()
    width = 100 / BINS
    bars = "".join(
        f"M{i * width:.2f} 40v{-max(height, 0.8):.1f}h{width:.2f}V40"
        for i, height in enumerate(heights)
        if counts[i]
    )
    line, said = "", f"median {np.median(scores):.4g}"
    if threshold is not None:
        x = _place(threshold, low, high)
        line = f'<line class="threshold" x1="{x:.2f}" x2="{x:.2f}" y1="0" y2="40"/>'
        said = (
            f"{int((scores.astype(np.float32) > np.float32(threshold)).sum()):,} above the "
            "threshold"
        )
    kind, label = "good" if name == NORMAL else "defect", _text(name, 100)
    return (
        f'<div class="row"><div><b>{label}</b> <small>{len(scores):,} images</small></div>'
        f'<svg class="strip {kind}" viewBox="0 0 100 40" preserveAspectRatio="none" role="img" '
        f'aria-label="Scores of {len(scores):,} images, {label}: {said}"><path '
        f'd="{bars}"/>{line}</svg>'
        f"<div><small>{said}</small></div></div>"
    )


def _roc(report: Report) -> str:
    if report.roc is None:
        return ""
    fpr, tpr = (np.asarray(values, np.float64) for values in report.roc)
    kept = np.unique(np.linspace(0, len(fpr) - 1, min(len(fpr), POINTS)).astype(int))
    figures = report.figures or {}
    auroc, alarms, recall = (
        figures.get(name) for name in ("image_auroc", "false_alarms", "recall")
    )
    chart = _Chart(_linear(0, 1), _linear(0, 1))
    marks = [chart.line([0, 1], [0, 1], "chance"), chart.line(fpr[kept], tpr[kept], "curve")]
    said = "Chance is the dashed diagonal."
    if alarms and recall and alarms["n"] and recall["n"]:
        x, y = alarms["flagged"] / alarms["n"], recall["flagged"] / recall["n"]
        marks.append(chart.dot(x, y))
        said += (
            f" The dot is the threshold: {percent(x)} of good and {percent(y)} of defective images "
            "flagged."
        )
    ticks = [(value, f"{100 * value:.0f} %") for value in (0, 0.25, 0.5, 0.75, 1)]
    title = f"ROC curve, area {_number(auroc['value'])}" if auroc else "ROC curve"
    drawing = chart.draw(
        title, ticks, ticks, "good images flagged", "defective images flagged", marks
    )
    return (
        f'<div class="figure">{drawing}<p>Each point of the curve is a threshold that could have '
        "been set: how many good "
        f"and how many defective images it would have flagged. {said}</p></div>"
    )


def _calibration(report: Report) -> str:
    """Returns the share of good test images with p-values up to a level, against that level.

    If they are exchangeable with the calibration images, their number follows a beta-binomial at
    each level.
    """
    n = (report.card.get("calibration") or {}).get("n")
    p = np.asarray([] if report.p_values is None else report.p_values, np.float64)
    if not n or not len(p):
        return ""
    ranks = np.unique(np.rint((n + 1) * np.linspace(0, 1, 81)[1:] ** 2).clip(1, n).astype(int))
    levels = ranks / (n + 1)
    # p-values are whole multiples of 1 / (n + 1): half a step away no rounding can move one across
    counts = np.searchsorted(np.sort(p), levels + 0.5 / (n + 1), side="right")
    low, high = (
        [beta_binomial_limit(len(p), int(k), int(n + 1 - k), q) for k in ranks]
        for q in (0.025, 0.975)
    )
    chart = _Chart(_root, _root)
    marks = [
        chart.band(levels, np.array(low) / len(p), np.array(high) / len(p)),
        chart.line([0, 1], [0, 1], "chance"),
        chart.line([0, *levels], [0, *(counts / len(p))], "curve"),
    ]
    guaranteed_rate = (report.card.get("calibration") or {}).get("guaranteed_rate")
    if guaranteed_rate:
        marks.append(
            chart.dot(guaranteed_rate, float(np.interp(guaranteed_rate, levels, counts / len(p))))
        )
    outside = int(((counts < low) | (counts > high)).sum())
    ticks = [(value, f"{100 * value:g} %") for value in (0, 0.01, 0.05, 0.25, 0.5, 1)]
    drawing = chart.draw(
        "Good images flagged, guaranteed and counted",
        ticks,
        ticks,
        "guaranteed at a threshold",
        "counted",
        marks,
    )
    said = (
        f"For every threshold that {n:,} calibration images can set: the share of good images that "
        f"it guarantees to flag at most, and the share of {len(p):,} good test images that it "
        f"flags. The band holds what chance does in 95 of 100 cases at each of {len(levels)} "
        f"levels; the curve is outside at {outside} (by chance alone about "
        f"{0.05 * len(levels):.0f}, often side by side). The dot is the threshold in use. Axes are "
        "square roots, so that small rates can be seen."
    )
    return f'<div class="figure">{drawing}<p>{said}</p></div>'


def _curves(curves: Mapping[str, Sequence[float]]) -> str:
    """Returns a chart of what training and held-out images cost, epoch by epoch."""
    shown = {name: _finite(values) for name, values in list(curves.items())[:4]}
    shown = {name: values for name, values in shown.items() if len(values) > 1}
    if not shown:
        return ""
    every = np.concatenate(list(shown.values()))
    low, high, epochs = float(every.min()), float(every.max()), max(map(len, shown.values()))
    logarithmic = low > 0 and high / low > 20
    chart = _Chart(_linear(1, epochs), _logarithm(low, high) if logarithmic else _linear(low, high))
    marks, keys = [], []
    for number, (name, values) in enumerate(shown.items()):
        kept = np.unique(np.linspace(0, len(values) - 1, min(len(values), POINTS)).astype(int))
        marks.append(chart.line(kept + 1, values[kept], f"series s{number}"))
        keys.append(f'<li class="s{number}">{_text(name, 60)}: {values[-1]:.4g} at the end</li>')
    x = [(value, f"{value:.0f}") for value in _ticks(1, epochs) if float(value).is_integer()]
    y_values = np.geomspace(low, high, 4).tolist() if logarithmic else _ticks(low, high)
    y = [(value, f"{value:.2g}") for value in y_values]
    drawing = chart.draw(
        "Loss by epoch", x, y, "epoch", "loss (logarithmic)" if logarithmic else "loss", marks
    )
    return f'<div class="figure">{drawing}<ul class="keys">{"".join(keys)}</ul></div>'


def _linear(low: float, high: float) -> Scale:
    return lambda value: (value - low) / ((high - low) or 1.0)


def _logarithm(low: float, high: float) -> Scale:
    return lambda value: math.log(value / low) / math.log(high / low)


def _root(value: float) -> float:
    return math.sqrt(value)


@dataclass(frozen=True)
class _Chart:
    """Axes of a drawing, and what is drawn on them."""

    x: Scale
    y: Scale

    def at(self, x: float, y: float) -> str:
        return f"{64 + 328 * self.x(x):.1f} {284 - 268 * self.y(y):.1f}"

    def line(self, xs: ArrayLike, ys: ArrayLike, kind: str) -> str:
        pairs = zip(np.asarray(xs, float).tolist(), np.asarray(ys, float).tolist(), strict=True)
        return f'<polyline class="{kind}" points="{" ".join(self.at(x, y) for x, y in pairs)}"/>'

    def band(self, xs: ArrayLike, low: ArrayLike, high: ArrayLike) -> str:
        x, bottom, top = (np.asarray(values, float) for values in (xs, low, high))
        outline = zip([*x, *x[::-1]], [*top, *bottom[::-1]], strict=True)
        return f'<polygon class="band" points="{" ".join(self.at(a, b) for a, b in outline)}"/>'

    def dot(self, x: float, y: float) -> str:
        place = self.at(x, y).split()
        return f'<circle class="dot" cx="{place[0]}" cy="{place[1]}" r="5.5"/>'

    def draw(
        self,
        title: str,
        x_ticks: Sequence[tuple[float, str]],
        y_ticks: Sequence[tuple[float, str]],
        x_name: str,
        y_name: str,
        marks: Sequence[str],
    ) -> str:
        """Returns the drawing with its axes, 420 x 330 and wide as the page lets it be."""
        lines = [
            f'<line class="grid" x1="64" x2="392" y1="{y}" y2="{y}"/>'
            for y in self._heights(y_ticks)
        ]
        texts = [
            (
                f'<text x="{self.at(value, y_ticks[0][0]).split()[0]}" y="302" '
                f'text-anchor="middle">{said}</text>'
            )
            for value, said in x_ticks
        ]
        texts += [
            f'<text x="57" y="{float(y) + 4:.1f}" text-anchor="end">{said}</text>'
            for y, (_, said) in zip(self._heights(y_ticks), y_ticks, strict=True)
        ]
        names = (
            f'<text class="name" x="228" y="324" text-anchor="middle">{x_name}</text>'
            '<text class="name" transform="translate(12 150) rotate(-90)" '
            f'text-anchor="middle">{y_name}</text>'
        )
        return (
            '<svg class="chart" viewBox="0 0 420 330" role="img" '
            f'aria-label="{title}"><title>{title}</title>'
            f"{''.join(lines)}{''.join(marks)}{''.join(texts)}{names}</svg>"
        )

    def _heights(self, ticks: Sequence[tuple[float, str]]) -> list[str]:
        return [f"{284 - 268 * self.y(value):.1f}" for value, _ in ticks]


def _ticks(low: float, high: float) -> list[float]:
    """Returns about five round numbers between ``low`` and ``high``."""
    span = (high - low) or 1.0
    step = 10.0 ** math.floor(math.log10(span / 4))
    step *= next(factor for factor in (1, 2, 5, 10) if span / (step * factor) <= 6)
    return [i * step for i in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _decimals(span: float) -> int:
    """Returns how many digits behind the point tell the ticks of such a span apart."""
    return max(0, 1 - math.floor(math.log10(span / 4)))


def _place(value: float, low: float, high: float) -> float:
    return 100 * min(1.0, max(0.0, (value - low) / (high - low)))


def _finite(values: ArrayLike) -> npt.NDArray[np.float64]:
    found = np.asarray(values, np.float64).ravel()
    return found[np.isfinite(found)]


# ---- pictures ----


def _galleries(galleries: Mapping[str, Sequence[GalleryItem]]) -> str:
    """Returns the galleries, as many pictures as there is room for; of the others the names."""
    names = [name for name in GALLERIES if galleries.get(name)]
    names += [name for name in galleries if name not in GALLERIES and galleries[name]][:ROWS]
    if not names:
        return ""
    budget = PICTURE_BYTES // len(names)
    return _legend() + "\n".join(_gallery(name, galleries[name], budget) for name in names)


def _gallery(name: str, items: Sequence[GalleryItem], budget: int) -> str:
    expected = any(item.expected is not None for item in items[:PICTURES_A_GALLERY])
    figures, room = [], budget
    for item in items[:PICTURES_A_GALLERY]:
        figure = _figure(item, expected)
        room -= len(figure)
        if room < 0:
            break
        figures.append(figure)
    rest = items[len(figures) :]
    others = "".join(f"<li>{_text(item.path)}</li>" for item in rest[:ROWS])
    listed = f"<ul>{others}{_left_out(rest, 'li')}</ul>"
    more = (
        f"<details><summary>{len(rest):,} more without pictures</summary>{listed}</details>"
        if rest
        else ""
    )
    meaning = GALLERIES.get(name, "")
    unknown = "" if expected else " What the model expected to see is not available for these."
    return (
        f"<h3>{_text(name[:1].upper() + name[1:], 100)}</h3><p>{meaning}{unknown}</p>"
        f'<div class="gallery{"" if expected else " pairs"}">{"".join(figures)}</div>{more}'
    )


def _figure(item: GalleryItem, with_expected: bool) -> str:
    original = shrink(item.original)
    heatmap = (
        None
        if item.heatmap is None
        else overlay(original, item.heatmap, item.median, item.threshold)
    )
    expected = None if item.expected is None else stretched(item.expected, original)
    shown = [("original", original), ("expected", expected), ("heatmap", heatmap)]
    views = "".join(
        _view(what, pixels, item.path)
        for what, pixels in shown
        if with_expected or what != "expected"
    )
    caption = f"<b>{_text(item.path)}</b> {_text(item.caption, 500)}"
    return f'<figure><div class="views">{views}</div><figcaption>{caption}</figcaption></figure>'


def _view(what: str, pixels: Pixels | None, path: str) -> str:
    picture = '<div class="none">not available</div>'
    if pixels is not None:
        height, width = pixels.shape[:2]
        alt = f"{what} of {_text(path, 100)}"
        picture = (
            f'<img src="{_data_uri(pixels)}" alt="{alt}" width="{width}" height="{height}" '
            'loading="lazy">'
        )
    return f'<div class="view">{picture}<span>{what}</span></div>'


def _data_uri(pixels: Pixels) -> str:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=85, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def _legend() -> str:
    """Returns what the colours of every heatmap mean."""
    colours = [
        f"rgba({red:.0f},{green:.0f},{blue:.0f},{opacity:.2f}) {100 * t / LEGEND_END:.1f}%"
        for t, red, green, blue, opacity in STOPS
    ]
    names = [(0, "typical"), (1, "threshold"), (2, "2 x"), (4, "4 x as far")]
    ticks = "".join(
        f'<span style="left:{100 * t / LEGEND_END:.0f}%">{name}</span>' for t, name in names
    )
    return (
        '<div class="legend"><p>A colour means the same on every picture: how far a place is from '
        "a typical good "
        "image, measured by the threshold. Nothing is stretched for a single picture, so what is "
        "normal stays clear. What reaches the threshold is outlined.</p>"
        '<div class="scale" role="img" aria-label="Clear for a typical good image, yellow at the '
        'threshold, red at twice and violet at four times as far" '
        f'style="background-image:linear-gradient(to right,{",".join(colours)})"></div>'
        f'<div class="ticks" aria-hidden="true">{ticks}</div></div>'
    )


# ---- the detector ----


def _detector(card: Mapping[str, Any]) -> str:
    """Returns what was trained on what, by the card."""
    training = card.get("training") or {}
    calibration = card.get("calibration") or {}
    sets = ", ".join(f"{count} {name}" for name, count in (training.get("sets") or {}).items())
    groups = f" in {training['groups']} groups" if training.get("groups") else ""
    versions, licences = training.get("versions") or {}, card.get("licences") or {}
    threshold = (
        f"{calibration['threshold']:.6g}, set by {calibration['n']} images"
        if calibration
        else "none: rank only"
    )
    rows = [
        ("detector", _identity(card)),
        (
            "model",
            (
                f"{card.get('model')} on {card.get('space')}, {card.get('size')} x "
                f"{card.get('size')} pixels"
            ),
        ),
        ("score", card.get("score")),
        (
            "trained on",
            f"{training.get('images')} good images{groups}" + (f": {sets}" if sets else ""),
        ),
        ("digest of the images", training.get("digest")),
        ("threshold", threshold),
        ("made", training.get("created")),
        ("mask", mask_said(training)),
        ("command", training.get("command")),
        ("seed", training.get("seed")),
        ("versions", ", ".join(f"{name} {version}" for name, version in versions.items())),
        ("licences", "; ".join(f"{what}: {licence}" for what, licence in licences.items())),
        ("recalibrated from", card.get("parent")),
    ]
    rules = {
        name: training[name] for name in ("ranges", "target", "target_rate") if name in training
    }
    facts = _terms([(label, said) for label, said in rows if said not in (None, "")], "facts")
    return (
        facts
        + _mask(training)
        + _details("Ranges and rules", json.dumps(rules | {"decode": card.get("decode")}, indent=2))
    )


def _mask(training: Mapping[str, Any]) -> str:
    """Returns the picture of what is inspected (white) and what is not (black), or nothing without
    a mask.
    """
    mask = mask_of(training)
    if mask is None:
        return ""
    picture = _data_uri(shrink(np.repeat(mask[..., None] * np.uint8(255), 3, 2)))
    return (
        f'<figure class="mask"><img src="{picture}" alt="mask: white is inspected, black is not" '
        'width="160"></figure>'
    )


_STYLE = """
:root { color-scheme: light dark; --page: #f6f7f9; --card: #fff; --ink: #16202c; --soft: #5a6675; --line: #dde2e8;
  --good: #2a6fb0; --bad: #c2501f; --accent: #2a6fb0; --band: #2a6fb026; --kept: #1d7a46; --broken: #b3261e; --note:
    #fff6dc;
  --noteline: #e2b93b; }
@media (prefers-color-scheme: dark) { :root { --page: #11161c; --card: #1a2129; --ink: #e8edf2; --soft: #9aa7b4;
  --line: #303a45;
  --good: #6cb2f0; --bad: #f08c57; --accent: #6cb2f0; --band: #6cb2f02e; --kept: #5ecb8d; --broken: #ff8a80; --note:
    #2d2711;
  --noteline: #b8942b; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, "Segoe UI", Roboto, "Helvetica Neue", "DejaVu Sans", sans-serif; }
header, main, footer { max-width: 1160px; margin: 0 auto; padding: 0 24px; }
header { padding-top: 36px; }
h1 { font-size: 30px; line-height: 1.2; margin: 0 0 6px; letter-spacing: -0.01em; overflow-wrap: anywhere; }
h2 { font-size: 20px; margin: 0 0 14px; letter-spacing: -0.01em; }
h3 { font-size: 16px; margin: 26px 0 2px; }
p { margin: 0 0 12px; max-width: 78ch; }
small { color: var(--soft); font-size: 13px; font-weight: 400; }
.eyebrow { color: var(--accent); font-weight: 600; font-size: 13px; letter-spacing: .04em; margin: 0 0 4px; }
.identity { font: 13px/1.4 ui-monospace, "DejaVu Sans Mono", monospace; color: var(--soft); overflow-wrap: anywhere; }
nav { display: flex; flex-wrap: wrap; gap: 4px 18px; margin: 16px 0 22px; padding: 10px 0; border-top: 1px solid
  var(--line);
  border-bottom: 1px solid var(--line); font-size: 14px; }
a { color: var(--accent); text-decoration: none; } a:hover, a:focus { text-decoration: underline; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 24px; margin: 0 0
  20px; }
.notes { background: var(--note); border: 1px solid var(--noteline); border-radius: 12px; padding: 14px 20px; margin:
  0 0 20px; }
.notes ul { margin: 0; padding-left: 18px; overflow-wrap: anywhere; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(190px, 1fr)); gap: 14px; margin-bottom: 16px; }
.tile { border: 1px solid var(--line); border-radius: 10px; padding: 14px 16px; }
.tile h3 { margin: 0; font-size: 14px; font-weight: 600; color: var(--soft); }
.tile p { margin: 0; font-size: 13.5px; color: var(--soft); }
.tile .value { font-size: 30px; line-height: 1.25; font-weight: 650; color: var(--ink); font-variant-numeric:
  tabular-nums; }
.tile .value small { font-size: 17px; }
.tile.kept p:last-child { color: var(--kept); font-weight: 600; }
.tile.broken { border-color: var(--broken); } .tile.broken p:last-child { color: var(--broken); font-weight: 600; }
dl { display: grid; grid-template-columns: minmax(150px, max-content) 1fr; gap: 8px 26px; margin: 0; }
dt { color: var(--soft); } dd { margin: 0; grid-column: 2; overflow-wrap: anywhere; }
.guarantee dt { font-weight: 600; color: var(--ink); }
.facts { font-size: 14.5px; }
details { margin-top: 14px; } summary { cursor: pointer; color: var(--accent); font-size: 14px; }
pre { font: 13px/1.5 ui-monospace, "DejaVu Sans Mono", monospace; overflow-x: auto; background: var(--page);
  border-radius: 8px;
  padding: 12px 14px; margin: 10px 0 0; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 9px 14px 9px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
thead th { font-size: 13px; color: var(--soft); font-weight: 600; } tbody tr:last-child > * { border-bottom: 0; }
tbody th { font-weight: 600; min-width: 80px; max-width: 260px; overflow-wrap: break-word; } td small { display:
  block; }
.bar { display: inline-block; width: 120px; height: 12px; margin-left: 8px; vertical-align: -1px; }
.bar .track { fill: var(--line); } .bar .span { fill: var(--accent); opacity: .35; } .bar .mark { fill: var(--accent);
  }
.rows { display: grid; gap: 10px; }
.row, .axis { display: grid; grid-template-columns: 170px 1fr 150px; gap: 0 16px; align-items: end; }
.row > div { overflow-wrap: anywhere; line-height: 1.25; } .row b { font-weight: 600; display: block; }
.strip { display: block; width: 100%; height: 52px; border-bottom: 1px solid var(--line); }
.strip path { fill: var(--bad); } .strip.good path { fill: var(--good); }
.strip .threshold { stroke: var(--ink); stroke-width: 1.5px; stroke-dasharray: 5 4; vector-effect: non-scaling-stroke; }
.ticks { position: relative; height: 20px; font-size: 12.5px; color: var(--soft); }
.ticks span { position: absolute; transform: translateX(-50%); white-space: nowrap; }
.axis .ticks { grid-column: 2; }
.figure { display: grid; grid-template-columns: minmax(0, 520px) minmax(0, 1fr); gap: 12px 36px; align-items: center;
  }
.chart { width: 100%; height: auto; } .chart text { font-size: 12px; fill: var(--soft); } .chart .name { fill:
  var(--ink); }
.chart .grid { stroke: var(--line); } .chart polyline { fill: none; stroke-linejoin: round; }
.chart .curve { stroke: var(--accent); stroke-width: 2.2; } .chart .chance { stroke: var(--soft); stroke-dasharray: 4
  4; }
.chart .band { fill: var(--band); } .chart .dot { fill: var(--bad); stroke: var(--card); stroke-width: 2; }
.chart .series { stroke-width: 2.2; } .s0 { stroke: var(--good); } .s1 { stroke: var(--bad); } .s2 { stroke:
  var(--kept); }
.s3 { stroke: var(--soft); }
.keys { list-style: none; margin: 0; padding: 0; } .keys li { border-left: 4px solid; padding-left: 10px; margin: 6px
  0; }
.keys .s0 { border-color: var(--good); } .keys .s1 { border-color: var(--bad); } .keys .s2 { border-color:
  var(--kept); }
.keys .s3 { border-color: var(--soft); }
.legend { max-width: 640px; margin-bottom: 8px; }
.scale { height: 16px; border-radius: 4px; background-color: #8b8f94; }
.legend .ticks span:first-child { transform: none; } .legend .ticks span:last-child { transform: translateX(-100%); }
.gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(480px, 100%), 1fr)); gap: 18px; }
.pairs { grid-template-columns: repeat(auto-fill, minmax(min(320px, 100%), 1fr)); }
figure { margin: 0; min-width: 0; }
.views { display: grid; grid-auto-flow: column; grid-auto-columns: minmax(0, 1fr); gap: 6px; align-items: end; }
.view img { display: block; width: 100%; height: auto; border-radius: 6px; }
.view span { display: block; font-size: 12px; color: var(--soft); padding-top: 2px; }
.none { aspect-ratio: 1; display: grid; place-items: center; text-align: center; font-size: 13px; color: var(--soft);
  border: 1px dashed var(--line); border-radius: 6px; }
figcaption { font-size: 14px; color: var(--soft); padding-top: 4px; overflow-wrap: anywhere; }
figcaption b { display: block; font: 600 13px/1.4 ui-monospace, "DejaVu Sans Mono", monospace; color: var(--ink); }
footer { padding-top: 6px; padding-bottom: 36px; font-size: 13px; color: var(--soft); }
@media (max-width: 700px) {
  header, main, footer { padding-left: 14px; padding-right: 14px; } header { padding-top: 22px; }
  h1 { font-size: 24px; } section { padding: 18px 16px; border-radius: 10px; }
  .tiles { grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 10px; } .tile { padding: 12px; }
  .tile .value { font-size: 25px; }
  dl { grid-template-columns: 1fr; gap: 0; } dt { margin-top: 10px; font-size: 14px; } dd { grid-column: 1; }
  .figure { grid-template-columns: minmax(0, 1fr); }
  .row, .axis { grid-template-columns: 1fr; } .row > div { display: flex; gap: 8px; align-items: baseline; }
  .axis .ticks { grid-column: 1; } .bar { display: block; margin: 4px 0 2px; width: 90px; }
}
@media print { body { background: #fff; } section { break-inside: avoid-page; } nav { display: none; } }
"""

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<header>
<p class="eyebrow">Anomaly report</p>
<h1>{title}</h1>
<p class="identity">{identity}</p>
<nav aria-label="Sections">{links}</nav>
</header>
<main>
{notes}
{body}
</main>
<footer>Made by anomaly {version}. Scores are unclamped and unscaled; higher is more anomalous.</footer>
</body>
</html>
"""
