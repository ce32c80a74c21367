"""Challenge parts: are all parts that are known to be bad flagged, and does the same part always
get the same result?
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from anomaly.errors import CalibrationError, DatasetError
from anomaly.files.progress import Progress
from anomaly.inputs.dataset import Record, Say, read_dataset
from anomaly.quality.evaluate import score_one
from anomaly.scorer import Result, Scorer
from anomaly.statistics.calibration import Calibration
from anomaly.statistics.known_parts import Challenge, Repeat
from anomaly.statistics.resampling import NORMAL


def challenge(
    scorer: Scorer, bad: Path, good: Sequence[str] = (), say: Say | None = None
) -> Challenge:
    """Returns what a detector says of a folder or manifest of known bad parts; CalibrationError
    without a threshold.

    In a folder all are bad but those in folders named as good (or by ``good``); ``say`` gets a line
    on these.
    """
    calibration_of(scorer)
    passed = Counter[str]()
    given = read_dataset(bad, passed=passed, good=good, plain="defect", say=say)
    records = [record for record in given if record.label not in (NORMAL, None)]
    if not records:
        raise DatasetError(
            f"{bad}: only good images found, known bad parts expected: give their folder"
        )
    if say is not None and len(records) < len(given):
        say(
            f"left out: {len(given) - len(records)} of {len(given)} images that are named as good, "
            "or have no label"
        )
    results = judge_records(scorer, records)
    missed = [str(r.path) for r, x in zip(records, results, strict=True) if x.is_anomaly is False]
    not_judged = [
        str(r.path) for r, x in zip(records, results, strict=True) if x.is_anomaly is None
    ]
    return Challenge(len(records), tuple(missed), tuple(not_judged), dict(passed))


def repeat(scorer: Scorer, images: Path, group_by: str | None = None) -> Repeat:
    """Returns how far results on photographs of one part agree; parts by ``group_by``, a
    manifest's groups, or sub-folders.
    """
    calibration = calibration_of(scorer)
    passed = Counter[str]()
    parts = _repeated_parts(images, group_by, passed)
    judged = [record for members in parts.values() for record in members]
    found = dict(
        zip((record.path for record in judged), judge_records(scorer, judged), strict=True)
    )
    results_of = {
        name: [found[r.path] for r in members if found[r.path].is_anomaly is not None]
        for name, members in parts.items()
    }
    flagged = {
        name: [bool(result.is_anomaly) for result in results]
        for name, results in results_of.items()
    }
    return Repeat(
        parts=len(parts),
        images=len(judged),
        flipping=tuple(name for name, flags in flagged.items() if len(set(flags)) == 2),
        odd=sum(min(flags.count(True), flags.count(False)) for flags in flagged.values()),
        spread=_pooled_deviation(list(results_of.values()))
        / max(float(calibration.threshold - calibration.median), 1e-12),
        not_judged=sum(result.is_anomaly is None for result in found.values()),
        passed_over=dict(passed),
    )


def _repeated_parts(
    images: Path, group_by: str | None, passed: Counter[str]
) -> dict[str, list[Record]]:
    """Returns the photographs of each part that has several, by its name."""
    records = read_dataset(images, group_by, passed, plain=None)
    if len({record.group for record in records}) == len(records):
        records = [replace(record, group=str(record.path.parent)) for record in records]
    parts = {
        name: [r for r in records if r.group == name]
        for name in sorted({record.group for record in records})
    }
    parts = {name: members for name, members in parts.items() if len(members) > 1}
    if not parts:
        raise DatasetError(
            f"{images}: no part with several photographs found; one sub-folder a part, a "
            "manifest's group column or --group-by REGEX expected"
        )
    return parts


def judge_records(scorer: Scorer, records: Sequence[Record]) -> list[Result]:
    """Returns the results of records in order; what cannot be read has status ``error``."""
    results = []
    with Progress(len(records), "judging images") as progress:
        for record in records:
            results.append(score_one(scorer, record.path))
            progress.advance(1)
    return results


def calibration_of(scorer: Scorer) -> Calibration:
    """Returns a detector's calibration, or raises CalibrationError where it only ranks."""
    if scorer.card.calibration is None:
        raise CalibrationError(
            f"{scorer.path}: it ranks only and flags nothing; set a threshold first: anomaly "
            "calibrate"
        )
    return scorer.card.calibration


def _pooled_deviation(groups: Sequence[Sequence[Result]]) -> float:
    scores = [
        np.array([result.score for result in group], np.float64)
        for group in groups
        if len(group) > 1
    ]
    deviations = [values - values.mean() for values in scores]
    freedom = sum(len(d) - 1 for d in deviations)
    return (
        float(np.sqrt(sum(float((d**2).sum()) for d in deviations) / freedom)) if freedom else 0.0
    )
