"""Results to an HTTP receiver: one POST each, in order, signed.

    X-Anomaly-Id: 5f3c0c2a11de-103         the result's id: of two with the same one drop the second
    X-Anomaly-Time: 1796050000             seconds since 1970, when it was sent
    X-Anomaly-Signature: sha256=HEX        HMAC-SHA256, by the secret, of TIME + "." + BODY

A receiver answers 2xx; anything else, a redirect too, is sent again later. It refuses old times.
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
import json
import ssl
import time
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from anomaly.errors import AnomalyError
from anomaly.station.addresses import secret_in
from anomaly.station.results import StationResult
from anomaly.station.settings import WebhookSink


class Webhook:
    """Posts each result to ``settings.url`` over one connection, which is kept."""

    def __init__(self, settings: WebhookSink) -> None:
        parts = urlsplit(settings.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise AnomalyError(f"url {settings.url!r} found, https://HOST/PATH expected")
        self._settings, self._parts = settings, parts
        self._target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._key = None if settings.key_file is None else secret_in(settings.key_file).encode()
        self._connection: http.client.HTTPConnection | None = None

    def open(self) -> None:
        host, port, seconds = self._parts.hostname or "", self._parts.port, self._settings.seconds
        if self._parts.scheme == "http":
            self._connection = http.client.HTTPConnection(host, port, timeout=seconds)
        else:
            authority = self._settings.ca_file
            context = ssl.create_default_context(cafile=authority and str(authority))
            self._connection = http.client.HTTPSConnection(
                host, port, timeout=seconds, context=context
            )
        self._connection.connect()

    def send(self, results: Sequence[StationResult]) -> None:
        for result in results:
            self.post(result.id, result.message())

    def post(self, number: str, content: Mapping[str, object]) -> None:
        """Posts one message under its id; OSError where the receiver does not take it."""
        assert self._connection is not None
        body = json.dumps(content, ensure_ascii=False).encode()
        self._connection.request("POST", self._target, body, self._headers(number, body))
        answer = self._connection.getresponse()
        answer.read()
        if not 200 <= answer.status < 300:
            raise OSError(f"{self._settings.url}: answered {answer.status}, 2xx expected")

    def _headers(self, number: str, body: bytes) -> dict[str, str]:
        now = str(int(time.time()))
        headers = {
            "Content-Type": "application/json",
            "X-Anomaly-Id": number,
            "X-Anomaly-Time": now,
        }
        if self._key is not None:
            signature = hmac.new(self._key, f"{now}.".encode() + body, hashlib.sha256).hexdigest()
            headers["X-Anomaly-Signature"] = f"sha256={signature}"
        return headers

    def idle(self) -> None: ...

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
