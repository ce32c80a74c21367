"""The Open Inference Protocol v2: requests become images, results become tensors, in JSON or as raw bytes.

https://kserve.github.io/website/docs/concepts/architecture/data-plane/v2-protocol and, for the bytes behind the JSON,
Triton's binary tensor data extension. A request has one input, ``images``: raw pixels (UINT8, N x H x W x 3) or encoded
files (BYTES, N; in JSON as base64).
"""

from __future__ import annotations

import base64
import binascii
import json
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, Field, ValidationError

from anomaly.errors import RequestError
from anomaly.scorer import Result

JSON_BYTES = 16 << 20  # of the JSON in a request: a number takes up to 40 times as much memory as it has digits
MOST_IMAGES = 256
DATATYPES = {"uint8": "UINT8", "float32": "FP32", "bool": "BOOL"}
Array = npt.NDArray[Any]


class InputTensor(BaseModel):
    """The input ``images``."""

    name: Literal["images"]
    datatype: Literal["UINT8", "BYTES"]
    shape: list[int] = Field(min_length=1, max_length=4)
    parameters: dict[str, Any] = Field(default_factory=dict)
    data: list[Any] | None = None


class OutputWish(BaseModel):
    """An output that is asked for."""

    name: str
    parameters: dict[str, Any] = Field(default_factory=dict)


class InferRequest(BaseModel):
    """A request for the verdicts of some images."""

    id: str | None = Field(default=None, max_length=200)
    parameters: dict[str, Any] = Field(default_factory=dict)
    inputs: list[InputTensor] = Field(min_length=1, max_length=1)
    outputs: list[OutputWish] = Field(default_factory=list, max_length=20)


def request_schema() -> dict[str, Any]:
    """Returns the JSON schema of a request without references, as it stands in the OpenAPI description."""
    schema = InferRequest.model_json_schema()
    parts = schema.pop("$defs")
    for name, kind in (("inputs", "InputTensor"), ("outputs", "OutputWish")):
        schema["properties"][name]["items"] = parts[kind]
    return schema


class OutputTensor(BaseModel):
    """One output; without ``data`` where its bytes follow the JSON."""

    name: str
    datatype: Literal["UINT8", "FP32", "BOOL"]
    shape: list[int]
    parameters: dict[str, Any] | None = None
    data: list[Any] | None = None


class InferResponse(BaseModel):
    """The verdicts of some images."""

    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[OutputTensor]


class TensorMetadata(BaseModel):
    """Name, type and shape of an input or output; -1 is any length."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(BaseModel):
    """What a detector takes and gives. ``parameters``: its identity, limit and promise."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]
    parameters: dict[str, Any]


@dataclass(frozen=True)
class Inference:
    """A request that was understood. ``images``: uint8 (H, W, 3) or encoded files; ``binary``: output -> as raw bytes?"""

    id: str | None
    images: Sequence[Array | bytes]
    binary: dict[str, bool]


def read_request(body: bytes, json_length: str | None, known: Sequence[str]) -> Inference:
    """Returns what an inference request asks for; RequestError where it is not one.

    ``json_length``: the header Inference-Header-Content-Length, given where raw bytes follow the JSON. ``known``: names
    of the outputs that there are.
    """
    end = _json_end(body, json_length)
    try:
        request = InferRequest.model_validate_json(body[:end])
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "body"
        raise RequestError(400, f"not an inference request: {where}: {first['msg']}") from error
    tensor = request.inputs[0]
    raw = _raw_bytes(tensor, body[end:], json_length is not None)
    images = _encoded(tensor, raw) if tensor.datatype == "BYTES" else _pixels(tensor, raw)
    return Inference(request.id, images, _wishes(request, known))


def _json_end(body: bytes, json_length: str | None) -> int:
    end = len(body) if json_length is None else int(json_length) if json_length.isdecimal() and len(json_length) < 12 else -1
    if not 0 <= end <= len(body):
        raise RequestError(400, f"Inference-Header-Content-Length {json_length[:20]!r} found, at most {len(body)} expected")  # type: ignore[index]
    if end > JSON_BYTES:
        raise RequestError(413, f"{end} bytes of JSON found, at most {JSON_BYTES} expected: send binary tensors or files")
    return end


def _raw_bytes(tensor: InputTensor, rest: bytes, binary: bool) -> bytes | None:
    """The tensor's bytes behind the JSON, or None where its numbers stand in the JSON."""
    size = tensor.parameters.get("binary_data_size")
    if size is None:
        if rest or tensor.data is None:
            raise RequestError(400, "an input without data found: give data, or binary_data_size and the bytes behind the JSON")
        return None
    if not binary or tensor.data is not None or size != len(rest):
        raise RequestError(
            400, f"binary_data_size {size!r} found, {len(rest)} bytes follow the JSON and data is to be left out"
        )
    return rest


