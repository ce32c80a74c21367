"""The address of a page: filters and queue live there, so that a link shows a colleague the same
thing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import streamlit as st

from anomaly.review import QUEUES, Filters, Run
from dashboard.components import plain
from dashboard.desk import Desk

LINKS = "show the links"
QUEUE_NAMES = {
    "anomalous": "Most anomalous first",
    "uncertain": "Nearest the threshold first",
    "audit": "Audit sample",
    "second": "Second opinion",
}


def filters_here(desk: Desk, newest: bool = False) -> Filters:
    """Returns the filters of the address, with the newest run where it names none; without any run
    the page ends here.

    It ends too where the address names a run that is not there: another one must not be taken for
    it. ``newest``: then that is said, and the newest run is shown.
    """
    filters = Filters.from_query(query_here())
    runs = desk.store.runs()
    if not runs:
        nothing_yet()
        st.stop()
    if filters.run in {run.id for run in runs}:
        return filters
    asked = st.query_params.get("run")
    if asked is not None:
        said = f"The run {asked[:40]!r} that the address names is not in this review database"
        st.warning(plain(f"{said}: this is the newest one." if newest else f"{said}."))
        if not newest:
            st.page_link(
                "views/queue.py",
                label="Choose a run in Queue",
                icon=":material/arrow_back:",
                query_params={},
            )
            st.stop()
    return replace(filters, run=runs[0].id)


def nothing_yet() -> None:
    """Says that the database has no run, and how one comes into it."""
    st.info(
        "Nothing to review yet. Score images into this database: `anomaly score RUN IMAGES --out "
        "scores.csv --review DATABASE`"
    )


def run_here(desk: Desk, filters: Filters) -> Run:
    """Returns the run that the filters name."""
    if filters.run is None:
        raise ValueError("filters_here always names a run")
    return desk.store.run(filters.run)


def queue_here() -> str:
    """Returns the queue of the address."""
    name = st.query_params.get("queue", "")
    return name if name in QUEUES else QUEUES[0]


def page_here() -> int:
    """Returns the page of the queue that the address names, 1 where it names none."""
    text = st.query_params.get("page", "")
    return (
        int(text) if text.isascii() and text.isdecimal() and 0 < len(text) < 7 and int(text) else 1
    )


def state_here(query: Mapping[str, str] | None = None) -> dict[str, str]:
    """Returns what all pages share: run, filters, queue and page of the queue, of the address or of
    other parameters.
    """
    here = query_here() if query is None else query
    return {
        **Filters.from_query(here).to_query(),
        **{name: here[name] for name in ("queue", "page") if here.get(name)},
    }


def query_here() -> dict[str, str]:
    """Returns the address's parameters, one value each."""
    return {name: st.query_params[name] for name in st.query_params}


def query_for(filters: Filters, queue: str, **more: str) -> dict[str, str]:
    """Returns the parameters that lead to the same findings on any page."""
    chosen = {} if queue == QUEUES[0] else {"queue": queue}
    return {**filters.to_query(), **chosen, **more}


def set_address(query: Mapping[str, str]) -> None:
    """Puts parameters into the address, if they are others than are there, and before that into the
    links to all pages.
    """
    # who follows one as soon as the address has changed must not act on another run
    if LINKS in st.session_state:
        st.session_state[LINKS](state_here(query))
    if query_here() != dict(query):
        st.query_params.from_dict(dict(query))


def said(filters: Filters, queue: str) -> str:
    """Returns the filters in words, for a page's head."""
    result = None if filters.result is None else f"{filters.result} only"
    scores = None
    if filters.low is not None or filters.high is not None:
        low = "" if filters.low is None else f"from {filters.low:.4g}"
        high = "" if filters.high is None else f"to {filters.high:.4g}"
        scores = f"score {low} {high}".replace("  ", " ").strip()
    parts = [
        filters.folder,
        result,
        filters.status,
        scores,
        filters.state,
        filters.defect_type,
        filters.inspector,
        None if filters.find is None else f'"{filters.find}"',
        None if filters.like is None else f"like image {filters.like}",
    ]
    return " / ".join([QUEUE_NAMES[queue], *(part for part in parts if part)])
