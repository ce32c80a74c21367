"""How fast a detector scores given images on this machine: what decoding and the model allow, and
what is reached.
"""

from __future__ import annotations

import itertools
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np

from anomaly.detector.session import available_cores
from anomaly.errors import NOT_ALL_JUDGED, AnomalyError, ImageError
from anomaly.imaging.decode import Decoded
from anomaly.inputs.source import Source
from anomaly.inputs.sources import list_sources
from anomaly.scorer import Scorer
from anomaly.scoring.batch import RunOptions, score_in_threads, score_table
from anomaly.scoring.speed import Bench

ROUNDS = 3  # of the three throughputs in turn, so that a busy minute of the machine spoils no ratio
LOOKED_AT, USED, HELD = 1000, 64, 512_000_000  # images, images, bytes of pixels
COLD_STARTS = 3
PERCENTILES = {"p50": 50.0, "p95": 95.0, "p99_9": 99.9, "max": 100.0}
Item = TypeVar("Item")


def bench(
    detector: Path, sources: Iterable[Source], *, device: str = "auto", seconds: float = 30.0
) -> Bench:
    """Measures a detector on images; AnomalyError where none can be decoded.

    ``seconds``: for the three throughputs together. At most 64 of the first 1,000 images are used,
    evenly spread.
    """
    scorer, threads = Scorer(detector, device=device, threads=1), available_cores()
    chosen, decoded = choose(scorer, sources)
    decode, model, end_to_end = throughputs(scorer, chosen, decoded, threads, seconds)
    alone = latencies(Scorer(detector, device=device), chosen, seconds / 3)
    with tempfile.TemporaryDirectory(prefix="anomaly-bench-") as folder:
        # names without a suffix would not be found in a folder
        for number, source in enumerate(chosen):
            (Path(folder) / f"{number:03}.png").write_bytes(
                source.read(limit=8 * scorer.max_pixels)
            )
        start_up = statistics.median(
            cold_start(detector, f"{folder}/000.png", device) for _ in range(COLD_STARTS)
        )
        loaded, peak = memory(detector, folder, device)
    return Bench(
        detector=scorer.card.identity,
        device=scorer.device,
        threads=threads,
        images=len(chosen),
        sizes=_sizes(decoded),
        decode=decode,
        model=model,
        end_to_end=end_to_end,
        one_image={
            name: float(np.percentile(alone, percent)) for name, percent in PERCENTILES.items()
        },
        calls=len(alone),
        start_up=start_up,
        loaded=loaded,
        peak=peak,
    )


