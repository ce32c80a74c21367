"""Who is in front of the page: by login where there is one, else by the name that this browser was
told.
"""

from __future__ import annotations

from urllib.parse import unquote

import streamlit as st

from dashboard.access import AccessError, Person, clean_name, role_of
from dashboard.components import remember
from dashboard.settings import Settings, user_of_machine

COOKIE = "review_inspector"


def sign_in(settings: Settings) -> Person:
    """Returns who uses this page; where somebody has to log in first, or may not come in, the page
    ends here.
    """
    return logged_in(settings) if settings.login else named(settings)


def logged_in(settings: Settings) -> Person:
    """Returns who has logged in with the provider, with the role that the roles file gives."""
    if not st.user.get("is_logged_in"):
        st.title("Review")
        st.write("Log in to see the findings and to judge them.")
        st.button("Log in", on_click=st.login, type="primary")
        st.stop()
    email = str(st.user.get("email") or "")
    try:
        if not email or st.user.get("email_verified") is False:
            raise AccessError(
                403, "the provider does not vouch for an e-mail address of yours: ask an admin"
            )
        return Person(email.strip().lower(), role_of(email, settings.roles or {}))
    except AccessError as error:
        st.error(str(error))
        st.button("Log out", on_click=st.logout)
        st.stop()


def named(settings: Settings) -> Person:
    """Returns the name typed into this browser; without one that of the machine's user."""
    typed = st.session_state.get("inspector")
    name = clean_name(typed if typed is not None else unquote(st.context.cookies.get(COOKIE, "")))
    return Person(name or user_of_machine(), settings.open_role)


def name_box(person: Person) -> None:
    """Shows who it is, and where nobody logs in a field to change it: the next shift at the same
    machine.
    """
    typed = st.text_input(
        "Inspector",
        person.name,
        key="inspector",
        help="Your verdicts carry this name.",
        max_chars=80,
    )
    known = unquote(st.context.cookies.get(COOKIE, "")) or user_of_machine()
    if clean_name(typed) == person.name and (person.name != known or "renamed" in st.session_state):
        st.session_state["renamed"] = True
        remember(COOKIE, person.name)
