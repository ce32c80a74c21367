"""Sessions of ONNX Runtime: how a detector is loaded, on which device, with how much memory."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from anomaly.errors import DetectorError, RuntimeMissing


def available_cores() -> int:
    """Returns the number of cores this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def installed_runtimes() -> list[str]:
    """Returns which of the packages onnxruntime and onnxruntime-gpu are installed."""
    found = []
    for name in ("onnxruntime", "onnxruntime-gpu"):
        try:
            importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        found.append(name)
    return found


@functools.cache  # each inference asks, and what is installed takes a millisecond to find
def import_runtime() -> Any:
    """Returns the module onnxruntime, or raises RuntimeMissing where none or both of its packages
    are installed.
    """
    packages = installed_runtimes()
    if len(packages) == 2:
        raise RuntimeMissing(
            "both onnxruntime and onnxruntime-gpu are installed and overwrite each other, one "
            "expected: pip uninstall -y onnxruntime onnxruntime-gpu, then pip install "
            "'anomaly[cpu]' or 'anomaly[gpu]'"
        )
    try:
        import onnxruntime
    except ImportError as error:
        raise RuntimeMissing(
            "ONNX Runtime is not installed: pip install 'anomaly[cpu]', or 'anomaly[gpu]' with an "
            "NVIDIA GPU"
        ) from error
    onnxruntime.set_default_logger_severity(4)
    return onnxruntime


def open_session(data: bytes, device: str, threads: int) -> tuple[Any, str]:
    """Returns an inference session and the device it really runs on, ``cpu`` or ``cuda``."""
    if device not in ("auto", "cpu", "cuda"):
        raise RuntimeMissing(f"device {device!r} found; auto, cpu or cuda expected")
    runtime = import_runtime()
    if device != "cpu":
        session = _open_cuda(runtime, data, threads)
        if session is not None:
            return session, "cuda"
        if device == "cuda":
            raise RuntimeMissing(
                f"CUDA was asked for, but ONNX Runtime {runtime.__version__} cannot use it here "
                "(no NVIDIA GPU, no driver, or the CPU package): see anomaly doctor, install "
                "'anomaly[gpu]', or use --device cpu"
            )
    try:
        session = runtime.InferenceSession(
            data, session_options(runtime, threads), providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # ONNX Runtime's own exceptions have no common public base
        raise DetectorError(
            f"ONNX Runtime cannot load this file: {str(error).splitlines()[0][:300]}"
        ) from error
    return session, "cpu"


def session_options(runtime: Any, threads: int) -> Any:
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    # A service has better things to do with its cores than to spin between two images.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    bound_memory(runtime)
    options.add_session_config_entry("session.use_env_allocators", "1")
    return options


@functools.cache
def bound_memory(runtime: Any) -> None:
    """Bounds what ONNX Runtime's sessions take together to three quarters of the memory that this
    process may use.

    A few small nodes can ask for terabytes; such a detector fails with a message instead of
    bringing the machine down.
    """
    arena = runtime.OrtMemoryInfo(
        "Cpu", runtime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, runtime.OrtMemType.DEFAULT
    )
    runtime.create_and_register_allocator(
        arena, runtime.OrtArenaCfg({"max_mem": available_memory() * 3 // 4})
    )


def available_memory() -> int:
    """Returns the bytes of memory that this process may use: the machine's, or less where it or its
    container has a limit.
    """
    if sys.platform == "win32":
        import ctypes

        kilobytes = ctypes.c_ulonglong()
        ctypes.windll.kernel32.GetPhysicallyInstalledSystemMemory(ctypes.byref(kilobytes))
        # nothing is known of a virtual machine without that table
        found = [kilobytes.value * 1024 or 1 << 32]
    else:
        found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
        import resource

        own = resource.getrlimit(resource.RLIMIT_DATA)[0]
        found += [own] if own != resource.RLIM_INFINITY else []
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):  # no such limit, or "max"
            found.append(int(Path(limit).read_text()))
    return min(found)


def _open_cuda(runtime: Any, data: bytes, threads: int) -> Any:
    """Returns a session that has scored something on CUDA, or None. onnxruntime-gpu lists CUDA even
    without a GPU.
    """
    if "CUDAExecutionProvider" not in runtime.get_available_providers():
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ONNX Runtime warns of what is said here in one line
        try:
            if hasattr(runtime, "preload_dlls"):
                runtime.preload_dlls()
            # TF32 rounds to 10 bits: scores would differ between devices. What cuDNN finds by
            # timing may differ from one start to the next (and takes a second longer to find), and
            # with it the last bits of a score.
            providers = [
                ("CUDAExecutionProvider", {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}),
                "CPUExecutionProvider",
            ]
            session = runtime.InferenceSession(
                data, session_options(runtime, threads), providers=providers
            )
            if session.get_providers()[0] != "CUDAExecutionProvider":
                return None
            session.run(None, {"images": np.zeros((1, 8, 8, 3), np.uint8)})
            return session
        except Exception:  # whatever the driver or the library says, the answer is: not here
            return None
