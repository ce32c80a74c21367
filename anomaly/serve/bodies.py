"""The body of a request: read at a rate that is worth waiting for, and the file out of a form."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from fastapi import Request
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Message

from anomaly.errors import RequestError
from anomaly.serve.workers import Place

GRACE = 3.0  # seconds, for the network to begin
RATE = 16 << 10  # bytes a second that have to arrive after it, on average
FORM_PIECE = 64 << 10


async def read(
    request: Request, most: int, hold: Callable[[Place, int], None], place: Place
) -> bytes:
    """Returns the body; RequestError 413 as soon as it is too long, 408 as soon as it is too slow.

    ``hold`` is told of each piece, for ``place``, and may raise.
    """
    too_long = RequestError(
        413, f"more than {most} bytes found: send a smaller image, or raise --max-bytes"
    )
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length[:20]) > most:
        raise too_long
    body, more = bytearray(), True
    begun = asyncio.get_running_loop().time()
    try:
        async with asyncio.timeout_at(begun + GRACE) as limit:
            while more:
                message = await request.receive()
                if message["type"] == "http.disconnect":
                    raise ClientDisconnect
                piece, more = message.get("body", b""), message.get("more_body", False)
                if len(body) + len(piece) > most:
                    raise too_long
                hold(place, len(piece))
                body += piece
                if more:
                    limit.reschedule(begun + GRACE + len(body) / RATE)
    except TimeoutError as error:
        raise RequestError(
            408,
            f"{len(body)} bytes of the body in {GRACE + len(body) / RATE:.1f} s found, {RATE} "
            "a second expected",
        ) from error
    return bytes(body)


def file_of(body: bytes, content_type: str, check: Callable[[], None]) -> bytes:
    """Returns the image file of a body, which is the file itself or a form with the
    field ``file``.
    """
    if not content_type.startswith("multipart/form-data"):
        return body
    return asyncio.run(_file_of_form(body, content_type, check))


async def _file_of_form(body: bytes, content_type: str, check: Callable[[], None]) -> bytes:
    # starlette's parser is asynchronous, but its work is not: it runs in a loop of the worker's own
    # thread, piece by piece.
    starts = iter(range(0, max(1, len(body)), FORM_PIECE))

    async def piece() -> Message:
        check()
        start = next(starts)
        more = start + FORM_PIECE < len(body)
        return {"type": "http.request", "body": body[start : start + FORM_PIECE], "more_body": more}

    headers = [(b"content-type", content_type.encode("latin-1", "replace"))]
    form = Request({"type": "http", "headers": headers, "app": None}, piece)
    try:
        async with form.form(max_files=1, max_fields=10) as fields:
            file = fields.get("file")
            if file is None or isinstance(file, str):
                raise RequestError(
                    422, "a form without a file found, the field 'file' with an image expected"
                )
            return await file.read()
    except HTTPException as error:
        raise RequestError(
            400, f"a damaged form found ({error.detail}): send the file as the body instead"
        ) from error
