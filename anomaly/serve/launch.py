"""Runs the service until it is asked to stop; it finishes what it took."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import signal
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import uvicorn
from fastapi import FastAPI

from anomaly.detector.session import available_cores
from anomaly.errors import AnomalyError, RuntimeMissing
from anomaly.reporting.lines import line_of
from anomaly.serve.access import Keys, is_own, read_keys
from anomaly.serve.app import build_app
from anomaly.serve.connections import BACKLOG, Crowd, Guarded, Limits, room
from anomaly.serve.detectors import Detectors
from anomaly.serve.log import say, set_up
from anomaly.serve.service import Service
from anomaly.serve.unread import CloseUnread
from anomaly.serve.workers import SPARE_SECONDS, Workers

if TYPE_CHECKING:
    from anomaly.review.outbox import Outbox


PER_UNIT = (
    "the false-alarm rate of this detector is per unit of {views}, and images are judged here one "
    "by one: a unit is flagged where is_anomaly is true for any of its views, and good only where "
    "it is false for all of them; anomaly score over their files joins units"
)
ENDED = (
    b'{"level": "warning", "message": "asked to stop again: ended at once, with what was not '
    b'done"}\n'
)
BODIES = 8  # of the largest size may be inside together; more smaller ones


class Server(uvicorn.Server):
    """uvicorn's server, which says where it is once it answers and is not ready any more once it is
    asked to stop.
    """

    def __init__(self, config: uvicorn.Config, app: FastAPI) -> None:
        super().__init__(config)
        self.app = app

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        host = f"[{self.config.host}]" if ":" in self.config.host else self.config.host
        names = ", ".join(self.app.state.service.detectors.names)
        print(
            line_of("serve", f"http://{host}:{self.config.port}   {names}   (Ctrl-C stops it)"),
            flush=True,
        )

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.app.state.stopping = True
        self.app.state.service.workers.stop()
        self.app.state.service.detectors.stop()
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stops when the work that was taken is done; asked again, at once."""
        if self.should_exit:
            # the log's own lock may be held by what this interrupts
            os.write(sys.stderr.fileno(), ENDED)
            os._exit(128 + sig)
        super().handle_exit(sig, frame)


@dataclass(frozen=True)
class Review:
    """Where flagged images and ``audit_share`` of all images go: a review database, made where it
    is not there only with ``create``, and a folder for their files.
    """

    database: str
    images: Path = Path("findings")
    audit_share: float = 0.01
    create: bool = False


@dataclass(frozen=True)
class ServeOptions:
    """How detectors are served.

    ``workers``: images judged at once (default: the cores). ``waiting``: requests that may wait
    besides; more are told to come again. ``timeout``: seconds for a request. ``connections``: open
    at once, half of them from one address. ``max_bytes``: of a body. ``key``: a public key by which
    every detector must be signed. Without keys the service listens on addresses of this machine
    only, unless ``insecure``.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    device: str = "auto"
    workers: int | None = None
    waiting: int = 32
    timeout: float = 10.0
    connections: int = 512
    max_bytes: int = 32 << 20
    max_pixels: int = 100_000_000
    keys_file: Path | None = None
    insecure: bool = False
    key: Path | None = None
    review: Review | None = None


def serve(places: Sequence[Path], options: ServeOptions) -> int:
    """Serves detectors (run folders or files) over HTTP until Ctrl-C or SIGTERM and returns the
    exit status (0: stopped as asked).

    It finishes what it took, within ``options.timeout`` and a few seconds; a second Ctrl-C or
    SIGTERM ends the process at once. Raises AnomalyError.
    """
    service = service_of(places, options)
    listening = listen(options.host, options.port)
    set_up()
    for name in service.detectors.names:
        warn_of_units(name, service.detectors)
    crowd = Crowd(
        Limits(room(options.connections), seconds=options.timeout), service.metrics.refuse
    )
    service.metrics.watch_connections(lambda: len(crowd))
    app = build_app(service)
    config = uvicorn.Config(
        CloseUnread(app, most=options.max_bytes + (8 << 20)),
        http=functools.partial(Guarded, crowd),  # type: ignore[arg-type]
        host=options.host,
        port=listening.getsockname()[1],
        backlog=BACKLOG,
        log_config=None,
        access_log=False,
        proxy_headers=False,  # nothing here asks what a proxy says of the client
        server_header=False,
        ws="none",
        timeout_keep_alive=75,
        timeout_graceful_shutdown=int(options.timeout + SPARE_SECONDS),
    )
    # uvicorn raises the signal that stopped it again at its end
    signal.signal(signal.SIGTERM, lambda *_: None)
    with contextlib.suppress(KeyboardInterrupt):
        Server(config, app).run(sockets=[listening])
    return 0


def service_of(places: Sequence[Path], options: ServeOptions) -> Service:
    """Returns the service with its detectors loaded; AnomalyError where strangers could use it."""
    if not is_own(options.host) and options.keys_file is None and not options.insecure:
        raise AnomalyError(
            f"{options.host} can be reached from other machines and anybody could use it: give "
            "--api-keys FILE, or --insecure where the network itself keeps strangers out"
        )
    keys = Keys() if options.keys_file is None else read_keys(options.keys_file)
    detectors = Detectors(
        places,
        device=options.device,
        max_pixels=options.max_pixels,
        seconds=options.timeout,
        key=options.key,
    )
    workers = Workers(
        options.workers or available_cores(),
        options.waiting,
        options.timeout,
        most_bytes=BODIES * options.max_bytes,
    )
    service = Service(detectors, workers, keys, options.max_bytes)
    if options.review is not None:
        service = replace(service, outbox=open_outbox(options.review))
    return service


def warn_of_units(name: str, detectors: Detectors) -> None:
    """Says in the log where a detector's rate is per unit: here images are judged one by one."""
    served = detectors.get(name)
    rule = served.scorer.card.training.by_unit if served else None
    if rule is not None:
        say(PER_UNIT.format(views=rule.views), logging.WARNING, detector=name)


def open_outbox(review: Review) -> Outbox:
    """Returns the way to the review database; RuntimeMissing where SQLAlchemy is not installed."""
    try:
        from anomaly.review.outbox import Outbox
    except ImportError as error:
        raise RuntimeMissing.extra(error.name or "sqlalchemy", "review", "--review") from error

    def complain(line: str) -> None:
        say(line, logging.ERROR)

    return Outbox(
        review.database,
        review.images,
        audit_share=review.audit_share,
        name="serve",
        say=complain,
        create=review.create,
    )


def listen(host: str, port: int) -> socket.socket:
    """Returns a socket that listens there (port 0: a free one); AnomalyError where that
    cannot be.
    """
    found = None
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM
        )[0]
        found = socket.socket(family, kind, protocol)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(where)
    except OSError as error:
        if found is not None:
            found.close()
        raise AnomalyError(
            f"{host}:{port} cannot be listened on ({error.strerror or error}): choose another "
            "--port"
        ) from error
    return found
