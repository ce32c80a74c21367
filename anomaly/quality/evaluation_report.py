"""The report of an evaluation: figures as text, pictures, the page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from anomaly.errors import DatasetError, ImageError
from anomaly.imaging.listing import passed_text
from anomaly.imaging.overlay import grid, overlay, shrink
from anomaly.inputs.dataset import Record, read_dataset
from anomaly.inputs.used_images import IMAGES
from anomaly.quality.evaluation import Judged
from anomaly.reporting.detector import card_text
from anomaly.reporting.evaluation import realised_text
from anomaly.reporting.report import GalleryItem, Report
from anomaly.reporting.verdict import verdict_text
from anomaly.scorer import Result, Scorer, colour_anchors
from anomaly.statistics.groups import one_per_group
from anomaly.statistics.resampling import NORMAL

GALLERY = 8  # pictures of each kind


MAX_NAMES_SHOWN = 5  # names in a line


SIDE = 256  # pixels a side of a picture of `anomaly reconstruct`


# --- words ----------------------------------------------------------------------------------------
def figures_text(judged: Judged) -> str:
    """Returns the figures in lines: what ranks, what is flagged, what is missed, class by class."""
    e = judged.evaluation
    rows = [
        ("ranking (AUROC)", said(e.image_auroc)),
        ("average precision", said(e.average_precision)),
        ("defects flagged", rate_said(e.recall) + images_said(e.recall_images)),
        (f"good {judged.what}s flagged", false_alarms_said(judged)),
        ("needs a person", needs_a_person_said(judged)),
        *used_rows(judged),
    ]
    if e.pixels:
        rows.append(
            (
                "pixels",
                (
                    f"AUROC {said(e.pixels.auroc)}; AUPRO {said(e.pixels.aupro)} "
                    f"({e.pixels.regions} regions)"
                ),
            )
        )
    if masks := judged.masks.text():
        rows.append(("masks", masks))
    for name, figures in e.per_class.items():
        rows.append(
            (f"  {name}", f"AUROC {said(figures.image_auroc)}; flagged {rate_said(figures.recall)}")
        )
    outside = outside_counts(judged)
    if any(outside):
        rows.append(
            (
                "outside",
                (
                    f"{outside[0]} good and {outside[1]} defective {judged.what}s are unlike the "
                    "training images"
                ),
            )
        )
    told, left = judged.copies
    if left < told and judged.what == "image":
        rows.append(
            (
                "copies",
                (
                    f"{told} images (or groups) count as {left}: copies and near-copies of each "
                    "other are one"
                ),
            )
        )
    if e.not_inspected:
        what = judged.what if e.not_inspected == 1 else f"{judged.what}s"
        rows.append(
            ("NOT INSPECTED", f"{e.not_inspected} {what} could not be judged. Treat as not OK.")
        )
    if judged.passed_over:
        rows.append(("passed over", passed_text(judged.passed_over)))
    rows.append(
        (
            "time",
            f"{judged.milliseconds:.1f} ms an image, decoding included, on {judged.scorer.device}",
        )
    )
    return "\n".join(f"{label:<24}{text}" for label, text in rows)


def needs_a_person_said(judged: Judged) -> str:
    """Returns how many good and defective images were not judged: what is not judged is
    never good.
    """
    good, defects = judged.needs_a_person(True), judged.needs_a_person(False)
    return f"not judged: good {good[0]} of {good[1]}, defects {defects[0]} of {defects[1]}"


def used_rows(judged: Judged) -> list[tuple[str, str]]:
    """Returns what is to be said of images that made the detector, which say nothing of how it does
    on others.
    """
    if not judged.checked:
        table = f"no {IMAGES} beside the detector"
        return [("not checked", f"whether these images trained or calibrated it: {table}")]
    if not judged.used:
        return []
    names = " ".join(str(Path(*Path(path).parts[-2:])) for path in judged.used[:MAX_NAMES_SHOWN])
    more = (
        f" and {len(judged.used) - MAX_NAMES_SHOWN} more"
        if len(judged.used) > MAX_NAMES_SHOWN
        else ""
    )
    return [
        (
            "left out",
            f"{len(judged.used)} images that trained or calibrated this detector: {names}{more}",
        )
    ]


def outside_counts(judged: Judged) -> tuple[int, int]:
    """Returns how many good and how many defective images were outside the range of the training
    images.
    """
    outside = [
        r.label
        for r, result in zip(judged.records, judged.results, strict=True)
        if result.status == "outside"
    ]
    good = sum(label == NORMAL for label in outside)
    return good, len(outside) - good


def said(interval: Any) -> str:
    """Returns a figure with its interval, or why there is none."""
    if interval is None:
        return "needs good and defective images"
    return f"{interval.value:.3f} (95 %: {interval.low:.3f} to {interval.high:.3f})"


def rate_said(rate: Any) -> str:
    """Returns counts before percent."""
    if rate is None:
        return "unknown: no threshold, or no such images"
    return (
        f"{rate.flagged} of {rate.n} ({100 * rate.value:.1f} %; 95 %: {100 * rate.low:.1f} to "
        f"{100 * rate.high:.1f} %)"
    )


def images_said(counts: tuple[int, int] | None) -> str:
    """Returns the count over all images where it differs from the one by group."""
    return "" if counts is None else f"; of all images {counts[0]} of {counts[1]}"


def false_alarms_said(judged: Judged) -> str:
    """Returns the realised count of false alarms beside what was guaranteed."""
    alarms, calibration = judged.evaluation.false_alarms, judged.scorer.card.calibration
    if alarms is None and calibration is not None and judged.used_good:
        return f"unknown: all {judged.used_good} good images were used in training"
    if alarms is None or calibration is None:
        return "unknown: no threshold, or no good images"
    return realised_text(alarms.flagged, calibration, what=judged.what)


# --- report ---------------------------------------------------------------------------------------
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
        f"{verdict_text(result.status, result.score, scorer.card.calibration, result.error)}",
        original=shrink(decoded.pixels),
        expected=scorer.explain(decoded),
        heatmap=result.heatmap,
        median=m,
        threshold=threshold,
    )


def reconstructions(
    scorer: Scorer, images: Path, count: int
) -> tuple[npt.NDArray[np.uint8], int, list[str]]:
    """Returns one picture with a row for each image (original, expected, heatmap), how many, and
    the errors.
    """
    from PIL import Image

    tiles, errors = [], []
    for record in (
        read_dataset(images, plain=None)[:count]
        if images.is_dir() or images.suffix in (".csv", ".parquet")
        else [Record(images, None, None, "", None)]
    ):
        try:
            decoded = scorer.decode(record.path)
        except ImageError as error:
            errors.append(str(error))
            continue
        result, expected = scorer.judge(decoded), scorer.explain(decoded)
        if expected is None:
            raise DatasetError(
                f"{scorer.path}: what it expects is not available (explain.onnx is not beside it, "
                "or not its own)"
            )
        original = np.asarray(Image.fromarray(decoded.pixels).resize((SIDE, SIDE)))
        picture = (
            original
            if result.heatmap is None
            else overlay(original, result.heatmap, *colour_anchors(scorer, result))
        )
        tiles += [original, np.asarray(Image.fromarray(expected).resize((SIDE, SIDE))), picture]
    if not tiles:
        raise DatasetError(
            f"{images}: no image could be read, the first error: {(errors or ['none found'])[0]}"
        )
    return grid(np.stack(tiles), columns=3), len(tiles) // 3, errors
