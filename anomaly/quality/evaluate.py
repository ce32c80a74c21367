"""A detector on labelled images: run it, gather the figures, pick the pictures, say the result."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from anomaly.detector.unit_rule import UnitRule
from anomaly.errors import DatasetError, ImageError
from anomaly.files.progress import Progress
from anomaly.imaging.defect_masks import MaskNotes, read_defect_mask
from anomaly.imaging.listing import passed_text
from anomaly.inputs.copies import Looks, regrouped
from anomaly.inputs.dataset import Record, Say, labelled_test, read_dataset
from anomaly.inputs.used_images import IMAGES, USED, divided, listing_of
from anomaly.reporting.report import GalleryItem, Report, grid, overlay, shrink, write_report
from anomaly.reporting.wording import card_text, realised_text, verdict_text
from anomaly.scorer import Result, Scorer
from anomaly.scoring.units import by_unit
from anomaly.statistics.calibration import one_per_group
from anomaly.statistics.metrics import NORMAL, Evaluation, PixelMap, evaluate

GALLERY = 8  # pictures of each kind
MAX_NAMES_SHOWN = 5  # names in a line
SIDE = 256  # pixels a side of a picture of `anomaly reconstruct`


@dataclass(frozen=True)
class Judged:
    """Labelled records with their results, in the same order, and the figures that follow from them."""

    scorer: Scorer
    records: list[Record]
    results: list[Result]
    evaluation: Evaluation
    milliseconds: float  # of one image, decoding included
    masks: MaskNotes = field(default_factory=MaskNotes)
    used: tuple[str, ...] = ()  # images that were left out: they trained or calibrated this detector
    used_good: int = 0  # how many of these are good
    checked: bool = True  # whether that could be looked up
    passed_over: dict[str, int] = field(default_factory=dict)  # what folders hold besides images, by kind
    copies: tuple[int, int] = (0, 0)  # groups that were told, and those that are left once copies are joined; equal: none

    @property
    def what(self) -> str:
        """What is counted: images, or units by the worst view of each."""
        return "image" if UnitRule.of(self.scorer.card.training) is None else "unit"

    def needs_a_person(self, good: bool) -> tuple[int, int]:
        """Returns how many good (or defective) images were not judged (outside, or errors), and of how many."""
        pairs = zip(self.records, self.results, strict=True)
        statuses = [result.status for record, result in pairs if (record.label == NORMAL) is good]
        return sum(status != "ok" for status in statuses), len(statuses)

    def to_json(self) -> dict[str, Any]:
        """The figures of the evaluation, and what they do not cover."""
        counts = {name: self.needs_a_person(good) for name, good in (("good", True), ("defects", False))}
        return {
            **self.evaluation.to_json(),
            "needs_a_person": {name: {"count": count, "n": n} for name, (count, n) in counts.items()},
            "left_out_as_used": list(self.used),
            "left_out_good": self.used_good,
            "checked_for_used": self.checked,
            "masks": self.masks.to_json(),
        }


def evaluate_labelled(
    scorer: Scorer,
    labelled: Path,
    group_by: str | None = None,
    *,
    report: Path | None = None,
    good: Sequence[str] = (),
    say: Say | None = None,
) -> Judged:
    """Returns how a detector does on labelled images, and writes the report where asked.

    Where the detector guarantees per unit, units are judged, each by its worst view. Raises DatasetError where no image has a
    label.
    """
    rule = UnitRule.of(scorer.card.training)
    passed = Counter[str]()
    records = labelled_test(read_dataset(labelled, group_by, passed, good, say=say), say)
    if rule is not None and group_by is None:
        records, _ = by_unit(records, rule.pattern)
    if not records:
        raise DatasetError(f"{labelled}: no image with a label found; test/good and test/<defect>, or a label column, expected")
    listing = listing_of(scorer.path)
    given = records
    records, used = _without_used(given, listing, whole_groups=rule is not None)
    left = set(used)
    used_good = sum(record.label == NORMAL and str(record.path) in left for record in given)
    if not records:
        raise DatasetError(
            f"{labelled}: all {len(used)} labelled images trained or calibrated this detector, new ones expected: they say "
            "nothing of how it does on others"
        )
    judged = judge_labelled(scorer, records)
    judged = replace(judged, used=tuple(used), used_good=used_good, checked=listing is not None, passed_over=dict(passed))
    if (labelled / "ground_truth").is_dir() and not any(record.mask for record in records):  # none has the name of its image
        judged = replace(judged, masks=_without_masks(judged))
    if report is not None:
        write_report(report, build_report(judged, labelled))
    return judged


def _without_masks(judged: Judged) -> MaskNotes:
    notes = MaskNotes()
    for record in judged.records:
        if record.label != NORMAL:
            notes.add(record.path, None)
    return notes


def _without_used(records: list[Record], listing: Path | None, whole_groups: bool) -> tuple[list[Record], list[str]]:
    """Returns the records that did not make the detector, and the paths of the others (of a unit: all its views)."""
    if listing is None:
        return records, []
    fresh, used = divided(records, listing, USED)
    if whole_groups:
        groups = {record.group for record in used}
        used = [record for record in records if record.group in groups]
        fresh = [record for record in records if record.group not in groups]
    return fresh, [str(record.path) for record in used]


def judge_labelled(scorer: Scorer, records: list[Record]) -> Judged:
    """Returns results and figures of labelled records; the images are read one after the other."""
    import time

    start = time.perf_counter()
    results, looks = [], {True: Looks(scorer.card.size), False: Looks(scorer.card.size)}  # of good images, and of others
    with Progress(len(records), "judging images") as progress:
        for record in records:
            results.append(score_one(scorer, record.path, looks[record.label == NORMAL]))
            progress.advance(1)
    milliseconds = 1000 * (time.perf_counter() - start) / len(records)
    told = len({record.group for record in records})
    if UnitRule.of(scorer.card.training) is not None:
        records, results = worst_views(records, results)
    else:
        records = _joined(records, results, looks)
    copies = (told, len({record.group for record in records}))
    calibration, notes = scorer.card.calibration, MaskNotes()
    inspected = [result.score is not None for result in results]
    scores = np.array([np.nan if result.score is None else result.score for result in results], np.float32)
    evaluation = evaluate(
        scores,
        [record.label or NORMAL for record in records],
        [record.group for record in records],
        calibration.is_anomaly(scores) if calibration else None,
        calibration,
        names=[str(record.path) for record in records],
        inspected=inspected,
        maps=pixel_maps(records, results, notes) if any(record.mask for record in records) else None,
        detector=scorer.card.identity,
    )
    return Judged(scorer, records, results, evaluation, milliseconds, notes, copies=copies)


def worst_views(records: Sequence[Record], results: Sequence[Result]) -> tuple[list[Record], list[Result]]:
    """Returns one record and result for each unit (group): those of its worst view.

    Where a view could not be judged and none is above the threshold, that is the unit's result. A unit is good if all its
    views are.
    """
    units: dict[str, list[tuple[Record, Result]]] = {}
    for record, result in zip(records, results, strict=True):
        units.setdefault(record.group, []).append((record, result))
    found = []
    for views in units.values():
        label = next((record.label for record, _ in views if record.label != NORMAL), NORMAL)
        unjudged = [view for view in views if view[1].score is None]
        worst = max(views, key=lambda view: -np.inf if view[1].score is None else view[1].score)
        record, result = unjudged[0] if unjudged and not worst[1].is_anomaly else worst
        found.append((replace(record, label=label), result))
    return [record for record, _ in found], [result for _, result in found]


def _joined(records: Sequence[Record], results: Sequence[Result], looks: dict[bool, Looks]) -> list[Record]:
    """Returns the records with copies in one group: good images also with near-copies, others of the same pixels alone.

    A defect may be all that two images of one part differ by.
    """
    groups = {id(record): record.group for record in records}
    for good, looked in looks.items():
        seen = [r for r, x in zip(records, results, strict=True) if (r.label == NORMAL) is good and x.status != "error"]
        copies = looked.copies([r.group for r in seen], same_only=not good)
        groups |= {id(r): joined.group for r, joined in zip(seen, regrouped(seen, copies), strict=True)}
    return [replace(record, group=groups[id(record)]) for record in records]


def score_one(scorer: Scorer, path: Path, looks: Looks | None = None) -> Result:
    """Returns the result of one image, an unreadable one as status ``error``; ``looks`` keeps what tells copies of it."""
    try:
        image = scorer.decode(path)
        result = scorer.judge(image)
        if looks is not None and result.status != "error":
            looks.add(image.pixels)
        return result
    except ImageError as error:
        return Result("error", error=str(error), kind=error.kind)


def pixel_maps(records: Sequence[Record], results: Sequence[Result], notes: MaskNotes) -> Iterator[PixelMap]:
    """Yields heatmap and mask of each image, the masks read one at a time; ``notes`` gets what defects' masks lack."""
    for record, result in zip(records, results, strict=True):
        mask = None if record.mask is None else read_defect_mask(record.mask)
        if record.label != NORMAL and result.heatmap is not None:
            notes.add(record.path, mask)
        size = mask.shape[:2] if mask is not None else (result.height or 1, result.width or 1)
        yield PixelMap(result.heatmap, mask, size)


