"""What the facts of a card say together: counts that add up, and figures that its calibration
scores give again.

Each fact alone has its type and range in ``training_facts``; here two of them may not contradict
each other.
"""

from __future__ import annotations

import math
from typing import Any

from anomaly.detector.size_sensitivity import Cost, SizeSensitivity
from anomaly.detector.training_facts import KnownDefectFacts, TileFacts, TrainingFacts
from anomaly.statistics.calibration import Calibration


def check_agreement(training: TrainingFacts, calibration: Calibration | None, size: int) -> None:
    """Raises ValueError where two facts of a card contradict each other; each alone is of its kind.

    ``size``: pixels a side that the model sees of a tile.
    """
    _check_counts(training)
    _check_origin(training, calibration)
    _check_tiles(training.tiles, size)
    if training.known_defects is not None:
        _check_known_defects(training.known_defects)
    if calibration is not None:
        _check_calibration_set(training, calibration)
        _check_size_sensitivity(training.size_sensitivity, float(calibration.threshold))
        _check_cost(training, calibration)


def _refuse(where: str, found: object, expected: str) -> None:
    raise ValueError(f"training.{where}: {found} found, {expected} expected")


def _check_counts(training: TrainingFacts) -> None:
    images, groups, sets = training.images, training.groups, training.sets
    if images is None:
        return
    if groups is not None and groups > images:
        _refuse("groups", f"{groups} groups of {images} images", "a group for each image at most")
    if sets is not None and sum(sets.values()) != images:
        _refuse(
            "sets", f"{sum(sets.values())} images in all sets", f"the {images} images of training"
        )
    grouped = training.grouped
    if groups is None or grouped is None or training.recalibrated is not None:
        return
    if grouped != (groups < images):
        _refuse(
            "grouped", f"{grouped} with {groups} groups of {images} images", f"{groups < images}"
        )


def _check_known_defects(known: KnownDefectFacts) -> None:
    """Names are those of types that were learnt from, and none is missed more often than it was
    there.
    """
    if not set(known.named) <= known.types.keys() or len(set(known.named)) < len(known.named):
        _refuse("known_defects.named", ", ".join(known.named)[:80], "some of its types, each once")
    missed, of = known.missed or {}, known.of or {}
    if missed.keys() != of.keys() or any(
        not count <= of[name] <= known.types.get(name, 0) for name, count in missed.items()
    ):
        _refuse("known_defects.missed", f"{dict(missed)} of {dict(of)}", "no more than there are")


def _check_origin(training: TrainingFacts, calibration: Calibration | None) -> None:
    """Who made the threshold what it is, and of what."""
    if (training.recalibrated is None) != (training.recalibrated_on is None):
        _refuse("recalibrated", "only one of date and number of images", "both")
    before = training.threshold_moved_from
    if training.threshold_moved is None:
        if before is not None or training.threshold_moved_by is not None:
            _refuse(
                "threshold_moved",
                "who moved the threshold, or where from",
                "the date too, as the threshold was moved",
            )
    elif calibration is not None and before is not None and before not in _others(calibration):
        _refuse("threshold_moved_from", before, "another one of the calibration scores")
    fresh = training.threshold_moved is None and training.recalibrated is None
    if (
        fresh
        and calibration is not None
        and "target_rate" in training.stated
        and training.target_rate != calibration.target_rate
    ):
        _refuse(
            "target_rate",
            f"a target rate of {training.target_rate}",
            f"that of the calibration, {calibration.target_rate},",
        )


def _others(calibration: Calibration) -> list[float]:
    """Scores that were the threshold before it was moved, if one was."""
    return [score for score in calibration.scores.tolist() if score != float(calibration.threshold)]


def _check_calibration_set(training: TrainingFacts, calibration: Calibration) -> None:
    """One score for each group of the images that set the threshold, one for each unit with a unit
    rule.
    """
    n, on = calibration.n, training.recalibrated_on
    if on is None:
        in_set = (training.sets or {}).get("calibration")
        on = in_set if calibration.is_guaranteed else training.images
        if not calibration.is_guaranteed and in_set:
            _refuse("sets.calibration", in_set, "none where all images calibrate")
        groups = training.images if training.groups is None else training.groups
        if groups is not None and n > groups:
            _refuse("groups", groups, f"at least one for each of the {n} calibration scores")
    elif not calibration.is_guaranteed:
        _refuse("recalibrated_on", on, "a calibration of the kind split, as new images set it,")
    elif training.grouped is not None and training.grouped != (n < on):
        _refuse(
            "grouped",
            f"{training.grouped} with {n} calibration scores of {on} images",
            f"{n < on}",
        )
    if on is not None and n > on:
        _refuse(
            "recalibrated_on or sets.calibration",
            on,
            f"at least one image for each of the {n} calibration scores",
        )
    rule = training.by_unit
    if rule is None or on is None:
        return
    if not rule.least * n <= on:
        _refuse(
            "by_unit",
            f"{rule.least} views or more of {n} units",
            f"at most the {on} images that set the threshold",
        )
    if training.recalibrated_on is not None and on > rule.most * n:
        _refuse(
            "by_unit",
            f"{rule.most} views or fewer of {n} units",
            f"the {on} images that set the threshold",
        )


def _check_size_sensitivity(size_sensitivity: SizeSensitivity | None, threshold: float) -> None:
    """The scores of synthetic defects are flagged as often as the table says."""
    for row in () if size_sensitivity is None else size_sensitivity.sizes:
        if not row.scores:
            continue
        least = row.at_threshold(threshold).flagged
        unknown = sum(score is None for score in row.scores)  # infinite in either direction
        if not least - unknown <= row.flagged <= least:
            found = f"{row.flagged} of {row.of} synthetic defects of {row.pixels} pixels flagged"
            _refuse("size_sensitivity", found, f"the {least} above the threshold {threshold:.6g}")


def _check_cost(training: TrainingFacts, calibration: Calibration) -> None:
    """The cost is what the calibration scores and those of the synthetic defects give again."""
    cost, highest = training.cost, training.highest
    if cost is None:
        return
    names = cost.without
    if highest is not None and names != highest[: len(names)]:
        _refuse(
            "cost.without",
            f"{len(names)} other images than the highest",
            "the first of training.highest",
        )
    right = Cost.of_highest(calibration, names, training.size_sensitivity)
    found, expected = cost.to_json(), {} if right is None else right.to_json()
    for name in ("without", "threshold", "rate", "flagged", "flagged_now", "of"):
        if right is None or not _same(found[name], expected[name]):
            given = "nothing" if right is None else str(expected[name])[:80]
            _refuse(
                f"cost.{name}", str(found[name])[:80], f"what the calibration scores give, {given},"
            )


def _same(found: Any, right: Any) -> bool:
    if isinstance(found, float) and isinstance(right, float):
        return math.isclose(found, right, rel_tol=1e-6)
    return bool(found == right)


def _check_tiles(tiles: TileFacts | None, size: int) -> None:
    """Tiles of ``size`` pixels cover the sides that a grid is laid over, and none lies where
    another does.
    """
    if tiles is None:
        return
    for what, count, side in (
        ("down", tiles.down, tiles.height),
        ("across", tiles.across, tiles.width),
    ):
        if side is not None and not count <= side <= count * size:
            _refuse(
                "tiles",
                f"{count} tiles of {size} pixels {what}",
                f"as many as cover {side} pixels",
            )
