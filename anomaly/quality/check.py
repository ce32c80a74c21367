"""`anomaly check`: do new good images still look like those that set the threshold? Keep,
recalibrate or retrain, and why.

The tests are those of anomaly/statistics/check.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from anomaly.detector.file import find_detector
from anomaly.errors import CalibrationError
from anomaly.inputs.dataset import Say
from anomaly.quality.recalibrate import GoodImages, score_good
from anomaly.scorer import Scorer
from anomaly.statistics.check import Check, decide


def check(
    run: Path,
    normal: Path,
    *,
    group_by: str | None = None,
    seed: int = 0,
    independent: bool = False,
    good: Sequence[str] = (),
    say: Say | None = None,
) -> Check:
    """Returns what new good images say of a detector: one image of each group, scored on the CPU as
    for its threshold.

    Images that trained the detector, copies of them, and those that cannot be read, are left out;
    copies of each other are one group (``independent``: only equal pixels). ``good``: names of the
    folders or labels of good images; ``say`` gets a line on what is read as good and what is not.
    Raises CalibrationError, DatasetError, DetectorError; RuntimeMissing without scipy.
    """
    path = find_detector(run)
    scorer = Scorer(path, device="cpu")
    calibration = scorer.card.calibration
    if calibration is None:
        raise CalibrationError(
            f"{run}: it ranks only and has no threshold to check; set one first: anomaly calibrate "
            f"{run} --normal {normal}"
        )
    if group_by is not None and scorer.card.training.by_unit is not None:
        raise CalibrationError(
            f"--group-by {group_by!r} found, but the rate of {run} is per unit and it knows its "
            "units: leave it out"
        )
    scored = score_good(
        scorer, path, GoodImages(normal, good, group_by, seed, independent=independent), say
    )
    found = decide(calibration, scored.scores, int(scored.outside.sum()), tuple(scored.left_out))
    return found if scored.rule is None else replace(found, what="unit")
