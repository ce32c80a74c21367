"""Image: one finding at a time, large, judged by one key."""

from __future__ import annotations

import streamlit as st

from anomaly.errors import AnomalyError
from dashboard.access import Person
from dashboard.address import filters_here, queue_here, run_here, said
from dashboard.components import plain, viewer
from dashboard.desk import Desk, open_desk
from dashboard.findings import who_judges


def show(desk: Desk, person: Person) -> None:
    """Shows the review desk; what happens in it needs no further run of this page."""
    filters, queue = filters_here(desk), queue_here()
    finding, gone = finding_named(desk, st.query_params.get("finding"))
    viewer(
        {
            **who_judges(desk, person),
            "filters": filters.to_query(),
            "order": queue,
            "said": f"{run_here(desk, filters).name} / {said(filters, queue)}",
            "finding": finding,
            "gone": gone,
            "types": [
                {"name": kind.name, "colour": kind.colour} for kind in desk.store.defect_types()
            ],
        }
    )


def finding_named(desk: Desk, said: str | None) -> tuple[int | None, str]:
    """Returns the finding that the address names, or why it is not shown; (None, "") where it names
    none.
    """
    if said is None:
        return None, ""
    if not (said.isascii() and said.isdecimal() and len(said) < 19):
        return (
            None,
            f"The address names the image {said[:40]!r}, which is no number: no image is shown.",
        )
    try:
        return desk.store.finding(int(said)).id, ""
    except AnomalyError:
        return None, f"Image {int(said)} is not in this review database: no image is shown."


try:
    show(open_desk(), st.session_state["person"])
except AnomalyError as error:
    st.error(plain(str(error)))
