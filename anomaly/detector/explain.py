"""The picture that a model expected: explain.onnx beside a detector."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from anomaly.detector.file import MAX_FILE_BYTES
from anomaly.detector.graph import check_model
from anomaly.detector.session import open_session
from anomaly.detector.trial import try_out
from anomaly.errors import DetectorError
from anomaly.files.regular_files import read_small


def open_explain(path: Path, weights: str, threads: int) -> Any:
    """Returns a session of explain.onnx, or None where there is none for these weights;
    DetectorError if it is damaged.
    """
    if not path.is_file():
        return None
    try:
        data = read_small(path, MAX_FILE_BYTES, DetectorError)
        if check_model(memoryview(data)).get("weights", b"").decode("ascii", "replace") != weights:
            return None
        try_out(data, [(64, 80, 3, 5)], threads)
        return open_session(data, "cpu", threads)[0]
    except DetectorError as error:
        raise DetectorError(f"{path}: {error}") from error
