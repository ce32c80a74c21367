"""Live: a station that runs; what it says now can be read from across the hall."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from anomaly.errors import AnomalyError
from dashboard.access import Person
from dashboard.components import live_station, plain
from dashboard.desk import Desk, open_desk


def show(desk: Desk, person: Person) -> None:
    """Shows one station; what happens there needs no further run of this page."""
    folders = [Path(folder) for folder in desk.settings.stations]
    if not folders:
        st.info("No station is shown here: `anomaly review --station STATION.toml`")
        return
    chosen = 0
    if len(folders) > 1:
        names = [f"{folder.name} ({folder.parent})" for folder in folders]
        chosen = st.selectbox(
            "Station",
            range(len(folders)),
            format_func=names.__getitem__,
            bind="query-params",
            key="station",
        )
    live_station({"station": chosen, "token": desk.key.token(person)})


try:
    show(open_desk(), st.session_state["person"])
except AnomalyError as error:
    st.error(plain(str(error)))
