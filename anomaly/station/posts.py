"""Images that are posted over HTTP: POST /images?serial=S&id=ID, the file as the body; the answer
is its result as JSON, once that is safe.

Who gets no answer posts again with the same ``id``, and gets the result of then, if there was one.
"""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from anomaly.errors import AnomalyError, RuntimeMissing
from anomaly.station.backlog import Backlog, Taken
from anomaly.station.health import Health
from anomaly.station.results import StationResult
from anomaly.station.settings import HttpSource

try:
    import uvicorn
    from starlette.applications import Starlette
    from starlette.requests import ClientDisconnect, Request
    from starlette.responses import JSONResponse
    from starlette.routing import Route
except ImportError as error:
    raise RuntimeMissing.extra("uvicorn", "serve", "a source of kind http") from error

from anomaly.serve.access import Keys, is_own, read_keys
from anomaly.serve.launch import listen

FULL_SECONDS = 1.0  # until a post is told to come again


def run_source(posts: Posts, health: Health) -> None:
    """Takes posted images until the station is closing."""
    settings = posts.settings
    app = Starlette(routes=[Route("/images", posts.post, methods=["POST"])])
    while not health.closing.is_set():
        with health.attempt():
            listening = listen(settings.host, settings.port)
            config = uvicorn.Config(
                app, log_config=None, access_log=False, server_header=False, ws="none",
                timeout_graceful_shutdown=5,
            )  # fmt: skip
            server = uvicorn.Server(config)
            thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
            thread.start()
            health.ok()
            host, port = listening.getsockname()[:2]
            health.say(f"source {settings.name}: POST http://{host}:{port}/images")
            while thread.is_alive() and not health.closing.wait(0.25):
                pass
            server.should_exit = True
            thread.join(10.0)
            if not health.closing.is_set():
                raise OSError("the HTTP server has ended")


class Posts:
    """What answers posts."""

    def __init__(self, settings: HttpSource, backlog: Backlog) -> None:
        if settings.keys is None and not is_own(settings.host):
            raise AnomalyError(
                f"{settings.host} can be reached from other machines and anybody could post: give "
                "a file of keys (keys = ...), or listen on 127.0.0.1"
            )
        self._keys = Keys() if settings.keys is None else read_keys(settings.keys)
        self.settings, self._backlog = settings, backlog

    async def post(self, request: Request) -> JSONResponse:
        if self._keys and self._keys.holder(request.headers) is None:
            return _refused(401, "no key of this station found: Authorization: Bearer KEY expected")
        body = bytearray()
        try:
            async for part in request.stream():
                body += part
                if len(body) > self.settings.max_bytes:
                    return _refused(413, f"more than {self.settings.max_bytes:,} bytes found")
        except ClientDisconnect:
            return _refused(400, "the image did not arrive whole")
        if not body:
            return _refused(422, "an empty body found, an image file expected")
        return await self._judged(request, bytes(body))

    async def _judged(self, request: Request, image: bytes) -> JSONResponse:
        loop = asyncio.get_running_loop()
        found: asyncio.Future[StationResult] = loop.create_future()

        def answer(result: StationResult) -> None:
            if not found.done():
                found.set_result(result)

        def done(result: StationResult) -> None:
            loop.call_soon_threadsafe(answer, result)

        given = request.query_params
        key, serial = given.get("id"), given.get("serial")
        taken = Taken(
            self.settings.name, given.get("name") or f"post-{key or ''}", image,
            None if key is None else f"id {key}", serial, done=done,
        )  # fmt: skip
        if not await asyncio.to_thread(self._backlog.put, taken, FULL_SECONDS):
            return _refused(503, "images wait to be judged: post again in a second")
        try:
            result = await asyncio.wait_for(found, self.settings.seconds)
        except TimeoutError:
            return _refused(504, "not judged yet: post again with the same id")
        return JSONResponse(result.message())


def _refused(status: int, why: str) -> JSONResponse:
    headers = {"Retry-After": "1"} if status in (503, 504) else {}
    content: dict[str, Any] = {"error": why}
    return JSONResponse(content, status, headers)