# --- words ------------------------------------------------------------------------------------------------------------
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
        rows.append(("pixels", f"AUROC {said(e.pixels.auroc)}; AUPRO {said(e.pixels.aupro)} ({e.pixels.regions} regions)"))
    if masks := judged.masks.text():
        rows.append(("masks", masks))
    for name, figures in e.per_class.items():
        rows.append((f"  {name}", f"AUROC {said(figures.image_auroc)}; flagged {rate_said(figures.recall)}"))
    outside = outside_counts(judged)
    if any(outside):
        rows.append(("outside", f"{outside[0]} good and {outside[1]} defective {judged.what}s are unlike the training images"))
    told, left = judged.copies
    if left < told and judged.what == "image":
        rows.append(("copies", f"{told} images (or groups) count as {left}: copies and near-copies of each other are one"))
    if e.not_inspected:
        what = judged.what if e.not_inspected == 1 else f"{judged.what}s"
        rows.append(("NOT INSPECTED", f"{e.not_inspected} {what} could not be judged. Treat as not OK."))
    if judged.passed_over:
        rows.append(("passed over", passed_text(judged.passed_over)))
    rows.append(("time", f"{judged.milliseconds:.1f} ms an image, decoding included, on {judged.scorer.device}"))
    return "\n".join(f"{label:<24}{text}" for label, text in rows)


