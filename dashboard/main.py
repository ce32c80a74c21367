"""The frame of all pages: who is there, which page, the menu."""

from __future__ import annotations

import streamlit as st

from dashboard.access import ROLES
from dashboard.desk import open_desk
from dashboard.who import name_box, sign_in

PAGES = {
    "Queue": "views/queue.py",
    "Image": "views/image.py",
    "Threshold": "views/threshold.py",
    "Team": "views/team.py",
    "Drift": "views/drift.py",
    "Runs": "views/runs.py",
}
STYLE = """<style>
[data-testid="stHeader"] { height: 2.6rem; min-height: 2.6rem; }
[data-testid="stMainBlockContainer"] { padding: 3rem 1rem 0.5rem; max-width: none; }
[data-testid="stMain"] [data-testid="stVerticalBlock"] { gap: 0.6rem; }
</style>"""


def main() -> None:
    """Runs the page that the address names."""
    st.set_page_config(page_title="Review", page_icon=":material/frame_inspect:", layout="wide", initial_sidebar_state="collapsed")
    desk = open_desk()
    st.html(STYLE)
    person = sign_in(desk.settings)
    st.session_state["person"] = person
    page = st.navigation(
        [st.Page(file, title=title, url_path=title.lower(), default=title == "Queue") for title, file in PAGES.items()],
        position="top",
    )
    with st.sidebar:
        if desk.settings.login:
            st.caption(f"{person.name}, {person.role}")
            st.button("Log out", on_click=st.logout)
        else:
            name_box(person)
            st.caption(f"Role: {person.role}. Nobody logs in here ({', '.join(ROLES)} come with a login).")
    page.run()


main()
