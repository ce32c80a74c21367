"""The report of an evaluation: figures, curves, and the pictures that a person wants to see."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from anomaly.imaging.overlay import shrink
from anomaly.inputs.dataset import Record
from anomaly.reporting.detector import card_text
from anomaly.reporting.evaluation import figures_text
from anomaly.reporting.report import GalleryItem, Report
from anomaly.reporting.result import result_text
from anomaly.scorer import Result, Scorer
from anomaly.scoring.evaluation import Judged
from anomaly.scoring.pictures import colour_anchors
from anomaly.statistics.groups import one_per_group
from anomaly.statistics.resampling import NORMAL

GALLERY = 8  # pictures of each kind


def build_report(judged: Judged, labelled: Path, notes: Sequence[str] = ()) -> Report:
    """Returns the report of labelled images: figures, curves and the pictures that a person wants
    to see.
    """
    e, card = judged.evaluation, judged.scorer.card
    calibration = card.calibration
    return Report(
        title=f"{card.name} on {labelled.name}",
        card=card,
        guarantee=card_text(card, str(judged.scorer.path)),
        figures=judged.to_json(),
        figures_text=figures_text(judged),
        roc=None if e.roc is None else (e.roc.fpr, e.roc.tpr),
        scores=e.scores,
        threshold=None if calibration is None else float(calibration.threshold),
        median=None if calibration is None else float(calibration.median),
        p_values=None if calibration is None else calibration.p_value(good_scores(judged)),
        galleries={
            kind: [gallery_item(judged.scorer, r, x) for r, x in items]
            for kind, items in chosen_pictures(judged).items()
        },
        notes=[*notes, *(card.training.warnings or ())],
    )


def good_scores(judged: Judged) -> npt.NDArray[np.float32]:
    """Returns the scores of the good images, one of each group."""
    good = [
        p
        for p in zip(judged.records, judged.results, strict=True)
        if p[0].label == NORMAL and p[1].score is not None
    ]
    scores = [result.score or 0.0 for _, result in good]
    return one_per_group(scores, [r.group for r, _ in good], 0, [str(r.path) for r, _ in good])[0]


def chosen_pictures(judged: Judged) -> dict[str, list[tuple[Record, Result]]]:
    """Returns the pictures of the report by kind: most and least anomalous, false
    alarms, misses.
    """
    pairs = [
        pair
        for pair in zip(judged.records, judged.results, strict=True)
        if pair[1].score is not None
    ]
    pairs.sort(key=lambda pair: -(pair[1].score or 0.0))
    calibration = judged.scorer.card.calibration
    chosen = {"most anomalous": pairs[:GALLERY], "least anomalous": pairs[::-1][:GALLERY]}
    if calibration is not None:
        flagged = [
            bool(calibration.is_anomaly(np.float32(result.score or 0.0))) for _, result in pairs
        ]
        alarms = [p for p, s in zip(pairs, flagged, strict=True) if s and p[0].label == NORMAL]
        misses = [p for p, s in zip(pairs, flagged, strict=True) if not s and p[0].label != NORMAL]
        chosen |= {"false alarms": alarms[:GALLERY], "misses": misses[::-1][:GALLERY]}
    return chosen


def gallery_item(scorer: Scorer, record: Record, result: Result) -> GalleryItem:
    """Returns one picture with what the model expected and its heatmap."""
    decoded = scorer.decode(record.path)
    m, threshold = colour_anchors(scorer, result)
    return GalleryItem(
        path=str(Path(*record.path.parts[-3:])),
        caption=f"{record.label}. "
        f"{result_text(result.status, result.score, scorer.card.calibration, result.error)}",
        original=shrink(decoded.pixels),
        expected=scorer.explain(decoded),
        heatmap=result.heatmap,
        median=m,
        threshold=threshold,
    )
