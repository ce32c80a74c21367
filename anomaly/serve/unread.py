"""A request that was answered before its body had been read: the rest is not waited for."""

from __future__ import annotations

import asyncio

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SECONDS = 2.0
PIECE = 256 << 10


class CloseUnread:
    """Closes the connection behind an answer that came before the end of its request's body.

    What the client is still sending is thrown away for two seconds and at most ``most`` bytes: closed at once, it would
    see its connection broken and not the answer. Large answers go out in pieces, so that an answer that is not read
    holds its request.
    """

    def __init__(self, app: ASGIApp, most: int = 32 << 20) -> None:
        self.app, self.most = app, most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        unread = "transfer-encoding" in headers or headers.get("content-length", "0") != "0"
        closing = False

        async def receiving() -> Message:
            nonlocal unread
            message = await receive()
            unread = unread and message.get("more_body", False)
            return message

        async def sending(message: Message) -> None:
            nonlocal closing
            if message["type"] == "http.response.start" and unread:
                closing = True
                MutableHeaders(scope=message)["connection"] = "close"
            if message["type"] != "http.response.body":
                await send(message)
                return
            await send_in_pieces(message, send, more=closing or message.get("more_body", False))
            if closing and not message.get("more_body", False):
                if "expect" not in headers:
                    await throw_away()
                await send({"type": "http.response.body", "body": b"", "more_body": False})

        async def throw_away() -> None:
            left = self.most
            try:
                async with asyncio.timeout(SECONDS):
                    while unread and left > 0:
                        left -= len((await receiving()).get("body", b""))
            except TimeoutError:
                pass

        await self.app(scope, receiving, sending)


async def send_in_pieces(message: Message, send: Send, more: bool) -> None:
    """Sends a piece of an answer's body; ``more``: others follow."""
    body = memoryview(message.get("body", b""))
    for start in range(0, max(1, len(body)), PIECE):
        last = start + PIECE >= len(body)
        await send({**message, "body": bytes(body[start : start + PIECE]), "more_body": more or not last})
