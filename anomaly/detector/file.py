"""The detector file: check it before anything loads it, read its card, rewrite its calibration.

A detector is an ONNX file that holds, under the metadata key ``anomaly``, a JSON card. The file is
read here as plain protobuf, so that a file from anywhere is refused before ONNX Runtime sees it,
and without the package `onnx` (only the functions that rewrite a file need that).
"""

from __future__ import annotations

import getpass
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from anomaly.detector.calibration_nodes import (
    PREFIX,
    check_calibration,
    import_onnx,
    set_calibration,
)
from anomaly.detector.card import Card
from anomaly.detector.golden import kept_tolerance
from anomaly.detector.graph import check_wiring, read_model
from anomaly.detector.size_sensitivity import Cost
from anomaly.detector.trial import remember, trial_seconds, was_tried
from anomaly.detector.unit_rule import UnitRule
from anomaly.errors import AnomalyError, DetectorError
from anomaly.files.atomic import write_atomically
from anomaly.files.regular_files import read_small
from anomaly.statistics.calibration import Calibration

if TYPE_CHECKING:
    import onnx

CARD_KEY = "anomaly"
MAX_FILE_BYTES = 1 << 30
MAX_CARD_BYTES = 16 << 20
RECALIBRATED = (  # the facts that a recalibration states, in the order in which they are written
    "recalibrated",
    "size_sensitivity",
    "cost",
    "recalibrated_by",
    "recalibrated_on",
    "highest",
    "grouped",
    "by_unit",
    "accepted_worse",
    "threshold_moved",
    "threshold_moved_by",
    "threshold_moved_from",
)


def find_detector(run: str | os.PathLike[str]) -> Path:
    """Returns the detector file of RUN, which is a run folder or the file itself."""
    path = Path(run)
    file = path / "detector.onnx" if path.is_dir() else path
    if not file.is_file():
        what = "a folder without detector.onnx" if path.is_dir() else "no such file or folder"
        raise DetectorError(
            f"{path}: {what}; a run folder or a detector file made by `anomaly train` was expected"
        )
    return file


def read_card(run: str | os.PathLike[str]) -> Card:
    """Returns the card of a checked detector (see ``read_checked``)."""
    return read_checked(run)[1]


def read_checked(run: str | os.PathLike[str]) -> tuple[bytes, Card]:
    """Returns a detector's bytes and card after the checks that make it safe to load.

    Refused (DetectorError): more than 1 GiB, not an ONNX file, external data, an operator outside
    the allow-list or of another domain, subgraphs, functions, another opset, a card that is
    missing, damaged, too large or too new, and a graph that flags by anything else than its card
    says.
    """
    path = find_detector(run)
    data = read_small(path, MAX_FILE_BYTES, DetectorError)
    try:
        model = read_model(memoryview(data))
        card = Card.from_json(_parse_card(model.metadata), hashlib.sha256(data).hexdigest())
        check_wiring(model.graph)
        check_calibration(model.graph, card.calibration)
    except AnomalyError as error:
        raise DetectorError(f"{path}: {error}") from error
    return data, card


def _parse_card(metadata: dict[str, bytes]) -> dict[str, Any]:
    text = metadata.get(CARD_KEY)
    if text is None:
        raise DetectorError(
            "an ONNX file without a card found, a detector made by `anomaly train` expected"
        )
    if len(text) > MAX_CARD_BYTES:
        raise DetectorError(f"a card of {len(text)} bytes found, at most {MAX_CARD_BYTES} expected")
    try:
        card: dict[str, Any] = json.loads(text, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise DetectorError(
            "the card is damaged (no valid JSON): train or copy it again"
        ) from error
    return card


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON; which of two values of one name another program takes, nobody knows."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name found twice in an object")
    return found


# --- rewriting ------------------------------------------------------------------------------------
def weights_digest(model: onnx.ModelProto) -> str:
    """Returns the sha256 of a graph without its calibration, which recalibration
    therefore keeps.
    """
    digest = hashlib.sha256()
    for items in (model.graph.initializer, model.graph.node):
        for item in items:
            if not item.name.startswith(PREFIX):
                digest.update(item.SerializeToString(deterministic=True))
    return digest.hexdigest()


def set_card(model: onnx.ModelProto, card: Card) -> None:
    """Writes the card into the model's metadata (and nothing else: no trace of the exporter)."""
    import_onnx().helper.set_model_props(
        model, {CARD_KEY: json.dumps(card.to_json(), allow_nan=False)}
    )


def user() -> str:
    """Returns who is at the keyboard, for cards and logs."""
    try:
        return one_name(getpass.getuser())
    except (KeyError, OSError):  # a container without an entry for this user
        return "unknown"


def one_name(text: str) -> str:
    """Returns a name as one line that can be printed, as a card holds it."""
    return (
        " ".join("".join(c if c.isprintable() else " " for c in text).split())[:255].strip()
        or "unknown"
    )


@dataclass(frozen=True, eq=False)
class CalibrationImages:
    """The good images behind a threshold: the names of those with the highest scores, how many
    there are in how many groups, the rule of a guarantee per unit, and the largest value of each
    group's heatmap, float32 (groups,), which a detector needs whose heatmap has a unit of its own.
    """

    highest: Sequence[str]
    count: int
    groups: int
    by_unit: UnitRule | None = None
    largest: NDArray[np.float32] | None = None


def recalibrate(
    run: str | os.PathLike[str],
    calibration: Calibration,
    out: Path,
    images: CalibrationImages,
    *,
    version: str,
    parent: str | None = None,
    accepted: Sequence[str] = (),
    by: str | None = None,
) -> None:
    """Writes a copy of a detector with a new calibration to ``out``. The weights, and so
    explain.onnx, stay as they are.

    ``parent``: the digest of the file that it comes from (default: that of ``run``). ``accepted``:
    what of the guarantee got worse, and was accepted. ``by``: who did it (default: the user).
    """
    onnx = import_onnx()
    data, card = read_checked(run)
    model = onnx.load_model_from_string(data)
    set_calibration(model, calibration)
    size_sensitivity = card.training.size_sensitivity
    if size_sensitivity is not None:
        size_sensitivity = size_sensitivity.at_threshold(float(calibration.threshold))
    training = replace(
        card.training,
        stated=card.training.stating(*RECALIBRATED),
        recalibrated=datetime.now(UTC).isoformat(timespec="seconds"),
        recalibrated_by=user() if by is None else one_name(by),
        recalibrated_on=images.count,
        size_sensitivity=size_sensitivity,
        cost=Cost.of_highest(calibration, images.highest, size_sensitivity),
        highest=tuple(images.highest),
        grouped=images.groups < images.count,
        by_unit=images.by_unit,
        accepted_worse=tuple(accepted),
        threshold_moved=None,  # it is no preview any more
        threshold_moved_by=None,
        threshold_moved_from=None,
    )
    new = replace(
        card,
        version=version,
        calibration=calibration,
        heatmap=None
        if card.pooled or images.largest is None
        else calibration.with_scores(images.largest),
        golden={**card.golden, "tolerance": kept_tolerance(card.golden["tolerance"], calibration)},
        quality=None,
        parent=parent or card.digest,
        training=training,
    )
    set_card(model, new)
    changed = model.SerializeToString(deterministic=True)
    if was_tried(data):  # the same graph but for its numbers
        remember(changed, trial_seconds(data))
    write_atomically(out, changed)
