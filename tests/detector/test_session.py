"""Sessions of ONNX Runtime: what is installed, and what cannot be loaded."""

from __future__ import annotations

import pytest

from anomaly.detector.session import installed_runtimes, open_session
from anomaly.errors import DetectorError


def test_exactly_one_package_of_onnx_runtime_is_installed_here() -> None:
    assert installed_runtimes() in (["onnxruntime"], ["onnxruntime-gpu"])


def test_what_is_no_onnx_file_cannot_be_loaded() -> None:
    with pytest.raises(DetectorError, match=r"^ONNX Runtime cannot load this file: "):
        open_session(b"no model", "cpu", 1)
