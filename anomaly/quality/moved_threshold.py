"""A threshold moved by hand: the nearest one that the calibration scores can guarantee something
for, and the new file.

A threshold is always one of the calibration scores: between two of them the guarantee is the same,
and above the highest there is none. A threshold chosen after seeing results is a preview until
fresh good images confirm it, and the new file says so, with who moved it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from anomaly.detector.calibration_nodes import import_onnx, set_calibration
from anomaly.detector.card import Card
from anomaly.detector.file import find_detector, one_name, read_card, read_checked, set_card
from anomaly.detector.golden import kept_tolerance
from anomaly.detector.training_facts import TrainingFacts
from anomaly.detector.trial import remember, trial_seconds, was_tried
from anomaly.detector.versions import Identity, next_version, note_version, versions_of
from anomaly.errors import CalibrationError, DetectorError
from anomaly.files.atomic import write_atomically
from anomaly.statistics.calibration import LARGEST_RATE, Calibration, rank

MOVED = (  # the facts that a moved threshold states, in the order in which they are written
    "threshold_moved",
    "threshold_moved_by",
    "threshold_moved_from",
    "size_sensitivity",
    "cost",
)


def nearest(calibration: Calibration, threshold: float) -> Calibration:
    """Returns the calibration whose threshold is the calibration score nearest to ``threshold``
    that can be guaranteed for.

    The target rate becomes the guarantee of that threshold: k / (n + 1), at most 0.5.
    """
    scores, n = calibration.scores, calibration.n
    above = int(np.searchsorted(scores, np.float32(threshold), side="left"))
    near = [index for index in (above - 1, above) if 0 <= index < n]
    index = min(near, key=lambda i: abs(float(scores[i]) - threshold))
    # with ties k counts the whole tie: the threshold is the same, and the guarantee is the one that
    # is kept
    k = n - int(np.searchsorted(scores, scores[index], side="right")) + 1
    return with_rank(calibration, min(k, largest_rank(n)))


def with_rank(calibration: Calibration, k: int) -> Calibration:
    """Returns the same scores with the k-th largest as the threshold."""
    if not 1 <= k <= largest_rank(calibration.n):
        raise CalibrationError(
            f"rank {k} found, 1 to {largest_rank(calibration.n)} of {calibration.n} good images "
            "expected"
        )
    target_rate = k / (calibration.n + 1)
    if rank(target_rate, calibration.n) < k:  # the decimal that is written may round below it
        target_rate = math.nextafter(target_rate, 1.0)
    return Calibration(calibration.scores, k, target_rate, calibration.kind)


def with_review(calibration: Calibration, score: float) -> Calibration:
    """Returns the calibration with the review threshold nearest to ``score`` that it can have; the
    calibration without one where no calibration score lies below the threshold.
    """
    scores, n = calibration.scores, calibration.n
    below = scores[scores < calibration.threshold]
    low = scores[n - (n + 1) // 2]  # half of all good images
    plain = replace(calibration, review_rate=None, review_score=None)
    if not len(below) or low > below[-1]:
        return plain
    return replace(plain, review_score=float(np.clip(np.float32(score), low, below[-1])))


def largest_rank(n: int) -> int:
    """Returns the largest k that may be guaranteed: half of all good images flagged."""
    return max(1, math.floor(LARGEST_RATE * (n + 1)))


def write_moved(
    run: str | os.PathLike[str],
    calibration: Calibration,
    out: Path,
    *,
    by: str,
    known: Iterable[Identity] = (),
) -> Card:
    """Writes a copy of a detector with the thresholds of ``calibration`` to ``out`` and returns its
    card.

    The card names the parent's digest, and in ``training`` who moved the threshold and when; where
    it is the parent's own, nothing was moved and the guarantee stays: the review threshold alone
    may have changed. ``known``: detectors elsewhere, whose versions are not given again. Raises
    DetectorError where ``out`` is there already.
    """
    onnx = import_onnx()
    data, card = read_checked(run)
    if card.calibration is None or not np.array_equal(card.calibration.scores, calibration.scores):
        raise DetectorError(
            f"{find_detector(run)}: its calibration scores are others than the threshold was "
            "chosen on; choose again"
        )
    threshold = float(calibration.threshold)
    if out.exists():
        raise DetectorError(
            f"{out} is there already; a detector in use must not change under its name: choose "
            "another"
        )
    model = onnx.load_model_from_string(data)
    training, quality = card.training, card.quality
    if threshold == float(card.calibration.threshold):
        calibration = replace(
            card.calibration,
            review_rate=calibration.review_rate,
            review_score=calibration.review_score,
        )
    else:
        set_calibration(model, calibration)
        training = _moved_by(card, by, float(card.calibration.threshold), threshold)
        quality = None  # figures of the old threshold
    source = find_detector(run).parent
    version = next_version(card.version, versions_of(card.name, source, out.parent, known))
    new = replace(
        card,
        version=version,
        calibration=calibration,
        heatmap=None if card.heatmap is None else calibration.with_scores(card.heatmap.scores),
        golden={**card.golden, "tolerance": kept_tolerance(card.golden["tolerance"], calibration)},
        quality=quality,
        parent=card.digest,
        training=training,
    )
    set_card(model, new)
    changed = model.SerializeToString(deterministic=True)
    if was_tried(data):  # the same graph but for its numbers
        remember(changed, trial_seconds(data))
    note_version(card.name, version, source, out.parent)
    write_atomically(out, changed)
    return read_card(out)


def _moved_by(card: Card, by: str, old: float, threshold: float) -> TrainingFacts:
    """Returns the card's facts with who moved the threshold, and when."""
    training = card.training
    sizes = training.size_sensitivity
    return replace(
        training,
        stated=training.stating(*MOVED),
        threshold_moved=datetime.now(UTC).isoformat(timespec="seconds"),
        threshold_moved_by=one_name(by),
        threshold_moved_from=None
        if card.calibration is None
        else float(card.calibration.threshold),
        size_sensitivity=None if sizes is None else sizes.at_threshold(threshold),
        cost=None,
    )


def write_review_threshold(
    run: Path,
    out: Path | None,
    *,
    by: str,
    review_rate: float | None,
    review_score: float | None,
) -> tuple[Card, Path]:
    """Writes a copy of a detector with another review threshold, or none, set by its own
    calibration scores; returns its card and its path.

    Raises DetectorError where it only ranks, CalibrationError where its scores cannot keep it.
    """
    card, path = read_card(run), find_detector(run)
    if card.calibration is None:
        raise DetectorError(
            f"{path}: ranks only, so there is no threshold for a second one: give good images by "
            "--normal DIR"
        )
    asked = replace(card.calibration, review_rate=review_rate, review_score=review_score)
    version = next_version(card.version, versions_of(card.name, path.parent, (out or path).parent))
    target = out or free_name(path, version)
    return write_moved(run, asked, target, by=by), target


def free_name(detector: Path, version: str) -> Path:
    """Returns a name beside a detector that no file has: detector-2.onnx, detector-2b.onnx, ..."""
    for ending in ("", *"bcdefghijklmnopqrstuvwxyz"):
        path = detector.with_name(f"detector-{version}{ending}.onnx")
        if not path.exists():
            return path
    raise DetectorError(
        f"{detector.parent}: too many versions {version} are there already: move some of them away"
    )
