"""Queue: which images to look at, in which order; the choice lives in the address."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

import streamlit as st

from anomaly.errors import AnomalyError
from anomaly.review import STATES, Filters
from dashboard.access import Person
from dashboard.address import QUEUE_NAMES, filters_here, query_for, query_here, queue_here, run_here, set_address
from dashboard.components import sheet
from dashboard.desk import Desk, open_desk
from dashboard.findings import rows

A_PAGE = 60
ANY = "any"
STOPPED = {"any": None, "stopped": True, "not stopped": False}


def show(desk: Desk, person: Person) -> None:
    """Shows the filters, how much is left, and a sheet of the findings that they leave."""
    filters, queue = filters_here(desk), queue_here()
    filters, queue = filter_row(desk, filters, queue)
    query = query_for(filters, queue)
    set_address(query)
    st.session_state["address"] = query_here()
    head(desk, person, filters, queue, query)
    findings_sheet(desk, filters, queue, query)


def filter_row(desk: Desk, filters: Filters, queue: str) -> tuple[Filters, str]:
    """Shows one field for each filter and returns what they say now."""
    store = desk.store
    runs = {one.id: one.name for one in store.runs()}
    fresh = st.session_state.get("address") != query_here()  # a link was followed: the address wins over the fields
    columns = iter(st.columns([2.2, 1.8, 1.8, 1.1, 1.4, 1.3, 1.3, 1, 1]))

    def choose(label: str, options: list[Any], value: object, names: dict[Any, str] | None = None) -> Any:
        if fresh or label not in st.session_state or st.session_state[label] not in options:
            st.session_state[label] = value if value in options else options[0]
        said = (lambda option: names[option]) if names else str
        return next(columns).selectbox(label, options, key=label, format_func=said)

    def number(label: str, value: float | None) -> float | None:
        if fresh or label not in st.session_state:
            st.session_state[label] = value
        return next(columns).number_input(label, key=label, value=None, format="%.4g")

    run = choose("Run", list(runs), filters.run, runs)
    queue = choose("Order", list(QUEUE_NAMES), queue, QUEUE_NAMES)
    chosen = Filters(
        run=run,
        folder=_unless_any(choose("Folder", [ANY, *(folder.path for folder in store.folders(run))], filters.folder)),
        flagged=STOPPED[choose("Detector says", list(STOPPED), _name(STOPPED, filters.flagged))],
        status=filters.status,
        state=_unless_any(choose("Verdict", [ANY, "judged", *STATES], filters.state)),
        defect_type=_unless_any(choose("Defect type", [ANY, *(k.name for k in store.defect_types())], filters.defect_type)),
        inspector=_unless_any(choose("Judged by", [ANY, *store.inspectors()], filters.inspector)),
        low=number("Score from", filters.low),
        high=number("to", filters.high),
    )
    return chosen, queue


def _name(names: dict[str, Any], value: object) -> str:
    return next(name for name, one in names.items() if one == value)


def _unless_any(value: str) -> str | None:
    return None if value == ANY else value


def head(desk: Desk, person: Person, filters: Filters, queue: str, query: dict[str, str]) -> None:
    """Shows the run's progress, the way to the review desk and the link."""
    progress = desk.store.progress(run_here(desk, filters).id)
    columns = st.columns([1.3, 1, 1, 1, 1, 3], vertical_alignment="bottom")
    label = "Start judging" if person.may("inspector") else "Look at them"
    if columns[0].button(label, type="primary", icon=":material/play_arrow:", shortcut="Enter", width="stretch"):
        st.switch_page("views/image.py", query_params=query)
    figures = {
        "Images": f"{progress.images:,}",
        "Stopped": f"{progress.flagged:,}",
        "Of these judged": f"{progress.flagged_judged:,}",
        "Audit sample": f"{progress.audit_judged:,} of {progress.audit:,}",
    }
    for column, (name, value) in zip(columns[1:], figures.items(), strict=False):
        column.metric(name, value)
    if progress.not_judged_by_detector:
        columns[5].warning(f"{progress.not_judged_by_detector:,} images could not be judged by the detector: treat them as not OK.")


def findings_sheet(desk: Desk, filters: Filters, queue: str, query: dict[str, str]) -> None:
    """Shows one page of the findings."""
    total = desk.store.count(filters)
    page = st.pagination(max(1, -(-total // A_PAGE)), key="page") if total > A_PAGE else 1
    order = "uncertain" if queue == "uncertain" else "score"
    found = desk.store.findings(filters, order=order, limit=A_PAGE, offset=(page - 1) * A_PAGE)
    if not found:
        st.info("No finding matches these filters.")
        return
    cards = rows(desk, found)
    for card in cards:
        card["href"] = link(query, card["id"])
    opened = sheet(cards)
    if opened is not None:
        st.switch_page("views/image.py", query_params={**query, "finding": str(opened)})


def link(query: dict[str, str], finding: int) -> str:
    """Returns the address of one finding."""
    return "image?" + urlencode({**query, "finding": str(finding)})


try:
    show(open_desk(), st.session_state["person"])
except AnomalyError as error:
    st.error(str(error))