def _wishes(request: InferRequest, known: Sequence[str]) -> dict[str, bool]:
    all_binary = bool(request.parameters.get("binary_data_output", False))
    wishes = {w.name: bool(w.parameters.get("binary_data", all_binary)) for w in request.outputs}
    unknown = sorted(wishes.keys() - set(known))
    if unknown:
        raise RequestError(400, f"output {unknown[0][:60]!r} asked for, one of {', '.join(known)} expected")
    return wishes or dict.fromkeys(known, all_binary)


def _pixels(tensor: InputTensor, raw: bytes | None) -> Sequence[Array]:
    """Raw pixels, N arrays uint8 (H, W, 3)."""
    shape = tensor.shape
    if len(shape) != 4 or shape[3] != 3 or min(shape) < 1 or shape[0] > MOST_IMAGES:
        raise RequestError(400, f"shape {shape} found, [N, H, W, 3] with N from 1 to {MOST_IMAGES} expected")
    values = np.frombuffer(raw, np.uint8) if raw is not None else _numbers(tensor.data)
    if values.size != np.prod([int(n) for n in shape], dtype=object):
        raise RequestError(400, f"{values.size} values found, shape {shape} expects another number")
    return list(values.reshape(shape))


def _numbers(data: list[Any] | None) -> Array:
    try:
        values = np.array(data)
    except (ValueError, OverflowError) as error:
        raise RequestError(400, "ragged data found, a flat list of pixels or nested ones of equal length expected") from error
    if values.dtype.kind not in "iu" or values.size == 0 or values.min() < 0 or values.max() > 255:
        raise RequestError(400, "data of another kind found, whole numbers from 0 to 255 expected")
    return values.astype(np.uint8).ravel()


def _encoded(tensor: InputTensor, raw: bytes | None) -> Sequence[bytes]:
    """Encoded files."""
    files = _split(raw) if raw is not None else [_from_base64(text) for text in tensor.data or ()]
    if tensor.shape not in ([len(files)], [len(files), 1]) or not 1 <= len(files) <= MOST_IMAGES:
        raise RequestError(
            400, f"{len(files)} files and shape {tensor.shape} found, [N] with N from 1 to {MOST_IMAGES} expected"
        )
    return files


def _split(raw: bytes) -> list[bytes]:
    """Each file behind its length, four bytes, the lowest first."""
    files, at = [], 0
    while at < len(raw):
        length = struct.unpack_from("<I", raw, at)[0] if at + 4 <= len(raw) else len(raw)
        if at + 4 + length > len(raw):
            raise RequestError(400, "BYTES data cut short: each file behind its length, 4 bytes little-endian, expected")
        files.append(raw[at + 4 : at + 4 + length])
        at += 4 + length
    return files


def _from_base64(text: Any) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (TypeError, ValueError, binascii.Error) as error:
        raise RequestError(400, "BYTES data that is not base64 found; send files as base64, or as binary data") from error


def write_response(name: str, version: str, asked: Inference, results: Sequence[Result]) -> tuple[bytes, int | None]:
    """Returns the answer's body, and the length of the JSON in it where raw bytes follow."""
    tensors, raw = [], []
    for output, binary in asked.binary.items():
        values = tensor_of(output, results)
        tensor: dict[str, Any] = {"name": output, "datatype": DATATYPES[values.dtype.name], "shape": list(values.shape)}
        if binary:
            raw.append(values.tobytes())
            tensor["parameters"] = {"binary_data_size": len(raw[-1])}
        else:
            tensor["data"] = values.ravel().tolist()
        tensors.append(tensor)
    answer = {"model_name": name, "model_version": version, "outputs": tensors}
    head = json.dumps(answer if asked.id is None else {**answer, "id": asked.id}, allow_nan=False).encode()
    return b"".join([head, *raw]), len(head) if raw else None


TENSORS: dict[str, tuple[type, Callable[[Result], Any]]] = {
    "score": (np.float32, lambda result: result.score),
    "p_value": (np.float32, lambda result: result.p_value),
    "in_range": (np.bool_, lambda result: result.status == "ok"),
    "heatmap": (np.float32, lambda result: result.heatmap),
    "reconstruction": (np.uint8, lambda result: result.reconstruction),
}


def tensor_of(output: str, results: Sequence[Result]) -> Array:
    """Returns one output of all images. ``in_range`` is false where a verdict does not count, and ``is_anomaly`` true there."""
    if output == "is_anomaly":  # what was not judged is never good
        return np.array([result.is_anomaly is not False for result in results])
    dtype, read = TENSORS[output]
    return np.array([read(result) for result in results], dtype)
