"""Memory and CPU time of `anomaly score` on 1,000 to 100,000 images, each in its own process.

    python -m tests.benchmarks.measure_score RUN IMAGES [--counts 1000 100000]

The images of a folder are repeated by a list on standard input until they are so many. CPU time is
told for each tenth of the images, so that a busy hour of the machine is not taken for growth: what
grows, grows from tenth to tenth.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from itertools import cycle, islice
from pathlib import Path

from anomaly.files.progress import Progress
from anomaly.inputs.sources import list_sources
from anomaly.quality.bench import peak_memory
from anomaly.scorer import Scorer
from anomaly.scoring.batch import score_table


class Tenths(Progress):
    """Notes the CPU time of this process at each tenth of ``total``."""

    def __init__(self, total: int) -> None:
        super().__init__(total, "scoring", quiet=True)
        self.marks = [time.process_time()]

    def advance(self, n: int = 1, note: str = "") -> None:
        super().advance(n, note)
        if self.total and self.done % (self.total // 10) == 0:
            self.marks.append(time.process_time())


def child(run: str, out: str, count: str) -> None:
    """Scores what standard input lists, and prints megabytes at most, then milliseconds of CPU an
    image for each tenth.
    """
    tenths = Tenths(int(count))
    score_table(
        Scorer(run, device="cpu", threads=1), list_sources(["-"]), Path(out), progress=tenths
    )
    each = [
        1000 * (b - a) / (int(count) // 10)
        for a, b in zip(tenths.marks, tenths.marks[1:], strict=False)
    ]
    print(peak_memory(), *each)


def measured(run: Path, names: list[str], count: int) -> list[float]:
    """Returns what ``child`` prints."""
    with tempfile.TemporaryDirectory() as folder:
        listed = Path(folder) / "names"
        with listed.open("wb") as file:
            file.writelines(os.fsencode(name) + b"\n" for name in islice(cycle(names), count))
        code = "import sys; from tests.benchmarks.measure_score import child; child(*sys.argv[1:])"
        with listed.open("rb") as file:
            command = [sys.executable, "-c", code, str(run), f"{folder}/table.csv", str(count)]
            done = subprocess.run(
                command, stdin=file, stdout=subprocess.PIPE, text=True, check=True
            )
    return [float(word) for word in done.stdout.split()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument(
        "--counts", type=int, nargs="+", default=[1000, 10_000, 100_000], help="multiples of ten"
    )
    options = parser.parse_args()
    names = [source.name for source in list_sources([options.images])]
    for count in options.counts:
        memory, *each = measured(options.run, names, count)
        print(
            f"{count:>9,} images: {memory:.0f} MB; ms of CPU an image, by tenths: "
            f"{' '.join(f'{one:.2f}' for one in each)}",
            flush=True,
        )


if __name__ == "__main__":
    main()
