"""What two detectors disagree on, in words and as a report."""

from __future__ import annotations

from anomaly.imaging.listing import passed_text
from anomaly.reporting.detector import card_text
from anomaly.reporting.evaluation_report import GALLERY, gallery_item
from anomaly.reporting.lines import names_text, rows_text
from anomaly.reporting.report import Report
from anomaly.scoring.comparison import Comparison, Pairs


def comparison_text(comparison: Comparison) -> str:
    """Returns how many images each detector flags, and which of them the other does not."""
    lines = [("old", comparison.old.card.identity), ("new", comparison.new.card.identity)]
    lines += [(kind, _pairs(pairs)) for kind, pairs in comparison.kinds.items()]
    if len(comparison.kinds) > 1:
        lines.append(("better by the labels", comparison.better))
    else:
        lines.append(("better", "unknown: no labels; look at the flips (--report FILE)"))
    for label, flagged in (("now flagged", True), ("now passed", False)):
        names = [str(comparison.records[i].path) for i in comparison.flips(flagged)]
        if names:
            lines.append((label, names_text(names)))
    if comparison.not_judged:
        lines.append(
            (
                "not judged",
                f"{comparison.not_judged} images by one of them or both: left out above, treat "
                "as not OK",
            )
        )
    if comparison.passed_over:
        lines.append(("passed over", passed_text(comparison.passed_over)))
    return rows_text(lines)


def comparison_report(comparison: Comparison) -> Report:
    """Returns the report of the images that one detector flags and the other does not."""
    new = comparison.new
    galleries = {
        f"{name} ({len(found)})": [
            gallery_item(new, comparison.records[i], comparison.results[i][1])
            for i in found[:GALLERY]
        ]
        for name, found in (
            ("now flagged", comparison.flips(True)),
            ("now passed", comparison.flips(False)),
        )
    }
    return Report(
        title=f"{comparison.old.card.name} against {new.card.name}",
        card=new.card,
        guarantee=card_text(new.card, str(new.path)),
        figures_text=comparison_text(comparison),
        galleries=galleries,
    )


def _pairs(pairs: Pairs) -> str:
    return (
        f"{pairs.old} of {pairs.images} flagged by the old, {pairs.new} by the new; "
        f"{pairs.now_flagged} only by the new, {pairs.now_passed} only by the old (paired test "
        f"of independent images: p = {pairs.p_value:.2g})"
    )
