"""What all tests share: their settings, a folder for a whole session, the folder of benchmark
images.
"""

from __future__ import annotations

import atexit
import gc
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# This file is read before any test imports NumPy, torch or ONNX Runtime. The tests' arrays are
# small, and on a busy machine several threads spend their time waiting for each other.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

# Which detectors were tried out is remembered in the user's cache: tests have one of their own,
# empty.
os.environ["ANOMALY_CACHE"] = tempfile.mkdtemp(prefix="anomaly-tests-")
atexit.register(shutil.rmtree, os.environ["ANOMALY_CACHE"], ignore_errors=True)

# A job in the background (nohup, some CI) starts with Ctrl-C ignored, and so would every process
# that the tests start and then interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

# The same examples on every run, and none fails for being slow on a busy machine.
# `HYPOTHESIS_PROFILE=search` looks for new ones.
settings.register_profile("repeatable", derandomize=True, deadline=None, print_blob=True)
settings.register_profile(
    "search", deadline=None, max_examples=1000, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))


_main = sys.modules["__main__"]


@pytest.fixture(autouse=True)
def main_module() -> None:
    """Puts back the program that runs: Streamlit leaves its page as ``__main__``, and spawned
    processes import that.
    """
    sys.modules["__main__"] = _main


@pytest.fixture(scope="session")
def session_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns one empty folder for what several tests share, such as a detector that took a while
    to train.
    """
    return tmp_path_factory.mktemp("session")


@pytest.fixture(autouse=True)
def runs_as_trained(session_folder: Path) -> Iterator[None]:
    """Leaves the runs that tests share without the versions that a test was given: the next one
    counts from the first.
    """
    yield
    for noted in session_folder.rglob("versions.jsonl"):
        noted.unlink()


@pytest.fixture(scope="session")
def datasets() -> Path:
    """Returns the folder of benchmark images, or skips the test where none was named."""
    named = os.environ.get("ANOMALY_DATASETS")
    if not named:
        pytest.skip(
            "ANOMALY_DATASETS is not set: a folder of benchmark images is expected there (see "
            "data/README.md)"
        )
    folder = Path(named).resolve()
    if not folder.is_dir():
        pytest.fail(
            f"ANOMALY_DATASETS={named} found, a folder of benchmark images expected (see "
            "data/README.md)"
        )
    return folder


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 200 KB. Needs root and the right to mount."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(disk)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"no small file system can be mounted here: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def pytest_collection_finish() -> None:
    """What is imported now stays: looking through it for garbage again and again takes a tenth of
    a training's time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


pytest_plugins = ["tests.support.runs", "tests.support.browsing", "tests.support.order"]
