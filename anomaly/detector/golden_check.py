"""Does this runtime give the scores that the card holds, and flag as its calibration says?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from anomaly.detector.calibration_nodes import OUTPUTS as CALIBRATED
from anomaly.detector.calibration_nodes import alone
from anomaly.detector.card import Card
from anomaly.detector.golden import Golden, Sample, golden_picture
from anomaly.detector.session import import_runtime, session_options
from anomaly.errors import DetectorError
from anomaly.imaging.pillow import Pixels
from anomaly.statistics.calibration import Calibration

MAX_TRIED_SCORES = 200  # of the calibration scores
MAX_COMPARISONS = 1 << 24  # scores with calibration scores at once: a byte and a float each

Outputs = Mapping[str, npt.NDArray[Any]]


def check_golden_scores(path: Path, card: Card, run: Callable[[Pixels], Outputs]) -> float:
    """Returns the largest difference of the golden samples' scores, as a share of their tolerance.

    ``run`` gives the graph's outputs for images. DetectorError for a difference above 1, and for a
    sample that is flagged otherwise than the card's calibration says.
    """
    golden = Golden.from_json(card.golden, card.calibration)
    typical = float(card.calibration.median) if card.calibration else 0.0
    worst = 0.0
    for sample in golden.samples:
        outputs = run(golden_picture(*sample[:4])[None])
        score = float(outputs["score"][0])
        worst = max(worst, _difference(path, sample, score, golden.tolerance, typical))
        if card.calibration is not None:
            check_flags(path, card.calibration, outputs)
    return worst


def _difference(
    path: Path, sample: Sample, score: float, tolerance: float, typical: float
) -> float:
    # The tolerance is a thousandth of threshold - typical; of a synthetic picture far beyond that,
    # what float32 holds.
    difference = abs(score - sample.score) / max(tolerance, 1e-5 * abs(sample.score - typical))
    if not difference <= 1.0:  # NaN too
        raise DetectorError(
            f"{path}: a golden sample scores differently here ({sample.width}x{sample.height}: "
            f"{score} instead of {sample.score}); this runtime or driver computes something else: "
            "try device='cpu', another version of ONNX Runtime, or export with --target portable"
        )
    return difference


def check_flags_around(
    path: Path, calibration: Calibration, providers: Sequence[str], threads: int
) -> None:
    """Tries the calibration nodes of a graph at, below and above calibration scores; DetectorError
    where they flag otherwise than the card says.
    """
    runtime = import_runtime()
    session = runtime.InferenceSession(
        alone(calibration), session_options(runtime, threads), providers=providers
    )
    near = np.clip(np.arange(-2, 3) + calibration.n - calibration.k, 0, calibration.n - 1)
    tried = min(calibration.n, MAX_TRIED_SCORES)
    spread = np.linspace(0, calibration.n - 1, tried).astype(np.int64)
    exact, infinite = calibration.scores[np.concatenate([near, spread])], np.float32(np.inf)
    odd = np.array([np.nan, infinite, -infinite], np.float32)
    scores = np.concatenate(
        [np.nextafter(exact, -infinite), exact, np.nextafter(exact, infinite), odd]
    )
    for some in np.array_split(scores, -(-len(scores) * calibration.n // MAX_COMPARISONS)):
        found = dict(zip(CALIBRATED, session.run(list(CALIBRATED), {"score": some}), strict=True))
        check_flags(path, calibration, {**found, "score": some})


def check_flags(path: Path, calibration: Calibration, outputs: Outputs) -> None:
    """Raises DetectorError unless a graph's p_value and is_anomaly are those that the card's
    calibration gives its score.
    """
    score = outputs["score"]
    expected = {
        "p_value": calibration.p_value(score).astype(np.float32),
        "is_anomaly": calibration.is_anomaly(score),
    }
    wrong = [name for name, right in expected.items() if not np.array_equal(outputs[name], right)]
    if wrong:
        name = wrong[0]
        at = (
            int(np.flatnonzero(outputs[name] != expected[name])[0])
            if outputs[name].shape == score.shape
            else 0
        )
        found, right = outputs[name].reshape(-1)[at : at + 1].tolist(), expected[name][at]
        raise DetectorError(
            f"{path}: {name} of a score of {score[at]:.6g} is {found} here and {right} by the "
            "card: graph and card contradict each other, or this runtime or driver computes "
            "something else; copy the file again, or try device='cpu'"
        )
