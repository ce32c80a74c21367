"""Whether the scores of a series changed, in words."""

from __future__ import annotations

from anomaly.statistics.drift import Count, ScoreWatch

TO_DO = (
    "Look at the newest images: light, focus, camera, dirt, a new lot, real defects? Mend that if "
    "you can; else collect good images of today and run anomaly check, which says whether to "
    "recalibrate or to train again"
)


def score_watch_text(watch: ScoreWatch) -> str:
    """Returns what was found and, where there is an alarm, what to do: one line."""
    found = [
        *(_count(watch, count) for count in watch.worst_counts()),
        *([] if watch.change is None else [_change(watch)]),
    ]
    if found:
        return f"{watch.name}: {'; '.join(found)}. {TO_DO}"
    judged = (
        f"{watch.images - watch.not_judged:,} {watch.what}s judged, {watch.not_judged:,} not judged"
    )
    if not len(watch.log10_evidence):
        return f"{watch.name}: {judged}; no scores to compare"
    evidence = (
        f"evidence {10 ** float(watch.log10_evidence[-1]):,.3g}, an alarm from "
        f"{10**watch.limit:,.0f} on"
    )
    return f"{watch.name}: no sign that the scores changed ({judged}; {evidence}){_past(watch)}"


def _count(watch: ScoreWatch, count: Count) -> str:
    blind = ", nobody has inspected them" if count.kind == "not judged" else ""
    ordinary = f"up to {count.ordinary_up_to:,} is ordinary"
    return (
        f"{count.found:,} of the newest {count.images:,} {watch.what}s {count.kind}, "
        f"{ordinary}{blind}"
    )


def _change(watch: ScoreWatch) -> str:
    change = watch.changes[-1]
    blind = "; with lower scores defects may pass" if change.direction == "lower" else ""
    return (
        f"the scores are {change.direction} since about {watch.what} {change.changed_at + 1:,} "
        f"of {watch.images - watch.not_judged:,} judged ({watch.changed_time}), so the "
        f"false-alarm rate no longer holds here{blind}"
    )


def _past(watch: ScoreWatch) -> str:
    if not watch.changes:
        return ""
    last = watch.changes[-1]
    ago = watch.images - watch.not_judged - 1 - (last.ended_at or 0)
    more = f", the last of {len(watch.changes)}" if len(watch.changes) > 1 else ""
    return (
        f". An earlier alarm ({watch.changed_time}, {last.direction}{more}) ended {ago:,} "
        f"{watch.what}s ago"
    )
