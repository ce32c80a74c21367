"""The detector file: check it before anything loads it, read its card, rewrite its calibration.

A detector is an ONNX file that holds, under the metadata key ``anomaly``, a JSON card. The file is read here as
plain protobuf, so that a file from anywhere is refused before ONNX Runtime sees it, and without the package `onnx`
(only the functions that rewrite a file need that).
"""

from __future__ import annotations

import getpass
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from anomaly.calibrate import Calibration
from anomaly.errors import DetectorError, RuntimeMissing
from anomaly.images import DecodeRule
from anomaly.sight import at_threshold, cost_of
from anomaly.table import named

if TYPE_CHECKING:
    import onnx

FORMAT = 1
OPSET = 18
CARD_KEY = "anomaly"
MAX_FILE_BYTES = 1 << 30
MAX_CARD_BYTES = 16 << 20
MAX_NODES = 20_000  # reading more takes minutes; ours have some hundred

# Operators that compute and nothing else: no control flow, no files, no custom code.
ALLOWED_OPERATORS = frozenset(
    """Abs Add And ArgMax ArgMin AveragePool BatchNormalization Cast Ceil Clip Concat Constant ConstantOfShape Conv
    ConvTranspose Cos CumSum DepthToSpace DequantizeLinear Div Einsum Elu Equal Erf Exp Expand Flatten Floor Gather
    GatherElements GatherND Gemm GlobalAveragePool GlobalMaxPool Greater GreaterOrEqual GroupNormalization HardSigmoid
    HardSwish Identity InstanceNormalization IsInf IsNaN LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax
    MatMul Max MaxPool Mean Min Mish Mod Mul Neg Not Or PRelu Pad Pow QuantizeLinear Range Reciprocal ReduceL1 ReduceL2
    ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape Resize
    Round ScatterElements ScatterND Shape Sigmoid Sign Sin Size Slice Softmax Softplus SpaceToDepth Split Sqrt Squeeze
    Sub Sum Tanh Tile TopK Transpose Trilu Unsqueeze Where Xor""".split()
)


@dataclass(frozen=True)
class Card:
    """What a detector says of itself.

    ``calibration`` is None in a rank-only detector. ``digest`` is the sha256 of the file, ``weights`` that of the
    graph without its calibration: it ties explain.onnx to the detector and survives recalibration.
    """

    name: str
    version: str
    model: str
    space: str
    size: int
    score: str
    decode: DecodeRule
    calibration: Calibration | None
    band: tuple[float, float] | None
    training: dict[str, Any]
    golden: dict[str, Any]
    licences: dict[str, str]
    quality: dict[str, Any] | None
    parent: str | None
    weights: str
    digest: str = ""

    @property
    def identity(self) -> str:
        """The detector's name, version and digest, as every row and report gives it."""
        return f"{self.name}@{self.version} sha256:{self.digest}"

    def to_json(self) -> dict[str, Any]:
        """Returns the card as it stands in the file (without the file's own digest)."""
        return {
            "format": FORMAT,
            "name": self.name,
            "version": self.version,
            "model": self.model,
            "space": self.space,
            "size": self.size,
            "score": self.score,
            "decode": self.decode.to_json(),
            "calibration": None if self.calibration is None else self.calibration.to_json(),
            "band": self.band,
            "training": self.training,
            "golden": self.golden,
            "licences": self.licences,
            "quality": self.quality,
            "parent": self.parent,
            "weights": self.weights,
        }

    @classmethod
    def from_json(cls, card: dict[str, Any], digest: str = "") -> Card:
        """Returns the card of a file; DetectorError where a field is missing or of the wrong kind."""
        found = card.get("format") if isinstance(card, dict) else None
        if not isinstance(found, int) or found < 1:
            raise DetectorError("the card has no format number: this is not a detector made by `anomaly train`")
        if found > FORMAT:
            raise DetectorError(
                f"detector format {found} found, at most {FORMAT} expected: it was made by a newer version of anomaly; "
                "update with pip install -U anomaly"
            )
        try:
            return cls(
                name=_text(card["name"]),
                version=_text(card["version"]),
                model=_text(card["model"]),
                space=_text(card["space"]),
                size=_whole(card["size"]),
                score=_text(card["score"]),
                decode=DecodeRule.from_json(card["decode"]),
                calibration=None if card["calibration"] is None else Calibration.from_json(card["calibration"]),
                band=None if card["band"] is None else (float(card["band"][0]), float(card["band"][1])),
                training=_table(card["training"]),
                golden=_table(card["golden"]),
                licences=_table(card["licences"]),
                quality=None if card["quality"] is None else _table(card["quality"]),
                parent=None if card["parent"] is None else _text(card["parent"]),
                weights=_text(card["weights"]),
                digest=digest,
            )
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise DetectorError(f"the card is damaged ({type(error).__name__}: {error}): train or copy it again") from error


