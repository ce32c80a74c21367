"""How it goes, in words, tables, drawings and on one page for the morning meeting."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import date

from anomaly.files.csv_cells import Value, csv_text
from anomaly.files.numbers import between, percent
from anomaly.reporting.bars import NARROW, Bar, Drawing, Kind, bars, svg
from anomaly.reporting.lines import rows_text
from anomaly.reporting.page import templates
from anomaly.statistics.intervals import Estimate
from anomaly.statistics.tallies import KINDS, Audited, Production, Tally
from anomaly.version import __version__

CONFIRMED, FALSE_ALARM, UNDECIDED, NOT_JUDGED = (
    Kind("confirmed", "#c2501f"),
    Kind("false alarms", "#2a78c2"),
    Kind("undecided", "#8a929c"),
    Kind("not judged", "#9563c9"),
)
ONE = Kind("images", "#c2501f")
NO_TYPE = "(no type given)"
MAX_TYPES = 12  # in a drawing
COLUMNS = (
    *("images", "flagged", "confirmed", "false alarms", "undecided"),
    *("for review", "not judged", "of those looked at"),
)
ESCAPE, OVERKILL = "escape (missed defects)", "overkill (false alarms)"


def period_text(first: date, last: date) -> str:
    """Returns ``Tue 2026-12-01``, or the days from the first to the last."""
    return f"{first:%a %Y-%m-%d}" if first == last else f"{first:%a %Y-%m-%d} to {last:%a %Y-%m-%d}"


def tally_rows(tally: Tally) -> list[tuple[str, str, str]]:
    """Returns what became of the images: label, count, and what it is of."""
    per_image = f"{percent(tally.flagged / tally.images)} of the images" if tally.images else ""
    of_flagged = f"of {tally.flagged:,} flagged"
    review = [("for review", f"{tally.review:,}", "between the two thresholds")]
    blind = f"{tally.looked_at:,} of them looked at since" if tally.not_judged else ""
    return [
        ("images", f"{tally.images:,}", ""),
        ("flagged", f"{tally.flagged:,}", per_image),
        ("confirmed", f"{tally.confirmed:,}", of_flagged),
        ("false alarms", f"{tally.false_alarms:,}", of_flagged),
        ("undecided", f"{tally.undecided:,}", of_flagged),
        *(review if tally.review else []),
        ("not judged", f"{tally.not_judged:,}", blind),
    ]


def notes(production: Production) -> list[str]:
    """Returns what has to be known before the figures are read, a sentence each."""
    total, found = production.total, []
    if blind := total.not_judged - total.looked_at:
        are = "image was" if blind == 1 else "images were"
        found.append(
            f"{blind:,} {are} not judged by the detector and nobody has looked since: treat as "
            "not OK."
        )
    if total.undecided:
        found.append(
            f"{total.undecided:,} flagged images are undecided: confirmed and false alarms can "
            "still grow by as many."
        )
    return found


def escape_text(estimate: Estimate) -> str:
    """Returns how many of the images that passed are defects, or what is missing to say so."""
    return _share_text(estimate, "of the images that passed are defects")


def overkill_text(estimate: Estimate) -> str:
    """Returns how many of the good images were flagged, or what is missing to say so."""
    return _share_text(estimate, "of the good images were flagged")


def _share_text(estimate: Estimate, what: str) -> str:
    if estimate.value is None or estimate.low is None or estimate.high is None:
        return f"unknown: {estimate.n:,} answers, {estimate.needed:,} more needed. {estimate.note}"
    found = round(estimate.value * estimate.n)
    interval = between(estimate.low, estimate.high)
    return f"{found:,} of {estimate.n:,} audited, so {interval} {what} (95 %, exact)"


def audited_rows(production: Production) -> list[tuple[str, str]]:
    """Returns what the audit samples say, run by run, and which runs have none."""
    rows = [row for one in production.audited for row in _audited(one, len(production.audited))]
    if production.unaudited:
        names = ", ".join(production.unaudited[:5])
        more = len(production.unaudited) - 5
        rows.append(
            (
                "missed defects unknown",
                f"no answers of an audit sample in {names}"
                + (f" and {more:,} more runs" if more > 0 else "")
                + ": anomaly review audit, then judge it",
            )
        )
    return rows


def _audited(one: Audited, runs: int) -> list[tuple[str, str]]:
    of = f" in {one.run}" if runs > 1 else ""
    return [
        (f"{ESCAPE}{of}", escape_text(one.escape)),
        (f"{OVERKILL}{of}", overkill_text(one.overkill)),
    ]


def pace_rows(production: Production) -> list[tuple[str, str]]:
    """Returns how long an image takes, of all and of each inspector."""
    return [
        (
            f"seconds an image{f', {pace.name}' if pace.name else ''}",
            f"{pace.median_seconds:.1f} (median of {pace.verdicts:,} verdicts)",
        )
        for pace in production.paces
    ]


def table(production: Production, *kinds: str) -> list[dict[str, object]]:
    """Returns the tallies by some of KINDS as rows of a table."""
    return [
        {**dict(zip(kinds, key, strict=True)), **_cells(tally)}
        for key, tally in production.by(*kinds).items()
    ]


def _cells(tally: Tally) -> dict[str, int]:
    numbers = (
        *(tally.images, tally.flagged, tally.confirmed, tally.false_alarms, tally.undecided),
        *(tally.review, tally.not_judged, tally.looked_at),
    )
    return dict(zip(COLUMNS, numbers, strict=True))


def csv(production: Production) -> str:
    """Returns a row for each day, shift, line and order, with the defect types found."""
    types: dict[tuple[str, ...], str] = {
        (part.day, part.shift, part.line, part.order): "; ".join(
            f"{name or NO_TYPE}: {count}" for name, count in sorted(part.types.items())
        )
        for part in production.parts
    }
    tallies = production.by(*KINDS).items()
    rows: list[list[Value]] = [[*KINDS, *COLUMNS, "defect types"]]
    for key, tally in tallies:
        rows.append([*key, *_cells(tally).values(), types[key] or None])
    return csv_text(rows)


def chart(production: Production, kind: str) -> Drawing:
    """Returns the bars of what was flagged or not judged, by one of KINDS."""
    title = f"Flagged and not judged, by {kind}, {period_text(production.first, production.last)}"
    rows = [_bar(key[0], tally) for key, tally in production.by(kind).items()]
    return bars(title, (CONFIRMED, FALSE_ALARM, UNDECIDED, NOT_JUDGED), rows)


def _bar(name: str, tally: Tally) -> Bar:
    counts = (tally.confirmed, tally.false_alarms, tally.undecided, tally.not_judged)
    return Bar(name, counts, f"{sum(counts):,} of {tally.images:,}")


def pareto(production: Production) -> Drawing:
    """Returns the bars of the defect types, the most frequent first, with the share up to each."""
    types = production.types
    shown = list(types.items())[:MAX_TYPES]
    if rest := sum(types.values()) - sum(count for _, count in shown):
        shown.append((f"{len(types) - MAX_TYPES} other types", rest))
    title = "Defect types of images found anomalous"
    return bars(title, [ONE], list(_pareto_bars(shown)), NARROW)


def _pareto_bars(types: Sequence[tuple[str, int]]) -> Iterator[Bar]:
    total, so_far = sum(count for _, count in types), 0
    for name, count in types:
        so_far += count
        yield Bar(name or NO_TYPE, (count,), f"{count:,}, {percent(so_far / total)} so far")


def production_text(production: Production) -> str:
    """Returns all of it as lines."""
    types = ", ".join(f"{name or NO_TYPE} {n:,}" for name, n in production.types.items())
    return rows_text(
        [
            ("period", period_text(production.first, production.last)),
            *(
                (label, f"{count}{f'   {said}' if said else ''}")
                for label, count, said in tally_rows(production.total)
            ),
            *([("defect types", types)] if types else []),
            *audited_rows(production),
            *pace_rows(production),
            *(("note", note) for note in notes(production)),
        ]
    )


def production_json(production: Production) -> str:
    """Returns all of it for programs."""
    content = {**asdict(production), "total": asdict(production.total)}
    return json.dumps(content, indent=2, default=str)


def production_page(production: Production, recent: Production, kind: str) -> str:
    """Returns one HTML page that stands alone; ``recent``: the days up to this, for the chart."""
    every = [one for one in KINDS if len(production.by(one)) > 1]
    tables = [(one, table(production, one)) for one in every or ["day"]]
    return (
        templates()
        .get_template("production.html")
        .render(
            title=f"How it goes: {period_text(production.first, production.last)}",
            tiles=tally_rows(production.total),
            notes=notes(production),
            charts=[svg(one) for one in _drawn(production, recent, kind)],
            tables=tables,
            audited=audited_rows(production),
            paces=pace_rows(production),
            version=__version__,
        )
    )


def _drawn(production: Production, recent: Production, kind: str) -> list[Drawing]:
    drawn = [chart(production, kind)]
    if recent.first != production.first:
        drawn.append(chart(recent, "day"))
    return [*drawn, *([pareto(production)] if production.types else [])]
