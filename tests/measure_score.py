"""Memory and CPU time of `anomaly score` from a thousand images to a hundred thousand, each in a process of its own.

    python -m tests.measure_score RUN IMAGES [--counts 1000 100000]

The images of a folder are repeated by a list on standard input until they are so many.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from itertools import cycle, islice
from pathlib import Path

from anomaly.sources import list_sources

SAY = """
import resource, sys
from anomaly.bench import peak_memory
from anomaly.cli import main
status = main(sys.argv[1:])
used = resource.getrusage(resource.RUSAGE_SELF)
print("measured", status, peak_memory(), used.ru_utime + used.ru_stime)
"""


def measured(run: Path, names: list[str], count: int) -> tuple[float, float]:
    """Returns the most megabytes that were held, and CPU seconds."""
    with tempfile.TemporaryDirectory() as folder:
        listed = Path(folder) / "names"
        with listed.open("wb") as file:
            file.writelines(os.fsencode(name) + b"\n" for name in islice(cycle(names), count))
        command = [sys.executable, "-c", SAY, "score", str(run), "-", "--out", f"{folder}/table.csv"]
        with listed.open("rb") as file:
            done = subprocess.run(command, stdin=file, stdout=subprocess.PIPE, text=True, check=True)
    status, memory, cpu = done.stdout.splitlines()[-1].split()[1:]
    if status not in ("0", "3"):
        raise SystemExit(f"anomaly score ended with status {status}")
    return float(memory), float(cpu)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("--counts", type=int, nargs="+", default=[1000, 10_000, 100_000])
    options = parser.parse_args()
    names = [source.name for source in list_sources([options.images])]
    _, start = measured(options.run, names, 1)
    for count in options.counts:
        memory, cpu = measured(options.run, names, count)
        print(f"{count:>9,} images: {memory:.0f} MB, {1000 * (cpu - start) / (count - 1):.3f} ms of CPU an image", flush=True)


if __name__ == "__main__":
    main()
