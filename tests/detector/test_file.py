"""The detector file: what it holds, what is refused, and what recalibration may change."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from anomaly.detector.calibration_nodes import set_calibration
from anomaly.detector.card import Card
from anomaly.detector.file import (
    CARD_KEY,
    CalibrationImages,
    find_detector,
    read_card,
    recalibrate,
    weights_digest,
)
from anomaly.errors import DetectorError
from anomaly.statistics.calibration import calibrate


def changed(run: Path, out: Path, change: Callable[[onnx.ModelProto], object]) -> Path:
    """Returns a copy of a detector after ``change``."""
    model = onnx.load(run / "detector.onnx")
    change(model)
    onnx.save(model, out)
    return out


def set_card_text(model: onnx.ModelProto, text: str) -> None:
    onnx.helper.set_model_props(model, {CARD_KEY: text})


def edit_card(model: onnx.ModelProto, **fields: object) -> None:
    card = json.loads(model.metadata_props[0].value)
    set_card_text(model, json.dumps({**card, **fields}))


def test_inputs_and_outputs_are_those_of_the_contract(run: Path, pixel_run: Path) -> None:
    def signature(path: Path) -> dict[str, tuple[str, list[object]]]:
        session = onnxruntime.InferenceSession(
            path / "detector.onnx", providers=["CPUExecutionProvider"]
        )
        return {v.name: (v.type, v.shape) for v in (*session.get_inputs(), *session.get_outputs())}

    expected = {
        "images": ("tensor(uint8)", ["N", "H", "W", 3]),
        "score": ("tensor(float)", ["N"]),
        "p_value": ("tensor(float)", ["N"]),
        "is_anomaly": ("tensor(bool)", ["N"]),
        "in_range": ("tensor(bool)", ["N"]),
        "heatmap": ("tensor(float)", ["N", 7, 7]),
    }
    assert signature(run) == expected
    pixels = {
        "heatmap": ("tensor(float)", ["N", 64, 64]),
        "reconstruction": ("tensor(uint8)", ["N", 64, 64, 3]),
    }
    assert signature(pixel_run) == {**expected, **pixels}


def test_the_file_is_self_contained_and_speaks_of_nothing_else(run: Path) -> None:
    model = onnx.load(run / "detector.onnx", load_external_data=False)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 18)]
    assert [p.key for p in model.metadata_props] == [CARD_KEY]
    assert {node.name.split("/")[0] for node in model.graph.node} >= {"prepare", "judge"}
    assert all(
        node.name.startswith(("prepare/", "judge/", "calibration.")) for node in model.graph.node
    )
    content = (run / "detector.onnx").read_bytes()
    assert b"site-packages" not in content and b"training/" not in content


def test_the_card_holds_what_a_reader_needs(run: Path) -> None:
    card = read_card(run)
    assert (card.name, card.version, card.model, card.space, card.size) == (
        "run",
        "1",
        "linear",
        "filters",
        64,
    )
    assert card.calibration is not None and card.calibration.n == 60
    assert card.training.images == 120
    assert card.training.sets == {"fit": 51, "validation": 9 + 2, "calibration": 60} | {
        name: count for name, count in card.training.sets.items() if name != "calibration"
    }
    assert set(card.training.versions) == {"anomaly", "python", "torch", "onnxruntime", "numpy"}
    assert card.training.ranges.to_json()["bits"] == [8]
    assert Card.from_json(card.to_json(), card.digest) == card


def test_the_graph_agrees_exactly_with_the_calibration_ties_included(run: Path) -> None:
    card = read_card(run)
    assert card.calibration is not None
    graph = onnx.helper.make_graph(
        [],
        "calibration only",
        [onnx.helper.make_tensor_value_info("score", onnx.TensorProto.FLOAT, ["N"])],
        [onnx.helper.make_tensor_value_info("score", onnx.TensorProto.FLOAT, ["N"])],
    )
    model = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10
    )
    set_calibration(model, card.calibration)
    model.graph.output.pop(0)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    exact = card.calibration.scores
    near = np.concatenate(
        [np.nextafter(exact, np.float32(-np.inf)), exact, np.nextafter(exact, np.float32(np.inf))]
    )
    scores = np.concatenate([near, np.array([np.nan, np.inf, -np.inf, 0], np.float32)])
    p_value, is_anomaly = session.run(["p_value", "is_anomaly"], {"score": scores})
    assert p_value.tolist() == card.calibration.p_value(scores).astype(np.float32).tolist()
    assert is_anomaly.tolist() == card.calibration.is_anomaly(scores).tolist()
    assert is_anomaly[-4]  # NaN is never good


def test_recalibration_changes_the_threshold_and_nothing_else(run: Path, tmp_path: Path) -> None:
    before = onnx.load(run / "detector.onnx")
    scores = np.linspace(0, 5, 200, dtype=np.float32)
    calibration = calibrate(scores, 0.05)
    recalibrate(
        run,
        calibration,
        tmp_path / "new.onnx",
        CalibrationImages(highest=["a.png"], count=200, groups=200),
        version="2",
    )
    card, after = read_card(tmp_path / "new.onnx"), onnx.load(tmp_path / "new.onnx")
    assert card.calibration == calibration
    assert (card.version, card.parent, card.weights) == (
        "2",
        read_card(run).digest,
        read_card(run).weights,
    )
    assert weights_digest(after) == weights_digest(before) == card.weights
    session = onnxruntime.InferenceSession(
        tmp_path / "new.onnx", providers=["CPUExecutionProvider"]
    )
    assert [o.name for o in session.get_outputs()] == [
        "score",
        "p_value",
        "is_anomaly",
        "in_range",
        "heatmap",
    ]


def test_a_rank_only_detector_has_no_verdict(run: Path, tmp_path: Path) -> None:
    def strip(model: onnx.ModelProto) -> None:
        set_calibration(model, None)
        edit_card(model, calibration=None)

    path = changed(run, tmp_path / "rank.onnx", strip)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert [o.name for o in session.get_outputs()] == ["score", "in_range", "heatmap"]
    assert read_card(path).calibration is None


REFUSED: dict[str, tuple[Callable[[onnx.ModelProto], object], str]] = {
    "another operator": (
        lambda m: setattr(m.graph.node[0], "op_type", "Loop"),
        "operator 'Loop' found",
    ),
    "another domain": (
        lambda m: setattr(m.graph.node[0], "domain", "com.microsoft"),
        "domain 'com.microsoft' found",
    ),
    "another operator set": (
        lambda m: setattr(m.opset_import[0], "version", 22),
        "ai.onnx 22 found, ai.onnx 18 expected",
    ),
    "a function": (
        lambda m: m.functions.add(name="f", domain=""),
        "functions or training information",
    ),
    "a subgraph": (
        lambda m: (
            m.graph.node[0]
            .attribute.add(name="body", type=onnx.AttributeProto.GRAPH)
            .g.CopyFrom(onnx.GraphProto(name="g"))
        ),
        "a subgraph",
    ),
    "external data": (
        lambda m: m.graph.initializer[0].external_data.add(
            key="location", value="../../etc/passwd"
        ),
        "data outside the file",
    ),
    "no card": (lambda m: m.metadata_props.pop(), "without a card"),
    "a card that is no JSON": (lambda m: set_card_text(m, "{"), "no valid JSON"),
    "a deeply nested card": (lambda m: set_card_text(m, "[" * 100_000), "no valid JSON"),
    "a card without a format": (lambda m: set_card_text(m, "{}"), "no format number"),
    "a newer card": (
        lambda m: edit_card(m, format=4),
        "detector format 4 found, at most 3 expected",
    ),
    "an older card": (
        lambda m: edit_card(m, format=1),
        "format 1 found, 3 expected: train again with this version",
    ),
    "a card with a missing field": (
        lambda m: edit_card(m, size=None),
        "a size expected, None found",
    ),
    "a card with a size of another kind": (
        lambda m: edit_card(m, size=True),
        "a size expected, True found",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_it_is_refused_before_anything_loads_it(what: str, run: Path, tmp_path: Path) -> None:
    change, message = REFUSED[what]
    path = changed(run, tmp_path / "detector.onnx", change)
    with pytest.raises(DetectorError, match=message):
        read_card(path)


def test_a_missing_detector_says_what_was_found(tmp_path: Path, run: Path) -> None:
    with pytest.raises(DetectorError, match=r"a folder without detector\.onnx"):
        find_detector(tmp_path)
    with pytest.raises(DetectorError, match="no such file or folder"):
        find_detector(tmp_path / "none")
    shutil.copy(run / "detector.onnx", tmp_path / "other.onnx")
    assert find_detector(tmp_path / "other.onnx") == tmp_path / "other.onnx"