def needs_a_person_said(judged: Judged) -> str:
    """Returns how many good and defective images were not judged: what is not judged is never good."""
    good, defects = judged.needs_a_person(True), judged.needs_a_person(False)
    return f"not judged: good {good[0]} of {good[1]}, defects {defects[0]} of {defects[1]}"


def used_rows(judged: Judged) -> list[tuple[str, str]]:
    """Returns what is to be said of images that made the detector, which say nothing of how it does on others."""
    if not judged.checked:
        table = f"no {IMAGES} beside the detector"
        return [("not checked", f"whether these images trained or calibrated it: {table}")]
    if not judged.used:
        return []
    names = " ".join(str(Path(*Path(path).parts[-2:])) for path in judged.used[:MAX_NAMES_SHOWN])
    more = f" and {len(judged.used) - MAX_NAMES_SHOWN} more" if len(judged.used) > MAX_NAMES_SHOWN else ""
    return [("left out", f"{len(judged.used)} images that trained or calibrated this detector: {names}{more}")]


def outside_counts(judged: Judged) -> tuple[int, int]:
    """Returns how many good and how many defective images were outside the range of the training images."""
    outside = [r.label for r, result in zip(judged.records, judged.results, strict=True) if result.status == "outside"]
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
    return f"{rate.flagged} of {rate.n} ({100 * rate.value:.1f} %; 95 %: {100 * rate.low:.1f} to {100 * rate.high:.1f} %)"


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


