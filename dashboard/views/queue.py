"""Queue: which images to look at, in which order; the choice lives in the address."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlencode

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from anomaly.errors import AnomalyError
from anomaly.review import STATES, Filters, Finding, Progress
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
from dashboard.saved_filters import saved_filters

Option = TypeVar("Option", int, str)

A_PAGE = 60
LOOK_SECONDS = 2.0  # between two looks for new findings
PAGE = "page of the queue"
SELECTED = "selected"  # in the address: what is selected in the sheet, which writes it itself
ANY = "any"
DETECTOR_SAYS = {  # result, status
    "any": (None, None),
    "flagged": ("flagged", None),
    "review": ("review", None),
    "not flagged": ("not flagged", None),
    "unlike the training images": (None, "outside"),
    "not judged": ("not judged", None),
    "not readable": (None, "error"),
}
# The fields of the filters, and what they say where nothing is chosen.
NONE_CHOSEN: dict[str, str | None] = {
    **dict.fromkeys(("Verdict", "Folder", "Detector says", "Defect type", "Judged by"), ANY),
    **dict.fromkeys(("Score from", "to", "Similar to image")),
    "Find": "",
}
BAR = "#1a5ecb"


def show(desk: Desk, person: Person) -> None:
    """Shows the filters, how much is left, and a sheet of the findings that they leave."""
    asked = filters_here(desk, newest=True), queue_here()
    # a link was followed: the address wins over the fields
    fresh = st.session_state.get("address") != query_here()
    filters, queue = filter_row(desk, person, *asked, fresh)
    pages = max(1, -(-desk.store.count(filters) // A_PAGE))
    if fresh or PAGE not in st.session_state:
        st.session_state[PAGE] = page_here()
    if (filters, queue) != asked:
        st.session_state[PAGE] = 1
    page = st.session_state[PAGE] = min(st.session_state[PAGE], pages)
    query = query_for(filters, queue, **({"page": str(page)} if page > 1 else {}))
    selected = query_here().get(SELECTED) if (filters, queue, page) == (*asked, page_here()) else ""
    set_address({**query, SELECTED: selected} if selected else query)
    st.session_state["address"] = query_here()
    head(desk, person, filters, query)
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
    """The fields of the filters, each in its place; ``fresh``: they say what the address says."""

    def __init__(self, places: Sequence[DeltaGenerator], fresh: bool) -> None:
        self._places, self._fresh = iter(places), fresh

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
        return next(self._places).selectbox(label, offered, key=label, format_func=said)

    def choice_or_any(self, label: str, known: Iterable[str], value: str | None) -> str | None:
        """Shows the next field, which offers any beside what is known; None: any."""
        return _unless_any(self.choice(label, options(known, value), value))

    def text(self, label: str, value: str | None, hint: str) -> str | None:
        """Shows the next field, words to search for, and returns them."""
        if self._fresh or label not in st.session_state:
            st.session_state[label] = value or ""
        said = next(self._places).text_input(label, key=label, placeholder=hint, max_chars=200)
        return said.strip() or None

    def whole(self, label: str, value: int | None) -> int | None:
        """Shows the next field, a whole number or nothing, and returns what it says."""
        if self._fresh or label not in st.session_state:
            st.session_state[label] = value
        return next(self._places).number_input(label, key=label, value=None, step=1, min_value=0)

    def number(self, label: str, value: float | None) -> float | None:
        """Shows the next field, a number or nothing, and returns what it says."""
        if self._fresh or label not in st.session_state:
            st.session_state[label] = value
        return next(self._places).number_input(label, key=label, value=None, format="%.4g")


def filter_row(
    desk: Desk, person: Person, filters: Filters, queue: str, fresh: bool
) -> tuple[Filters, str]:
    """Shows one field for each filter, most of them behind More, and returns what they say now;
    ``fresh``: what the address says.
    """
    columns = st.columns([2.2, 1.8, 1.5, 2, 0.9, 3], vertical_alignment="bottom")
    more = columns[4].popover("More", width="stretch", help="Folder, score, type, inspector, saved")
    saved = more.container()
    fields = Fields([*columns[:4], *[more] * 7], fresh)
    runs = {one.id: one.name for one in desk.store.runs()}
    run = fields.choice("Run", list(runs), filters.run, runs)
    queue = fields.choice("Order", list(QUEUE_NAMES), queue, QUEUE_NAMES)
    state = _unless_any(fields.choice("Verdict", [ANY, "judged", *STATES], filters.state))
    find = fields.text("Find", filters.find, "name, serial number, comment, type")
    chosen = replace(behind_more(desk, fields, filters, run), run=run, state=state, find=find)
    with saved:
        saved_filters(desk, person, chosen, queue, put)
    with columns[5].container(horizontal=True, gap="small"):
        chips()
    return chosen, queue


def behind_more(desk: Desk, fields: Fields, filters: Filters, run: int) -> Filters:
    """Shows the fields of the filters behind More, and returns what they say."""
    folder = fields.choice("Folder", *folder_options(desk, run, filters))
    said = fields.choice("Detector says", list(DETECTOR_SAYS), detector_said(filters))
    defect_types = (one.name for one in desk.store.defect_types())
    return Filters(
        folder=_unless_any(folder),
        result=DETECTOR_SAYS[said][0],
        status=DETECTOR_SAYS[said][1],
        defect_type=fields.choice_or_any("Defect type", defect_types, filters.defect_type),
        inspector=fields.choice_or_any("Judged by", desk.store.inspectors(), filters.inspector),
        low=fields.number("Score from", filters.low),
        high=fields.number("to", filters.high),
        like=fields.whole("Similar to image", filters.like),
    )


def put(filters: Filters, queue: str | None) -> None:
    """Sets all fields but the run, before the page runs again."""
    values = {
        "Order": queue if queue in QUEUE_NAMES else next(iter(QUEUE_NAMES)),
        "Verdict": filters.state or ANY,
        "Folder": filters.folder or ANY,
        "Detector says": detector_said(filters),
        "Defect type": filters.defect_type or ANY,
        "Judged by": filters.inspector or ANY,
        "Score from": filters.low,
        "to": filters.high,
        "Find": filters.find or "",
        "Similar to image": filters.like,
    }
    st.session_state.update(values)


def chips() -> None:
    """Shows the filters that are set, each with a press that takes it away."""
    for label, none in NONE_CHOSEN.items():
        value = st.session_state[label]
        if value != none:
            text = f"{value:.4g}" if isinstance(value, float) else str(value)
            shown = plain(f"{label} {Path(text).name if label == 'Folder' else text}")
            st.button(
                shown,
                key=f"without {label}",
                icon=":material/close:",
                icon_position="right",
                help=f"Remove this filter: {plain(text)}",
                on_click=st.session_state.update,
                args=({label: none},),
            )


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


def head(desk: Desk, person: Person, filters: Filters, query: dict[str, str]) -> None:
    """Shows the way to the review desk and how much of the run is done."""
    progress = desk.store.progress(run_here(desk, filters).id)
    columns = st.columns([1.3, 6], vertical_alignment="center")
    label = "Start judging" if person.may("inspector") else "Look at them"
    # not a primary one: its key would be pale on the colour
    if columns[0].button(label, icon=":material/play_arrow:", shortcut="Enter", width="stretch"):
        st.switch_page("views/image.py", query_params=query)
    done, wanted, said = how_far(progress)
    # Streamlit's own bar has no name that a screen reader could say
    columns[1].html(
        f'<label style="display: block">{said}<progress value="{done}" max="{max(1, wanted)}" '
        f'style="display: block; width: 100%; accent-color: {BAR}"></progress></label>'
    )
    units, flagged = desk.store.units(filters.run or 0)
    if units:
        st.caption(
            f"{flagged:,} of {units:,} units have a view above the threshold, which flags the "
            "unit: the rate is per unit. Image shows a view with the other views of its unit."
        )


def how_far(progress: Progress) -> tuple[int, int, str]:
    """Returns how many of the images that want a person are done, of how many, and that in
    words.
    """
    counts = [
        (progress.flagged_judged, progress.flagged, "flagged"),
        (progress.review_judged, progress.review, "for review"),
        (progress.not_judged_done, progress.not_judged_by_detector, "not judged"),
    ]
    said = [f"{done:,} of {all_of:,} {what}" for done, all_of, what in counts if all_of]
    listed = " and ".join([", ".join(said[:-1]), said[-1]] if said[1:] else said)
    audit = f"; {progress.audit_judged:,} of {progress.audit:,} of the audit sample"
    words = f"{listed} are done" if said else "Nothing was flagged"
    total = f" ({progress.images:,} images)"
    sums = sum(done for done, *_ in counts), sum(all_of for _, all_of, _ in counts)
    return *sums, f"{words}{audit if progress.audit else ''}{total}"


def findings_sheet(
    desk: Desk, person: Person, filters: Filters, queue: str, query: dict[str, str], page: int
) -> None:
    """Shows one page of the findings; those that were not judged come first, apart."""
    order = "uncertain" if queue == "uncertain" else "score"
    found = desk.store.findings(filters, order=order, limit=A_PAGE, offset=(page - 1) * A_PAGE)
    if not found:
        nothing_found(filters)
        return
    cards = rows(desk, [*not_judged(desk, filters, page), *found])
    shown = {card["id"]: {**card, "href": link(query, card["id"])} for card in cards}
    types = [{"name": kind.name} for kind in desk.store.defect_types()]
    opened = sheet({"rows": [*shown.values()], "types": types, **who_judges(desk, person)})
    if opened is not None:
        st.switch_page("views/image.py", query_params={**query, "finding": str(opened)})


def not_judged(desk: Desk, filters: Filters, page: int) -> list[Finding]:
    """Returns what the first page shows above all others: nothing has inspected these."""
    if page > 1 or filters.result or filters.status:
        return []
    return desk.store.findings(replace(filters, result="not judged"), limit=A_PAGE)


def nothing_found(filters: Filters) -> None:
    """Says why there is nothing, and what to do next."""
    if filters.state == "open" and replace(filters, state=None) == Filters(run=filters.run):
        st.success(
            "All of this run is judged. Next: another run, or an audit sample (page Team), which "
            "shows what the detector missed."
        )
        return
    st.info("No finding matches these filters.")
    st.button(
        "Remove all filters",
        type="primary",
        on_click=st.session_state.update,
        args=(dict(NONE_CHOSEN),),
    )


def link(query: dict[str, str], finding: int) -> str:
    """Returns the address of one finding."""
    return "image?" + urlencode({**query, "finding": str(finding)})


try:
    show(open_desk(), st.session_state["person"])
except AnomalyError as error:
    st.error(plain(str(error)))