def choose(scorer: Scorer, sources: Iterable[Source]) -> tuple[list[Source], list[Decoded]]:
    """Returns images that can be decoded, evenly spread over the first ones, and their pixels (512
    MB at most).
    """
    first = list(itertools.islice(sources, LOOKED_AT))
    chosen: list[Source] = []
    decoded: list[Decoded] = []
    wrong = "no image"
    used = min(USED, len(first))
    for source in (first[number * len(first) // used] for number in range(used)):
        try:
            image = scorer.decode(source.read(limit=8 * scorer.max_pixels))
        except ImageError as error:
            wrong = f"{source.name}: {error}"
            continue
        if chosen and sum(one.pixels.nbytes for one in decoded) + image.pixels.nbytes > HELD:
            break
        chosen.append(source)
        decoded.append(image)
    if not chosen:
        raise AnomalyError(
            f"{wrong} found, images that can be decoded expected: give a folder of such images"
        )
    return chosen, decoded


def _sizes(decoded: Sequence[Decoded]) -> str:
    widths, heights = [image.width for image in decoded], [image.height for image in decoded]
    low, high = f"{min(widths)}x{min(heights)}", f"{max(widths)}x{max(heights)}"
    formats = "/".join(sorted({image.format for image in decoded}))
    return f"{low if low == high else f'{low} to {high}'} {formats}"


def throughputs(
    scorer: Scorer,
    sources: Sequence[Source],
    decoded: Sequence[Decoded],
    threads: int,
    seconds: float,
) -> tuple[float, float, float]:
    """Returns images a second of decoding alone, the model alone, and both with the table: medians
    of rounds in turn.
    """

    def decode(source: Source) -> object:
        return scorer.decode(source.read(limit=8 * scorer.max_pixels))

    def model(image: Decoded) -> object:
        return scorer.run(image.pixels[None])

    model(decoded[0])  # what is done once is not part of a throughput
    turn = seconds / (3 * ROUNDS)
    rounds: list[tuple[float, float, float]] = []
    for _ in range(ROUNDS):
        decoding, judging = (
            rate(decode, sources, threads, turn),
            rate(model, decoded, threads, turn),
        )
        images = max(4 * threads, round(turn / (1 / decoding + 1 / judging)))
        rounds.append(
            (
                decoding,
                judging,
                score_rate(scorer, itertools.islice(itertools.cycle(sources), images), threads),
            )
        )
    decoding, judging, both = (statistics.median(values) for values in zip(*rounds, strict=True))
    return decoding, judging, both


def rate(
    function: Callable[[Item], object], items: Sequence[Item], threads: int, seconds: float
) -> float:
    """Returns the calls a second that ``threads`` threads make together."""
    shared, began = itertools.cycle(items), time.perf_counter()

    def work(_: int) -> float:
        for calls in itertools.count(1):
            function(next(shared))
            elapsed = time.perf_counter() - began
            if elapsed >= seconds:
                return calls / elapsed
        raise AssertionError

    with ThreadPoolExecutor(threads) as pool:
        return sum(pool.map(work, range(threads)))


def score_rate(scorer: Scorer, sources: Iterable[Source], threads: int) -> float:
    """Returns images a second of a whole table, written and joined."""
    with tempfile.TemporaryDirectory(prefix="anomaly-bench-") as folder:
        return score_table(
            scorer,
            sources,
            Path(folder) / "table.csv",
            options=RunOptions(engine=partial(score_in_threads, workers=threads)),
        ).images_per_second


def latencies(scorer: Scorer, sources: Sequence[Source], seconds: float) -> list[float]:
    """Returns the milliseconds that single images take, one after another, from the file's bytes to
    the result.
    """
    found: list[float] = []
    scorer.score(sources[0].read(limit=8 * scorer.max_pixels))
    ends = time.perf_counter() + seconds
    for source in itertools.cycle(sources):
        began = time.perf_counter()
        scorer.score(source.read(limit=8 * scorer.max_pixels))
        now = time.perf_counter()
        found.append(1000 * (now - began))
        if now >= ends:
            return found
    raise AssertionError


def cold_start(detector: Path, image: str, device: str) -> float:
    """Returns the seconds that `anomaly score` takes for one image, from the start of the program
    to its end.
    """
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="anomaly-bench-") as folder:
        _new_process(
            "-m",
            "anomaly",
            "score",
            str(detector),
            image,
            "--out",
            f"{folder}/table.csv",
            "--device",
            device,
        )
    return time.perf_counter() - began


def memory(detector: Path, images: str, device: str) -> tuple[float, float]:
    """Returns the megabytes of a new process with the detector loaded, and the most that it holds
    while it scores.
    """
    with tempfile.TemporaryDirectory(prefix="anomaly-bench-") as folder:
        call = (
            "from anomaly.quality.bench import say_memory; "
            f"say_memory(*{(str(detector), images, device, folder)!r})"
        )
        loaded, peak = map(float, _new_process("-c", call).split())
    return loaded, peak


def say_memory(detector: str, images: str, device: str, folder: str) -> None:
    """Prints what this process has held at most with the detector loaded, and after scoring; in
    megabytes.
    """
    scorer = Scorer(detector, device=device, threads=1)
    loaded = peak_memory()
    score_table(scorer, list_sources([images]), Path(folder) / "table.csv")
    print(loaded, peak_memory())


def peak_memory() -> float:
    """Returns the most megabytes that this process has held so far."""
    status = Path("/proc/self/status")
    if status.exists():  # what getrusage says begins with what the parent held
        return int(status.read_text().split("VmHWM:")[1].split()[0]) / 1024
    if sys.platform == "win32":
        import ctypes

        # PROCESS_MEMORY_COUNTERS of 64 bits: its size and faults, then the peak
        counters = (ctypes.c_size_t * 9)(72)
        kernel = ctypes.windll.kernel32
        kernel.GetCurrentProcess.restype = ctypes.c_void_p
        kernel.K32GetProcessMemoryInfo.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint)
        kernel.K32GetProcessMemoryInfo(kernel.GetCurrentProcess(), counters, 72)
        return counters[1] / (1 << 20)
    else:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20)


def _new_process(*words: str) -> str:
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False)
    if done.returncode not in (0, NOT_ALL_JUDGED):
        raise AnomalyError(
            f"a new process cannot score (status {done.returncode}): {done.stderr.strip()[-300:]}"
        )
    return done.stdout
