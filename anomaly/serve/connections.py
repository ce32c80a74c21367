"""What a connection may cost before it is known whose it is: uvicorn's protocol, with limits.

uvicorn bounds a request's head only under h11, and neither the number of connections, nor the time
of a head, nor what is pipelined, nor how long an answer may wait to be read under any of its
protocols; hypercorn and granian do not bound all of these either. What a subclass of uvicorn's own
protocol can do in a page needs no other server.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

BACKLOG = 100  # connections that the system holds until they are accepted; all are accepted at once
SPARE_FILES = 3 * BACKLOG  # for those just accepted, detectors, images and the log


@dataclass(frozen=True)
class Limits:
    """``connections``: at once, half of them from one address. ``seconds``: for a head to arrive,
    and an answer to be read.

    ``pipelined``: requests that may wait behind the one that is being answered. ``rate``: bytes a
    second at which an answer has to be read at least.
    """

    connections: int = 512
    seconds: float = 10.0
    head_bytes: int = 16 << 10
    target_bytes: int = 8 << 10
    headers: int = 100
    pipelined: int = 8
    rate: int = 16 << 10


class Crowd:
    """All connections, those that have been quiet longest first. ``refused`` is told why one is
    refused or closed.
    """

    def __init__(
        self, limits: Limits, refused: Callable[[str], None] = lambda reason: None
    ) -> None:
        self.limits, self.refused = limits, refused
        self._from: dict[str, dict[Guarded, None]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._from.values()))

    def enter(self, connection: Guarded) -> bool:
        """Whether there is room; where there is none, the longest quiet one makes some.

        From the address with too many connections, else from the one with most: a flood takes
        places from itself.
        """
        own = self._from.setdefault(connection.address, {})
        full = len(self) >= self.limits.connections
        if full or len(own) >= max(1, self.limits.connections // 2):
            crowded = max(self._from.values(), key=len) if full else own
            longest = next((c for c in crowded if c.waits), None) or next(
                (c for c in crowded if c.answers), None
            )
            if longest is None:
                self.leave(connection)
                return False
            self.refused("quiet")
            longest.drop()
        self._from.setdefault(connection.address, {})[connection] = None
        return True

    def active(self, connection: Guarded) -> None:
        """Notes that a connection has just brought a whole head."""
        if connection in (own := self._from.get(connection.address, {})):
            own[connection] = own.pop(connection)

    def leave(self, connection: Guarded) -> None:
        own = self._from.get(connection.address, {})
        own.pop(connection, None)
        if not own:
            self._from.pop(connection.address, None)


class Refused(Exception):
    """Ends the parsing of a connection's bytes."""


