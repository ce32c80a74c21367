"""The picture that a model expected: which explain.onnx is one."""

from __future__ import annotations

from pathlib import Path

import pytest

from anomaly.detector.explain import open_explain
from anomaly.errors import DetectorError


def test_without_a_file_there_is_none(tmp_path: Path) -> None:
    assert open_explain(tmp_path / "explain.onnx", "weights", 1) is None


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "explain.onnx"
    path.write_bytes(b"no model")
    with pytest.raises(DetectorError, match=r"explain\.onnx: "):
        open_explain(path, "weights", 1)
