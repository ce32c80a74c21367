"""A real `anomaly run` in a process of its own, and what it talks to: a broker, a receiver of
posts.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from PIL import Image

from anomaly.station.live import read_live
from anomaly.station.results import StationResult
from data.synthetic import make
from tests.support.review_server import Answer, request

ROOT = Path(__file__).parents[2]
SECONDS = 180.0  # that something may take on a machine where others use the cores


def picture(seed: int, defect: str | None = None, size: int = 64) -> bytes:
    """Returns the file of a synthetic disc."""
    file = io.BytesIO()
    Image.fromarray(make("disc", 500 + seed, size, defect)[0]).save(file, "PNG")
    return file.getvalue()


def answers(port: int) -> bool:
    """Whether somebody listens on a port."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def wait_until(happens: Callable[[], Any], what: str, seconds: float = SECONDS) -> Any:
    """Returns what ``happens`` returns once that is true."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if found := happens():
            return found
        time.sleep(0.02)
    raise AssertionError(f"{what}: not within {seconds:g} s")


@dataclass
class Station:
    """A station in a folder of its own; ``toml``: what its file says besides the detector."""

    home: Path
    run: Path
    toml: str
    process: subprocess.Popen[bytes] | None = None
    launches: list[datetime] = field(default_factory=list)

    @property
    def file(self) -> Path:
        return self.home / "station.toml"

    @property
    def log(self) -> str:
        return (self.home / "log.txt").read_text()

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The whole lines on standard output of all its processes."""
        text = (self.home / "out.jsonl").read_text()
        return [json.loads(line) for line in text.splitlines(keepends=True) if line[-1] == "\n"]

    @property
    def live(self) -> dict[str, Any]:
        return read_live(self.home / "station")

    def launch(self) -> None:
        """Starts it, and does not wait."""
        self.file.write_text(f"detector = '{self.run}'\n{self.toml}")
        command = [sys.executable, "-m", "anomaly", "run", str(self.file)]
        self.launches.append(datetime.now(UTC))
        with open(self.home / "out.jsonl", "ab") as out, open(self.home / "log.txt", "ab") as log:
            self.process = subprocess.Popen(
                command, cwd=ROOT, stdin=subprocess.PIPE, stdout=out, stderr=log
            )

    def start(self) -> None:
        """Starts it, and waits until its sources and sinks work."""
        with suppress(FileNotFoundError):
            (self.home / "station" / "live.json").unlink()
        self.launch()
        wait_until(self.works, "the station works")

    def works(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise AssertionError(f"the station ended with {self.process.returncode}: {self.log}")
        if not (self.home / "station" / "live.json").exists():
            return False
        live = self.live
        return all(part["state"] == "ok" for part in (*live["sources"], *live["sinks"]))

    def judged(self, number: int) -> dict[str, Any]:
        """Waits until so many results are there and every sink has them; returns the live state."""

        def there() -> dict[str, Any] | None:
            live = self.live
            done = sum(live["counts"].values()) >= number
            return live if done and not any(sink["waiting"] for sink in live["sinks"]) else None

        before = -1
        while before < (before := sum(self.live["counts"].values())) < number:
            with suppress(AssertionError):  # as long as there are more of them, they are on the way
                wait_until(there, f"{number} results")
        found: dict[str, Any] = wait_until(there, f"{number} results, {before} found")
        return found

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self._ended()

    def stop(self) -> int:
        """Asks it to stop and returns its exit status."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self._ended()

    def _ended(self) -> int:
        assert self.process is not None
        assert self.process.stdin is not None
        status = self.process.wait(SECONDS)
        self.process.stdin.close()
        return status

    def post(self, port: int, body: bytes, query: str = "") -> Answer:
        return request(port, "POST", f"/images{query}", body, None, seconds=SECONDS)


@contextmanager
def station(home: Path, run: Path, toml: str) -> Iterator[Station]:
    """Makes a station, which is ended behind the block."""
    made = Station(home, run, toml)
    try:
        yield made
    finally:
        if made.process is not None and made.process.poll() is None:
            made.kill()


# ---- a broker --------------------------------------------------------------------------------
def find_mosquitto() -> str | None:
    """Returns Debian's mosquitto, which lies where only root's path leads."""
    return shutil.which("mosquitto", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")


@dataclass
class Broker:
    """A mosquitto that remembers its clients over restarts."""

    home: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        settings = self.home / "mosquitto.conf"
        settings.write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous true\nuser root\n"
            f"persistence true\npersistence_location {self.home}/\nautosave_interval 1\n"
            "max_queued_messages 0\n"
        )
        command = [find_mosquitto() or "mosquitto", "-c", str(settings)]
        self.process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wait_until(lambda: answers(self.port), "the broker answers")

    def stop(self) -> None:
        assert self.process is not None
        self.process.terminate()
        self.process.wait(SECONDS)


@dataclass
class Listener:
    """A client of a broker that keeps what it hears, and connects again by itself."""

    heard: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    @contextmanager
    def listening(self, port: int, topic: str) -> Iterator[Listener]:
        import paho.mqtt.client as paho
        from paho.mqtt.enums import CallbackAPIVersion

        client = paho.Client(CallbackAPIVersion.VERSION2, client_id="receiver", clean_session=False)
        there = threading.Event()
        client.on_connect = lambda *_: client.subscribe(topic, 1)
        client.on_subscribe = lambda *_: there.set()
        client.on_message = lambda _, __, m: self.heard.append((m.topic, json.loads(m.payload)))
        client.reconnect_delay_set(1, 1)
        client.connect("127.0.0.1", port)
        client.loop_start()
        assert there.wait(SECONDS)
        try:
            yield self
        finally:
            client.disconnect()
            client.loop_stop()

    def results(self) -> list[dict[str, Any]]:
        return [message for topic, message in self.heard if topic.endswith("/result")]


# ---- a receiver of posts -------------------------------------------------------------------------
@dataclass
class Receiver:
    """An HTTP server that keeps what is posted to it. ``answers``: the status of each post that
    comes, 200 where there are no more.
    """

    port: int
    posts: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)

    def results(self) -> list[dict[str, Any]]:
        return [json.loads(body) for _, body in self.posts]

    @contextmanager
    def receiving(self, certificate: tuple[Path, Path] | None = None) -> Iterator[Receiver]:
        posts, answers = self.posts, self.answers

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status = answers.pop(0) if answers else 200
                if status == 200:
                    posts.append((dict(self.headers), body))
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        class Server(ThreadingHTTPServer):
            def handle_error(self, *_: object) -> None: ...  # of a sender that was killed

        server = Server(("127.0.0.1", self.port), Handler)
        server.daemon_threads = True
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


def in_order_once(results: list[dict[str, Any]]) -> list[int]:
    """Returns the numbers of results in the order in which they first came, each once, as a
    receiver has them that drops what it knows by its id.
    """
    return [one["seq"] for one in {one["id"]: one for one in results}.values()]


def example(seq: int, outcome: str = "not flagged", **facts: Any) -> StationResult:
    """Returns a result as the judge makes it."""
    score = {"not flagged": 0.25, "review": 0.75, "flagged": 1.5}.get(outcome)
    given: dict[str, Any] = {
        "seq": seq, "id": f"a-{seq}", "station": "line", "of": "image", "source": "left",
        "serial": f"S{seq}", "path": f"{seq}.png", "outcome": outcome,
        "action": "pass" if outcome == "not flagged" else "reject",
        "status": "error" if score is None else "ok", "error": None if score else "truncated",
        "score": score, "p_value": None, "threshold": 1.0, "review_threshold": None,
        "is_anomaly": None if score is None else score > 1, "box": (1, 2, 3, 4), "area": 5,
        "defect_type": None, "type_score": None,
        "width": 64, "height": 64, "sha256": None, "detector": "d@1 sha256:abcd",
        "taken_at": "2026-11-30T10:00:00.000Z", "judged_at": "2026-11-30T10:00:00.020Z",
        "seconds": 0.02, **facts,
    }  # fmt: skip
    return StationResult(**given)
