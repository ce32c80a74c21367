"""Clients that mean harm, on raw sockets against the real server: it stays small, closes, and goes
on answering others.

Memory is the server's own peak, and an end is a connection that the server closed: neither depends
on how busy a machine is.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import itertools
import json
import re
import select
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest

from anomaly.review import Store
from tests.attacks.corpus import encoded, picture
from tests.detector.test_file import changed
from tests.support.review_server import Client, Server
from tests.support.review_server import serving as dashboard_serving
from tests.support.serving import Service, serving

KEY = "4d0f7c8e9b6a5f4e3d2c"
HEAD = "POST /score HTTP/1.1\r\nHost: x\r\n"
HEALTH = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n"
# of what never ends, if the server does not end it; what a socket holds on both sides is far less
MOST_SENT = 128 << 20
MIB = 1 << 20
TIMES = 600  # a heatmap of 7 x 7 grows to 4200 x 4200


@pytest.fixture(scope="module")
def service(run: Path, session_folder: Path) -> Iterator[Service]:
    """A service for those with a key, as one does that can be reached from outside."""
    (session_folder / "attack-keys").write_text(f"line {KEY}\n")
    with serving(
        session_folder / "attacks.log",
        run,
        "--api-keys",
        session_folder / "attack-keys",
        "--timeout",
        5,
    ) as found:
        yield found


@pytest.fixture(scope="module")
def open_service(run: Path, session_folder: Path) -> Iterator[Service]:
    with serving(session_folder / "open.log", run, "--timeout", 20) as found:
        yield found


def endless(piece: bytes) -> Iterator[bytes]:
    piece = piece * (65536 // len(piece) or 1)
    return itertools.repeat(piece, MOST_SENT // len(piece))


def closed_after(service: Service | Server, pieces: Iterable[bytes]) -> tuple[int, bytes]:
    """Sends pieces until the server has closed the connection; returns how many bytes it sent, and
    what it was told.
    """
    sent, told = 0, b""
    with socket.create_connection(("127.0.0.1", service.port), timeout=60) as connection:
        with contextlib.suppress(ConnectionError):
            for piece in pieces:
                connection.sendall(piece)
                sent += len(piece)
        with contextlib.suppress(ConnectionError):
            while got := connection.recv(65536):
                told += got
    return sent, told


def status(told: bytes) -> int:
    return int(told.split()[1]) if told.startswith(b"HTTP/1.1 ") else 0


def assert_alive(service: Service) -> None:
    assert service.get("/v2/health/live").json == {"live": True}


# --- the head -------------------------------------------------------------------------------------
HEADS = {
    "lines": ([HEAD.encode()], b"A: b\r\n", 431),
    "one value": ([HEAD.encode() + b"A: "], b"b", 431),
    "one name": ([HEAD.encode()], b"b", 431),
    "address": ([b"GET /"], b"a", 414),
    "method": ([], b"A", 400),
    "before it": ([], b"\r\n", 431),
    "folded": ([HEAD.encode() + b"A: b\r\n"], b" c\r\n", 400),
}


@pytest.mark.parametrize("what", HEADS)
def test_a_head_that_never_ends_is_closed(service: Service, what: str) -> None:
    start, piece, code = HEADS[what]
    before = service.peak()
    sent, told = closed_after(service, itertools.chain(start, endless(piece)))
    assert sent < MOST_SENT
    assert status(told) in (code, 431, 0)  # 0: what it was told was lost when the connection broke
    assert service.peak() - before < 16
    assert_alive(service)


@pytest.mark.parametrize(
    ("head", "code"),
    [
        (HEAD + "A: b\r\n" * 200 + "\r\n", 431),
        (HEAD + f"A: {'b' * 20_000}\r\n\r\n", 431),
        (f"GET /{'a' * 10_000} HTTP/1.1\r\n\r\n", 414),
        ("GET /v2 HTTP/1.1\r\n" + "A: b\r\n" * 50 + "\r\n", 401),
        ("hello\r\n\r\n", 400),
    ],
)
def test_a_head_has_a_size(service: Service, head: str, code: int) -> None:
    with socket.create_connection(("127.0.0.1", service.port), timeout=60) as connection:
        connection.sendall(head.encode())
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        assert answer.status == code
        assert "error" in json.loads(answer.read())


def test_a_head_has_a_time(service: Service) -> None:
    for start in (b"", b"GET /v2/health/live HT", HEALTH + b"GET"):
        with socket.create_connection(("127.0.0.1", service.port), timeout=60) as connection:
            connection.sendall(start)
            told = b""
            while got := connection.recv(65536):  # a time-out here is a failure
                told += got
        assert (b" 200 OK" in told) == start.startswith(HEALTH)
        assert (b" 408 " in told) == bool(start.startswith(b"GET /v2/health/live HT"))


# --- connections ----------------------------------------------------------------------------------
def test_half_open_connections_take_no_places(service: Service) -> None:
    size = service.log.stat().st_size
    with contextlib.ExitStack() as stack:
        for number in range(1100):
            connection = stack.enter_context(socket.socket())
            connection.settimeout(60)
            connection.connect(("127.0.0.1", service.port))
            with contextlib.suppress(ConnectionError):
                connection.sendall(HEAD.encode())
            if number % 100 == 99:
                assert_alive(service)
        assert_alive(service)
        headers = {"X-API-Key": KEY}
        metrics = service.ask("GET", "/metrics", headers=headers).data.decode()
        open_now = float(re.search(r"^anomaly_connections ([\d.]+)$", metrics, re.MULTILINE)[1])  # type: ignore[index]
        assert open_now <= 512
    assert service.log.stat().st_size - size < 50_000


def test_refusals_do_not_fill_the_log(service: Service) -> None:
    size = service.log.stat().st_size
    for _ in range(3):
        with socket.create_connection(("127.0.0.1", service.port), timeout=60) as connection:
            file = connection.makefile("rb")
            for _ in range(300):
                connection.sendall(b"GET /v2 HTTP/1.1\r\nHost: x\r\n\r\n")
                assert file.readline() == b"HTTP/1.1 401 Unauthorized\r\n"
                while file.readline() != b"\r\n":
                    pass
                file.read(
                    len(b'{"error":"no known API key found, Authorization: Bearer KEY expected"}')
                )
    for _ in range(300):
        closed_after(service, [b"\0"])
    lines = [json.loads(line) for line in service.log.read_bytes()[size:].splitlines()]
    assert 1 <= len([line for line in lines if line.get("code") == 401]) < 600
    assert 1 <= len([line for line in lines if "Invalid HTTP" in line["message"]]) < 250


# --- pipelining -----------------------------------------------------------------------------------
def test_pipelined_requests_are_not_piled_up(service: Service) -> None:
    before = service.peak()
    sent, told = closed_after(service, itertools.repeat(HEALTH * 3000, 100))
    assert sent < 300_000 * len(HEALTH)
    assert told.count(b"HTTP/1.1 200 OK") <= 3000
    assert service.peak() - before < 32
    assert_alive(service)


def test_a_few_pipelined_requests_are_answered(service: Service) -> None:
    with socket.create_connection(("127.0.0.1", service.port), timeout=60) as connection:
        connection.sendall(HEALTH * 8)
        told = b""
        while told.count(b'{"live":true}') < 8:
            told += connection.recv(65536)
        connection.sendall(HEALTH)
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 OK")


# --- bodies ---------------------------------------------------------------------------------------
def chunked(key: str = "") -> bytes:
    return (
        f"{HEAD}{f'X-API-Key: {key}{chr(13)}{chr(10)}' if key else ''}Transfer-Encoding: "
        "chunked\r\n\r\n"
    ).encode()


CHUNK = b"10000\r\n" + b"a" * 0x10000 + b"\r\n"
BODIES = {
    "chunks without a key": (chunked(), CHUNK, 401),
    "extension without a key": (chunked() + b"1;", b"a", 401),
    "trailers without a key": (chunked() + b"0\r\n", b"A: b\r\n", 401),
    "length without a key": (f"{HEAD}Content-Length: {1 << 40}\r\n\r\n".encode(), b"a", 401),
    "chunks": (chunked(KEY), CHUNK, 413),
    "extension": (chunked(KEY) + b"1;", b"a", 431),
    "trailers": (chunked(KEY) + b"1\r\na\r\n0\r\n", b"A: b\r\n", 431),
    "one trailer": (chunked(KEY) + b"1\r\na\r\n0\r\nA: ", b"a", 431),
    "length": (f"{HEAD}X-API-Key: {KEY}\r\nContent-Length: {1 << 40}\r\n\r\n".encode(), b"a", 413),
    "no such route": (
        f"POST /none HTTP/1.1\r\nX-API-Key: {KEY}\r\nContent-Length: {1 << 40}\r\n\r\n".encode(),
        b"a",
        404,
    ),
    "health": (b"GET /v2/health/live HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", CHUNK, 200),
}


@pytest.mark.parametrize("what", BODIES)
def test_after_a_refusal_nothing_more_is_read(service: Service, what: str) -> None:
    start, piece, code = BODIES[what]
    before = service.peak()
    pieces = itertools.chain([start], endless(piece))
    sent, told = closed_after(service, pieces)
    assert sent < MOST_SENT + len(start)
    assert status(told) in (code, 431, 0)
    # What the answer to one with a key may hold is a body of the largest size.
    assert service.peak() - before < (96 if KEY.encode() in start else 16)
    assert_alive(service)


def test_a_refusal_reaches_a_client_that_is_still_sending(service: Service) -> None:
    for head, size, code in (({}, 2 * MIB, 401), ({"X-API-Key": KEY}, 33 * MIB, 413)):
        answer = service.post("/score", bytes(size), head)
        assert (answer.status, answer.headers["connection"]) == (code, "close")


def test_a_body_has_a_rate(open_service: Service) -> None:
    """Waits for the server to give up: a byte a second would take a thousand of them."""
    with socket.create_connection(("127.0.0.1", open_service.port), timeout=60) as connection:
        connection.sendall(f"{HEAD}Content-Length: 1000\r\n\r\n".encode())
        done = threading.Event()

        def drip() -> None:
            with contextlib.suppress(OSError):
                while not done.wait(0.5):
                    connection.sendall(b"a")

        thread = threading.Thread(target=drip)
        thread.start()
        told = b"".join(iter(lambda: connection.recv(65536), b""))
        done.set()
        thread.join()
    assert status(told) == 408
    assert b"16384 a second expected" in told


def test_bodies_together_have_a_size(run: Path, tmp_path: Path) -> None:
    with (
        serving(tmp_path / "log", run, "--max-bytes", 2 * MIB, "--timeout", 60) as service,
        contextlib.ExitStack() as stack,
    ):
        before, held = service.peak(), []
        for _ in range(30):
            connection = stack.enter_context(
                socket.create_connection(("127.0.0.1", service.port), timeout=60)
            )
            connection.sendall(f"{HEAD}Content-Length: {2 * MIB}\r\n\r\n".encode())
            held.append(connection)
        for connection in held:
            with contextlib.suppress(ConnectionError):
                connection.sendall(bytes(2 * MIB - 1))
        answered, _, _ = select.select(held, [], [], 60)
        assert {status(connection.recv(65536)) for connection in answered} == {429}
        assert service.peak() - before < 64
        assert_alive(service)


def test_an_answer_that_is_not_read_is_given_up(service: Service) -> None:
    request = f"GET /openapi.json HTTP/1.1\r\nHost: x\r\nX-API-Key: {KEY}\r\n\r\n".encode()
    before = service.peak()
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(120)
        connection.connect(("127.0.0.1", service.port))
        with pytest.raises(ConnectionError):
            while True:
                connection.sendall(request)
                time.sleep(0.001)
    assert service.peak() - before < 16
    assert_alive(service)


# --- JSON -----------------------------------------------------------------------------------------
def infer(data: str, shape: str = "[1,100,100,3]", datatype: str = "UINT8", **more: str) -> bytes:
    rest = "".join(f',"{name}":{value}' for name, value in more.items())
    images = f'{{"name":"images","datatype":"{datatype}","shape":{shape},"data":{data}}}'
    return f'{{"inputs":[{images}]{rest}}}'.encode()


JSONS: dict[str, Callable[[], bytes]] = {
    "one long text among numbers": lambda: infer("[" + "1," * 10_000 + f'"{"a" * 38_000}"]'),
    "a longer one": lambda: infer("[" + "1," * 100_000 + f'"{"a" * 30_000}"]'),
    "a long number": lambda: infer("[" + "1," * 29_999 + "1" * 100_000 + "]"),
    "empty lists": lambda: infer("[" + "[]," * 5_000_000 + "[]]"),
    "empty objects": lambda: infer("[" + "{}," * 5_000_000 + "{}]"),
    "empty texts": lambda: infer("[" + '"",' * 5_000_000 + '""]'),
    "floats": lambda: infer("[" + "1e5," * 3_900_000 + "1]"),
    "numbers": lambda: infer("[" + "1," * 8_000_000 + "1]"),
    "deep": lambda: infer("[" * 8_000_000 + "]" * 8_000_000),
    "nested, ragged": lambda: infer("[" + "[1]," * 29_999 + "[1]]"),
    "files": lambda: infer("[" + '"",' * 5_000_000 + '""]', "[5000001]", "BYTES"),
    "files that are lists": lambda: infer("[" + "[]," * 5_000_000 + "[]]", "[1]", "BYTES"),
    "a shape": lambda: infer("[1]", "[" + "1," * 8_000_000 + "1]"),
    "parameters": lambda: infer(
        "[1]", parameters="{" + ",".join(f'"{n}":[]' for n in range(1_000_000)) + "}"
    ),
    "outputs": lambda: infer("[1]", outputs="[" + "{}," * 5_000_000 + "{}]"),
    "inputs": lambda: b'{"inputs":[' + b"{}," * 5_000_000 + b"{}]}",
    "fields that do not exist": lambda: infer("[1]", other="[" + "[]," * 5_000_000 + "[]]"),
    "names": lambda: ("{" + ",".join(f'"{n}":0' for n in range(1_300_000)) + "}").encode(),
}


@pytest.mark.parametrize("what", JSONS)
def test_json_of_any_kind_costs_no_more_than_its_length(open_service: Service, what: str) -> None:
    body = JSONS[what]()
    open_service.infer("run", inputs=[])  # so that what the first request loads does not count
    before, health = open_service.peak(), 0
    answers: list[int] = []
    attackers = [
        threading.Thread(
            target=lambda: answers.append(open_service.post("/v2/models/run/infer", body).status)
        )
        for _ in range(2)
    ]
    for thread in attackers:
        thread.start()
    while not health or any(thread.is_alive() for thread in attackers):
        assert_alive(open_service)
        health += 1
    assert set(answers) <= {400, 413}
    # The body, as it came and in one piece, its data, and what is left of that without the digits;
    # of two requests.
    assert open_service.peak() - before < 2 * 8 * len(body) / MIB + 16


# --- answers --------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def large_map(run: Path, session_folder: Path) -> Path:
    """A detector whose heatmap has so many times as many cells a side."""

    def enlarge(model: onnx.ModelProto) -> None:
        for node in model.graph.node:
            node.output[:] = ["small_map" if name == "heatmap" else name for name in node.output]
            node.input[:] = ["small_map" if name == "heatmap" else name for name in node.input]
        model.graph.initializer.append(
            onnx.numpy_helper.from_array(np.array([1, TIMES, TIMES], np.int64), "times")
        )
        model.graph.node.append(onnx.helper.make_node("Tile", ["small_map", "times"], ["heatmap"]))

    return changed(run, session_folder / "large-map.onnx", enlarge)


def test_a_heatmap_too_large_for_an_answer_is_refused_and_the_verdict_is_not(
    large_map: Path, tmp_path: Path
) -> None:
    with serving(tmp_path / "log", large_map, "--timeout", 100) as service:
        image = encoded(picture(), "PNG")
        assert service.post("/score", image).status == 200
        answer = service.post("/score?heatmap=true", image)
        assert answer.status == 422
        assert (
            "numbers as JSON found, at most 2000000 expected: ask for fewer images"
            in answer.json["error"]
        )
        tensor = {
            "name": "images",
            "datatype": "BYTES",
            "shape": [2],
            "data": [base64.b64encode(image).decode()] * 2,
        }
        for binary, words in (
            (False, "numbers as JSON found"),
            (True, "bytes of binary tensors found"),
        ):
            outputs = [{"name": "heatmap", "parameters": {"binary_data": binary}}]
            answer = service.infer("large-map", inputs=[tensor], outputs=outputs)
            assert (answer.status, words in answer.json["error"]) == (422, True)
        answer = service.infer("large-map", inputs=[tensor], outputs=[{"name": "score"}])
        assert (answer.status, answer.json["outputs"][0]["shape"]) == (200, [2])


# --- the dashboard --------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def dashboard(session_folder: Path) -> Iterator[Server]:
    database = session_folder / "attacked.db"
    Store(str(database)).close()
    with dashboard_serving(database) as found:
        yield found


PAGE = "POST /none HTTP/1.1\r\nHost: localhost\r\n"
DASHBOARD = {
    "head": ([PAGE.encode()], b"A: b\r\n"),
    "address": ([b"GET /"], b"a"),
    "chunks": ([PAGE.encode(), b"Transfer-Encoding: chunked\r\n\r\n"], CHUNK),
    "length": ([PAGE.encode(), f"Content-Length: {1 << 40}\r\n\r\n".encode()], b"a"),
    "pipelined": ([], b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"),
}


@pytest.mark.parametrize("what", DASHBOARD)
def test_the_dashboard_closes_what_never_ends(dashboard: Server, what: str) -> None:
    start, piece = DASHBOARD[what]
    before = dashboard.peak()
    sent, _ = closed_after(dashboard, itertools.chain(start, endless(piece)))
    assert sent < MOST_SENT
    assert dashboard.peak() - before < 32
    assert Client(dashboard.port).ask("GET", "/healthz").status == 200


def test_the_dashboard_answers_beside_half_open_connections(dashboard: Server) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(1100):
            connection = stack.enter_context(
                socket.create_connection(("127.0.0.1", dashboard.port), timeout=60)
            )
            with contextlib.suppress(ConnectionError):
                connection.sendall(PAGE.encode())
        assert Client(dashboard.port).ask("GET", "/healthz").status == 200
        assert len(list(Path(f"/proc/{dashboard.process.pid}/fd").iterdir())) < 700  # type: ignore[union-attr]
    for _ in range(300):
        closed_after(dashboard, [b"\0"])
    assert 1 <= dashboard.log.read_bytes().count(b"Invalid HTTP request") < 250
