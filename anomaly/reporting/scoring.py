"""What a run of many images came to, in words: counts before percent."""

from __future__ import annotations

from anomaly.files.numbers import count_text, images_text, percent
from anomaly.files.progress import duration, speed_text
from anomaly.files.table import printable
from anomaly.imaging.listing import passed_text
from anomaly.reporting.lines import rows_text
from anomaly.scoring.summary import Summary
from anomaly.scoring.units import UnitsSummary


def summary_text(summary: Summary) -> str:
    """Returns what a run came to, one fact a line, counts before percent."""
    lines = [
        ("scored", _scored(summary)),
        *(row for name, one in summary.by_product for row in _results(name, one)),
    ]
    if summary.not_judged:
        lines.append(("not judged", _not_judged(summary)))
    if summary.passed_over:
        lines.append(("passed over", passed_text(summary.passed_over)))
    if summary.again:
        lines.append(
            (
                "scored again",
                f"{images_text(summary.again)}: kept rows, or image files, were changed since the "
                "last run",
            )
        )
    elsewhere = (
        f" ({summary.images - summary.moved:,} rows; {summary.moved:,} in tables that were moved "
        "away)"
        if summary.moved
        else ""
    )
    lines.append(("table", f"{summary.out}{elsewhere}"))
    lines += units_rows(summary.units) if summary.units else []
    return printable(rows_text(lines))


def units_rows(units: UnitsSummary) -> list[tuple[str, str]]:
    """Returns what became of units of several views."""
    rows = [
        (
            "units flagged",
            _ordinary(units.flagged, units.ok, units.expected, units.ordinary_up_to, "unit"),
        )
    ]
    if units.review is not None:
        said = _review(
            units.review, units.flagged, units.ok, units.review_expected, units.review_up_to, "unit"
        )
        rows.append(("units for review", said))
    kinds = [f"{count:,} {kind}" for kind, count in sorted(units.others.items())]
    if units.of_no_unit:
        kinds.append(f"{units.of_no_unit:,} image{'s' * (units.of_no_unit != 1)} of no unit")
    if kinds:
        rows.append(("units not judged", f"{', '.join(kinds)}; treat as not OK"))
    return [*rows, ("units table", str(units.out))]


def _scored(summary: Summary) -> str:
    new = summary.images - summary.resumed
    pace = "reading and decoding" if summary.reading > summary.judging else "the model"
    how = f" ({speed_text(summary.images_per_second)}; {pace} set the pace)" if new else ""
    before = f", {summary.resumed:,} of them before this run" if summary.resumed else ""
    return f"{images_text(summary.images)}{before}, in {duration(summary.seconds)}{how}"


def _results(name: str, summary: Summary) -> list[tuple[str, str]]:
    """Returns how many images were flagged and, with two thresholds, how many are for review; and
    which types of known defects these are likely of.
    """
    rows = [(name, _flagged(summary))]
    if summary.review is not None:
        label = "review" if name == "flagged" else ""
        rows.append(
            (
                label,
                _review(
                    summary.review,
                    summary.flagged or 0,
                    summary.ok,
                    summary.review_expected,
                    summary.review_up_to,
                ),
            )
        )
    if summary.types:
        found = sorted(summary.types.items(), key=lambda item: (-item[1], item[0]))
        said = ", ".join(f"{count:,} {name}" for name, count in found)
        rows.append(("likely types" if name == "flagged" else "", said))
    return rows


def _review(
    review: int,
    flagged: int,
    judged: int,
    expected: float | None,
    up_to: int | None,
    what: str = "image",
) -> str:
    """Returns how many images or units lie between the thresholds, and how many would be above the
    lower one if all were good.
    """
    said = f"{review:,} of {judged:,} {what}{'' if judged == 1 else 's'} judged, for a person"
    if expected is None or up_to is None or not judged:
        return said
    return (
        f"{said}; flagged or review {review + flagged:,}: if all are good expect "
        f"{count_text(expected)}, up to {up_to:,} is ordinary"
    )


def _flagged(summary: Summary) -> str:
    if summary.flagged is None:
        return "no threshold: this detector ranks only, without a guarantee"
    if summary.expected is None or summary.ordinary_up_to is None:
        return (
            f"{summary.flagged:,} of {images_text(summary.ok)} judged; the rate is per unit, "
            "not per image"
        )
    return _ordinary(summary.flagged, summary.ok, summary.expected, summary.ordinary_up_to)


def _not_judged(summary: Summary) -> str:
    kinds = ([("unlike the training images", summary.outside)] if summary.outside else []) + sorted(
        summary.errors.items(), key=lambda item: (-item[1], item[0])
    )
    return (
        f"{images_text(summary.not_judged)}: {', '.join(f'{n:,} {kind}' for kind, n in kinds)}; "
        "treat as not OK"
    )


def _ordinary(flagged: int, judged: int, expected: float, up_to: int, what: str = "image") -> str:
    """Returns how many of the images or units judged were flagged, and how many would be if all
    were good.
    """
    count = f"{judged:,} {what}{'' if judged == 1 else 's'} judged"
    if not judged:
        return f"0 of {count}"
    return (
        f"{flagged:,} of {count} ({percent(flagged / judged)}); if all are good expect "
        f"{count_text(expected)}, up to {up_to:,} is ordinary, {up_to + 1:,} or more: anomaly check"
    )
