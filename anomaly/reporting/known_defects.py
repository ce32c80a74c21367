"""What is said of known defects: which type a finding is likely of, and how many of each type a
detector misses.
"""

from __future__ import annotations

from anomaly.detector.card import UNKNOWN_TYPE
from anomaly.detector.training_facts import KnownDefectFacts, TrainingFacts
from anomaly.files.numbers import percent
from anomaly.reporting.lines import lines_of
from anomaly.statistics.intervals import upper_limit


def type_text(defect_type: str | None, type_score: float | None) -> str:
    """Returns which type a finding is likely of, empty where nothing says so."""
    if defect_type is None or type_score is None:
        return ""
    if defect_type == UNKNOWN_TYPE:
        return UNKNOWN_TYPE
    return f"likely {defect_type} ({type_score:.2f})"


def missed_text(missed: int, n: int) -> str:
    """Returns how many of n independent defects were not flagged, and how many could be: ``0 of 12
    missed; at most 22 % (95 %)``.
    """
    return f"{missed:,} of {n:,} missed; at most {percent(upper_limit(missed, n))} (95 %)"


def known_defect_lines(training: TrainingFacts, run: str = "RUN") -> list[str]:
    """Returns what a detector has learnt from known defects and how many of them it misses, a line
    each; none where it has learnt from none. ``run``: what the user calls it.
    """
    known = training.known_defects
    if known is None:
        return []
    rows = [("known defects", _learnt(known)), ("", _named(known))]
    missed = _missed(training, known, run)
    return lines_of([*rows, ("defects missed", missed[0]), *(("", line) for line in missed[1:])])


def _learnt(known: KnownDefectFacts) -> str:
    counts = sorted(known.types.items(), key=lambda item: (-item[1], item[0]))
    return "learnt from " + ", ".join(f"{count:,} {name}" for name, count in counts)


def _named(known: KnownDefectFacts) -> str:
    if not known.named:
        return "no type has a name: at least 5 examples of one expected"
    below = "" if known.unknown_below is None else f" below {known.unknown_below:.2g}"
    return f"a finding gets the name {' or '.join(known.named)}, or {UNKNOWN_TYPE}{below}"


def _missed(training: TrainingFacts, known: KnownDefectFacts, run: str) -> list[str]:
    if known.missed is None or known.of is None:
        return [
            "unknown (found by a detector, or nobody said how: --independent-defects) -> anomaly "
            f"evaluate {run} LABELLED"
        ]
    if training.recalibrated is not None or training.threshold_moved is not None:
        return [
            f"unknown: the threshold was set anew since training -> anomaly evaluate {run} LABELLED"
        ]
    said = [f"{name}: {missed_text(n, known.of[name])}" for name, n in known.missed.items()]
    return [*said, "by a detector that had not learnt from these images (five folds)"]
