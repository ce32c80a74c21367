"""Anomaly detection with generative models: one ONNX file in, results with a guaranteed
false-alarm rate out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from anomaly.version import __version__

__all__ = [
    "AnomalyError",
    "Card",
    "Detector",
    "ImageAnomalyDetector",
    "ImageError",
    "Result",
    "Scorer",
    "__version__",
    "read_card",
]

if TYPE_CHECKING:
    from anomaly.detector.card import Card
    from anomaly.detector.file import read_card
    from anomaly.errors import AnomalyError, ImageError
    from anomaly.estimator import ImageAnomalyDetector
    from anomaly.learning import Detector
    from anomaly.scorer import Result, Scorer

_HOMES = {
    "AnomalyError": "errors",
    "ImageAnomalyDetector": "estimator",
    "ImageError": "errors",
    "Card": "detector.card",
    "Detector": "learning",
    "read_card": "detector.file",
    "Result": "scorer",
    "Scorer": "scorer",
}


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first used, so that `import anomaly` costs nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module 'anomaly' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"anomaly.{_HOMES[name]}"), name)
