"""What an evaluation found, in words."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from anomaly.files.numbers import between, count_text, good_text, percent
from anomaly.imaging.defect_masks import MaskNotes
from anomaly.imaging.listing import passed_text
from anomaly.inputs.used_images import IMAGES
from anomaly.reporting.known_defects import missed_text
from anomaly.reporting.lines import names_text, rows_text
from anomaly.scoring.evaluation import Judged
from anomaly.statistics.calibration import Calibration, Rate
from anomaly.statistics.resampling import NORMAL, Interval


def figures_text(judged: Judged) -> str:
    """Returns the figures in lines: what ranks, what is flagged, what is missed, class by class."""
    e = judged.evaluation
    rows = [
        ("ranking (AUROC)", interval_text(e.image_auroc)),
        ("average precision", interval_text(e.average_precision)),
        ("defects flagged", rate_text(e.recall) + every_image_text(e.recall_images)),
        (f"good {judged.what}s flagged", false_alarms_text(judged)),
        *review_rows(judged),
        ("needs a person", needs_a_person_text(judged)),
        *used_rows(judged),
    ]
    if e.pixels:
        rows.append(
            (
                "pixels",
                f"AUROC {interval_text(e.pixels.auroc)}; AUPRO {interval_text(e.pixels.aupro)} "
                f"({e.pixels.regions} regions)",
            )
        )
    if masks := masks_text(judged.masks):
        rows.append(("masks", masks))
    for name, figures in e.per_class.items():
        rows.append(
            (
                f"  {name}",
                f"AUROC {interval_text(figures.image_auroc)}; flagged {rate_text(figures.recall)}"
                + missed_of(figures.recall),
            )
        )
    outside = outside_counts(judged)
    if any(outside):
        rows.append(
            (
                "outside",
                f"{outside[0]} good and {outside[1]} defective {judged.what}s are unlike the "
                "training images",
            )
        )
    told, left = judged.copies
    if left < told and judged.what == "image":
        rows.append(
            (
                "copies",
                f"{told} images (or groups) count as {left}: copies and near-copies of each "
                "other are one",
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
    return rows_text(rows)


def review_rows(judged: Judged) -> list[tuple[str, str]]:
    """Returns how many good and how many defective images are flagged or for review; none with one
    threshold.
    """
    found = judged.evaluation.review
    if found is None:
        return []
    rows = [("flagged or review", f"defects: {rate_text(found.recall)}")]
    if found.false_alarms is not None:
        good, up_to = found.false_alarms.flagged, found.false_alarms.ordinary_up_to
        rows.append(("", f"good {judged.what}s: {rate_text(good)}; up to {up_to:,} is ordinary"))
    return rows


def needs_a_person_text(judged: Judged) -> str:
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
    names = names_text([str(Path(*Path(path).parts[-2:])) for path in judged.used])
    return [
        ("left out", f"{len(judged.used)} images that trained or calibrated this detector: {names}")
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


def interval_text(interval: Interval | None) -> str:
    """Returns a figure with its interval, or why there is none."""
    if interval is None:
        return "needs good and defective images"
    return f"{interval.value:.3f} (95 %: {interval.low:.3f} to {interval.high:.3f})"


def rate_text(rate: Rate | None) -> str:
    """Returns counts before percent."""
    if rate is None:
        return "unknown: no threshold, or no such images"
    return (
        f"{rate.flagged} of {rate.n} ({100 * rate.value:.1f} %; 95 %: {100 * rate.low:.1f} to "
        f"{100 * rate.high:.1f} %)"
    )


def missed_of(recall: Rate | None) -> str:
    """Returns how many of a type were missed and how many could be, behind their recall."""
    return "" if recall is None else f"; {missed_text(recall.n - recall.flagged, recall.n)}"


def every_image_text(counts: tuple[int, int] | None) -> str:
    """Returns the count over all images where it differs from the one by group."""
    return "" if counts is None else f"; of all images {counts[0]} of {counts[1]}"


def false_alarms_text(judged: Judged) -> str:
    """Returns the realised count of false alarms beside what was guaranteed, or estimated."""
    alarms, calibration = judged.evaluation.false_alarms, judged.scorer.card.calibration
    if alarms is None and calibration is not None and judged.used_good:
        return f"unknown: all {judged.used_good} good images were used in training"
    if alarms is None or calibration is None:
        return "unknown: no threshold, or no good images"
    return realised_text(alarms.flagged, calibration, what=judged.what)


def realised_text(
    flagged: Rate,
    calibration: Calibration,
    every_image: tuple[int, int] | None = None,
    what: str = "image",
) -> str:
    """Returns how many good test images (or units: ``what``) were flagged, beside what was
    guaranteed, or estimated.

    ``flagged`` counts one image of each group; ``every_image``, where groups have several, is
    (flagged, of) all.
    """
    if every_image is not None and every_image[1] != flagged.n:
        every = (
            f", one of each group; {every_image[0]:,} of {every_image[1]:,} counting every image"
        )
    else:
        every = ""
    up_to = calibration.ordinary_up_to(flagged.n)
    by = "" if calibration.is_guaranteed else " by the estimated rate"
    expected = (
        f"expected {count_text(calibration.expected(flagged.n))}{by}, up to {up_to:,} is ordinary"
    )
    if flagged.flagged > up_to:
        expected += (
            f": more than chance explains, these good {what}s are unlike the ones that set the "
            "threshold"
        )
    return (
        f"{flagged.flagged:,} of {good_text(flagged.n, what)} flagged ({percent(flagged.value)}; "
        f"95 %: {between(flagged.low, flagged.high)}{every}); {expected}"
    )


def masks_text(masks: MaskNotes) -> str:
    """Returns what is to be known of the masks, an empty text where nothing is."""
    said = []
    if masks.missing:
        said.append(f"{len(masks.missing)} of {masks.of} without a mask ({_names(masks.missing)})")
    if masks.empty:
        said.append(f"{len(masks.empty)} of {masks.of} with an empty mask ({_names(masks.empty)})")
    left_out = (
        "defect images: " + ", ".join(said) + ": left out of the pixel figures" if said else ""
    )
    if not masks.large:
        return left_out
    large = (
        f"{len(masks.large)} of {masks.of} masks mark more than half of the image "
        f"({_names(masks.large)}): inverted?"
    )
    return f"{left_out}; {large}" if left_out else large


def _names(paths: Sequence[Path]) -> str:
    return names_text(["/".join(path.parts[-2:]) for path in paths])