def _text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > 10_000 or not value.isprintable():  # names are printed on terminals
        raise TypeError(f"one line of text expected, {str(value)[:40]!r} found")
    return value


def _whole(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 100_000:
        raise TypeError(f"a size expected, {value!r} found")
    return value


def _table(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"an object expected, {type(value).__name__} found")
    return value


def find_detector(run: str | os.PathLike[str]) -> Path:
    """Returns the detector file of RUN, which is a run folder or the file itself."""
    path = Path(run)
    file = path / "detector.onnx" if path.is_dir() else path
    if not file.is_file():
        what = "a folder without detector.onnx" if path.is_dir() else "no such file or folder"
        raise DetectorError(f"{path}: {what}; a run folder or a detector file made by `anomaly train` was expected")
    return file


def read_card(run: str | os.PathLike[str]) -> Card:
    """Returns the card of a checked detector (see ``read_checked``)."""
    return read_checked(run)[1]


def read_checked(run: str | os.PathLike[str]) -> tuple[bytes, Card]:
    """Returns a detector's bytes and card after the checks that make it safe to load.

    Refused (DetectorError): more than 1 GiB, not an ONNX file, external data, an operator outside the allow-list or of
    another domain, subgraphs, functions, another opset, a card that is missing, damaged, too large or too new.
    """
    path = find_detector(run)
    size = path.stat().st_size
    if size > MAX_FILE_BYTES:
        raise DetectorError(f"{path}: {size} bytes found, at most {MAX_FILE_BYTES} expected: this is not a detector")
    data = path.read_bytes()
    try:
        metadata = check_model(memoryview(data))
        card = Card.from_json(_parse_card(metadata), hashlib.sha256(data).hexdigest())
    except DetectorError as error:
        raise DetectorError(f"{path}: {error}") from error
    return data, card


def _parse_card(metadata: dict[str, bytes]) -> dict[str, Any]:
    text = metadata.get(CARD_KEY)
    if text is None:
        raise DetectorError("an ONNX file without a card found, a detector made by `anomaly train` expected")
    if len(text) > MAX_CARD_BYTES:
        raise DetectorError(f"a card of {len(text)} bytes found, at most {MAX_CARD_BYTES} expected")
    try:
        card: dict[str, Any] = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DetectorError("the card is damaged (no valid JSON): train or copy it again") from error
    return card


# --- reading protobuf -------------------------------------------------------------------------------------------------
# Field numbers of onnx.proto3.
MODEL_GRAPH, MODEL_OPSET, MODEL_METADATA, MODEL_TRAINING, MODEL_FUNCTIONS = 7, 8, 14, 20, 25
GRAPH_NODE, GRAPH_INITIALIZER, GRAPH_SPARSE = 1, 5, 15
NODE_OPERATOR, NODE_ATTRIBUTE, NODE_DOMAIN = 4, 5, 7
ATTRIBUTE_TENSOR, ATTRIBUTE_GRAPH, ATTRIBUTE_TENSORS, ATTRIBUTE_GRAPHS = 5, 6, 10, 11
TENSOR_EXTERNAL, TENSOR_LOCATION = 13, 14


def fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yields (field number, value) of a protobuf message: int for numbers, bytes for everything else."""
    position = 0
    while position < len(message):
        key, position = _varint(message, position)
        number, kind = key >> 3, key & 7
        if kind == 0:
            value, position = _varint(message, position)
            yield number, value
            continue
        length = {1: 8, 5: 4}.get(kind)
        if length is None:
            if kind != 2:
                raise DetectorError("not an ONNX file (damaged or of another kind)")
            length, position = _varint(message, position)
        if position + length > len(message):
            raise DetectorError("not an ONNX file, or a truncated one: copy it again")
        yield number, message[position : position + length]
        position += length


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while position < len(message) and shift < 64:
        byte = message[position]
        value |= (byte & 0x7F) << shift
        position += 1
        if byte < 0x80:
            return value, position
        shift += 7
    raise DetectorError("not an ONNX file, or a truncated one: copy it again")


def _inside(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise DetectorError("not an ONNX file (damaged or of another kind)")
    return value


def _string(value: int | memoryview) -> str:
    return bytes(_inside(value)).decode("utf-8", "replace")


def check_model(model: memoryview) -> dict[str, bytes]:
    """Returns the metadata of an ONNX model that is safe to load, else raises DetectorError."""
    metadata: dict[str, bytes] = {}
    graphs = 0
    for number, value in fields(model):
        if number == MODEL_GRAPH:
            _check_graph(_inside(value))
            graphs += 1
        elif number == MODEL_OPSET:
            _check_opset(dict(fields(_inside(value))))
        elif number in (MODEL_FUNCTIONS, MODEL_TRAINING):
            raise DetectorError("functions or training information found in the file, a plain graph expected: not loaded")
        elif number == MODEL_METADATA:
            entry = dict(fields(_inside(value)))
            metadata[_string(entry.get(1, memoryview(b"")))] = bytes(_inside(entry.get(2, memoryview(b""))))
    if graphs != 1:
        raise DetectorError("not an ONNX file, or a truncated one: copy it again")
    return metadata


def _check_opset(entry: dict[int, int | memoryview]) -> None:
    domain, version = _string(entry.get(1, memoryview(b""))), entry.get(2)
    if domain not in ("", "ai.onnx") or version != OPSET:
        raise DetectorError(f"operator set {domain or 'ai.onnx'} {version} found, ai.onnx {OPSET} expected: not loaded")


def _check_graph(graph: memoryview) -> None:
    nodes = 0
    for number, value in fields(graph):
        if number == GRAPH_NODE:
            nodes += 1
            if nodes > MAX_NODES:
                raise DetectorError(f"more than {MAX_NODES} operators found in the file: not a detector, not loaded")
            _check_node(_inside(value))
        elif number == GRAPH_INITIALIZER:
            _check_tensor(_inside(value))
        elif number == GRAPH_SPARSE:
            raise DetectorError("a sparse tensor found in the file, none expected: not loaded")


def _check_node(node: memoryview) -> None:
    for number, value in fields(node):
        if number == NODE_OPERATOR and _string(value) not in ALLOWED_OPERATORS:
            raise DetectorError(f"operator {_string(value)[:60]!r} found, which no detector of ours uses: not loaded")
        if number == NODE_DOMAIN and _string(value) not in ("", "ai.onnx"):
            raise DetectorError(f"operator domain {_string(value)[:60]!r} found, only ONNX's own expected: not loaded")
        if number == NODE_ATTRIBUTE:
            for part, inner in fields(_inside(value)):
                if part in (ATTRIBUTE_GRAPH, ATTRIBUTE_GRAPHS):
                    raise DetectorError("a subgraph (loop or branch) found in the file, none expected: not loaded")
                if part in (ATTRIBUTE_TENSOR, ATTRIBUTE_TENSORS):
                    _check_tensor(_inside(inner))


def _check_tensor(tensor: memoryview) -> None:
    for number, value in fields(tensor):
        if number == TENSOR_EXTERNAL or (number == TENSOR_LOCATION and value != 0):
            raise DetectorError("data outside the file found (external data), one self-contained file expected: not loaded")


# --- rewriting --------------------------------------------------------------------------------------------------------
CALIBRATION = "calibration."


def import_onnx() -> Any:
    """Returns the package onnx, or raises RuntimeMissing naming the extra."""
    try:
        import onnx
    except ImportError as error:
        raise RuntimeMissing.extra("onnx", "calibrate", "writing a detector file") from error
    return onnx


def set_calibration(model: onnx.ModelProto, calibration: Calibration | None) -> None:
    """Puts the calibration into a graph that has ``score``, in place of the one it had (None: rank-only).

    p = (1 + #{calibration scores >= score}) / (n + 1) and is_anomaly = not (score <= threshold), so that NaN is
    anomalous. All nodes and constants are named ``calibration.*``.
    """
    onnx = import_onnx()
    graph = model.graph
    for names in (graph.node, graph.initializer):
        kept = [item for item in names if not item.name.startswith(CALIBRATION)]
        del names[:]
        names.extend(kept)
    outputs = [o for o in graph.output if o.name not in ("p_value", "is_anomaly")]
    if calibration is not None:
        nodes, constants = _calibration_graph(calibration)
        graph.node.extend(nodes)
        graph.initializer.extend(constants)
        value = onnx.helper.make_tensor_value_info
        outputs[1:1] = [
            value("p_value", onnx.TensorProto.FLOAT, ["N"]),
            value("is_anomaly", onnx.TensorProto.BOOL, ["N"]),
        ]
    del graph.output[:]
    graph.output.extend(outputs)


def _calibration_graph(calibration: Calibration) -> tuple[list[Any], list[Any]]:
    onnx = import_onnx()
    n = calibration.n

    def constant(name: str, value: Any) -> Any:
        return onnx.numpy_helper.from_array(np.asarray(value), CALIBRATION + name)

    def node(operator: str, inputs: list[str], output: str, **attributes: int) -> Any:
        name = CALIBRATION + output
        result = output if output in ("p_value", "is_anomaly") else name
        return onnx.helper.make_node(operator, inputs, [result], name=name, **attributes)

    c = CALIBRATION
    constants = [
        constant("scores", calibration.scores.astype(np.float32)[None, :]),  # (1, n), ascending
        constant("threshold", np.float32(calibration.threshold)),
        constant("one", np.float32(1)),
        constant("denominator", np.float32(n + 1)),
        constant("axis", np.array([1], np.int64)),
    ]
    nodes = [
        node("Unsqueeze", ["score", c + "axis"], "column"),  # (N, 1)
        node("GreaterOrEqual", [c + "scores", c + "column"], "reached"),  # (N, n)
        node("Cast", [c + "reached"], "counted", to=onnx.TensorProto.FLOAT),
        node("ReduceSum", [c + "counted", c + "axis"], "count", keepdims=0),
        node("Add", [c + "count", c + "one"], "rank"),
        node("Div", [c + "rank", c + "denominator"], "p_value"),
        node("LessOrEqual", ["score", c + "threshold"], "normal"),
        node("Not", [c + "normal"], "is_anomaly"),
    ]
    return nodes, constants


def weights_digest(model: onnx.ModelProto) -> str:
    """Returns the sha256 of a graph without its calibration, which recalibration therefore keeps."""
    digest = hashlib.sha256()
    for items in (model.graph.initializer, model.graph.node):
        for item in items:
            if not item.name.startswith(CALIBRATION):
                digest.update(item.SerializeToString(deterministic=True))
    return digest.hexdigest()


def set_card(model: onnx.ModelProto, card: Card) -> None:
    """Writes the card into the model's metadata (and nothing else: no trace of the exporter)."""
    import_onnx().helper.set_model_props(model, {CARD_KEY: json.dumps(card.to_json(), allow_nan=False)})


def user() -> str:
    """Returns who is at the keyboard, for cards and logs."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container without an entry for this user
        return "unknown"


def write_atomically(path: Path, data: bytes) -> None:
    """Writes a file that appears whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with named(path, temporary):
            with open(temporary, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def recalibrate(
    run: str | os.PathLike[str],
    calibration: Calibration,
    out: Path,
    *,
    version: str,
    highest: list[str],
    images: int,
    groups: int,
    parent: str | None = None,
    by_part: dict[str, Any] | None = None,
    accepted: Sequence[str] = (),
) -> None:
    """Writes a copy of a detector with a new calibration to ``out``. The weights, and so explain.onnx, stay as they are.

    ``highest`` names the calibration images with the highest scores, ``images`` and ``groups`` count those given.
    ``parent``: the digest of the file that it comes from (default: that of ``run``). ``by_part``: see anomaly.parts.
    ``accepted``: what of the guarantee got worse, and was accepted.
    """
    onnx = import_onnx()
    data, card = read_checked(run)
    model = onnx.load_model_from_string(data)
    set_calibration(model, calibration)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    sight = at_threshold(card.training.get("sight"), float(calibration.threshold))
    facts = {
        "recalibrated": now,
        "sight": sight,
        "cost": cost_of(calibration, highest, sight),
        "recalibrated_by": user(),
        "recalibrated_on": images,
        "highest": highest,
        "grouped": groups < images,
        "by_part": by_part,
        "accepted_worse": list(accepted),
        **dict.fromkeys(("limit_moved", "limit_moved_by", "limit_moved_from")),  # it is no preview any more
    }
    new = replace(
        card,
        version=version,
        calibration=calibration,
        band=None,
        quality=None,
        parent=parent or card.digest,
        training={**card.training, **facts},
    )
    set_card(model, new)
    write_atomically(out, model.SerializeToString(deterministic=True))
