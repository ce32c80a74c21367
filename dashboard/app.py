"""The server: Streamlit's pages and our routes in one process. `anomaly review` starts it."""

from __future__ import annotations

import os
import signal
import threading

import streamlit as st
from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from anomaly.serve.unread import CloseUnread
from dashboard.desk import open_desk
from dashboard.routes import review_routes
from dashboard.settings import PREFIX

HEADERS = {
    "Referrer-Policy": "no-referrer",  # the address holds filters, links are signed
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",  # no other site may put the buttons under the inspector's hand
    "Cross-Origin-Resource-Policy": "same-origin",
    # what a page may load and talk to is this server alone, whatever text finds its way into it
    "Content-Security-Policy": (
        "img-src 'self' data: blob:; connect-src 'self' data: blob:; font-src 'self' data:; "
        "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
    ),
}


class SafeHeaders:
    """Adds the headers that keep other sites out to every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        await self.app(scope, receive, send_with_headers)


def end_with_the_command() -> None:
    """Ends this server when the command that started it is gone, killed too: our standard input is
    at its end then.
    """
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if os.environ.get(f"{PREFIX}FOLLOWS"):
    threading.Thread(target=end_with_the_command, daemon=True).start()

app = st.App(
    "main.py",
    routes=review_routes(open_desk),
    middleware=[
        Middleware(CloseUnread),
        Middleware(SafeHeaders),
        Middleware(
            TrustedHostMiddleware,
            allowed_hosts=list(open_desk().settings.hosts),
            www_redirect=False,
        ),
    ],
)