class Guarded(HttpToolsProtocol):
    """A connection that is closed where it asks for more than a request needs."""

    def __init__(self, crowd: Crowd, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.crowd, self.limits = crowd, crowd.limits
        self.address = ""
        self._head = self._headers = 0
        self._begun = False  # a head has begun and not ended
        # bytes since a head or a piece of a body was complete: heads, chunk extensions and trailers
        self._bare = 0
        self._refusal: tuple[int, str] | None = None
        self._stopped = False
        self._head_timer: asyncio.TimerHandle | None = None
        self._read_timer: asyncio.TimerHandle | None = None

    @property
    def waits(self) -> bool:
        """Whether no request is being answered."""
        return self.cycle is None or self.cycle.response_complete

    @property
    def answers(self) -> bool:
        """Whether an answer is being sent."""
        return self.cycle is not None and self.cycle.response_started

    def drop(self) -> None:
        """Closes the connection now, whatever it still had to say or hear."""
        self.crowd.leave(self)
        self._stopped = True
        self.transport.abort()

    # --- the connection ---
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.address = self.client[0] if self.client else ""
        if self.crowd.enter(self):
            self._expect_head()
        else:
            self._refuse(503, "too many connections found: try again in a second")

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_timers()
        self.crowd.leave(self)
        super().connection_lost(exc)

    def handle_websocket_upgrade(self) -> None:
        self._end_timers()
        self.crowd.leave(self)
        super().handle_websocket_upgrade()

    def _unsupported_upgrade_warning(self) -> None:
        """Says nothing: a client that would rather speak another protocol is answered by HTTP."""

    def _end_timers(self) -> None:
        for timer in (self._head_timer, self._read_timer):
            if timer is not None:
                timer.cancel()
        self._head_timer = self._read_timer = None

    # --- what comes in ---
    def data_received(self, data: bytes) -> None:
        if self._stopped:
            return
        self._bare += len(data)
        super().data_received(data)
        if not self._stopped and self._bare > self.limits.head_bytes:
            self._refuse(431, f"more than {self.limits.head_bytes} bytes of head found")
        elif not self._stopped and self._bare and self.waits and self._head_timer is None:
            self._expect_head()

    def _expect_head(self) -> None:
        self._head_timer = self.loop.call_later(self.limits.seconds, self._head_is_late)

    def _head_is_late(self) -> None:
        self._head_timer = None
        if self._begun or self._bare:
            self._refuse(408, f"the head did not arrive within {self.limits.seconds:g} s")
        else:
            self.crowd.refused("silent")
            self._stop()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head = self._headers = 0
        self._begun = True

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        if len(self.url) > self.limits.target_bytes:
            self._stop_parsing(414, f"more than {self.limits.target_bytes} bytes of address found")
        self._head += len(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Takes a header, or one of the trailers of a chunked body: they count together."""
        self._head += len(name) + len(value) + 4
        self._headers += 1
        if self._headers > self.limits.headers or self._head > self.limits.head_bytes:
            most = f"{self.limits.headers} headers of {self.limits.head_bytes} bytes"
            self._stop_parsing(431, f"more than {most} in all found")
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._begun, self._bare = False, 0
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
        if len(self.pipeline) >= self.limits.pipelined:
            self._stop_parsing(
                429, f"more than {self.limits.pipelined} requests ahead of their answers found"
            )
        super().on_headers_complete()
        self.crowd.active(self)

    def on_body(self, body: bytes) -> None:
        self._bare = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._bare = 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        # the next one came while this was answered
        if self._begun and self._head_timer is None and not self._stopped:
            self._expect_head()

    # --- what is refused ---
    def _stop_parsing(self, status: int, message: str) -> None:
        self._refusal = (status, message)
        raise Refused(message)

    def _refuse(self, status: int, message: str) -> None:
        self._refusal = (status, message)
        self.send_400_response(message)

    def send_400_response(self, msg: str) -> None:
        """Refuses what is no request, or more than one needs, and closes; answers that are owed
        before that still go out.
        """
        status, message = self._refusal or (400, "not HTTP/1.1, a request expected")
        self._stopped = True
        self.crowd.refused(str(status))
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            if not cycle.more_body:  # it is what follows that is refused
                cycle.keep_alive = False
                return
            if cycle.response_started or self.pipeline:
                self._stop()
                return
        self.transport.write(answer(status, message))
        self._stop()

    def _stop(self) -> None:
        self._stopped = True
        self._end_timers()
        self.transport.close()

    # --- what goes out ---
    def pause_writing(self) -> None:
        super().pause_writing()
        self._expect_reading(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        if self._read_timer is not None:
            self._read_timer.cancel()
            self._read_timer = None
        super().resume_writing()

    def _expect_reading(self, unread: int) -> None:
        if self._read_timer is not None:
            self._read_timer.cancel()
        self._read_timer = self.loop.call_later(self.limits.seconds, self._look_at_reading, unread)

    def _look_at_reading(self, before: int) -> None:
        unread = self.transport.get_write_buffer_size()
        if before - unread < self.limits.rate * self.limits.seconds:
            self.crowd.refused("unread")
            self.drop()
        else:
            self._expect_reading(unread)


def answer(status: int, message: str) -> bytes:
    """Returns a whole answer that says what is wrong, after which the connection closes."""
    body = json.dumps({"error": message}).encode()
    head = (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
    )
    return head.encode() + body


def room(wanted: int) -> int:
    """Returns how many connections this process may have open, at most ``wanted``: it raises its
    own limit of open files.
    """
    if sys.platform == "win32":  # which has no such limit
        return wanted
    else:
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        needed = wanted + SPARE_FILES
        if soft < needed:
            soft = min(needed, hard) if hard != resource.RLIM_INFINITY else needed
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        return max(1, min(wanted, soft - SPARE_FILES))
