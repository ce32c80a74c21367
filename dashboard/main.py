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
LIVE = "Live"  # only where stations are shown
PAGES = {
    LIVE: "views/live.py",
    "Queue": "views/queue.py",
    "Image": "views/image.py",
    "Threshold": "views/threshold.py",
    "Team": "views/team.py",
    "Statistics": "views/statistics.py",
    "Drift": "views/drift.py",
    "Runs": "views/runs.py",
    "Calibration": "views/calibration.py",
    "Mask": "views/mask.py",
}
STYLE = """<style>
[data-testid="stHeader"] { height: 2.6rem; min-height: 2.6rem; }
[data-testid="stMainBlockContainer"] { padding: 2.6rem 1rem 0.5rem; max-width: none; }
.st-key-pages {
  position: sticky; top: 0; z-index: 1000000; margin: -2.2rem 0 0 2.6rem; min-height: 2.2rem;
  width: calc(100% - 2.6rem);
}
[data-testid="stMain"] [data-testid="stVerticalBlock"] { gap: 0.6rem; }
[data-testid="stCaptionContainer"] { color: inherit; opacity: 0.8; }
/* where the keyboard is: black within white, which no "chosen" or "current" looks like */
.stApp :is(a, button, summary, input, textarea, [role="tab"], [tabindex="0"]):focus-visible {
  outline: 2px solid #000 !important; outline-offset: 1px; box-shadow: 0 0 0 5px #fff !important;
}
</style>"""


def main() -> None:
    """Runs the page that the address names."""
    # an icon of our own: Streamlit's would be fetched from another host
    st.set_page_config("Review", str(ICON), layout="wide", initial_sidebar_state="collapsed")
    desk = open_desk()
    st.html(STYLE)
    person = sign_in(desk.settings)
    st.session_state["person"] = person
    pages = [
        st.Page(file, title=title, url_path=title.lower(), default=title == "Queue")
        for title, file in PAGES.items()
        if title != LIVE or desk.settings.stations
    ]
    page = st.navigation(pages, position="hidden")
    bar = st.container(horizontal=True, gap="small", key="pages")
    with st.sidebar:
        if desk.settings.login:
            st.caption(f"{person.name}, {person.role}")
            st.button("Log out", on_click=st.logout)
        else:
            name_box(person)
            st.caption(
                f"Role: {person.role}. Nobody logs in here ({', '.join(ROLES)} come with a login)."
            )
    links = Links(bar, pages)
    links.show(state_here())  # before anything can stop the page: nothing can be drawn after that
    st.session_state[LINKS] = links.show
    page.run()


class Links:
    """The links to all pages. Each carries on what all pages share: run, filters, queue and page of
    the queue.
    """

    def __init__(self, bar: DeltaGenerator, pages: list[StreamlitPage]) -> None:
        self._pages = pages
        self._state: dict[str, str] | None = None
        self._places = [bar.empty() for _ in pages]

    def show(self, state: Mapping[str, str]) -> None:
        """Shows them; again, in their places, where another state was chosen on the page."""
        if self._state == dict(state):
            return
        self._state = dict(state)
        for place, page in zip(self._places, self._pages, strict=True):
            place.page_link(page, label=page.title, query_params=dict(state))


main()