# --- report -----------------------------------------------------------------------------------------------------------
def build_report(judged: Judged, labelled: Path, notes: Sequence[str] = ()) -> Report:
    """Returns the report of labelled images: figures, curves and the pictures that a person wants to see."""
    e, card = judged.evaluation, judged.scorer.card
    calibration = card.calibration
    return Report(
        title=f"{card.name} on {labelled.name}",
        card={**card.to_json(), "digest": card.digest},
        guarantee=card_text(card, str(judged.scorer.path)),
        figures=judged.to_json(),
        figures_text=figures_text(judged),
        roc=None if e.roc is None else (e.roc.fpr, e.roc.tpr),
        scores=e.scores,
        threshold=None if calibration is None else float(calibration.threshold),
        median=None if calibration is None else float(calibration.median),
        p_values=None if calibration is None else calibration.p_value(good_scores(judged)),
        galleries={
            kind: [gallery_item(judged.scorer, r, x) for r, x in items] for kind, items in chosen_pictures(judged).items()
        },
        notes=[*notes, *card.training.get("warnings", [])],
    )


def good_scores(judged: Judged) -> npt.NDArray[np.float32]:
    """Returns the scores of the good images, one of each group."""
    good = [p for p in zip(judged.records, judged.results, strict=True) if p[0].label == NORMAL and p[1].score is not None]
    scores = [result.score or 0.0 for _, result in good]
    return one_per_group(scores, [r.group for r, _ in good], 0, [str(r.path) for r, _ in good])[0]


def chosen_pictures(judged: Judged) -> dict[str, list[tuple[Record, Result]]]:
    """Returns the pictures of the report by kind: most and least anomalous, false alarms, misses."""
    pairs = [pair for pair in zip(judged.records, judged.results, strict=True) if pair[1].score is not None]
    pairs.sort(key=lambda pair: -(pair[1].score or 0.0))
    calibration = judged.scorer.card.calibration
    chosen = {"most anomalous": pairs[:GALLERY], "least anomalous": pairs[::-1][:GALLERY]}
    if calibration is not None:
        flagged = [bool(calibration.is_anomaly(np.float32(result.score or 0.0))) for _, result in pairs]
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
        caption=f"{record.label}. {verdict_text(result.status, result.score, scorer.card.calibration, result.error)}",
        original=shrink(decoded.pixels),
        expected=scorer.explain(decoded),
        heatmap=result.heatmap,
        median=m,
        threshold=threshold,
    )


def colour_anchors(scorer: Scorer, result: Result) -> tuple[float, float]:
    """Returns the values that heatmap colours go by: a typical good image and the threshold.

    A detector that only ranks has neither; the median and the maximum of this heatmap stand in.
    """
    calibration = scorer.card.calibration
    if calibration is not None:
        return float(calibration.median), float(calibration.threshold)
    heatmap = np.zeros(1) if result.heatmap is None else result.heatmap
    return float(np.median(heatmap)), float(heatmap.max())


def reconstructions(scorer: Scorer, images: Path, count: int) -> tuple[npt.NDArray[np.uint8], int, list[str]]:
    """Returns one picture with a row for each image (original, expected, heatmap), how many, and the errors."""
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
                f"{scorer.path}: what it expects is not available (explain.onnx is not beside it, or not its own)"
            )
        original = np.asarray(Image.fromarray(decoded.pixels).resize((SIDE, SIDE)))
        picture = original if result.heatmap is None else overlay(original, result.heatmap, *colour_anchors(scorer, result))
        tiles += [original, np.asarray(Image.fromarray(expected).resize((SIDE, SIDE))), picture]
    if not tiles:
        raise DatasetError(f"{images}: no image could be read, the first error: {(errors or ['none found'])[0]}")
    return grid(np.stack(tiles), columns=3), len(tiles) // 3, errors
