"""Queue: which images to look at, in which order; the choice lives in the address."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar
from urllib.parse import urlencode

import streamlit as st

from anomaly.errors import AnomalyError
from anomaly.review import STATES, Filters, Progress
from dashboard.access import Person
from dashboard.address import (
    QUEUE_NAMES,
    filters_here,
    page_here,
    query_for,
    query_here,
    queue_here,
    run_here,
    set_address,
)
from dashboard.components import plain, sheet
from dashboard.desk import Desk, open_desk
from dashboard.findings import roots, rows, short_path, who_judges

Option = TypeVar("Option", int, str)

A_PAGE = 60
LOOK_SECONDS = 2.0  # between two looks for new findings
PAGE = "page of the queue"
ANY = "any"
DETECTOR_SAYS = {  # result, status
    "any": (None, None),
    "flagged": ("flagged", None),
    "review": ("review", None),
    "not flagged": ("not flagged", None),
    "unlike the training images": (None, "outside"),
    "not readable": (None, "error"),
}


def show(desk: Desk, person: Person) -> None:
    """Shows the filters, how much is left, and a sheet of the findings that they leave."""
    asked = filters_here(desk, newest=True), queue_here()
    # a link was followed: the address wins over the fields
    fresh = st.session_state.get("address") != query_here()
    filters, queue = filter_row(desk, *asked, fresh)
    pages = max(1, -(-desk.store.count(filters) // A_PAGE))
    if fresh or PAGE not in st.session_state:
        st.session_state[PAGE] = page_here()
    if (filters, queue) != asked:
        st.session_state[PAGE] = 1
    page = st.session_state[PAGE] = min(st.session_state[PAGE], pages)
    query = query_for(filters, queue, **({"page": str(page)} if page > 1 else {}))
    set_address(query)
    st.session_state["address"] = query_here()
    head(desk, person, filters, queue, query)
    if pages > 1:
        st.pagination(pages, key=PAGE)
    findings_sheet(desk, person, filters, queue, query, page)
    look_again(desk, filters.run or 0, grown(desk, filters.run or 0))


def grown(desk: Desk, run: int) -> tuple[int, ...]:
    """Returns what changes when a service or a station stores findings: how many runs there are,
    and how many findings the run shown has.
    """
    shown = desk.store.run(run)
    needs = (shown.flagged, shown.review, shown.not_judged)
    return len(desk.store.runs()), *needs, desk.store.count(Filters(run=run))


@st.fragment(run_every=LOOK_SECONDS)
def look_again(desk: Desk, run: int, before: tuple[int, ...]) -> None:
    """Runs the page again once new findings are there; what a person chose stays."""
    if grown(desk, run) != before:
        st.rerun()


class Fields:
    """The fields of the filters side by side; ``fresh``: they say what the address says."""

    def __init__(self, widths: Sequence[float], fresh: bool) -> None:
        self._columns, self._fresh = iter(st.columns(widths)), fresh

    def choice(
        self,
        label: str,
        offered: list[Option],
        value: Option | None,
        names: dict[Option, str] | None = None,
    ) -> Option:
        """Shows the next field, one to choose from, and returns what it says."""
        state = st.session_state
        if self._fresh or label not in state or state[label] not in offered:
            state[label] = value if value in offered else offered[0]
        said = (lambda option: names[option]) if names else str
        return next(self._columns).selectbox(label, offered, key=label, format_func=said)

    def choice_or_any(self, label: str, known: Iterable[str], value: str | None) -> str | None:
        """Shows the next field, which offers any beside what is known; None: any."""
        return _unless_any(self.choice(label, options(known, value), value))

    def number(self, label: str, value: float | None) -> float | None:
        """Shows the next field, a number or nothing, and returns what it says."""
        if self._fresh or label not in st.session_state:
            st.session_state[label] = value
        return next(self._columns).number_input(label, key=label, value=None, format="%.4g")


def filter_row(desk: Desk, filters: Filters, queue: str, fresh: bool) -> tuple[Filters, str]:
    """Shows one field for each filter and returns what they say now; ``fresh``: what the address
    says.
    """
    store, fields = desk.store, Fields([2.2, 1.8, 1.8, 1.1, 1.4, 1.3, 1.3, 1, 1], fresh)
    runs = {one.id: one.name for one in store.runs()}
    run = fields.choice("Run", list(runs), filters.run, runs)
    queue = fields.choice("Order", list(QUEUE_NAMES), queue, QUEUE_NAMES)
    folder = fields.choice("Folder", *folder_options(desk, run, filters))
    said = fields.choice("Detector says", list(DETECTOR_SAYS), detector_said(filters))
    defect_types = (one.name for one in store.defect_types())
    chosen = Filters(
        run=run,
        folder=_unless_any(folder),
        result=DETECTOR_SAYS[said][0],
        status=DETECTOR_SAYS[said][1],
        state=_unless_any(fields.choice("Verdict", [ANY, "judged", *STATES], filters.state)),
        defect_type=fields.choice_or_any("Defect type", defect_types, filters.defect_type),
        inspector=fields.choice_or_any("Judged by", store.inspectors(), filters.inspector),
        low=fields.number("Score from", filters.low),
        high=fields.number("to", filters.high),
    )
    return chosen, queue


def options(known: Iterable[str], chosen: str | None) -> list[str]:
    """Returns what a field offers; what a link asks for too, so that it is never left out without a
    word.
    """
    offered = [ANY, *known]
    return offered if chosen is None or chosen in offered else [*offered, chosen]


def folder_options(
    desk: Desk, run: int, filters: Filters
) -> tuple[list[str], str | None, dict[str, str]]:
    """Returns the folders that the field offers, the chosen one, and how they are called."""
    offered = options((folder.path for folder in desk.store.folders(run)), filters.folder)
    inside = roots(desk, run)
    return offered, filters.folder, {path: short_path(path, inside) for path in offered}


def detector_said(filters: Filters) -> str:
    """Returns the name of what the filters want of the detector's verdict."""
    wanted = (filters.result, filters.status)
    return next((name for name, one in DETECTOR_SAYS.items() if one == wanted), ANY)


