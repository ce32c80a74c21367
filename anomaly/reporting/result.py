"""Returns what is said of one image or unit.

The p-value is said as how rare a score is among good images, never as a chance that the part is
bad.
"""

from __future__ import annotations

import math
from pathlib import PurePath
from typing import TYPE_CHECKING

import numpy as np

from anomaly.files.numbers import good_text, one_in
from anomaly.statistics.calibration import Calibration

if TYPE_CHECKING:
    from anomaly.scoring.units import UnitRow


OUTSIDE = "unlike the training images in brightness, contrast or sharpness"


NOT_A_CHANCE = "That is not the chance that this part is bad: you decide."


def result_text(
    status: str,
    score: float | None,
    calibration: Calibration | None,
    error: str | None = None,
    what: str = "image",
) -> str:
    """Returns what is said of one image.

    ``status``: ``ok``, ``outside`` or ``error``; ``error``: why it was not judged;
    ``what``: ``unit`` where the threshold was set by units, each by its worst view.
    """
    if status == "outside":
        return f"NOT INSPECTED: {error or OUTSIDE}. Treat as not OK."
    if status != "ok" or score is None or not math.isfinite(score):
        return f"NOT INSPECTED: {error or 'the score is not a finite number'}. Treat as not OK."
    if calibration is None:
        return f"Score {score:.4g}. No threshold: this detector ranks only, without a guarantee."
    if calibration.is_review(score):
        return (
            f"REVIEW. Score {score:.4g} lies between the review threshold "
            f"{calibration.review_threshold:.4g} and the threshold {calibration.threshold:.4g}. "
            f"{_rarity(calibration, score, what)} {NOT_A_CHANCE}"
        )
    if not calibration.is_anomaly(score):
        return (
            f"Not flagged{' by this view' if what == 'unit' else ''}. This does not mean free of "
            "defects."
        )
    shown, threshold = _apart(score, float(calibration.threshold))
    return (
        f"FLAGGED. Score {shown}, threshold {threshold}. {_rarity(calibration, score, what)} "
        f"{NOT_A_CHANCE}"
    )


def unit_text(unit: UnitRow) -> str:
    """Returns what is said of a unit of several views."""
    if unit.is_anomaly:
        return f"FLAGGED by its view {PurePath(unit.worst or '').name}, whatever the others show."
    if unit.status != "ok":
        return f"NOT JUDGED: {unit.error}. Treat as not OK."
    if unit.result == "review":
        return "REVIEW. No view flags it, but one lies above the review threshold: you decide."
    views = "Its one view was" if unit.views == 1 else f"All its {unit.views:,} views were"
    return f"{views} judged{', none flags it' if unit.is_anomaly is False else ''}."


def rank_text(calibration: Calibration, score: float, what: str = "image") -> str:
    """Returns how many of the good images (or units: ``what``) that set the threshold
    score lower.
    """
    n = calibration.n
    below = (
        int(np.searchsorted(calibration.scores, np.float32(score), side="left"))
        if not math.isnan(score)
        else n
    )
    if n == 1:
        return f"{'higher' if below else 'not higher'} than the good {what} that set the threshold"
    if below == n:
        return f"higher than all {n:,} good {what}s that set the threshold"
    if below == 0:
        return f"higher than none of the {n:,} good {what}s that set the threshold"
    return f"higher than {below:,} of the {n:,} good {what}s that set the threshold"


def _rarity(calibration: Calibration, score: float, what: str) -> str:
    p = float(calibration.p_value(score))
    if round(p * (calibration.n + 1)) == 1:  # the floor: no calibration score is as high
        return (
            f"More unusual than {'all' if calibration.n > 1 else 'the'} "
            f"{good_text(calibration.n, what)} checked."
        )
    return f"About {one_in(p)} good {what}s {'looks' if p <= 0.1 else 'look'} this unusual."


def _apart(score: float, threshold: float) -> tuple[str, str]:
    """A score above the threshold and the threshold, with two digits of it (at most five of the
    larger one) and one of their difference."""
    digits = math.floor(math.log10(max(abs(score), abs(threshold))))
    of_threshold = 1 - math.floor(math.log10(abs(threshold))) if threshold else 1 - digits
    decimals = max(0, min(of_threshold, 4 - digits), -math.floor(math.log10(score - threshold)))
    return f"{score:.{decimals}f}", f"{threshold:.{decimals}f}"
