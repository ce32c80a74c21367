"""Statistics: how it goes, by day, shift, line and order, for the morning meeting."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta

import streamlit as st

from anomaly.errors import AnomalyError
from anomaly.reporting import production as say
from anomaly.reporting.bars import png, svg
from anomaly.review import Filters
from anomaly.statistics.tallies import KINDS, Production
from dashboard.access import Person
from dashboard.address import nothing_yet, query_here
from dashboard.components import cells, drawing, plain
from dashboard.desk import Desk, open_desk
from dashboard.exporting import offer_export

DAYS = {1: "1 day", 7: "7 days", 30: "30 days"}


def show(desk: Desk, person: Person) -> None:
    """Shows the period's counts, charts, table and estimates, and offers them as files."""
    newest = desk.store.newest()
    if newest is None:
        nothing_yet()
        return
    columns = st.columns([1.2, 1.8, 2.2, 3], vertical_alignment="bottom")
    last = columns[0].date_input("Last day", desk.plant.calendar.day_of(newest), key="day")
    days = columns[1].segmented_control(
        "Days", list(DAYS), default=7, format_func=DAYS.__getitem__, required=True, key="days"
    )
    kind = columns[2].segmented_control(
        "For each", list(KINDS), default=KINDS[0], format_func=str.capitalize, required=True,
        key="for each",
    )  # fmt: skip
    found = production(desk, last, days)
    files(desk, columns[3].container(horizontal=True), found, kind)
    figures(found)
    left, right = st.columns([1.6, 1], gap="medium")
    with left.container(border=True):
        drawing("chart", svg(say.chart(found, kind)))
    with right.container(border=True):
        if found.types:
            drawing("types", svg(say.pareto(found)))
        else:
            st.caption("No image of this period has been judged anomalous yet.")
        for label, text in (*say.audited_rows(found), *say.pace_rows(found)):
            st.markdown(f"**{plain(label)}:** {plain(text)}")
    rows = say.table(found, kind)
    st.dataframe(cells(rows), hide_index=True, width="stretch")
    offer_export(desk, person, desk.store.runs(), Filters.from_query(query_here()).run)


def production(desk: Desk, last: date, days: int) -> Production:
    """Returns what was counted up to a day."""
    first = last - timedelta(days=days - 1)
    return desk.store.production(first, last, desk.plant.calendar, desk.plant.names)


def figures(found: Production) -> None:
    """Shows the counts of the whole period, and what to know before they are read."""
    rows = say.tally_rows(found.total)
    for column, (label, count, said) in zip(st.columns(len(rows)), rows, strict=True):
        column.metric(label.capitalize(), count, border=True, help=said or None)
    for note in say.notes(found):
        st.warning(plain(note), icon=":material/visibility:")


def files(
    desk: Desk, place: st.delta_generator.DeltaGenerator, found: Production, kind: str
) -> None:
    """Offers the chart, the table and the page; each is made when it is asked for."""
    name = f"statistics-{found.last}"
    offered: dict[str, tuple[Callable[[], str | bytes], str, str]] = {
        "Page": (
            lambda: say.production_page(found, production(desk, found.last, 14), kind),
            "html",
            "text/html",
        ),
        "Chart": (lambda: png(say.chart(found, kind)), "png", "image/png"),
        "Table": (lambda: say.csv(found), "csv", "text/csv"),
    }
    for label, (make, suffix, media) in offered.items():
        place.download_button(
            f"{label} ({suffix.upper()})", make, f"{name}.{suffix}", media, on_click="ignore"
        )


try:
    show(open_desk(), st.session_state["person"])
except AnomalyError as error:
    st.error(plain(str(error)))
