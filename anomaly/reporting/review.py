"""What a review found, in words: shares from verdicts, and whether its log is whole."""

from __future__ import annotations

from anomaly.files.numbers import between, percent
from anomaly.statistics.intervals import Estimate


def estimate_text(estimate: Estimate) -> str:
    """Returns a share with its interval and counts, or why it is unknown."""
    verdicts = f"{estimate.n:,} verdict{'' if estimate.n == 1 else 's'}"
    if estimate.value is None or estimate.low is None or estimate.high is None:
        more = (
            f" {estimate.needed:,} more verdict{'' if estimate.needed == 1 else 's'} needed."
            if estimate.needed
            else ""
        )
        return f"unknown ({verdicts}):{more} {estimate.note}".rstrip(" :")
    note = f". {estimate.note}" if estimate.note else ""
    if estimate.low == estimate.high:  # all that it rests on has been judged
        return f"{percent(estimate.value)}, counted, not estimated ({verdicts}){note}"
    interval = between(estimate.low, estimate.high)
    return f"{percent(estimate.value)} (95 %: {interval}; {verdicts}){note}"


def log_text(events: int, before: int) -> str:
    """Returns how many events a whole log has, ``before`` of them from before digests were kept."""
    older = f"; {before:,} are from before digests were kept" if before else ""
    return f"{events:,} events, each as it was written{older}"
