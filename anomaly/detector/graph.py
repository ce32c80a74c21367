"""The graph of an ONNX file as plain data, after the checks that make it safe to load, without the
package `onnx`.

A file from anywhere is refused here before ONNX Runtime sees it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from anomaly.errors import DetectorError
from anomaly.files.protobuf import NOT_ONNX, Budget, Value, fields, inside, string

OPSET = 18
MAX_NODES = 20_000  # reading more takes minutes; ours have some hundred

# Operators that compute and nothing else: no control flow, no files, no custom code.
ALLOWED_OPERATORS = frozenset(
    """Abs Add And ArgMax ArgMin AveragePool BatchNormalization Cast Ceil Clip Concat Constant
    ConstantOfShape Conv ConvTranspose Cos CumSum DepthToSpace DequantizeLinear Div Einsum Elu Equal
    Erf Exp Expand Flatten Floor Gather GatherElements GatherND Gemm GlobalAveragePool GlobalMaxPool
    Greater GreaterOrEqual GridSample GroupNormalization HardSigmoid HardSwish Identity
    InstanceNormalization IsInf IsNaN LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax
    MatMul Max MaxPool Mean Min Mish Mod Mul Neg Not Or PRelu Pad Pow QuantizeLinear Range
    Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin
    ReduceProd ReduceSum ReduceSumSquare Relu Reshape Resize Round ScatterElements ScatterND Shape
    Sigmoid Sign Sin Size Slice Softmax Softplus SpaceToDepth Split Sqrt Squeeze Sub Sum Tanh Tile
    TopK Transpose Trilu Unsqueeze Where Xor""".split()
)

# Field numbers of onnx.proto3.
MODEL_GRAPH, MODEL_OPSET, MODEL_METADATA, MODEL_TRAINING, MODEL_FUNCTIONS = 7, 8, 14, 20, 25
GRAPH_NODE, GRAPH_INITIALIZER, GRAPH_INPUT, GRAPH_OUTPUT, GRAPH_SPARSE = 1, 5, 11, 12, 15
NODE_INPUT, NODE_OUTPUT, NODE_NAME, NODE_OPERATOR, NODE_ATTRIBUTE, NODE_DOMAIN = 1, 2, 3, 4, 5, 7
ATTRIBUTE_TENSOR, ATTRIBUTE_GRAPH, ATTRIBUTE_TENSORS, ATTRIBUTE_GRAPHS = 5, 6, 10, 11
TENSOR_NAME, TENSOR_EXTERNAL, TENSOR_LOCATION = 8, 13, 14


@dataclass(frozen=True)
class Node:
    """One operator: its name, what it reads and makes, and the bytes of it and of
    its attributes.
    """

    name: str
    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: tuple[memoryview, ...]
    data: memoryview


@dataclass(frozen=True)
class Graph:
    """A graph's operators in their order, its constants by name (bytes), the names of its inputs
    and outputs.
    """

    nodes: list[Node] = field(default_factory=list)
    constants: dict[str, memoryview] = field(default_factory=dict)
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Model:
    """An ONNX file that is safe to load: its graph, and its metadata by key."""

    graph: Graph
    metadata: dict[str, bytes]


def check_model(model: memoryview) -> dict[str, bytes]:
    """Returns the metadata of an ONNX model that is safe to load, else raises DetectorError."""
    return read_model(model).metadata


def read_model(model: memoryview) -> Model:
    """Returns an ONNX model that is safe to load, else raises DetectorError."""
    metadata: dict[str, bytes] = {}
    graphs, budget = [], Budget()
    for number, value in fields(model, budget):
        if number == MODEL_GRAPH:
            graphs.append(_graph(inside(value), budget))
        elif number == MODEL_OPSET:
            _check_opset(dict(fields(inside(value), budget)))
        elif number in (MODEL_FUNCTIONS, MODEL_TRAINING):
            raise DetectorError(
                "functions or training information found in the file, a plain graph expected: not "
                "loaded"
            )
        elif number == MODEL_METADATA:
            entry = dict(fields(inside(value), budget))
            key = string(entry.get(1, memoryview(b"")))
            if key in metadata:  # which of them another program takes, nobody knows
                raise DetectorError(
                    f"metadata {key[:60]!r} found twice in the file, once expected: not loaded"
                )
            metadata[key] = bytes(inside(entry.get(2, memoryview(b""))))
    if len(graphs) != 1:
        raise DetectorError(NOT_ONNX)
    return Model(graphs[0], metadata)


def check_wiring(graph: Graph) -> None:
    """Raises DetectorError unless every name is made once and every output comes from the one
    input, ``images``.
    """
    if graph.inputs != ["images"]:
        raise DetectorError(
            f"inputs {_named(graph.inputs)} found in the graph, 'images' alone expected: not loaded"
        )
    made = [
        *graph.inputs,
        *graph.constants,
        *(name for node in graph.nodes for name in node.outputs if name),
    ]
    twice = _twice(made) or _twice(graph.outputs)
    if twice is not None:
        raise DetectorError(f"{twice[:60]!r} is made twice in the graph, once expected: not loaded")
    of_images = _made_of("images", graph.nodes)
    fixed = [name for name in graph.outputs if name not in of_images or name in graph.inputs]
    if fixed:
        raise DetectorError(
            f"output {_named(fixed)} does not depend on the image: not a detector, not loaded"
        )


def _made_of(name: str, nodes: Sequence[Node]) -> set[str]:
    """Returns all names that depend on one, in whichever order the operators stand."""
    readers: dict[str, list[Node]] = {}
    for node in nodes:
        for read in node.inputs:
            readers.setdefault(read, []).append(node)
    found, waiting = {name}, [name]
    while waiting:
        new = {made for node in readers.pop(waiting.pop(), ()) for made in node.outputs} - found
        found |= new
        waiting += new
    return found


def _twice(names: Sequence[str]) -> str | None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def _named(names: Sequence[str]) -> str:
    return ", ".join(repr(name[:60]) for name in names[:5]) or "none"


def _check_opset(entry: dict[int, Value]) -> None:
    domain, version = string(entry.get(1, memoryview(b""))), entry.get(2)
    if domain not in ("", "ai.onnx") or version != OPSET:
        found = version if isinstance(version, int) else "of no number"
        raise DetectorError(
            f"operator set {domain[:60] or 'ai.onnx'} {found} found, ai.onnx {OPSET} expected: not "
            "loaded"
        )


def _graph(message: memoryview, budget: Budget) -> Graph:
    graph = Graph()
    for number, value in fields(message, budget):
        if number == GRAPH_NODE:
            if len(graph.nodes) == MAX_NODES:
                raise DetectorError(
                    f"more than {MAX_NODES} operators found in the file: not a detector, not loaded"
                )
            graph.nodes.append(_node(inside(value), budget))
        elif number == GRAPH_INITIALIZER:
            name = _tensor(inside(value), budget)
            if name in graph.constants:
                raise DetectorError(
                    f"{name[:60]!r} is made twice in the graph, once expected: not loaded"
                )
            graph.constants[name] = inside(value)
        elif number in (GRAPH_INPUT, GRAPH_OUTPUT):
            name = next(
                (string(part) for key, part in fields(inside(value), budget) if key == 1), ""
            )
            (graph.inputs if number == GRAPH_INPUT else graph.outputs).append(name)
        elif number == GRAPH_SPARSE:
            raise DetectorError("a sparse tensor found in the file, none expected: not loaded")
    return graph


def _node(message: memoryview, budget: Budget) -> Node:
    name = operator = ""
    lists: dict[int, list[str]] = {NODE_INPUT: [], NODE_OUTPUT: []}
    attributes = []
    for number, value in fields(message, budget):
        if number in lists:
            lists[number].append(string(value))
        elif number == NODE_NAME:
            name = string(value)
        elif number == NODE_OPERATOR:
            operator = string(value)
            if operator not in ALLOWED_OPERATORS:
                raise DetectorError(
                    f"operator {operator[:60]!r} found, which no detector of ours uses: not loaded"
                )
        elif number == NODE_DOMAIN and string(value) not in ("", "ai.onnx"):
            raise DetectorError(
                f"operator domain {string(value)[:60]!r} found, only ONNX's own expected: not "
                "loaded"
            )
        elif number == NODE_ATTRIBUTE:
            _check_attribute(inside(value), budget)
            attributes.append(inside(value))
    return Node(
        name,
        operator,
        tuple(lists[NODE_INPUT]),
        tuple(lists[NODE_OUTPUT]),
        tuple(attributes),
        message,
    )


def _check_attribute(message: memoryview, budget: Budget) -> None:
    for number, value in fields(message, budget):
        if number in (ATTRIBUTE_GRAPH, ATTRIBUTE_GRAPHS):
            raise DetectorError(
                "a subgraph (loop or branch) found in the file, none expected: not loaded"
            )
        if number in (ATTRIBUTE_TENSOR, ATTRIBUTE_TENSORS):
            _tensor(inside(value), budget)


def _tensor(message: memoryview, budget: Budget) -> str:
    """Returns the name of a tensor whose data lie in the file."""
    name = ""
    for number, value in fields(message, budget):
        if number == TENSOR_EXTERNAL or (number == TENSOR_LOCATION and value != 0):
            raise DetectorError(
                "data outside the file found (external data), one self-contained file expected: "
                "not loaded"
            )
        if number == TENSOR_NAME:
            name = string(value)
    return name
