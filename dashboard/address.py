"""The address of a page: filters and queue live there, so that a link shows a colleague the same thing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import streamlit as st

from anomaly.review import QUEUES, Filters, Run
from dashboard.desk import Desk

QUEUE_NAMES = {
    "anomalous": "Most anomalous first",
    "uncertain": "Nearest the limit first",
    "audit": "Audit sample",
    "second": "Second opinion",
}


def filters_here(desk: Desk) -> Filters:
    """Returns the filters of the address, with the newest run where it names none; without any run the page ends here."""
    filters = Filters.from_query(query_here())
    runs = desk.store.runs()
    if not runs:
        st.info(
            "Nothing to review yet. Score images into this database: "
            "`anomaly score RUN IMAGES --out scores.csv --review DATABASE`"
        )
        st.stop()
    known = {run.id for run in runs}
    return filters if filters.run in known else replace(filters, run=runs[0].id)


def run_here(desk: Desk, filters: Filters) -> Run:
    """Returns the run that the filters name."""
    if filters.run is None:
        raise ValueError("filters_here always names a run")
    return desk.store.run(filters.run)


def queue_here() -> str:
    """Returns the queue of the address."""
    name = st.query_params.get("queue", "")
    return name if name in QUEUES else QUEUES[0]


def query_here() -> dict[str, str]:
    """Returns the address's parameters, one value each."""
    return {name: st.query_params[name] for name in st.query_params}


def query_for(filters: Filters, queue: str, **more: str) -> dict[str, str]:
    """Returns the parameters that lead to the same findings on any page."""
    chosen = {} if queue == QUEUES[0] else {"queue": queue}
    return {**filters.to_query(), **chosen, **more}


def set_address(query: Mapping[str, str]) -> None:
    """Puts parameters into the address, if they are others than are there."""
    if query_here() != dict(query):
        st.query_params.from_dict(dict(query))


def said(filters: Filters, queue: str) -> str:
    """Returns the filters in words, for a page's head."""
    flagged = {True: "stopped only", False: "not stopped only", None: None}[filters.flagged]
    scores = None
    if filters.low is not None or filters.high is not None:
        low = "" if filters.low is None else f"from {filters.low:.4g}"
        high = "" if filters.high is None else f"to {filters.high:.4g}"
        scores = f"score {low} {high}".replace("  ", " ").strip()
    parts = [filters.folder, flagged, filters.status, scores, filters.state, filters.defect_type, filters.inspector]
    return " / ".join([QUEUE_NAMES[queue], *(part for part in parts if part)])
