"""`anomaly compare`: what a new detector would decide otherwise than the old one, on the same
images.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from anomaly.inputs.dataset import Say, labelled_test, read_dataset
from anomaly.inputs.labels import GOOD, is_bad_alone
from anomaly.quality.challenge import calibration_of, judge_records
from anomaly.reporting.comparison import comparison_report
from anomaly.reporting.page import templates, write_report
from anomaly.scorer import Result, Scorer
from anomaly.scoring.comparison import Comparison, Pairs
from anomaly.statistics.resampling import NORMAL


def compare(
    old: Scorer,
    new: Scorer,
    images: Path,
    *,
    report: Path | None = None,
    good: Sequence[str] = (),
    say: Say | None = None,
) -> Comparison:
    """Returns how two detectors judge the same images, and writes the flips with pictures where
    asked.

    ``good``: names of the folders or labels of good images; ``say`` gets a line on what is read as
    good and what is not. Raises CalibrationError where one of them has no threshold, DatasetError,
    RuntimeMissing where a report needs Jinja2.
    """
    if report is not None:
        templates()
    calibration_of(old), calibration_of(new)
    passed = Counter[str]()
    # images of a folder named by a defect, in which no name says more, are not good ones
    defects_alone = images.is_dir() and is_bad_alone(images.resolve().name)
    given = read_dataset(
        images, passed=passed, good=good, plain=None if defects_alone else GOOD, say=say
    )
    records = [record for record in given if record.split != "train"] or given
    labelled_test(records, say)
    results = list(zip(judge_records(old, records), judge_records(new, records), strict=True))
    both = [
        i for i, pair in enumerate(results) if all(result.is_anomaly is not None for result in pair)
    ]
    kinds = {"all images": _pairs([results[i] for i in both])}
    if any(record.label is not None for record in records):
        for name, normal in (("good images", True), ("defective images", False)):
            kinds[name] = _pairs(
                [
                    results[i]
                    for i in both
                    if records[i].label and (records[i].label == NORMAL) is normal
                ]
            )
    comparison = Comparison(
        old, new, records, results, kinds, len(records) - len(both), dict(passed)
    )
    if report is not None:
        write_report(report, comparison_report(comparison))
    return comparison


def _pairs(results: Sequence[tuple[Result, Result]]) -> Pairs:
    flags = [(bool(old.is_anomaly), bool(new.is_anomaly)) for old, new in results]
    return Pairs(
        images=len(flags),
        old=sum(old for old, _ in flags),
        new=sum(new for _, new in flags),
        now_flagged=flags.count((False, True)),
        now_passed=flags.count((True, False)),
    )
