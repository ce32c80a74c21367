"""`anomaly review report`: how it goes, as text, a page for the morning meeting, a chart, a
table.
"""

from __future__ import annotations

import argparse
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from anomaly.commands.arguments import command
from anomaly.errors import AnomalyError
from anomaly.reporting.lines import line_of

SUFFIXES = (".html", ".csv", ".png", ".json")
RECENT_DAYS = 14  # on the page's chart of days


def add_report(actions: Any) -> argparse.ArgumentParser:
    """Adds `review report` to the actions of `review`."""
    p = command(
        actions,
        "report",
        run_report,
        "how it goes: a day's counts, defect types and estimates, also for cron",
        "anomaly review report --day yesterday --out yesterday.html",
        "flagged, confirmed, false alarms and not judged by shift, line and order; defect types; "
        "escape and overkill from the audit sample; time per image",
    )
    p.add_argument(
        "--day",
        default="today",
        metavar="DAY",
        help="YYYY-MM-DD, today or yesterday (the last day)",
    )
    p.add_argument("--days", type=int, default=1, metavar="N", help="so many days up to DAY")
    p.add_argument(
        "--by",
        choices=("day", "shift", "line", "order"),
        help="bars of the chart (default: shift, of several days day)",
    )
    p.add_argument(
        "--out", type=Path, metavar="FILE", help=f"{', '.join(SUFFIXES)}; replaces what is there"
    )
    p.add_argument(  # no default: it would replace what was given before the action
        "--plant", type=Path, default=argparse.SUPPRESS, metavar="TOML",
        help="shifts, names of lines and orders",
    )  # fmt: skip
    return p


def run_report(options: argparse.Namespace) -> None:
    from anomaly.files.atomic import whole_file
    from anomaly.plant.settings import read_plant
    from anomaly.reporting import production as say
    from anomaly.reporting.bars import png
    from anomaly.review import Store
    from anomaly.review.shifts import MAX_DAYS

    if options.out is not None and options.out.suffix.lower() not in SUFFIXES:
        raise AnomalyError(
            f"{options.out}: {options.out.suffix or 'no suffix'} found, one of "
            f"{', '.join(SUFFIXES)} expected"
        )
    plant = read_plant(options.plant)
    last = day_named(options.day, plant.calendar.today())
    if not 1 <= options.days <= MAX_DAYS:
        raise AnomalyError(f"--days {options.days} found, 1 to {MAX_DAYS} expected")
    first = last - timedelta(days=options.days - 1)
    with Store(options.db, create=False) as store:
        found = store.production(first, last, plant.calendar, plant.names)
        early = min(first, last - timedelta(days=RECENT_DAYS - 1))
        recent = store.production(early, last, plant.calendar, plant.names)
    if options.out is None:
        print(say.production_text(found))
        return
    by = options.by or ("shift" if options.days == 1 else "day")
    data = {
        ".html": lambda: say.production_page(found, recent, by).encode(),
        ".csv": lambda: say.csv(found).encode("utf-8", "surrogateescape"),
        ".png": lambda: png(say.chart(found, by)),
        ".json": lambda: say.production_json(found).encode(),
    }[options.out.suffix.lower()]()
    with whole_file(options.out) as file:
        file.write(data)
    print(line_of("written", options.out))


def day_named(text: str, today: date) -> date:
    """Returns the day that YYYY-MM-DD, ``today`` or ``yesterday`` names."""
    named = {"today": today, "yesterday": today - timedelta(days=1)}
    try:
        return named.get(text) or date.fromisoformat(text)
    except ValueError as error:
        raise AnomalyError(
            f"--day {text!r} found, YYYY-MM-DD, today or yesterday expected"
        ) from error
