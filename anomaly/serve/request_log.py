"""Around every request: its number, its key, its line in the log, its place in the metrics."""

from __future__ import annotations

import itertools
import re
import time
import uuid
from typing import Any

from fastapi import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from anomaly.serve.answers import (
    problem,
)
from anomaly.serve.log import say
from anomaly.serve.service import Service

OPEN_ROUTES = ("/v2/health/live", "/v2/health/ready")  # probes carry no key
REQUEST_ID = re.compile(r"[\w.:-]{1,100}", re.ASCII)


class RequestLog:
    """Around every request: its number, its key, its line in the log, and its place in
    the metrics.
    """

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self.app, self.service = app, service
        # uuid4 asks the system each time
        self._numbers = map(f"{uuid.uuid4().hex[:16]}{{:016x}}".format, itertools.count())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start, request, code = time.monotonic(), Request(scope), 500
        given = request.headers.get("x-request-id", "")
        number = given if REQUEST_ID.fullmatch(given) else next(self._numbers)
        log: dict[str, Any] = {}
        scope.setdefault("state", {})["log"] = log

        async def sending(message: Message) -> None:
            nonlocal code
            if message["type"] == "http.response.start":
                code = message["status"]
                message["headers"] = [
                    *message.get("headers", ()),
                    (b"x-request-id", number.encode()),
                ]
            await send(message)

        holder = self.service.keys.holder(request.headers)
        try:
            if self.service.keys and holder is None and scope["path"] not in OPEN_ROUTES:
                headers = {"WWW-Authenticate": "Bearer"}
                await problem(
                    401, "no known API key found, Authorization: Bearer KEY expected", headers
                )(scope, receive, sending)
            else:
                await self.app(scope, receive, sending)
        finally:
            self._note(
                scope,
                {"request": number, "client": holder, "code": code, **log},
                time.monotonic() - start,
            )

    def _note(self, scope: Scope, fields: dict[str, Any], seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "unknown")
        metrics, detector, code = self.service.metrics, fields.get("detector", ""), fields["code"]
        metrics.requests.labels(route, detector, str(code)).inc()
        metrics.seconds.labels(route, detector).observe(seconds)
        fields.pop("read", None)
        if route not in OPEN_ROUTES:
            say(
                "request",
                **fields,
                method=scope["method"],
                route=route,
                ms=round(1000 * seconds, 1),
            )
