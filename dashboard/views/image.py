"""Image: one finding at a time, large, judged by one key."""

from __future__ import annotations

import streamlit as st

from anomaly.errors import AnomalyError
from dashboard.access import Person
from dashboard.address import filters_here, queue_here, run_here, said
from dashboard.components import viewer
from dashboard.desk import Desk, open_desk


def show(desk: Desk, person: Person) -> None:
    """Shows the review desk; what happens in it needs no further run of this page."""
    filters, queue = filters_here(desk), queue_here()
    finding = st.query_params.get("finding", "")
    viewer(
        {
            "token": desk.key.token(person),
            "user": person.name,
            "mayJudge": person.may("inspector"),
            "filters": filters.to_query(),
            "order": queue,
            "said": f"{run_here(desk, filters).name} / {said(filters, queue)}",
            "finding": int(finding) if finding.isdecimal() and len(finding) < 19 else None,
            "types": [{"name": kind.name, "colour": kind.colour} for kind in desk.store.defect_types()],
        }
    )


try:
    show(open_desk(), st.session_state["person"])
except AnomalyError as error:
    st.error(str(error))
