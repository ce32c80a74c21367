"""A detector file is tried out once before it is used: loaded and run on a few pictures, in a
process that can be ended.

ONNX Runtime works out constants while it loads, and cannot be stopped within one operator. A file
from elsewhere can make either last for days. So the first time that this user meets a file (by its
digest and the version of ONNX Runtime), a process of its own does both, with a deadline and bounded
memory; only then does this process load it. The pictures are its golden samples, and grey and noise
of the sizes that its card says the training images had: what a graph does may depend on either.
That a file was tried, and how long the slowest picture took, is remembered in a folder of the
user's cache, so that later loads cost nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import math
import os
import struct
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anomaly.errors import DetectorError

if TYPE_CHECKING:
    import subprocess

    from anomaly.detector.training_facts import Ranges

SECONDS = 60.0  # for both: a detector of hundreds of tiles takes some 30 on one slow core
VARIABLE = "ANOMALY_TRIAL_SECONDS"
CACHE = "ANOMALY_CACHE"
MAX_MEMORY_BYTES = 8 << 30  # that a file may ask for; a finely tiled detector takes 3 GB
OVERHEAD = 512 << 20  # of the interpreter and ONNX Runtime
MAX_ANSWER_BYTES = 10_000  # bytes
ROUND = 2  # of what is tried: a file that an earlier release tried with less is tried again
MAX_TOTAL_PIXELS, LONGEST = 1 << 22, 10_000  # of a picture of the training range, and a side of it
GOLDEN = b"golden samples scored\n"

Picture = tuple[int, int, int, int]  # of golden.golden_picture
Size = tuple[int, int]  # height, width

_tried: set[str] = set()
_running: set[subprocess.Popen[bytes]] = set()
_lock = threading.Lock()


def try_out(
    data: bytes,
    pictures: Iterable[Picture],
    threads: int,
    seconds: float | None = None,
    sizes: Sequence[Size] = (),
) -> None:
    """Returns once an ONNX file, given by its bytes, has been tried out here, now or before.

    ``pictures``: of ``golden_picture``, which it has to take. ``sizes``: of a grey and a noise
    picture that it has to take too. ``seconds``: for all of that (default: ANOMALY_TRIAL_SECONDS,
    or 60). Raises DetectorError where the file cannot be loaded, fails on a picture or is not done
    in time.
    """
    if was_tried(data):
        return
    # an application frozen into one program has no interpreter to start
    if not _can_start_python():
        return
    ordered = sorted(set(pictures), key=lambda p: p[0] * p[1])
    remember(
        data, _try(data, ordered, sizes, threads, seconds_allowed() if seconds is None else seconds)
    )


def training_sizes(ranges: Ranges | None) -> list[Size]:
    """Returns the smallest, a typical and the largest size of a card's training range, (height,
    width), without repetition.

    A picture has at most ``MAX_TOTAL_PIXELS`` pixels, of the same width : height. Empty where the
    card has no range.
    """
    if ranges is None or ranges.pixels is None or ranges.aspect is None:
        return []
    pixels, aspect = ranges.pixels, ranges.aspect
    low, high = (min(number, MAX_TOTAL_PIXELS) for number in pixels)
    found = [
        (low, aspect[0]),
        (math.sqrt(low * high), math.sqrt(aspect[0] * aspect[1])),
        (high, aspect[1]),
    ]
    return sorted({_size(area, ratio) for area, ratio in found})


def _size(pixels: float, ratio: float) -> Size:
    height, width = round(math.sqrt(pixels / ratio)), round(math.sqrt(pixels * ratio))
    return min(max(height, 1), LONGEST), min(max(width, 1), LONGEST)


def was_tried(data: bytes) -> bool:
    """Whether this user has tried out a file before with this version of ONNX Runtime."""
    name = _name(data)
    if name in _tried:
        return True
    try:
        found = (cache_folder() / "tried" / name).is_file()
    # no home folder, or one that cannot be read: each process tries for itself
    except (OSError, RuntimeError):
        return False
    if found:
        _tried.add(name)
    return found


def trial_seconds(data: bytes) -> float | None:
    """Returns how long the slowest picture took when this user tried out a file; None where that is
    not known.
    """
    try:
        seconds = float((cache_folder() / "tried" / _name(data)).read_text("ascii")[:40])
    except (OSError, RuntimeError, ValueError):  # made here, say, or no cache
        return None
    return seconds if 0 < seconds < 1e6 else None


def remember(data: bytes, seconds: float | None = None) -> None:
    """Notes that a file needs no trial: it was tried, or made, loaded and run here by ourselves.

    ``seconds``: that its slowest picture took, where that is known.
    """
    name = _name(data)
    _tried.add(name)
    with contextlib.suppress(OSError, RuntimeError):
        folder = cache_folder() / "tried"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        (folder / name).touch(mode=0o600)
        if seconds is not None:
            (folder / name).write_text(f"{seconds:.6g}", "ascii")


def _name(data: bytes) -> str:
    return f"{hashlib.sha256(data).hexdigest()}-{_runtime_version()}-{ROUND}"


def seconds_allowed(variable: str = VARIABLE) -> float:
    """Returns the seconds that a setting allows, 60 without one; DetectorError where it is not a
    number above 0.
    """
    text = os.environ.get(variable) or str(SECONDS)
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < 1e6:
        raise DetectorError(
            f"{variable}={text[:40]!r} found, seconds above 0 expected: unset it, or set it to a "
            "number"
        )
    return seconds


def end_trials() -> None:
    """Ends the trials that are running, of other threads too; each then raises DetectorError."""
    with _lock:
        for process in _running:
            process.kill()


def _try(
    data: bytes, pictures: Sequence[Picture], sizes: Sequence[Size], threads: int, seconds: float
) -> float | None:
    """Tries a file out and returns how long the slowest picture took."""
    import subprocess  # on demand: ordinary loads try nothing

    facts = {
        "path": list(map(str, sys.path)),
        "pictures": pictures,
        "sizes": sizes,
        "threads": threads,
    }
    facts["memory"] = _memory_allowed()
    job = json.dumps(facts).encode()
    process = subprocess.Popen(
        [sys.executable, "-I", "-c", CHILD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    with process:
        with _lock:
            _running.add(process)
        try:
            answer, _ = process.communicate(
                struct.pack("<Q", len(job)) + job + data, timeout=seconds
            )
        except subprocess.TimeoutExpired as late:
            what = (
                "pictures of the size of its training images are"
                if GOLDEN in (late.output or b"")
                else ""
            )
            raise DetectorError(
                f"{what or 'not loaded and its golden samples'} not scored within {seconds:g} s: "
                "not used. If it is yours and this machine is slow, allow more: "
                f"{VARIABLE}={10 * math.ceil(seconds)}"
            ) from None
        finally:
            process.kill()
            with _lock:
                _running.discard(process)
    if process.returncode == 0 and answer.endswith(b"done"):
        return _seconds_in(answer)
    said = answer.removeprefix(GOLDEN)[:MAX_ANSWER_BYTES].decode("utf-8", "replace")
    what = "".join(char for char in " ".join(said.split()) if char.isprintable())[:400]
    raise DetectorError(
        what
        or (
            f"the process that tried it out ended with {process.returncode} (memory, or a damaged "
            "file)"
        )
    )


def _seconds_in(answer: bytes) -> float | None:
    try:
        return float(answer.split()[-2])
    except (IndexError, ValueError):  # the file's own library wrote something else
        return None


# The child takes the parent's own places to import from, and none else: not the folder that it
# happens to run in.
CHILD = """
import json, struct, sys
length, = struct.unpack("<Q", sys.stdin.buffer.read(8))
job = json.loads(sys.stdin.buffer.read(length))
sys.path[:] = job["path"]
from anomaly.detector.trial import run_child
run_child(sys.stdin.buffer.read(), job["pictures"], job["sizes"], job["threads"], job["memory"])
"""


def run_child(
    data: bytes, pictures: Sequence[Picture], sizes: Sequence[Size], threads: int, memory: int
) -> None:
    """Loads a file, runs it on the pictures, and says seconds and ``done``, or why not, on standard
    output.
    """
    from anomaly.detector.golden import golden_picture
    from anomaly.detector.session import open_session
    from anomaly.errors import AnomalyError

    _bound_memory(memory)
    what = "a golden sample"
    try:
        session, _ = open_session(data, "cpu", threads)
        slowest = _slowest(session, (golden_picture(*picture) for picture in pictures))
        _say(GOLDEN)
        what = "a picture of the size of its training images"
        slowest = max(slowest, _slowest(session, _grey_and_noise(sizes)))
        said = f"{slowest:.6f} done"
    except AnomalyError as error:
        said = str(error)
    except MemoryError:
        said = "the file asks for more memory than there is: not used"
    except Exception as error:  # ONNX Runtime's own exceptions have no common public base
        said = f"ONNX Runtime fails on {what}: {(str(error).splitlines() or [''])[0][:300]}"
    _say(said.encode("utf-8", "replace"))
    os._exit(0)  # nothing is left to be tidied up, which takes time


def _say(what: bytes) -> None:
    sys.stdout.buffer.write(what)
    sys.stdout.flush()


def _slowest(session: Any, pictures: Iterable[Any]) -> float:
    """Runs a session on pictures, uint8 (height, width, 3), and returns how long the slowest took,
    in seconds.
    """
    slowest = 0.0
    for picture in pictures:
        began = time.perf_counter()
        session.run(None, {"images": picture[None]})
        slowest = max(slowest, time.perf_counter() - began)
    return slowest


def _grey_and_noise(sizes: Sequence[Size]) -> Iterator[Any]:
    import numpy as np

    for height, width in sizes:
        yield np.full((height, width, 3), 128, np.uint8)
        yield np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def _memory_allowed() -> int:
    from anomaly.detector.session import available_memory

    return min(available_memory() * 3 // 4, MAX_MEMORY_BYTES) + OVERHEAD


def _bound_memory(most: int) -> None:
    """Bounds the data of this process, where the system can: what a file asks for then fails
    instead of other programs.
    """
    if sys.platform == "win32":  # which has no such bound
        return
    else:
        import resource

        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_DATA, (most, most))


def _can_start_python() -> bool:
    return bool(sys.executable) and not getattr(sys, "frozen", False)


def _runtime_version() -> str:
    for name in ("onnxruntime", "onnxruntime-gpu"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(name)
    return "none"


def cache_folder() -> Path:
    """Returns the folder that remembers which files were tried: ANOMALY_CACHE, or ``anomaly`` in
    the user's cache.
    """
    named = os.environ.get(CACHE)
    if named:
        return Path(named)
    if sys.platform == "win32":
        return (
            Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
            / "anomaly"
            / "cache"
        )
    else:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "anomaly"
