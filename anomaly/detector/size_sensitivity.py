"""What a threshold flags of the synthetic defects that training drew, and what the images that set
it cost.

Their scores lie in the card (``size_sensitivity``), so that another threshold is tried without
scoring anything again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from anomaly.statistics.calibration import DEFAULT_RATE, Calibration, guaranteed_rate_of, rank

MAX_NAMED_IMAGES = 5  # images at most that are named to be looked at first


def flagged(size_sensitivity: Mapping[str, Any] | None, threshold: float) -> tuple[int, int] | None:
    """Returns how many synthetic defects a threshold flags, of how many; None where the card has no
    scores of them.
    """
    try:
        found = [score for row in size_sensitivity["sizes"] for score in row["scores"]]  # type: ignore[index]
        scores = np.array([math.nan if score is None else score for score in found], np.float32)
    except (KeyError, TypeError, ValueError):  # a card from elsewhere, or of before
        return None
    return (int((~(scores <= np.float32(threshold))).sum()), len(scores)) if len(scores) else None


def cost_of(
    calibration: Calibration, highest: Sequence[str], size_sensitivity: Mapping[str, Any] | None
) -> dict[str, Any] | None:
    """Returns what the images that set a threshold cost: the threshold of the others alone at the
    same target rate.

    ``highest``: names of the calibration images, the highest score first; ``without``: those left
    out, up to k and five. None where no calibration score would be left.
    """
    names = list(highest)[: min(calibration.k, MAX_NAMED_IMAGES)]
    rest = calibration.scores[: calibration.n - len(names)]
    if not names or not len(rest):
        return None
    k = max(1, rank(calibration.target_rate or DEFAULT_RATE, len(rest)))
    threshold = float(rest[len(rest) - k])
    found, now = (
        flagged(size_sensitivity, threshold),
        flagged(size_sensitivity, float(calibration.threshold)),
    )
    return {
        "without": names,
        "threshold": threshold,
        "guaranteed_rate": guaranteed_rate_of(k, len(rest)),
        "flagged": found and found[0],
        "flagged_now": now and now[0],
        "of": now and now[1],
    }


def at_threshold(
    size_sensitivity: Mapping[str, Any] | None, threshold: float
) -> dict[str, Any] | None:
    """Returns ``size_sensitivity`` with the counts of another threshold, ``met`` unknown; None
    where the card has no scores.
    """
    if size_sensitivity is None or flagged(size_sensitivity, threshold) is None:
        return None
    sizes = [
        {**row, "flagged": (flagged({"sizes": [row]}, threshold) or (0, 0))[0], "met": None}
        for row in size_sensitivity["sizes"]
    ]
    return {**size_sensitivity, "sizes": sizes}


def cost_text(cost: Mapping[str, Any] | None, threshold: float) -> str:
    """Returns in one line what the images that set a threshold cost, if they are defects; empty
    where it is not known.
    """
    try:
        text = f"threshold {float(cost['threshold']):.4g} instead of {threshold:.4g}"  # type: ignore[index]
        if cost["of"]:  # type: ignore[index]
            flags, now, of = (int(cost[name]) for name in ("flagged", "flagged_now", "of"))  # type: ignore[index]
            text += f"; flags {flags:,} instead of {now:,} of {of:,} synthetic defects"
    except (KeyError, TypeError, ValueError):  # a card from elsewhere may hold anything
        return ""
    return text
