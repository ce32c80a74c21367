"""Measures how long `anomaly run` takes from an image to its result at a sink.

python -m tests.benchmarks.measure_station [--run RUN --images FOLDER] [--count 3000] [--rate 10]
    [--minutes M]

Images are posted over HTTP one by one, ``--rate`` a second (0: as fast as they are answered), and
each result is heard by a receiver of the webhook. Printed are the whole time from the post to the
receiver, the time of decoder and model alone in this process (one image in ten, in between, so that
both meet the same load), their difference, and how memory and the state folder grow. ``--minutes``:
it ends after these, however many images there were.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import threading
import time
from collections.abc import Iterable
from functools import partial
from itertools import cycle, islice, takewhile
from pathlib import Path

import numpy as np

from anomaly.scorer import Scorer
from tests.support.kill_score import made_up
from tests.support.review_server import free_port
from tests.support.stations import Receiver, Station, station, wait_until

TOML = """
[[source]]
kind = "http"
port = {http}
[[sink]]
kind = "webhook"
url = "http://127.0.0.1:{hook}/"
[[sink]]
kind = "table"
path = "results.csv"
"""
MODEL_EVERY = 10  # images
STEPS = 10  # looks at memory


class Heard(Receiver):
    """A receiver that notes when each result came."""

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self.at: list[float] = []
        self.posts = Noting(self.at)

    def has(self, number: int) -> bool:
        """Whether the result of that number, from 0 on, came."""
        return len(self.at) > number


class Noting(list[tuple[dict[str, str], bytes]]):
    """Keeps only when something was appended."""

    def __init__(self, at: list[float]) -> None:
        super().__init__()
        self._at = at

    def append(self, _: tuple[dict[str, str], bytes]) -> None:
        self._at.append(time.perf_counter())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--count", type=int, default=3000)
    parser.add_argument("--rate", type=float, default=10)
    parser.add_argument("--minutes", type=float, default=math.inf)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        home = Path(temporary)
        run, images = (options.run, options.images) if options.run else made_up(home)
        files = [path.read_bytes() for path in sorted(images.rglob("*.png"))]
        http, heard = free_port(), Heard(free_port())
        (home / "line").mkdir()
        toml = TOML.format(http=http, hook=heard.port)
        with heard.receiving(), station(home / "line", run.absolute(), toml) as line:
            line.start()
            ends = time.perf_counter() + 60 * options.minutes
            posted = takewhile(lambda _: time.perf_counter() < ends, cycle(files))
            measure(line, http, heard, islice(posted, options.count), options)
            line.stop()


def measure(
    line: Station, port: int, heard: Heard, files: Iterable[bytes], options: argparse.Namespace
) -> None:
    """Posts the files, and prints the figures."""
    rate, step = options.rate, max(1, options.count // STEPS)
    scorer, sent, alone = Scorer(line.run), list[float](), list[float]()
    quiet = threading.Event()
    began = time.perf_counter()
    for number, data in enumerate(files):
        if rate:
            quiet.wait(max(0.0, began + number / rate - time.perf_counter()))
        sent.append(time.perf_counter())
        assert line.post(port, data).status == 200
        wait_until(partial(heard.has, number), "the result")
        if number % MODEL_EVERY == 0:
            at = time.perf_counter()
            scorer.judge(scorer.decode(data))
            alone.append(time.perf_counter() - at)
        if number % step == 0:
            print(f"{number:>8,} images: {size_of(line)}", flush=True)
    print(f"{len(sent):>8,} images: {size_of(line)}")
    whole = np.array(heard.at[: len(sent)]) - np.array(sent)
    rows = {
        "image to sink": whole,
        "decoder and model": np.array(alone),
        "station's own": whole[::MODEL_EVERY] - np.array(alone),
    }
    for name, seconds in rows.items():
        p50, p99, most = 1000 * np.percentile(seconds, (50, 99, 100))
        print(f"{name:<20} p50 {p50:6.1f} ms   p99 {p99:6.1f} ms   max {most:6.1f} ms")


def size_of(line: Station) -> str:
    """Returns what the process and its state folder take."""
    assert line.process is not None
    status = Path(f"/proc/{line.process.pid}/status").read_text()
    memory = int(status.partition("VmRSS:")[2].split()[0]) / 1024
    disk = sum(path.stat().st_size for path in (line.home / "station").rglob("*") if path.is_file())
    return f"{memory:,.0f} MiB of memory, {disk / 2**20:,.1f} MiB of state"


if __name__ == "__main__":
    main()
