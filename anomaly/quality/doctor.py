"""`anomaly doctor`: what is installed here and what really works, by trying it."""

from __future__ import annotations

import base64
import importlib.metadata
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from anomaly.detector.session import available_cores, import_runtime, installed_runtimes
from anomaly.errors import AnomalyError
from anomaly.version import __version__

PACKAGES = {
    "batch": ("pyarrow", "fsspec"),
    "calibrate": ("onnx",),
    "evaluate": ("scikit-learn", "scipy"),
    "train": ("torch", "onnxscript", "safetensors"),
    "review": ("SQLAlchemy",),
    "dashboard": ("streamlit",),
    "serve": ("fastapi", "uvicorn"),
    "sign": ("cryptography",),
}

# y = |x - 20| on (1, 3, 4, 4), opset 18: an ONNX file small enough to be written here, so that no
# other is needed.
TINY_MODEL = base64.b64decode(
    "CAoSB2Fub21hbHk6agoOCgF4CgFjEgFkIgNTdWIKCwoBZBIBeSIDQWJzEgR0aW55KgsQAUIBY0oEAACgQVobCgF4EhYKFAgBEhAK"
    "AggBCgIIAwoCCAQKAggEYhsKAXkSFgoUCAESEAoCCAEKAggDCgIIBAoCCARCBAoAEBI="
)


@dataclass(frozen=True)
class Diagnosis:
    """One thing that was looked at. ``needed``: without it nothing works; the others
    are optional.
    """

    what: str
    found: str
    ok: bool
    needed: bool = False


def examine() -> list[Diagnosis]:
    """Returns what was found, the needed things first."""
    where = (
        f"{platform.python_version()} on {platform.system()} {platform.machine()}, "
        f"{available_cores()} cores"
    )
    findings = [Diagnosis("python", where, sys.version_info >= (3, 11), needed=True)]
    findings.append(Diagnosis("anomaly", __version__, True, needed=True))
    findings += [
        Diagnosis(name, importlib.metadata.version(name), True, needed=True)
        for name in ("numpy", "pillow")
    ]
    findings.append(tried("onnxruntime", runtime_versions, needed=True))
    findings.append(
        tried("end to end on cpu", lambda: end_to_end("CPUExecutionProvider"), needed=True)
    )
    findings.append(tried("end to end on cuda", lambda: end_to_end("CUDAExecutionProvider")))
    for extra, packages in PACKAGES.items():
        for package in packages:
            findings.append(installed(package, extra))
    return findings


def tried(what: str, attempt: Callable[[], str], needed: bool = False) -> Diagnosis:
    """Returns what an attempt said, or why it failed, as a finding."""
    try:
        return Diagnosis(what, attempt(), True, needed)
    except AnomalyError as error:
        return Diagnosis(what, str(error), False, needed)
    # the doctor reports whatever a broken installation throws, and goes on
    except Exception as error:
        return Diagnosis(
            what,
            f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
            False,
            needed,
        )


def runtime_versions() -> str:
    """Returns version and package of ONNX Runtime and the providers it lists (which need
    not work).
    """
    runtime = import_runtime()
    return (
        f"{runtime.__version__} ({', '.join(installed_runtimes())}), lists "
        f"{', '.join(runtime.get_available_providers())}"
    )


def installed(package: str, extra: str) -> Diagnosis:
    """Returns the version of an optional package, or which extra brings it."""
    try:
        return Diagnosis(package, importlib.metadata.version(package), True)
    except importlib.metadata.PackageNotFoundError:
        return Diagnosis(package, f"not installed: pip install 'anomaly[{extra}]'", False)


def end_to_end(provider: str) -> str:
    """Scores one pixel block with a one-node model on a provider and checks the answer; raises
    where it does not work.
    """
    runtime = import_runtime()
    if provider not in runtime.get_available_providers():
        raise AnomalyError("not listed by this package of ONNX Runtime")
    if provider == "CUDAExecutionProvider" and hasattr(runtime, "preload_dlls"):
        runtime.preload_dlls()
    session = runtime.InferenceSession(TINY_MODEL, providers=[provider])
    if session.get_providers()[0] != provider:
        raise AnomalyError("listed, but it cannot be used here (no NVIDIA GPU or no driver)")
    pixels = np.arange(48, dtype=np.float32).reshape(1, 3, 4, 4)
    start = time.perf_counter()
    answer = session.run(None, {"x": pixels})[0]
    if not np.allclose(answer, np.abs(pixels - 20)):
        raise AnomalyError("it computes something else: reinstall ONNX Runtime")
    return f"works ({1000 * (time.perf_counter() - start):.1f} ms)"
