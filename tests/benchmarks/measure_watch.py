"""Measures how long `anomaly score --watch` takes from a closed file to its row.

python -m tests.benchmarks.measure_watch [--run RUN --images FOLDER] [--count 200] [--rate 10]
[--there 0] [--no-events]

``--there``: how many images lie in the folder already and have their rows. ``--no-events``: as on a
network share.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from itertools import cycle, islice
from pathlib import Path

import numpy as np

from anomaly.files.table import Row, encode_rows, read_table
from tests.support.kill_score import made_up

WITHOUT = (
    "import sys; sys.modules['watchdog.events'] = None; from anomaly.commands.main import main; "
    "sys.exit(main(sys.argv[1:]))"
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path)
    parser.add_argument("--images", type=Path)
    for name, default in (("count", 200), ("rate", 10), ("there", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--no-events", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        home = Path(temporary)
        run, images = (options.run, options.images) if options.run else made_up(home)
        late = measure(run, sorted(p for p in images.rglob("*") if p.is_file()), home, options)
    figures = ", ".join(
        f"{name} {np.percentile(late, share):.3f} s"
        for name, share in (("median", 50), ("p99", 99), ("max", 100))
    )
    print(
        f"{len(late)} images, {options.rate} a second, {options.there:,} there: {figures} from "
        "closed to judged"
    )


def measure(run: Path, images: list[Path], home: Path, options: argparse.Namespace) -> list[float]:
    folder, out = home / "in", home / "t.csv"
    folder.mkdir()
    first = [
        *(["-c", WITHOUT] if options.no_events else ["-m", "anomaly"]),
        "score",
        str(run),
        "--watch",
        str(folder),
    ]
    process = subprocess.Popen(
        [sys.executable, *first, "--out", str(out)], stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    process.stderr.readline()
    if options.there:
        (folder / "x.png").write_bytes(images[0].read_bytes())
        while not (rows := list(read_table(out))):
            time.sleep(0.1)
        process.send_signal(signal.SIGKILL)
        process.wait()
        fill(folder, out, rows[0], options.there)
        process = subprocess.Popen(
            [sys.executable, *first, "--out", str(out)], stderr=subprocess.PIPE, text=True
        )
        assert process.stderr is not None
        process.stderr.readline()
        time.sleep(5)
    closed = {}
    for number, image in enumerate(islice(cycle(images), options.count)):
        path = folder / f"new{number}{image.suffix}"
        path.write_bytes(image.read_bytes())
        closed[str(path)] = time.time()
        time.sleep(1 / options.rate)
    time.sleep(5)
    process.send_signal(signal.SIGTERM)
    process.communicate()
    judged = {
        row.path: datetime.fromisoformat(row.scored_at).timestamp() for row in read_table(out)
    }
    return [judged[path] - at for path, at in closed.items()]


def fill(folder: Path, out: Path, row: Row, count: int) -> None:
    """Puts images into the folder, links to one, and their rows into the table."""
    names = [str(folder / f"old{number}.png") for number in range(count)]
    for number, name in enumerate(names):
        (folder / f"y{number // 50_000}.png").exists() or (
            folder / f"y{number // 50_000}.png"
        ).write_bytes(b"")
        os.link(folder / f"y{number // 50_000}.png", name)
    for extra in folder.glob("y*.png"):
        extra.unlink()
    later = row._replace(scored_at="2100-01-01T00:00:00.000Z")
    with open(out, "ab") as table:
        table.write(encode_rows([later._replace(path=name) for name in names], ".csv"))


if __name__ == "__main__":
    main()
