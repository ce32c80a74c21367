"""The frame of all pages: who is there, which page, the menu."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import streamlit as st
from streamlit.delta_generator import DeltaGenerator
from streamlit.navigation.page import StreamlitPage

from dashboard.access import ROLES
from dashboard.address import LINKS, state_here
from dashboard.desk import open_desk
from dashboard.who import name_box, sign_in

ICON = Path(__file__).with_name("icon.svg")
PAGES = {
    "Queue": "views/queue.py",
    "Image": "views/image.py",
    "Threshold": "views/threshold.py",
    "Team": "views/team.py",
    "Drift": "views/drift.py",
    "Runs": "views/runs.py",
    "Calibration": "views/calibration.py",
    "Mask": "views/mask.py",
}
CHOOSING = ("Queue", "Runs")  # pages on which what all share is chosen: their links wait for that
STYLE = """<style>
[data-testid="stHeader"] { height: 2.6rem; min-height: 2.6rem; }
[data-testid="stMainBlockContainer"] { padding: 0.4rem 1rem 0.5rem; max-width: none; }
.st-key-pages { position: sticky; top: 0; z-index: 1000000; margin-left: 2.6rem; min-height: 2.2rem; }
[data-testid="stMain"] [data-testid="stVerticalBlock"] { gap: 0.6rem; }
</style>"""


def main() -> None:
    """Runs the page that the address names."""
    # an icon of our own: Streamlit's would be fetched from another host
    st.set_page_config("Review", str(ICON), layout="wide", initial_sidebar_state="collapsed")
    desk = open_desk()
    st.html(STYLE)
    person = sign_in(desk.settings)
    st.session_state["person"] = person
    pages = [st.Page(file, title=title, url_path=title.lower(), default=title == "Queue") for title, file in PAGES.items()]
    page = st.navigation(pages, position="hidden")
    bar = st.container(horizontal=True, gap="small", key="pages")
    with st.sidebar:
        if desk.settings.login:
            st.caption(f"{person.name}, {person.role}")
            st.button("Log out", on_click=st.logout)
        else:
            name_box(person)
            st.caption(f"Role: {person.role}. Nobody logs in here ({', '.join(ROLES)} come with a login).")
    links = Links(bar, pages)
    if page.title not in CHOOSING:
        links.show(state_here())
    st.session_state[LINKS] = links.show
    try:
        page.run()
    finally:  # a page may stop before anything is chosen on it
        links.show(state_here())


class Links:
    """The links to all pages. Each carries on what all pages share: run, filters, queue and page of the queue."""

    def __init__(self, bar: DeltaGenerator, pages: list[StreamlitPage]) -> None:
        self._bar, self._pages, self._shown = bar, pages, False

    def show(self, state: Mapping[str, str]) -> None:
        """Shows them once in a run of the page."""
        if self._shown:
            return
        self._shown = True
        with self._bar:
            for page in self._pages:
                st.page_link(page, label=page.title, query_params=dict(state))


main()
