"""What the facts of a card say together: counts that add up, and figures that its calibration
scores give again.

Each fact alone has its type and range in ``card_facts``; here two of them may not contradict each
other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from anomaly.detector.size_sensitivity import cost_of, flagged
from anomaly.statistics.calibration import Calibration


def check_agreement(
    training: Mapping[str, Any], calibration: Calibration | None, size: int
) -> None:
    """Raises ValueError where two facts of a card contradict each other; each alone is of its kind
    (``check_facts``).

    ``size``: pixels a side that the model sees of a tile.
    """
    _check_counts(training)
    _check_origin(training, calibration)
    _check_tiles(training.get("tiles"), size)
    if calibration is not None:
        _check_calibration_set(training, calibration)
        _check_size_sensitivity(training.get("size_sensitivity"), float(calibration.threshold))
        _check_cost(training, calibration)


def _refuse(where: str, found: object, expected: str) -> None:
    raise ValueError(f"training.{where}: {found} found, {expected} expected")


def _check_counts(training: Mapping[str, Any]) -> None:
    images, groups, sets = (training.get(name) for name in ("images", "groups", "sets"))
    if images is None:
        return
    if groups is not None and groups > images:
        _refuse("groups", f"{groups} groups of {images} images", "a group for each image at most")
    if sets is not None and sum(sets.values()) != images:
        _refuse(
            "sets", f"{sum(sets.values())} images in all sets", f"the {images} images of training"
        )
    grouped = training.get("grouped")
    if (
        None not in (groups, grouped)
        and "recalibrated" not in training
        and grouped != (groups < images)
    ):
        _refuse(
            "grouped", f"{grouped} with {groups} groups of {images} images", f"{groups < images}"
        )


def _check_origin(training: Mapping[str, Any], calibration: Calibration | None) -> None:
    """Who made the threshold what it is, and of what."""
    if ("recalibrated" in training) != ("recalibrated_on" in training):
        _refuse("recalibrated", "only one of date and number of images", "both")
    before = training.get("threshold_moved_from")
    if not training.get("threshold_moved"):
        if before is not None or training.get("threshold_moved_by") is not None:
            _refuse(
                "threshold_moved",
                "who moved the threshold, or where from",
                "the date too, as the threshold was moved",
            )
    elif calibration is not None and before is not None and before not in _others(calibration):
        _refuse("threshold_moved_from", before, "another one of the calibration scores")
    fresh = not training.get("threshold_moved") and "recalibrated" not in training
    if (
        fresh
        and calibration is not None
        and "target_rate" in training
        and training["target_rate"] != calibration.target_rate
    ):
        _refuse(
            "target_rate",
            f"a target rate of {training['target_rate']}",
            f"that of the calibration, {calibration.target_rate},",
        )


def _others(calibration: Calibration) -> list[float]:
    """Scores that were the threshold before it was moved, if one was."""
    return [score for score in calibration.scores.tolist() if score != float(calibration.threshold)]


def _check_calibration_set(training: Mapping[str, Any], calibration: Calibration) -> None:
    """One score for each group of the images that set the threshold, one for each unit with a unit
    rule.
    """
    n, on = calibration.n, training.get("recalibrated_on")
    if on is None:
        on = (training.get("sets") or {}).get("calibration")
        groups = training.get("groups", training.get("images"))
        if groups is not None and n > groups:
            _refuse("groups", groups, f"at least one for each of the {n} calibration scores")
    elif "grouped" in training and training["grouped"] != (n < on):
        _refuse(
            "grouped",
            f"{training['grouped']} with {n} calibration scores of {on} images",
            f"{n < on}",
        )
    if on is not None and n > on:
        _refuse(
            "recalibrated_on or sets.calibration",
            on,
            f"at least one image for each of the {n} calibration scores",
        )
    rule = training.get("by_unit")
    if rule is not None and on is not None and not rule["least"] * n <= on:
        _refuse(
            "by_unit",
            f"{rule['least']} views or more of {n} units",
            f"at most the {on} images that set the threshold",
        )
    if rule is not None and "recalibrated_on" in training and on > rule["most"] * n:
        _refuse(
            "by_unit",
            f"{rule['most']} views or fewer of {n} units",
            f"the {on} images that set the threshold",
        )


def _check_size_sensitivity(size_sensitivity: Mapping[str, Any] | None, threshold: float) -> None:
    """The scores of synthetic defects are flagged as often as the table says."""
    for row in [] if size_sensitivity is None else size_sensitivity["sizes"]:
        if "scores" not in row or not row["scores"]:
            continue
        least, of = flagged({"sizes": [row]}, threshold) or (0, 0)
        unknown = sum(score is None for score in row["scores"])  # infinite in either direction
        if not least - unknown <= row["flagged"] <= least:
            found = f"{row['flagged']} of {of} synthetic defects of {row['pixels']} pixels flagged"
            _refuse("size_sensitivity", found, f"the {least} above the threshold {threshold:.6g}")


def _check_cost(training: Mapping[str, Any], calibration: Calibration) -> None:
    """The cost is what the calibration scores and those of the synthetic defects give again."""
    cost, highest = training.get("cost"), training.get("highest")
    if cost is None:
        return
    names = cost["without"]
    if highest is not None and names != highest[: len(names)]:
        _refuse(
            "cost.without",
            f"{len(names)} other images than the highest",
            "the first of training.highest",
        )
    right = cost_of(calibration, names, training.get("size_sensitivity"))
    for name in ("without", "threshold", "guaranteed_rate", "flagged", "flagged_now", "of"):
        if right is None or not _same(cost[name], right[name]):
            given = "nothing" if right is None else str(right[name])[:80]
            _refuse(
                f"cost.{name}", str(cost[name])[:80], f"what the calibration scores give, {given},"
            )


def _same(found: Any, right: Any) -> bool:
    if isinstance(found, float) and isinstance(right, float):
        return math.isclose(found, right, rel_tol=1e-6)
    return bool(found == right)


def _check_tiles(tiles: Mapping[str, Any] | None, size: int) -> None:
    """Tiles of ``size`` pixels cover the sides that a grid is laid over, and none lies where
    another does.
    """
    for count, side in (("down", "height"), ("across", "width")):
        if tiles is None or side not in tiles:
            continue
        if not tiles[side] <= tiles[count] * size or tiles[count] > tiles[side]:
            _refuse(
                "tiles",
                f"{tiles[count]} tiles of {size} pixels {count}",
                f"as many as cover {tiles[side]} pixels",
            )
