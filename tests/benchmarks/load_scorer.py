"""Measures Scorer as a service uses it: what it adds to the bare session, latency with many
callers, memory.

python -m tests.benchmarks.load_scorer RUN IMAGES
python -m tests.benchmarks.load_scorer RUN IMAGES --calls 50000   and the memory they leave behind
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from anomaly.detector.session import available_cores
from anomaly.imaging.find import find_images
from anomaly.scorer import Scorer


def overhead(run: Path, path: Path, rounds: int = 400) -> None:
    """Prints what judge, which takes a decoded image, adds to InferenceSession.run: both in turns,
    so that a busy machine is busy for both."""
    scorer = Scorer(run, device="cpu", threads=1)
    image = scorer.decode(path)
    batch, session = image.pixels[None], scorer._session

    def seconds(work: Callable[[], object]) -> float:
        start = time.perf_counter()
        work()
        return time.perf_counter() - start

    pairs = [
        (
            seconds(lambda: session.run(None, {"images": batch})),
            seconds(lambda: scorer.judge(image)),
        )
        for _ in range(rounds)
    ]
    bare, whole = 1e3 * np.median(pairs, axis=0)
    added = 1e3 * float(np.median([w - b for b, w in pairs]))
    print(
        f"one decoded image: bare session {bare:.3f} ms, Scorer {whole:.3f} ms: {added:.3f} ms "
        f"more, {100 * added / bare:.1f} %"
    )


def callers(run: Path, files: list[bytes], count: int, seconds: float) -> None:
    """Prints latency and throughput with ``count`` threads that score encoded images one after the
    other.
    """
    scorer = Scorer(run, device="cpu", threads=1, at_once=available_cores())
    until = time.perf_counter() + seconds

    def caller(number: int) -> list[float]:
        found = []
        while (start := time.perf_counter()) < until:
            scorer.score(files[(number + len(found)) % len(files)])
            found.append(time.perf_counter() - start)
        return found

    with ThreadPoolExecutor(count) as pool:
        latencies = np.concatenate(list(pool.map(caller, range(0, 7 * count, 7))))
    p50, p95, p99 = 1e3 * np.percentile(latencies, [50, 95, 99])
    print(
        f"{count:2} callers: {len(latencies) / seconds:.1f} a second; p50 {p50:.1f}, p95 "
        f"{p95:.1f}, p99 {p99:.1f} ms",
        flush=True,
    )


def memory() -> float:
    """Returns this process's resident memory in MiB."""
    return int(Path("/proc/self/status").read_text().partition("VmRSS:")[2].split()[0]) / 1024


def leak(run: Path, files: list[bytes], calls: int) -> None:
    """Prints the memory at each tenth of ``calls`` calls from four threads."""
    scorer = Scorer(run, device="cpu", threads=1)
    found = []
    with ThreadPoolExecutor(4) as pool:
        for tenth in range(10):
            for _ in pool.map(
                lambda i: scorer.score(files[i % len(files)]).score, range(calls // 10)
            ):
                pass
            found.append(memory())
            print(f"{(tenth + 1) * calls // 10} calls: {found[-1]:.1f} MiB", flush=True)
    slope = float(np.polyfit(np.arange(2, 11) * calls / 10, found[1:], 1)[0])
    print(f"after the first tenth: {1e6 * slope:+.1f} MiB for a million calls")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--calls", type=int)
    options = parser.parse_args()
    paths = find_images(options.images)[:64]
    files = [path.read_bytes() for path in paths]
    overhead(options.run, paths[0])
    for count in (1, 4, 16):
        callers(options.run, files, count, options.seconds)
    if options.calls:
        leak(options.run, files, options.calls)


if __name__ == "__main__":
    main()
