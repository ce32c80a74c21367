"""The figures of a report that a reader decides by, each with its count and interval."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from anomaly.files.numbers import count_text, percent
from anomaly.reporting.known_defects import missed_text
from anomaly.reporting.report import ROWS, Report

NONE = "\N{EN DASH}"  # where there is no figure


@dataclass(frozen=True)
class Tile:
    """One figure; ``of``: of how many, ``state``: ``kept`` or ``broken``, if it says either."""

    label: str
    value: str
    said: str
    of: str = ""
    more: str = ""
    state: str = ""


@dataclass(frozen=True)
class Cell:
    """A figure of the table with a bar; ``span``: low, value and high in percent, None without."""

    value: str
    said: str = ""
    span: tuple[float, float, float] | None = None


@dataclass(frozen=True)
class ClassRow:
    """A kind of defects: how many images, how well it is ranked, how many of it are flagged."""

    name: str
    images: int
    ranking: Cell
    flagged: Cell


@dataclass(frozen=True)
class Classes:
    """The table of the kinds of defects, the worst ranked first: a mean hides it."""

    rows: list[ClassRow]
    left_out: int


def tiles(figures: Mapping[str, Any]) -> list[Tile]:
    """Returns the figures of an evaluation, by ``Evaluation.to_json``."""
    found = [
        _good_tile(figures.get("false_alarms"), figures.get("left_out_good", 0)),
        _defects_tile(figures.get("recall")),
        _ranking_tile("Ranking (AUROC)", figures.get("image_auroc"), "1 is perfect, 0.5 is chance"),
        _ranking_tile("Average precision", figures.get("average_precision"), "1 is perfect"),
    ]
    if figures.get("aupro") is not None or figures.get("pixel_auroc") is not None:
        pixels = f"pixel AUROC {_number(figures.get('pixel_auroc'))}"
        found.append(Tile("Where it is (AUPRO)", _number(figures.get("aupro")), pixels))
    return found


def counts_text(figures: Mapping[str, Any]) -> str:
    """Returns how many images were judged, and how many were not: none of these is good before a
    person has looked.
    """
    said = (
        f"{figures.get('n_normal', 0):,} good and {figures.get('n_anomalous', 0):,} defective "
        "images were judged."
    )
    needs = figures.get("needs_a_person")
    if not needs:
        return said
    good, defects = needs["good"], needs["defects"]
    return (
        f"{said} Not judged, so that a person has to look: {good['count']:,} of {good['n']:,} good "
        f"and {defects['count']:,} of {defects['n']:,} defective ones."
    )


def classes(report: Report) -> Classes | None:
    """Returns the table of defect classes, or None without them."""
    found = (report.figures or {}).get("per_class") or {}
    if not found:
        return None
    order = sorted(
        found.items(),
        key=lambda item: (item[1].get("image_auroc") or {"value": math.inf})["value"],
    )
    return Classes([_class_row(name, row) for name, row in order[:ROWS]], len(order[ROWS:]))


def _good_tile(alarms: Mapping[str, Any] | None, used: int) -> Tile:
    label = "Good images flagged"
    if not alarms:
        why = f"all {used} good images were used in training" if used else ""
        return Tile(label, NONE, why or "no threshold, or no good images")
    flagged, n, up_to = alarms["flagged"], alarms["n"], alarms["ordinary_up_to"]
    guaranteed = alarms["guaranteed_rate"]
    word = "estimated" if guaranteed is None else "guaranteed"
    expected = count_text(n * alarms[f"{word}_rate"])
    said = f"expected {expected}, up to {up_to:,} is ordinary"
    state, more = (
        ("kept", f"✓ as {word}")
        if flagged <= up_to
        else (
            "broken",
            "✗ more than chance explains: these are unlike the images that set the threshold",
        )
    )
    return Tile(label, f"{flagged:,}", said, f"of {n:,}", more, state)


def _defects_tile(recall: Mapping[str, Any] | None) -> Tile:
    label = "Defects flagged"
    if not recall:
        return Tile(label, "unknown", "no threshold, or no defective images")
    missed = f"{recall['n'] - recall['flagged']:,} missed"
    return Tile(label, f"{recall['flagged']:,}", _share(recall), f"of {recall['n']:,}", missed)


def _ranking_tile(label: str, figure: Mapping[str, Any] | None, meaning: str) -> Tile:
    if not figure:
        return Tile(label, NONE, "needs good and defective images", more=meaning)
    return Tile(label, _number(figure["value"]), _interval(figure), more=meaning)


def _class_row(name: str, found: Mapping[str, Any]) -> ClassRow:
    auroc, recall = found.get("image_auroc"), found.get("recall")
    ranking = flagged = Cell(NONE)
    if auroc:
        ranking = Cell(_number(auroc["value"]), _interval(auroc), _span(auroc))
    if recall:
        counts = f"{recall['flagged']:,} of {recall['n']:,}"
        missed = missed_text(recall["n"] - recall["flagged"], recall["n"])
        flagged = Cell(counts, f"{_share(recall)}; {missed}", _span(recall))
    return ClassRow(name, found.get("n", 0), ranking, flagged)


def _span(figure: Mapping[str, Any]) -> tuple[float, float, float]:
    return 100 * figure["low"], 100 * figure["value"], 100 * figure["high"]


def _number(value: Any) -> str:
    """Returns a figure, or a dash where there is none."""
    return f"{value:.3f}" if isinstance(value, int | float) and math.isfinite(value) else NONE


def _interval(figure: Mapping[str, Any]) -> str:
    return f"95 %: {_number(figure['low'])} to {_number(figure['high'])}"


def _share(rate: Mapping[str, Any]) -> str:
    low, high = (percent(rate[end]).removesuffix(" %") for end in ("low", "high"))
    return f"{percent(rate['value'])}; 95 %: {low} to {high} %"