def _unless_any(value: str) -> str | None:
    return None if value == ANY else value


def head(desk: Desk, person: Person, filters: Filters, queue: str, query: dict[str, str]) -> None:
    """Shows the run's progress, the way to the review desk and the link."""
    progress = desk.store.progress(run_here(desk, filters).id)
    shares = [1.3, *[1] * (5 if progress.review else 4), 3]
    columns = st.columns(shares, vertical_alignment="bottom")
    label = "Start judging" if person.may("inspector") else "Look at them"
    if columns[0].button(
        label, type="primary", icon=":material/play_arrow:", shortcut="Enter", width="stretch"
    ):
        st.switch_page("views/image.py", query_params=query)
    figures = {
        "Images": f"{progress.images:,}",
        "Flagged": f"{progress.flagged:,}",
        "Of these judged": f"{progress.flagged_judged:,}",
        **review_figures(progress),
        "Audit sample": f"{progress.audit_judged:,} of {progress.audit:,}",
    }
    for column, (name, value) in zip(columns[1:], figures.items(), strict=False):
        column.metric(name, value)
    if progress.not_judged_by_detector:
        columns[-1].warning(
            f"{progress.not_judged_by_detector:,} images could not be judged by the detector: "
            "treat them as not OK."
        )

    units, flagged = desk.store.units(filters.run or 0)
    if units:
        st.caption(
            f"{flagged:,} of {units:,} units have a view above the threshold, which flags the "
            "unit: the rate is per unit. Image shows a view with the other views of its unit."
        )


def review_figures(progress: Progress) -> dict[str, str]:
    """Returns how many images are for review, where there are any."""
    if not progress.review:
        return {}
    return {"For review, judged": f"{progress.review_judged:,} of {progress.review:,}"}


def findings_sheet(
    desk: Desk, person: Person, filters: Filters, queue: str, query: dict[str, str], page: int
) -> None:
    """Shows one page of the findings."""
    order = "uncertain" if queue == "uncertain" else "score"
    found = desk.store.findings(filters, order=order, limit=A_PAGE, offset=(page - 1) * A_PAGE)
    if not found:
        st.info("No finding matches these filters.")
        return
    cards = rows(desk, found)
    for card in cards:
        card["href"] = link(query, card["id"])
    types = [{"name": kind.name} for kind in desk.store.defect_types()]
    opened = sheet({"rows": cards, "types": types, **who_judges(desk, person)})
    if opened is not None:
        st.switch_page("views/image.py", query_params={**query, "finding": str(opened)})


def link(query: dict[str, str], finding: int) -> str:
    """Returns the address of one finding."""
    return "image?" + urlencode({**query, "finding": str(finding)})


try:
    show(open_desk(), st.session_state["person"])
except AnomalyError as error:
    st.error(plain(str(error)))
