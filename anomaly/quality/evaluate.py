"""A detector on labelled images: run it, without those that made it, and gather the figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from anomaly.errors import DatasetError, ImageError
from anomaly.files.progress import Progress
from anomaly.imaging.defect_masks import MaskNotes, read_defect_mask
from anomaly.inputs.copies import Looks, regrouped
from anomaly.inputs.dataset import Record, Say, labelled_test, read_dataset
from anomaly.inputs.used_images import USED, divided, listing_of
from anomaly.reporting.evaluation_report import build_report
from anomaly.reporting.page import templates, write_report
from anomaly.scorer import Result, Scorer
from anomaly.scoring.evaluation import Judged
from anomaly.scoring.units import by_unit
from anomaly.statistics.metrics import LabelledScores, evaluate
from anomaly.statistics.pixel_metrics import PixelMap
from anomaly.statistics.resampling import NORMAL


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

    Where the detector guarantees per unit, units are judged, each by its worst view. Raises
    DatasetError where no image has a label, RuntimeMissing where a report needs Jinja2.
    """
    if report is not None:
        templates()
    rule = scorer.card.training.by_unit
    passed = Counter[str]()
    records = labelled_test(read_dataset(labelled, group_by, passed, good, say=say), say)
    if rule is not None and group_by is None:
        records, _ = by_unit(records, rule.pattern)
    if not records:
        raise DatasetError(
            f"{labelled}: no image with a label found; test/good and test/<defect>, or a label "
            "column, expected"
        )
    listing = listing_of(scorer.path)
    given = records
    records, used = _without_used(given, listing, whole_groups=rule is not None)
    left = set(used)
    used_good = sum(record.label == NORMAL and str(record.path) in left for record in given)
    if not records:
        raise DatasetError(
            f"{labelled}: all {len(used)} labelled images trained or calibrated this detector, new "
            "ones expected: they say nothing of how it does on others"
        )
    judged = judge_labelled(scorer, records)
    judged = replace(
        judged,
        used=tuple(used),
        used_good=used_good,
        checked=listing is not None,
        passed_over=dict(passed),
    )
    # none has the name of its image
    if (labelled / "ground_truth").is_dir() and not any(record.mask for record in records):
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


def _without_used(
    records: list[Record], listing: Path | None, whole_groups: bool
) -> tuple[list[Record], list[str]]:
    """Returns the records that did not make the detector, and the paths of the others (of a unit:
    all its views).
    """
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
    # of good images, and of others
    results, looks = [], {True: Looks(scorer.card.size), False: Looks(scorer.card.size)}
    with Progress(len(records), "judging images") as progress:
        for record in records:
            results.append(score_one(scorer, record.path, looks[record.label == NORMAL]))
            progress.advance(1)
    milliseconds = 1000 * (time.perf_counter() - start) / len(records)
    told = len({record.group for record in records})
    if scorer.card.training.by_unit is not None:
        records, results = worst_views(records, results)
    else:
        records = _joined(records, results, looks)
    copies = (told, len({record.group for record in records}))
    calibration, notes = scorer.card.calibration, MaskNotes()
    scores = np.array(
        [np.nan if result.score is None else result.score for result in results], np.float32
    )
    images = LabelledScores(
        scores,
        [record.label or NORMAL for record in records],
        [record.group for record in records],
        calibration.is_anomaly(scores) if calibration else None,
        [str(record.path) for record in records],
        [result.score is not None for result in results],
    )
    evaluation = evaluate(
        images,
        calibration,
        maps=pixel_maps(records, results, notes)
        if any(record.mask for record in records)
        else None,
        detector=scorer.card.identity,
    )
    return Judged(scorer, records, results, evaluation, milliseconds, notes, copies=copies)


def worst_views(
    records: Sequence[Record], results: Sequence[Result]
) -> tuple[list[Record], list[Result]]:
    """Returns one record and result for each unit (group): those of its worst view.

    Where a view could not be judged and none is above the threshold, that is the unit's result. A
    unit is good if all its views are.
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


def _joined(
    records: Sequence[Record], results: Sequence[Result], looks: dict[bool, Looks]
) -> list[Record]:
    """Returns the records with copies in one group: good images also with near-copies, others of
    the same pixels alone.

    A defect may be all that two images of one part differ by.
    """
    groups = {id(record): record.group for record in records}
    for good, looked in looks.items():
        seen = [
            r
            for r, x in zip(records, results, strict=True)
            if (r.label == NORMAL) is good and x.status != "error"
        ]
        copies = looked.copies([r.group for r in seen], same_only=not good)
        groups |= {
            id(r): joined.group for r, joined in zip(seen, regrouped(seen, copies), strict=True)
        }
    return [replace(record, group=groups[id(record)]) for record in records]


def score_one(scorer: Scorer, path: Path, looks: Looks | None = None) -> Result:
    """Returns the result of one image, an unreadable one as status ``error``; ``looks`` keeps what
    tells copies of it.
    """
    try:
        image = scorer.decode(path)
        result = scorer.judge(image)
        if looks is not None and result.status != "error":
            looks.add(image.pixels)
        return result
    except ImageError as error:
        return Result("error", error=str(error), kind=error.kind)


def pixel_maps(
    records: Sequence[Record], results: Sequence[Result], notes: MaskNotes
) -> Iterator[PixelMap]:
    """Yields heatmap and mask of each image, the masks read one at a time; ``notes`` gets what
    defects' masks lack.
    """
    for record, result in zip(records, results, strict=True):
        mask = None if record.mask is None else read_defect_mask(record.mask)
        if record.label != NORMAL and result.heatmap is not None:
            notes.add(record.path, mask)
        size = mask.shape[:2] if mask is not None else (result.height or 1, result.width or 1)
        yield PixelMap(result.heatmap, mask, size)
