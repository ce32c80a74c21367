"""The outputs of a detector's graph: which there are, and whether a file has them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from anomaly.detector.card import Card
from anomaly.errors import DetectorError, ImageError

OUTPUTS = {  # type and number of dimensions
    "score": ("tensor(float)", 1),
    "p_value": ("tensor(float)", 1),
    "is_anomaly": ("tensor(bool)", 1),
    "in_range": ("tensor(bool)", 1),
    "heatmap": ("tensor(float)", 3),
    "reconstruction": ("tensor(uint8)", 4),
    "type_scores": ("tensor(float)", 2),
}


def check_outputs(path: Path, session: Any, card: Card) -> None:
    """Raises DetectorError unless a detector's file declares the outputs that its card needs."""
    found = {output.name: (output.type, len(output.shape)) for output in session.get_outputs()}
    absent = set() if card.calibration else {"p_value", "is_anomaly"}
    absent |= {"reconstruction"} | (set() if card.defect_types else {"type_scores"})
    needed = set(OUTPUTS) - absent
    for name in sorted(needed | (found.keys() & OUTPUTS.keys())):
        if found.get(name) != OUTPUTS[name]:
            what = "{} of {} dimensions".format(*found[name]) if name in found else "nothing"
            expected = "{} of {} dimensions".format(*OUTPUTS[name])
            raise DetectorError(
                f"{path}: output {name!r}: {what} found, {expected} expected: train or copy it "
                "again"
            )


def check_types(type_scores: npt.NDArray[np.float32], card: Card) -> None:
    """Raises ImageError unless there is one score, 0 to 1, for each type that the card names."""
    right = ((type_scores >= 0) & (type_scores <= 1)).all()
    if len(type_scores) != len(card.defect_types) or not right:
        raise ImageError(
            "runtime",
            f"output 'type_scores': {type_scores.tolist()[:9]} found, a number from 0 to 1 for "
            f"each of {len(card.defect_types)} types expected: the detector is damaged; run "
            "anomaly verify, or copy it again",
        )
