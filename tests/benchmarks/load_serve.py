"""Measures `anomaly serve` with an open-loop client: requests leave at a constant rate, whether
answers come or not.

    python -m tests.benchmarks.load_serve RUN IMAGES
        against decoding and the bare session, and the smallest server; at 50 % and 200 % load
    python -m tests.benchmarks.load_serve RUN IMAGES --soak 15
        15 minutes at 20 a second: is its memory flat?

Latency counts from the moment at which a request was due, so a server that stalls cannot hide it.
Client and server share the machine; the client's own share of the processor is printed. JPEG bodies
of quality 90.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from anomaly.detector.session import available_cores
from anomaly.imaging.find import find_images
from anomaly.scorer import Scorer
from tests.support.serving import ROOT, Service, serving


@dataclass
class Load:
    """What became of requests at a constant rate: seconds of those judged, answers by status (0:
    none came).
    """

    rate: float
    seconds: float
    latencies: list[float] = field(default_factory=list)
    codes: Counter[int] = field(default_factory=Counter)
    own_cpu: float = 0.0

    def text(self) -> str:
        p50, p95, p99 = 1e3 * np.percentile(self.latencies or [np.nan], [50, 95, 99])
        codes = ", ".join(f"{count} x {code}" for code, count in sorted(self.codes.items()))
        return (
            f"{self.rate:.1f} a second: {self.codes[200] / self.seconds:.1f} a second judged; p50 "
            f"{p50:.1f}, p95 {p95:.1f}, p99 {p99:.1f} ms; {codes}; the client took "
            f"{100 * self.own_cpu:.0f} % of one core"
        )


def jpegs(folder: Path, most: int = 64) -> list[bytes]:
    """Returns the images of a folder as JPEG files."""
    bodies = []
    for path in find_images(folder)[:most]:
        file = io.BytesIO()
        Image.open(path).convert("RGB").save(file, "JPEG", quality=90)
        bodies.append(file.getvalue())
    return bodies


def bare_rate(run: Path, bodies: list[bytes], seconds: float) -> tuple[float, float]:
    """Returns images a second of decoding and the bare InferenceSession.run, one thread for each
    core and nothing else, and the processor's milliseconds for each image."""
    scorer = Scorer(run, device="cpu", threads=1)
    until = time.perf_counter() + seconds

    def work(start: int) -> int:
        done = 0
        while time.perf_counter() < until:
            scorer._session.run(
                None, {"images": scorer.decode(bodies[(start + done) % len(bodies)]).pixels[None]}
            )
            done += 1
        return done

    cores = available_cores()
    with ThreadPoolExecutor(cores) as pool:
        start = time.process_time()
        done = sum(pool.map(work, range(0, 7 * cores, 7)))
        return done / seconds, 1e3 * (time.process_time() - start) / done


