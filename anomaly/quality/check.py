"""`anomaly check`: do new good images still look like those that set the threshold? Keep,
recalibrate or retrain, and why.

Three tests, together at 5 % (a third for each: Bonferroni): whether more images than a few in a
hundred are unlike the training images, so that they are not judged; whether more are flagged than
is ordinary (the beta-binomial of the guaranteed rate); and whether the scores are distributed like
those that set the threshold (Cramer and von Mises; Anderson 1962). So of detectors that are as good
as ever 95 in 100 are kept. If more are flagged than is ordinary the guaranteed rate no longer
holds, and a new threshold mends it; so it does if the scores changed but are about as widely spread
as before. If the images are unlike the training images, or the scores so spread that the threshold
would have to rise by much, defects would pass below it: train again.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anomaly.detector.file import find_detector
from anomaly.errors import CalibrationError, RuntimeMissing
from anomaly.files.numbers import percent
from anomaly.inputs.dataset import Say
from anomaly.quality.recalibrate import Grouping, score_good
from anomaly.scorer import Scorer
from anomaly.statistics.calibration import Calibration, needed

LEVEL = 0.05 / 3  # of each of the three tests
# share of good images that may be unlike the training images by themselves
ORDINARY_OUTSIDE_SHARE = 0.02
# times the spread of the scores from which on a new threshold would let defects pass
RETRAIN_SPREAD_RATIO = 1.5
SMALL_SAMPLE_IMAGES = 20  # images, below which only a large change can be seen


@dataclass(frozen=True)
class Check:
    """What a check found. ``verdict``: ``keep``, ``recalibrate`` or ``retrain``.

    ``images``: good images judged, one of each group (``what``: or units, by the worst view of
    each); ``outside``: of these unlike the training images, at most ``outside_up_to`` are ordinary;
    ``flagged``: above the threshold, at most ``ordinary_up_to`` are in 95 of 100 cases, and at most
    ``flagged_up_to`` at the level of this test; ``p_value``: of the scores being distributed as
    before; ``spread``: how many times as widely spread they are, by the middle half.
    """

    verdict: str
    images: int
    outside: int
    outside_up_to: int
    flagged: int
    expected: float
    ordinary_up_to: int
    flagged_up_to: int
    p_value: float
    spread: float
    target_rate: float
    left_out: tuple[str, ...]
    what: str = "image"

    def text(self, run: str, normal: str) -> str:
        """The verdict, why, and the command to give next."""
        lines = [("verdict", f"{self.verdict}: {self._why()}"), ("next", self._next(run, normal))]
        lines.append(
            (
                f"good {self.what}s flagged",
                f"{self.flagged} of {self.images}; expect {self.expected:.2g}, up to "
                f"{self.ordinary_up_to} is ordinary (of three tests: up to {self.flagged_up_to})",
            )
        )
        lines.append(
            (
                "unlike the training",
                f"{self.outside} of {self.images}; up to {self.outside_up_to} is ordinary",
            )
        )
        lines.append(
            (
                "scores",
                (
                    f"p = {self.p_value:.2g} that they are distributed as before; "
                    f"{self.spread:.2f} times as widely spread"
                ),
            )
        )
        if self.images < SMALL_SAMPLE_IMAGES:
            lines.append(
                (
                    "note",
                    (
                        f"{self.images} good {self.what}s show a large change only; "
                        f"{SMALL_SAMPLE_IMAGES} or more are better"
                    ),
                )
            )
        return "\n".join(f"{label:<24}{text}" for label, text in lines)

    def _why(self) -> str:
        scores = f"the scores of good {self.what}s"
        if self.outside > self.outside_up_to:
            causes = "light, focus, camera, another product"
            return (
                f"{self.outside} of {self.images} good {self.what}s are unlike those of the "
                f"training: {causes}"
            )
        if self.verdict == "retrain":
            return (
                f"{scores} are {self.spread:.1f} times as widely spread: a new threshold would let "
                "defects pass"
            )
        if self.verdict == "recalibrate" and self.flagged > self.flagged_up_to:
            return (
                f"{self.flagged} of {self.images} good {self.what}s are flagged: the guaranteed "
                "rate no longer holds"
            )
        if self.verdict == "recalibrate":
            return (
                f"{scores} changed, so the guaranteed rate no longer holds; they are spread about "
                "as before"
            )
        return f"no sign that good {self.what}s look different from those that set the threshold"

    def _next(self, run: str, normal: str) -> str:
        if self.verdict == "keep":
            return "nothing to do"
        if self.verdict == "retrain":
            return (
                "mend light, focus or camera if that is the cause, else  anomaly train ALL_GOOD "
                f"--out NEW  with {normal} in it"
            )
        few = self.images < needed(self.target_rate)
        more = (
            (
                f" (the guarantee of {percent(self.target_rate)} needs {needed(self.target_rate)} "
                f"of them, {self.images} found)"
            )
            if few
            else ""
        )
        return f"anomaly calibrate {run} --normal {normal}{more}"

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "left_out": list(self.left_out)}


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
            f"--group-by {group_by!r} found, but {run} guarantees per unit and knows its units: "
            "leave it out"
        )
    scored = score_good(
        scorer, path, normal, Grouping(group_by, seed, independent=independent), good, say
    )
    found = decide(calibration, scored.scores, int(scored.outside.sum()), tuple(scored.left_out))
    return found if scored.rule is None else replace(found, what="unit")


def decide(
    calibration: Calibration,
    scores: NDArray[np.float32],
    outside: int,
    left_out: tuple[str, ...] = (),
) -> Check:
    """Returns the verdict on new scores float32 (n,), ``outside`` of whose images are unlike the
    training images.
    """
    stats = _stats()
    outside_up_to = int(stats.binom.ppf(1 - LEVEL, len(scores), ORDINARY_OUTSIDE_SHARE))
    p_value = (
        float(stats.cramervonmises_2samp(calibration.scores, scores).pvalue)
        if len(scores) > 1
        else 1.0
    )
    spread = _spread(scores) / max(_spread(calibration.scores), 1e-12)
    flagged = int(calibration.is_anomaly(scores).sum())
    # one image tells nothing
    flagged_up_to = max(1, calibration.ordinary_up_to(len(scores), 1 - LEVEL))
    changed = p_value < LEVEL
    if outside > outside_up_to or (changed and spread > RETRAIN_SPREAD_RATIO):
        verdict = "retrain"
    else:
        verdict = "recalibrate" if changed or flagged > flagged_up_to else "keep"
    return Check(
        verdict=verdict,
        images=len(scores),
        outside=outside,
        outside_up_to=outside_up_to,
        flagged=flagged,
        expected=calibration.expected(len(scores)),
        ordinary_up_to=calibration.ordinary_up_to(len(scores)),
        flagged_up_to=flagged_up_to,
        p_value=p_value,
        spread=spread,
        target_rate=calibration.target_rate or calibration.guaranteed_rate,
        left_out=left_out,
    )


def _spread(scores: NDArray[np.float32]) -> float:
    """Returns the width of the middle half, which a defect among the good images does not move."""
    low, high = np.quantile(scores.astype(np.float64), (0.25, 0.75))
    return float(high - low)


def _stats() -> Any:
    try:
        return importlib.import_module("scipy.stats")
    except ImportError as error:
        raise RuntimeMissing.extra("SciPy", "evaluate", "anomaly check") from error
