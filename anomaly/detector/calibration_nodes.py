"""The last part of a detector's graph: score -> p_value and is_anomaly, by the calibration of the
card.

Its nodes and constants are named ``calibration.*`` and are the same in every detector but for the
numbers, so that a recalibration can replace them, and so that a file can be checked: a graph that
flags by anything else than what its card says is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from anomaly.detector.graph import (
    GRAPH_INITIALIZER,
    GRAPH_INPUT,
    GRAPH_NODE,
    GRAPH_OUTPUT,
    MODEL_GRAPH,
    MODEL_OPSET,
    NODE_ATTRIBUTE,
    NODE_INPUT,
    NODE_NAME,
    NODE_OPERATOR,
    NODE_OUTPUT,
    OPSET,
    Graph,
    Node,
)
from anomaly.errors import DetectorError, RuntimeMissing
from anomaly.files.protobuf import fields, inside, numbers, string, written
from anomaly.statistics.calibration import Calibration

if TYPE_CHECKING:
    import onnx

PREFIX = "calibration."
OUTPUTS = ("p_value", "is_anomaly")
IR_VERSION = 10
FLOAT, INT64, BOOL = 1, 7, 9  # of onnx.TensorProto.DataType
TYPES: dict[int, np.dtype[Any]] = {FLOAT: np.dtype("<f4"), INT64: np.dtype("<i8")}
INT_ATTRIBUTE = 2  # of onnx.AttributeProto.AttributeType
ATTRIBUTE_NAME, ATTRIBUTE_INT, ATTRIBUTE_TYPE = 1, 3, 20
DIMS, DATA_TYPE, NAME, RAW = 1, 2, 8, 9  # of a tensor


class Step(NamedTuple):
    """One node of the calibration part; its name is ``calibration.`` and what it makes."""

    operator: str
    inputs: tuple[str, ...]
    makes: str
    attributes: Mapping[str, int] = {}

    @property
    def name(self) -> str:
        return PREFIX + self.makes

    @property
    def output(self) -> str:
        return self.makes if self.makes in OUTPUTS else self.name


def steps() -> list[Step]:
    """Returns the nodes, in order: p = (1 + #{calibration scores >= score}) / (n + 1), flagged =
    not (score <= threshold).
    """
    c = PREFIX
    return [
        Step("Unsqueeze", ("score", c + "axis"), "column"),  # (N, 1)
        Step("GreaterOrEqual", (c + "scores", c + "column"), "reached"),  # (N, n)
        Step("Cast", (c + "reached",), "counted", {"to": FLOAT}),
        Step("ReduceSum", (c + "counted", c + "axis"), "count", {"keepdims": 0}),
        Step("Add", (c + "count", c + "one"), "rank"),
        Step("Div", (c + "rank", c + "denominator"), "p_value"),
        Step("LessOrEqual", ("score", c + "threshold"), "normal"),
        Step("Not", (c + "normal",), "is_anomaly"),  # so that NaN is flagged
    ]


def constants(calibration: Calibration) -> dict[str, NDArray[Any]]:
    """Returns the constants by name, float32 but for the axis."""
    found = {
        "scores": calibration.scores.astype(np.float32)[None, :],  # (1, n), ascending
        "threshold": np.float32(calibration.threshold),
        "one": np.float32(1),
        "denominator": np.float32(calibration.n + 1),
        "axis": np.array([1], np.int64),
    }
    return {PREFIX + name: np.asarray(value) for name, value in found.items()}


def set_calibration(model: onnx.ModelProto, calibration: Calibration | None) -> None:
    """Puts the calibration into a graph that has ``score``, in place of the one it had (None:
    rank-only).

    p = (1 + #{calibration scores >= score}) / (n + 1) and is_anomaly = not (score <= threshold), so
    that NaN is anomalous. All nodes and constants are named ``calibration.*``.
    """
    onnx = import_onnx()
    graph = model.graph
    for names in (graph.node, graph.initializer):
        kept = [item for item in names if not item.name.startswith(PREFIX)]
        del names[:]
        names.extend(kept)
    outputs = [o for o in graph.output if o.name not in OUTPUTS]
    if calibration is not None:
        make, array = onnx.helper.make_node, onnx.numpy_helper.from_array
        graph.node.extend(
            make(s.operator, list(s.inputs), [s.output], name=s.name, **s.attributes)
            for s in steps()
        )
        graph.initializer.extend(
            array(value, name) for name, value in constants(calibration).items()
        )
        value = onnx.helper.make_tensor_value_info
        outputs[1:1] = [value("p_value", FLOAT, ["N"]), value("is_anomaly", BOOL, ["N"])]
    del graph.output[:]
    graph.output.extend(outputs)


def import_onnx() -> Any:
    """Returns the package onnx, or raises RuntimeMissing naming the extra."""
    try:
        import onnx
    except ImportError as error:
        raise RuntimeMissing.extra("onnx", "calibrate", "writing a detector file") from error
    return onnx


def alone(calibration: Calibration) -> bytes:
    """Returns an ONNX file of the calibration part only: score -> p_value and is_anomaly, to be
    tried at any score.
    """
    types = {"score": FLOAT, "p_value": FLOAT, "is_anomaly": BOOL}
    values = {
        name: written(1, name.encode()) + written(2, written(1, _row_type(kind)))
        for name, kind in types.items()
    }
    graph = b"".join(
        [
            *(written(GRAPH_NODE, _node(step)) for step in steps()),
            written(2, b"calibration"),
            *(
                written(GRAPH_INITIALIZER, _tensor(name, value))
                for name, value in constants(calibration).items()
            ),
            written(GRAPH_INPUT, values["score"]),
            *(written(GRAPH_OUTPUT, values[name]) for name in OUTPUTS),
        ]
    )
    return (
        written(1, IR_VERSION)
        + written(MODEL_GRAPH, graph)
        + written(MODEL_OPSET, written(2, OPSET))
    )


def _row_type(kind: int) -> bytes:
    """A tensor type of shape (N,)."""
    return written(1, kind) + written(2, written(1, written(2, b"N")))


def _node(step: Step) -> bytes:
    parts = [written(NODE_INPUT, name.encode()) for name in step.inputs]
    parts += [written(NODE_OUTPUT, step.output.encode()), written(NODE_NAME, step.name.encode())]
    parts.append(written(NODE_OPERATOR, step.operator.encode()))
    for name, value in step.attributes.items():
        attribute = written(ATTRIBUTE_NAME, name.encode()) + written(ATTRIBUTE_INT, value)
        parts.append(written(NODE_ATTRIBUTE, attribute + written(ATTRIBUTE_TYPE, INT_ATTRIBUTE)))
    return b"".join(parts)


def _tensor(name: str, value: NDArray[Any]) -> bytes:
    kind = next(kind for kind, of in TYPES.items() if of == value.dtype.newbyteorder("<"))
    dims = b"".join(written(DIMS, length) for length in value.shape)
    raw = value.astype(TYPES[kind]).tobytes()
    return dims + written(DATA_TYPE, kind) + written(NAME, name.encode()) + written(RAW, raw)


# ---- checking ----
def check_calibration(graph: Graph, calibration: Calibration | None) -> None:
    """Raises DetectorError unless a graph's p_value and is_anomaly are computed from its score as
    the card says.

    Node by node and constant by constant as ``set_calibration`` writes them, nothing before,
    between or behind them; of a detector without a threshold neither output is there.
    """
    expected = {} if calibration is None else {step.name: step for step in steps()}
    made = {step.output for step in expected.values()}
    _check_outputs(graph, calibration is not None)
    rest = []
    for node in graph.nodes:
        if node.name.startswith(PREFIX):
            if not _is_step(node, expected.pop(node.name, None)):
                raise _contradicts(
                    f"the operator {node.name[:60]!r} is not the one that the card's calibration "
                    "needs"
                )
        else:
            rest.append(node)
    if expected:
        raise _contradicts(f"no operator {min(expected)!r} found")
    _check_constants(graph, {} if calibration is None else constants(calibration))
    for node in rest:
        used = next(
            (n for n in (*node.inputs, *node.outputs) if n.startswith(PREFIX) or n in made), None
        )
        if used is not None:
            raise _contradicts(
                f"the operator {node.name[:60]!r} reads or makes {used[:60]!r} of the calibration"
            )


def _check_outputs(graph: Graph, calibrated: bool) -> None:
    found = [name for name in graph.outputs if name in OUTPUTS or name.startswith(PREFIX)]
    if sorted(found) != (sorted(OUTPUTS) if calibrated else []):
        shown = " and ".join(found) or "neither p_value nor is_anomaly"
        raise _contradicts(
            f"{shown[:200]} found among its outputs, {'both' if calibrated else 'none'} expected"
        )
    if not any("score" in node.outputs for node in graph.nodes if not node.name.startswith(PREFIX)):
        raise _contradicts("its score is not made by an operator of the model")


def _is_step(node: Node, step: Step | None) -> bool:
    if step is None or (node.operator, node.inputs, node.outputs) != (
        step.operator,
        step.inputs,
        (step.output,),
    ):
        return False
    found = [_whole_attribute(data) for data in node.attributes]
    return sorted(found, key=str) == sorted(step.attributes.items(), key=str)


def _whole_attribute(data: memoryview) -> tuple[str, int] | None:
    """Returns the name and value of an attribute that is an integer, None of another one."""
    name, value = "", 0
    for number, part in fields(data):
        if number == ATTRIBUTE_NAME:
            name = string(part)
        elif number == ATTRIBUTE_INT and isinstance(part, int):
            value = part
        elif not (number == ATTRIBUTE_TYPE and part == INT_ATTRIBUTE):
            return None
    return name, value


def _check_constants(graph: Graph, expected: Mapping[str, NDArray[Any]]) -> None:
    found = {name: data for name, data in graph.constants.items() if name.startswith(PREFIX)}
    for name in sorted(found.keys() | expected.keys()):
        if name not in found or name not in expected:
            raise _contradicts(
                f"{name[:60]!r} is "
                f"{'missing' if name in expected else 'none of the constants of the card'}"
            )
        if not _same(found[name], expected[name]):
            raise _contradicts(f"the graph's {name.removeprefix(PREFIX)} is not that of the card")


def _same(tensor: memoryview, expected: NDArray[Any]) -> bool:
    """Whether a tensor holds exactly these numbers, as raw bytes and in nothing else."""
    dims: list[int] = []
    kind, raw = 0, None
    for number, value in fields(tensor):
        if number == DIMS:
            dims += numbers(value)
        elif number == DATA_TYPE and isinstance(value, int):
            kind = value
        elif number == RAW and raw is None:
            raw = bytes(inside(value))
        elif number != NAME:
            return False
    data = (
        expected.astype(TYPES[kind])
        if TYPES.get(kind) == expected.dtype.newbyteorder("<")
        else None
    )
    return data is not None and tuple(dims) == expected.shape and raw == data.tobytes()


def _contradicts(what: str) -> DetectorError:
    return DetectorError(
        f"the graph does not flag by the card's threshold ({what}): card and graph contradict each "
        "other; copy it again, or anomaly calibrate the detector that it was made from"
    )
