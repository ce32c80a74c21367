"""Streamlit's own command, with limits on what a connection may cost: `python -m dashboard.server
run app.py ...`.

Streamlit starts uvicorn itself and offers no choice of its protocol, but uvicorn looks up by name
what it takes for "auto".
"""

from __future__ import annotations

import functools
import logging

import uvicorn.config
from streamlit.web.cli import main

from anomaly.serve.connections import Crowd, Guarded, Limits, room
from anomaly.serve.log import Sparing

UVICORNS_BACKLOG = 2048  # connections that it accepts at once
CONNECTIONS = 512  # at once, besides those of pages that are open, which are WebSockets

protocol = functools.partial(Guarded, Crowd(Limits(CONNECTIONS)))

if __name__ == "__main__":
    room(CONNECTIONS + UVICORNS_BACKLOG)
    logging.getLogger("uvicorn.error").addFilter(Sparing())
    uvicorn.config.HTTP_PROTOCOLS["auto"] = "dashboard.server:protocol"
    main(prog_name="streamlit")
