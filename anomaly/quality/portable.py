"""A finished detector in the portable form: its resize as two matrix products, exact where
``antialias`` is not known.

OpenVINO ignores the attribute ``antialias`` of ONNX's Resize without a word, and TensorRT rejects
it. The same triangle filter as two products with weights that are made in the graph from the
image's size is right everywhere, and slower. `anomaly train --target portable` exports it so; this
rewrites a file that is there, without torch.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from anomaly.detector.calibration_nodes import import_onnx
from anomaly.detector.file import read_checked, set_card
from anomaly.detector.golden import Golden, golden_picture
from anomaly.detector.session import available_cores, open_session
from anomaly.errors import DetectorError
from anomaly.files.atomic import write_atomically


def write_portable(detector: Path, out: Path) -> None:
    """Writes a detector's portable form, with golden samples scored anew; its own weights, and so
    explain.onnx, stay.

    The threshold has to be set anew, since scores change in their last digits:
    `anomaly calibrate --target portable` does both.
    """
    onnx = import_onnx()
    data, card = read_checked(detector)
    model = onnx.load_model_from_string(data)
    found = [node for node in model.graph.node if _is_antialiased(node)]
    if not found:
        raise DetectorError(f"{detector}: no antialiased resize found, so it is portable as it is")
    for node in found:
        _replace(model.graph, node, *_sides(model.graph, node))
    session, _ = open_session(model.SerializeToString(), "cpu", available_cores())
    golden = Golden.from_json(card.golden, card.calibration)
    scored = [
        {
            "height": h,
            "width": w,
            "a": a,
            "b": b,
            "score": float(
                session.run(["score"], {"images": golden_picture(h, w, a, b)[None]})[0][0]
            ),
        }
        for h, w, a, b, _ in golden.samples
    ]
    rescored = {**card.golden, "tolerance": golden.tolerance, "samples": scored}
    set_card(
        model,
        replace(card, golden=rescored, training=replace(card.training, target="portable")),
    )
    write_atomically(out, model.SerializeToString(deterministic=True))


def _is_antialiased(node: Any) -> bool:
    return node.op_type == "Resize" and any(a.name == "antialias" and a.i for a in node.attribute)


def _sides(graph: Any, resize: Any) -> tuple[int, int]:
    """Returns the height and width that a Resize makes: the last two of its sizes, behind the
    batch's own two.
    """
    joined = next((node for node in graph.node if resize.input[3] in node.output), None)
    name = joined.input[-1] if joined is not None else resize.input[3]
    sizes = next(tensor for tensor in graph.initializer if tensor.name == name)
    height, width = import_onnx().numpy_helper.to_array(sizes).tolist()[-2:]
    return height, width


def _replace(graph: Any, resize: Any, height: int, width: int) -> None:
    """Puts rows @ x @ columns' in the place of a Resize of x (N, 3, H, W) to (N, 3,
    height, width).
    """
    helper = import_onnx().helper
    x, prefix = resize.input[0], resize.name + "_"
    nodes = [
        *_triangle_weights(graph, prefix + "rows", x, 2, height),
        *_triangle_weights(graph, prefix + "columns", x, 3, width),
        helper.make_node("Transpose", [prefix + "columns"], [prefix + "across"], perm=[1, 0]),
        helper.make_node("MatMul", [prefix + "rows", x], [prefix + "squashed"]),
        helper.make_node("MatMul", [prefix + "squashed", prefix + "across"], list(resize.output)),
    ]
    for number, node in enumerate(nodes):
        node.name = f"{prefix}{node.op_type}_{number}"
    at = next(i for i, node in enumerate(graph.node) if node.name == resize.name)
    del graph.node[at]
    for node in reversed(nodes):
        graph.node.insert(at, node)


class _Named:
    """Nodes and constants of a graph whose names begin alike."""

    def __init__(self, graph: Any, name: str) -> None:
        self.graph, self.name, self.onnx = graph, name, import_onnx()

    def of(self, what: str) -> str:
        return f"{self.name}_{what}" if what else self.name

    def constant(self, what: str, value: Any) -> str:
        array = self.onnx.numpy_helper.from_array(np.asarray(value), self.of(what))
        self.graph.initializer.append(array)
        return self.of(what)

    def node(self, operator: str, inputs: list[str], output: str, **attributes: int) -> Any:
        return self.onnx.helper.make_node(operator, inputs, [self.of(output)], **attributes)


def _triangle_weights(graph: Any, name: str, x: str, axis: int, size: int) -> list[Any]:
    """The nodes that compute the (size, L) matrix that resamples a line of L pixels to ``size``
    (rows sum to 1).
    """
    onnx, named = import_onnx(), _Named(graph, name)
    of, node, constant = named.of, named.node, named.constant
    zero, one, none = (
        constant("zero", np.int64(0)),
        constant("one", np.int64(1)),
        constant("none", np.float32(0)),
    )
    unit, half = constant("unit", np.float32(1)), constant("half", np.float32(0.5))
    middles = constant("middles", (np.arange(size, dtype=np.float32) + 0.5)[:, None])
    positions = [
        node("Shape", [x], "shape", start=axis, end=axis + 1),
        node("Squeeze", [of("shape")], "length"),
        node("Range", [zero, of("length"), one], "numbers"),
        node("Cast", [of("numbers")], "positions", to=onnx.TensorProto.FLOAT),
        node("Cast", [of("length")], "pixels", to=onnx.TensorProto.FLOAT),
        node("Div", [of("pixels"), constant("size", np.float32(size))], "scale"),
        node("Mul", [middles, of("scale")], "centres"),
        node("Add", [of("positions"), half], "edges"),
    ]
    return [*positions, *_weights(named, unit, none)]


def _weights(named: _Named, unit: str, none: str) -> list[Any]:
    """The nodes from the pixels' edges and the centres to the weights."""
    of, node = named.of, named.node
    axis = named.constant("axis", np.array([1], np.int64))
    return [
        node("Sub", [of("edges"), of("centres")], "away"),
        node("Max", [of("scale"), unit], "width"),
        node("Div", [of("away"), of("width")], "distance"),
        node("Abs", [of("distance")], "size_of_distance"),
        node("Sub", [unit, of("size_of_distance")], "slope"),
        node("Max", [of("slope"), none], "weights"),
        node(
            "ReduceSum",
            [of("weights"), axis],
            "total",
            keepdims=1,
        ),
        node("Div", [of("weights"), of("total")], ""),
    ]
