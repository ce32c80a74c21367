"""Scoring on a Ray cluster, or in one process for each core of this machine:
`anomaly score --engine ray`.

Where RAY_ADDRESS names a cluster its CPUs are used, else this machine's. Sources and rows travel,
images do not: each actor reads its own and writes its pictures, so that paths must mean the same on
every node (URLs do). The detector's bytes are sent along.
"""

from __future__ import annotations

import logging
import os
import tempfile
import warnings
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from anomaly.detector.session import available_cores
from anomaly.errors import AnomalyError, RuntimeMissing
from anomaly.inputs.source import Held, Source
from anomaly.scorer import Scorer
from anomaly.scoring.pictures import Pictures
from anomaly.scoring.rows import Scored, Work, score_sources

# sources of one Ray Data set, and bytes that came with them
WINDOW, WINDOW_BYTES = 100_000, 256_000_000
MAX_BLOCK_SOURCES = 64  # sources that an actor gets at a time; a killed one costs no more
MAX_ACTOR_DEATHS = 3  # of actors over one block, before the run stops: an image may be to blame


def score_on_ray(
    work: Work, sources: Iterator[tuple[int, Source]]
) -> Generator[Scored, None, None]:
    """Yields the rows of numbered sources in order, from actors of one thread each.

    An actor that dies is replaced and its work done again. RuntimeMissing without Ray; AnomalyError
    where the scorer is not on the CPU, or where actors die over the same images again and again.
    """
    ray = import_ray()
    if work.scorer.device != "cpu":
        raise AnomalyError(
            "--engine ray with CUDA found, which is not supported: add --device cpu, or leave "
            "--engine out"
        )
    with started(ray):
        detector = ray.put(work.scorer.path.read_bytes())
        options = (work.scorer.max_pixels, work.keep_going, work.pictures, work.out)
        actors = max(1, int(ray.cluster_resources().get("CPU", 1)))
        for window in windows(sources):
            size = max(1, min(MAX_BLOCK_SOURCES, len(window) // (8 * actors)))
            blocks = ray.data.from_items(
                [
                    {"sources": pack(window[start : start + size])}
                    for start in range(0, len(window), size)
                ],
                override_num_blocks=-(-len(window) // size),
            )
            with warnings.catch_warnings():
                # The only way to bound how often a block is tried again will have another name in
                # Ray 2.64.
                warnings.simplefilter("ignore", ray.util.annotations.RayDeprecationWarning)
                done = blocks.map_batches(
                    Actor,
                    fn_constructor_args=(detector, *options),
                    batch_size=None,
                    compute=ray.data.ActorPoolStrategy(size=min(actors, -(-len(window) // size))),
                    num_cpus=1,
                    ray_remote_args_fn=retry_options,
                )
            yield from unpack(ray, done)


def retry_options() -> dict[str, int]:
    """Returns how often a block is tried again after its actor died; Ray Data would try
    for ever.
    """
    return {"max_task_retries": MAX_ACTOR_DEATHS}


def pack(objects: Sequence[object]) -> Any:
    """Returns one cell of a Ray Data column that holds a list of objects."""
    cell = np.empty(len(objects), dtype=object)
    for index, one in enumerate(objects):  # at once NumPy would look into those that are tuples
        cell[index] = one
    return cell


class Actor:
    """One process with a scorer of its own."""

    def __init__(
        self, detector: Any, max_pixels: int, keep_going: bool, pictures: Pictures, out: Path
    ) -> None:
        with tempfile.TemporaryDirectory(prefix="anomaly-") as folder:
            file = Path(folder) / "detector.onnx"
            file.write_bytes(import_ray().get(detector))
            scorer = Scorer(file, device="cpu", threads=1, max_pixels=max_pixels)
        self.work = Work(scorer, keep_going, pictures, out)

    def __call__(self, block: dict[str, Any]) -> dict[str, Any]:
        """Returns the rows of a block of sources; where their disk or server has gone, the error in
        their place.
        """
        try:
            done: list[Scored | AnomalyError] = []
            for sources in block["sources"]:
                done += score_sources(self.work, sources)
        except AnomalyError as error:
            done = [error]
        return {"done": pack(done)}


def unpack(ray: Any, done: Any) -> Iterator[Scored]:
    """Yields the rows of a Ray Data set; an AnomalyError of an actor comes out here."""
    try:
        for row in done.iter_rows():
            if isinstance(row["done"], AnomalyError):
                raise row["done"]
            yield row["done"]
    except ray.exceptions.RayError as error:
        why = str(error).strip().splitlines()[-1][:300]
        raise AnomalyError(
            f"Ray gave up ({type(error).__name__}: {why}): run the same command again to go on; if "
            "workers die over the same images again, score those without --engine ray to see which"
        ) from error


def windows(sources: Iterable[tuple[int, Source]]) -> Iterator[list[tuple[int, Source]]]:
    """Yields sources in lists that a driver can hold, of bytes that came with them too."""
    rest = iter(sources)
    for first in rest:
        window, held = [first], 0
        for number, source in islice(rest, WINDOW - 1):
            window.append((number, source))
            held += len(source.data) if isinstance(source, Held) else 0
            if held >= WINDOW_BYTES:
                break
        yield window


def import_ray() -> Any:
    """Returns the module ray with ray.data, or raises RuntimeMissing naming the extra."""
    # how Ray is used would be told to its makers
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # what matters comes as an exception
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise RuntimeMissing.extra("ray", "ray", "--engine ray") from error
    return ray


@contextmanager
def started(ray: Any) -> Iterator[None]:
    """Connects to the cluster of RAY_ADDRESS, or starts Ray on this machine and ends it again;
    results keep their order.
    """
    ours = not ray.is_initialized()
    if ours:
        here = (
            {}
            if os.environ.get("RAY_ADDRESS")
            else {"num_cpus": available_cores(), "include_dashboard": False}
        )
        ray.init(log_to_driver=False, logging_level=logging.ERROR, **here)
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        yield
    finally:
        if ours:
            ray.shutdown()
