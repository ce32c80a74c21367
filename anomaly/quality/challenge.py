"""Challenge parts: are all parts that are known to be bad flagged, and does the same part always
get the same verdict?
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from anomaly.errors import CalibrationError, DatasetError
from anomaly.files.numbers import percent
from anomaly.files.progress import Progress
from anomaly.imaging.listing import passed_text
from anomaly.inputs.dataset import Record, Say, read_dataset
from anomaly.quality.evaluate import score_one
from anomaly.scorer import Result, Scorer
from anomaly.statistics.calibration import Calibration
from anomaly.statistics.intervals import beta_quantile
from anomaly.statistics.resampling import NORMAL

MAX_NAMES_SHOWN = 5  # names in a line


@dataclass(frozen=True)
class Challenge:
    """Known bad parts under a detector: ``missed`` are those not flagged, ``not_judged`` had no
    verdict.
    """

    images: int
    missed: tuple[str, ...]
    not_judged: tuple[str, ...]
    passed_over: dict[str, int] = field(default_factory=dict)

    @property
    def judged(self) -> int:
        return self.images - len(self.not_judged)

    @property
    def upper_bound(self) -> float:
        """With 95 % confidence at most this share of such parts is missed (Clopper-Pearson,
        one-sided).
        """
        missed = len(self.missed)
        return (
            1.0 if missed >= self.judged else beta_quantile(0.95, missed + 1, self.judged - missed)
        )

    def text(self) -> str:
        lines = [
            (
                "challenge parts",
                (
                    f"{len(self.missed)} of {self.judged} missed; up to "
                    f"{percent(self.upper_bound)} could be missed (95 %)"
                ),
            )
        ]
        if self.missed:
            lines.append(("missed", _names(self.missed)))
        if self.not_judged:
            lines.append(("not judged", f"{_names(self.not_judged)}: treat as not OK"))
        if self.passed_over:
            lines.append(("passed over", passed_text(self.passed_over)))
        return "\n".join(f"{label:<24}{text}" for label, text in lines)


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


@dataclass(frozen=True)
class Repeat:
    """Photographs of the same parts, several of each: a gauge study.

    ``flipping``: parts that were flagged in some photographs and passed in others; ``odd``:
    photographs whose verdict is not that of most of their part; ``spread``: standard deviation of a
    part's scores, pooled, as a share of threshold - typical.
    """

    parts: int
    images: int
    flipping: tuple[str, ...]
    odd: int
    spread: float
    not_judged: int
    passed_over: dict[str, int] = field(default_factory=dict)

    def text(self) -> str:
        lines = [
            (
                "repeated parts",
                f"{self.parts} parts, {self.images} photographs; {len(self.flipping)} parts flip",
            ),
            ("flips", f"{self.odd} of {self.images} photographs differ from most of their part"),
            (
                "spread of one part",
                f"{self.spread:.2f} of (threshold - typical), standard deviation",
            ),
        ]
        if self.flipping:
            lines.insert(1, ("flipping", _names(self.flipping)))
        if self.not_judged:
            lines.append(("not judged", f"{self.not_judged} photographs: treat as not OK"))
        if self.passed_over:
            lines.append(("passed over", passed_text(self.passed_over)))
        return "\n".join(f"{label:<24}{text}" for label, text in lines)


def repeat(scorer: Scorer, images: Path, group_by: str | None = None) -> Repeat:
    """Returns how far verdicts on photographs of one part agree; parts by ``group_by``, a
    manifest's groups, or sub-folders.
    """
    calibration = calibration_of(scorer)
    passed = Counter[str]()
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
    judged = [record for members in parts.values() for record in members]
    found = dict(
        zip((record.path for record in judged), judge_records(scorer, judged), strict=True)
    )
    verdicts = {
        name: [found[r.path] for r in members if found[r.path].is_anomaly is not None]
        for name, members in parts.items()
    }
    flagged = {
        name: [bool(result.is_anomaly) for result in results] for name, results in verdicts.items()
    }
    return Repeat(
        parts=len(parts),
        images=len(judged),
        flipping=tuple(name for name, flags in flagged.items() if len(set(flags)) == 2),
        odd=sum(min(flags.count(True), flags.count(False)) for flags in flagged.values()),
        spread=_pooled_deviation(list(verdicts.values()))
        / max(float(calibration.threshold - calibration.median), 1e-12),
        not_judged=sum(result.is_anomaly is None for result in found.values()),
        passed_over=dict(passed),
    )


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


def _names(paths: Sequence[str]) -> str:
    more = f" and {len(paths) - MAX_NAMES_SHOWN} more" if len(paths) > MAX_NAMES_SHOWN else ""
    return " ".join(paths[:MAX_NAMES_SHOWN]) + more