class Connections:
    """Keep-alive connections; one is opened where none is free."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def ask(self, request: bytes) -> int:
        reader, writer = (
            self.free.pop() if self.free else await asyncio.open_connection("127.0.0.1", self.port)
        )
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split()[0])
        await reader.readexactly(length)
        if b"connection: close" in head.lower():  # behind an answer that did not wait for the body
            writer.close()
        else:
            self.free.append((reader, writer))
        return int(head.split()[1])

    def close(self) -> None:
        for _, writer in self.free:
            writer.close()


def request_of(body: bytes) -> bytes:
    head = (
        "POST /score HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\nContent-Length: "
        f"{len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def drive(port: int, bodies: list[bytes], rate: float, seconds: float) -> Load:
    """Sends requests at a constant rate and returns what became of them."""
    load, connections = Load(rate, seconds), Connections(port)
    requests = [request_of(body) for body in bodies]

    async def one(number: int, due: float) -> None:
        try:
            code = await asyncio.wait_for(connections.ask(requests[number % len(requests)]), 30)
        except (OSError, TimeoutError, EOFError):
            code = 0
        load.codes[code] += 1
        if code == 200:
            load.latencies.append(time.perf_counter() - due)

    cpu, start, pending = time.process_time(), time.perf_counter() + 0.1, []
    for number in range(int(rate * seconds)):
        due = start + number / rate
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        pending.append(asyncio.create_task(one(number, due)))
    await asyncio.gather(*pending)
    load.own_cpu = (time.process_time() - cpu) / (time.perf_counter() - start)
    connections.close()
    return load


async def closed(port: int, bodies: list[bytes], callers: int, seconds: float) -> Load:
    """Keeps ``callers`` requests inside all the time: the most that the server judges."""
    load, connections = Load(0.0, seconds), Connections(port)
    requests = [request_of(body) for body in bodies]
    cpu, until = time.process_time(), time.perf_counter() + seconds

    async def caller(number: int) -> None:
        while (start := time.perf_counter()) < until:
            load.codes[await connections.ask(requests[number % len(requests)])] += 1
            load.latencies.append(time.perf_counter() - start)
            number += 1

    await asyncio.gather(*(caller(7 * number) for number in range(callers)))
    load.own_cpu = (time.process_time() - cpu) / seconds
    connections.close()
    return load


@contextmanager
def smallest(run: Path) -> Iterator[Service]:
    """Runs the smallest server around the same detector until the block ends."""
    command = [sys.executable, "-m", "tests.benchmarks.smallest_server", str(run)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            line = process.stdout.readline()  # type: ignore[union-attr]
            yield Service(process, int(line.rpartition(":")[2]), Path("-"))
        finally:
            process.terminate()


def most(service: Service, bodies: list[bytes], seconds: float) -> tuple[float, float, float]:
    """Returns the most images a second that a server judges, its processor's milliseconds for each,
    and the cores that the client takes.
    """
    start = service.processor_seconds()
    found = asyncio.run(closed(service.port, bodies, 2 * available_cores(), seconds))
    judged = found.codes[200]
    return (
        judged / seconds,
        1e3 * (service.processor_seconds() - start) / judged,
        found.own_cpu,
    )


def measure(service: Service, run: Path, bodies: list[bytes], seconds: float) -> None:
    """Prints the most it judges against the bare rate and the smallest server, in turns, then half
    and double load.

    The rates are only worth something on a quiet machine; processor time an image is so on a busy
    one too.
    """
    rounds = []
    with smallest(run) as floor:
        for _ in range(3):
            bare, bare_ms = bare_rate(run, bodies, seconds / 3)
            _, floor_ms, _ = most(floor, bodies, seconds / 3)
            served, served_ms, client = most(service, bodies, seconds / 3)
            rounds.append((served, bare, served_ms, bare_ms, floor_ms, client))
            print(
                f"bare {bare:.1f}, served {served:.1f} a second: {served / bare:.3f} of it; "
                f"processor {bare_ms:.2f}, {served_ms:.2f} ms, smallest {floor_ms:.2f} ms",
                flush=True,
            )
    served, bare, served_ms, bare_ms, floor_ms, client = np.median(rounds, axis=0)
    print(
        f"capacity {served:.1f} a second, {served / bare:.3f} of decode and bare session; client "
        f"{client:.2f} cores"
    )
    print(
        f"processor time an image: bare {bare_ms:.2f} ms, server {served_ms:.2f} ms: "
        f"{bare_ms / served_ms:.3f} of it; the smallest server {floor_ms:.2f} ms: "
        f"{bare_ms / floor_ms:.3f}",
        flush=True,
    )
    print(
        "half load:   ",
        asyncio.run(drive(service.port, bodies, served / 2, seconds)).text(),
        flush=True,
    )
    print(
        "double load: ",
        asyncio.run(drive(service.port, bodies, served * 2, seconds)).text(),
        flush=True,
    )


def soak(service: Service, bodies: list[bytes], minutes: float, rate: float) -> None:
    """Prints the server's memory every tenth of a soak at a constant rate."""
    total: Counter[int] = Counter()
    memory = [service.memory()]
    for _ in range(10):
        load = asyncio.run(drive(service.port, bodies, rate, 6 * minutes))
        total += load.codes
        memory.append(service.memory())
        print(f"{memory[-1]:.1f} MiB; {load.text()}", flush=True)
    grown = memory[-1] - memory[2]
    print(
        f"{sum(total.values())} requests, {dict(total)}; memory after a fifth {memory[2]:.1f} MiB, "
        f"at the end {grown:+.1f} MiB"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--soak", type=float, metavar="MINUTES")
    parser.add_argument("--rate", type=float, default=20, help="requests a second in a soak")
    options = parser.parse_args()
    bodies = jpegs(options.images)
    log = Path(tempfile.mkdtemp()) / "serve.log"
    with serving(log, options.run, "--device", "cpu") as service:
        if options.soak:
            soak(service, bodies, options.soak, options.rate)
        else:
            measure(service, options.run, bodies, options.seconds)
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        odd = sum(line["level"] != "info" for line in lines)
        print(
            f"server {service.memory():.0f} MiB; {len(lines)} lines in its log, {odd} of them "
            "warnings or errors"
        )


if __name__ == "__main__":
    main()
