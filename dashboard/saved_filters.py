"""Filters of the queue that were saved under a name, for all who use the review."""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

from anomaly.errors import AnomalyError
from anomaly.review import Filters
from dashboard.access import Person
from dashboard.address import query_for
from dashboard.components import plain
from dashboard.desk import Desk

CHOSEN, NAME = "Saved filters", "Save these filters as"


def saved_filters(
    desk: Desk,
    person: Person,
    filters: Filters,
    queue: str,
    put: Callable[[Filters, str | None], None],
) -> None:
    """Shows the saved filters to choose from, and a field that saves those that are set. ``put``
    sets the fields of the page.
    """
    known = desk.store.saved_filters()

    def follow() -> None:
        name = st.session_state[CHOSEN]
        st.session_state[CHOSEN] = None  # it is a way to go, not a state
        if name in known:
            put(Filters.from_query(known[name]), known[name].get("queue"))

    if known:
        st.selectbox(
            CHOSEN, list(known), index=None, placeholder="Choose", key=CHOSEN, on_change=follow
        )
    if not person.may("inspector"):
        return

    def save() -> None:
        here = query_for(filters, queue)
        here.pop("run", None)  # they are for every run
        try:
            desk.store.save_filters(str(st.session_state[NAME]), here, by=person.name)
            st.session_state[NAME] = ""
        except AnomalyError as error:
            st.error(plain(str(error)))

    def forget() -> None:
        desk.store.forget_filters(str(st.session_state[NAME]).strip())
        st.session_state[NAME] = ""

    name = st.text_input(NAME, key=NAME, max_chars=60)
    st.button("Save", on_click=save, disabled=not name.strip(), width="stretch")
    if name.strip() in known:
        st.button("Remove it", on_click=forget, width="stretch")
