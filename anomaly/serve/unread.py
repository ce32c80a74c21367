"""A request that was answered before its body had been read: the rest is not waited for."""

from __future__ import annotations

import asyncio
import contextlib
import json

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SECONDS = 5.0
PIECE = 256 << 10


class CloseUnread:
    """Closes the connection behind an answer that came before the end of its request's body.

    What the client is still sending is thrown away for five seconds and at most ``most`` bytes:
    closed at once, it would see its connection broken and not the answer. Large answers go out in
    pieces, as fast as they are read; while ``most_unread`` bytes of them wait to be read, another
    large one becomes a 503.
    """

    def __init__(self, app: ASGIApp, most: int = 64 << 20, most_unread: int = 256 << 20) -> None:
        self.app, self.most, self.most_unread = app, most, most_unread
        self.unread = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        exchange = Exchange(self, Headers(scope=scope), receive, send)
        try:
            await self.app(scope, exchange.receive, exchange.send)
        finally:
            self.unread -= exchange.held


class Exchange:
    """A request and its answer. ``held``: bytes of a large answer."""

    def __init__(self, around: CloseUnread, headers: Headers, receive: Receive, send: Send) -> None:
        self._around, self._receive, self._send = around, receive, send
        self._coming = "transfer-encoding" in headers or headers.get("content-length", "0") != "0"
        self._waits = "expect" in headers  # it sends its body when it is told to, and now it is not
        self._closing = self._replaced = False
        self.held = 0

    async def receive(self) -> Message:
        message = await self._receive()
        self._coming = self._coming and message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        if self._replaced:
            return
        if message["type"] == "http.response.start":
            await self._start(message)
        elif message["type"] == "http.response.body":
            await self._body(message)
        else:
            await self._send(message)

    async def _start(self, message: Message) -> None:
        length = int(Headers(raw=message["headers"]).get("content-length", "0"))
        if length > PIECE and self._around.unread + length > self._around.most_unread:
            await self._replace(
                503,
                f"{self._around.unread} bytes of answers wait to be read: try again in a second",
            )
            return
        self.held = length if length > PIECE else 0
        self._around.unread += self.held
        if self._coming:
            self._closing = True
            MutableHeaders(scope=message)["connection"] = "close"
        await self._send(message)

    async def _replace(self, status: int, error: str) -> None:
        self._replaced = True
        body = json.dumps({"error": error}).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
        ]
        await self._send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [*headers, (b"connection", b"close")],
            }
        )
        await self._send({"type": "http.response.body", "body": body})

    async def _body(self, message: Message) -> None:
        body, more = memoryview(message.get("body", b"")), message.get("more_body", False)
        for start in range(0, max(1, len(body)), PIECE):
            follows = more or self._closing or start + PIECE < len(body)
            await self._send(
                {**message, "body": bytes(body[start : start + PIECE]), "more_body": follows}
            )
        if self._closing and not more:
            if not self._waits:
                await self._throw_away()
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _throw_away(self) -> None:
        left = self._around.most
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SECONDS):
                while self._coming and left > 0:
                    left -= len((await self.receive()).get("body", b""))
