"""What the chart of the Threshold page draws: histograms of good images, of the run and of the
verdicts, on a scale that shows where the decision is made.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from anomaly.quality.moved_threshold import largest_rank, with_rank
from anomaly.reporting.charts import Scale
from anomaly.review.verdicts import Sample
from anomaly.statistics.calibration import Calibration

BINS = 90
ZONE_FROM = 0.8  # the zone begins where this share of the good images scores lower
STOPS = 40  # on either side: keys pressed before the server answers go on from one to the next
ZONE_BEYOND = 1.0  # and goes on, above the highest good image, for as much again


def deciding_scale(calibration: Calibration, marks: list[float]) -> Scale:
    """Returns the scale from the highest fifth of the good images to as far above the highest one,
    with all ``marks`` on it.
    """
    scores = calibration.scores[np.isfinite(calibration.scores)].astype(np.float64)
    low, high = float(np.quantile(scores, ZONE_FROM)), float(scores.max())
    reach = ZONE_BEYOND * (high - low) or abs(high) or 1.0
    low, high = min(low, *marks), max(high + reach, *marks)
    room = 0.03 * (high - low)
    return Scale(low - room, high + room)


def chart_data(
    sample: Sample,
    scores: NDArray[np.float32],
    calibration: Calibration,
    tried: Calibration,
    *,
    what: str,
    whole: bool,
) -> dict[str, object]:
    """Returns what the chart draws; ``whole``: every score, else the zone of the decision, and of
    each strip how many lie on either side of it.
    """
    threshold, old = float(tried.threshold), float(calibration.threshold)
    low = None if tried.review is None else float(tried.review.threshold)
    marks = [threshold, old, *([] if low is None else [low])]
    scale = (
        Scale.over(calibration.scores, scores, marks=marks)
        if whole
        else deciding_scale(calibration, marks)
    )
    judged = {state: sample.scores[sample.states == state] for state in ("anomalous", "normal")}
    strips = [
        (f"Good {what}s", "set the threshold", "calibration", calibration.scores),
        ("This run", "images", "run", scores),
        ("Judged normal", "images", "normal", judged["normal"]),
        ("Judged anomalous", "images", "anomalous", judged["anomalous"]),
    ]
    return {
        "low": scale.low,
        "high": scale.high,
        "threshold": threshold,
        "old": old,
        "review": low,
        "mayMove": True,
        "stops": stops(calibration, tried),
        "shown": {"threshold": f"{threshold:.4g}", "review": "" if low is None else f"{low:.4g}"},
        "ticks": [{"at": at, "text": text} for at, text in scale.ticks(10)],
        "strips": [
            {
                "name": name,
                "detail": f"{len(values):,} {detail}",
                "kind": kind,
                **strip(scale, values.astype(np.float32), whole),
            }
            for name, detail, kind, values in strips
        ],
    }


def stops(calibration: Calibration, tried: Calibration) -> dict[str, list[float]]:
    """Returns where the arrow keys stop: the good images' scores nearest to each of the thresholds
    that are tried, ascending, as far as it may be moved.
    """
    scores = np.unique(calibration.scores)
    scores = scores[scores >= with_rank(calibration, largest_rank(calibration.n)).threshold]

    def near(some: NDArray[np.float32], at: np.float32) -> list[float]:
        here = int(np.searchsorted(some, at))
        return [float(score) for score in some[max(0, here - STOPS) : here + STOPS + 1]]

    below = scores[scores < tried.threshold]
    return {
        "threshold": near(scores, tried.threshold),
        "review": [] if tried.review is None else near(below, tried.review.threshold),
    }


def strip(scale: Scale, values: NDArray[np.float32], whole: bool) -> dict[str, object]:
    """Returns the bars of one histogram, and how many scores lie ``below`` and ``above``
    the chart.
    """
    if whole:  # what is far beyond is drawn on the edge
        return {"bars": scale.bars(values, BINS), "below": 0, "above": 0}
    below, above = values < scale.low, ~(values <= scale.high)
    inside = values[~below & ~above]
    return {
        "bars": scale.bars(inside, BINS),
        "below": int(below.sum()),
        "above": int(above.sum()),
    }
