"""The Open Inference Protocol v2: requests become images, results become tensors, in JSON or as raw
bytes.

https://kserve.github.io/website/docs/concepts/architecture/data-plane/v2-protocol and, for the
bytes behind the JSON, Triton's binary tensor data extension. A request has one input, ``images``:
raw pixels (UINT8, N x H x W x 3) or encoded files (BYTES, N; in JSON as base64).
"""

from __future__ import annotations

import base64
import binascii
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, Field, ValidationError

from anomaly.errors import RequestError
from anomaly.scorer import Result
from anomaly.serve.numbers import MAX_JSON_NUMBERS, Check, pixels_of, text_of, unbounded

JSON_BYTES = 16 << 20  # of the JSON in a request
HEAD_BYTES = 64 << 10  # of that JSON without the tensor's data
MAX_REQUEST_IMAGES = 256
MOST_ANSWER_BYTES = 64 << 20  # of an answer's binary tensors
DATATYPES = {"uint8": "UINT8", "float32": "FP32", "bool": "BOOL"}
Array = npt.NDArray[Any]


class InputTensor(BaseModel):
    """The input ``images``."""

    name: Literal["images"]
    datatype: Literal["UINT8", "BYTES"]
    shape: list[int] = Field(min_length=1, max_length=4)
    parameters: dict[str, Any] = Field(default_factory=dict)
    data: list[Any] | None = None


class RequestedOutput(BaseModel):
    """An output that is asked for."""

    name: str
    parameters: dict[str, Any] = Field(default_factory=dict)


class InferRequest(BaseModel):
    """A request for the results of some images."""

    id: str | None = Field(default=None, max_length=200)
    parameters: dict[str, Any] = Field(default_factory=dict)
    inputs: list[InputTensor] = Field(min_length=1, max_length=1)
    outputs: list[RequestedOutput] = Field(default_factory=list, max_length=20)


class Envelope(msgspec.Struct):
    """A request as spans of its text: nothing in them has become an object yet."""

    inputs: tuple[TensorText]
    id: msgspec.Raw = msgspec.Raw(b"null")
    parameters: msgspec.Raw = msgspec.Raw(b"{}")
    outputs: msgspec.Raw = msgspec.Raw(b"[]")


class TensorText(msgspec.Struct):
    """The spans of an input, ``data`` apart from all others."""

    name: msgspec.Raw
    datatype: msgspec.Raw
    shape: msgspec.Raw
    parameters: msgspec.Raw = msgspec.Raw(b"{}")
    data: msgspec.Raw = msgspec.Raw(b"null")


ENVELOPE = msgspec.json.Decoder(Envelope)
FILES = msgspec.json.Decoder(list[str])


def request_schema() -> dict[str, Any]:
    """Returns the JSON schema of a request without references, as it stands in the OpenAPI
    description.
    """
    schema = InferRequest.model_json_schema()
    parts = schema.pop("$defs")
    for name, kind in (("inputs", "InputTensor"), ("outputs", "RequestedOutput")):
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
    """The results of some images."""

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
    """What a detector takes and gives. ``parameters``: its identity, threshold and
    false-alarm rate, guaranteed or estimated, and the same of the review threshold;
    ``defect_types``: in the order of the output ``type_scores``.
    """

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]
    parameters: dict[str, Any]


@dataclass(frozen=True)
class Inference:
    """A request that was understood. ``images``: uint8 (H, W, 3) or encoded files; ``binary``:
    output -> as raw bytes?
    """

    id: str | None
    images: Sequence[Array | bytes]
    binary: dict[str, bool]


def read_request(
    body: bytes, json_length: str | None, known: Sequence[str], check: Check = unbounded
) -> Inference:
    """Returns what an inference request asks for; RequestError where it is not one.

    ``json_length``: the header Inference-Header-Content-Length, given where raw bytes follow the
    JSON. ``known``: names of the outputs that there are. ``check`` is called again and again and
    ends the work by raising.
    """
    end = _json_end(body, json_length)
    request, data = _parse(memoryview(body)[:end])
    tensor = request.inputs[0]
    raw = _raw_bytes(tensor, data, memoryview(body)[end:], json_length is not None)
    if tensor.datatype == "BYTES":
        images: Sequence[Array | bytes] = _encoded(tensor, data, raw)
    else:
        images = _pixels(tensor, data, raw, check)
    return Inference(request.id, images, _requested(request, known))


def _parse(text: memoryview) -> tuple[InferRequest, bytes | None]:
    """Returns a request without its tensor's data, and the text of that data.

    The text is cut into spans first, which makes no object of what stands in them (a list takes 60
    bytes for the two that it is written with). Only the small rest is parsed.
    """
    try:
        found = ENVELOPE.decode(text)
        tensor, data = found.inputs[0], bytes(found.inputs[0].data)
        tensor.data = msgspec.Raw(b"null")
        head = msgspec.json.encode(found)
        if len(head) > HEAD_BYTES:
            raise RequestError(
                413, f"{len(head)} bytes of JSON besides data found, at most {HEAD_BYTES} expected"
            )
        return InferRequest.model_validate_json(head), None if data == b"null" else data
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "body"
        raise RequestError(400, f"not an inference request: {where}: {first['msg']}") from error
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise RequestError(400, f"not an inference request: {error}") from error


def _json_end(body: bytes, json_length: str | None) -> int:
    end = (
        len(body)
        if json_length is None
        else int(json_length)
        if json_length.isdecimal() and len(json_length) < 12
        else -1
    )
    if not 0 <= end <= len(body):
        found = (json_length or "")[:20]
        raise RequestError(
            400, f"Inference-Header-Content-Length {found!r} found, at most {len(body)} expected"
        )
    if end > JSON_BYTES:
        raise RequestError(
            413,
            f"{end} bytes of JSON found, at most {JSON_BYTES} expected: send binary tensors or "
            "files",
        )
    return end


def _raw_bytes(
    tensor: InputTensor, data: bytes | None, rest: memoryview, binary: bool
) -> memoryview | None:
    """The tensor's bytes behind the JSON, or None where its numbers stand in the JSON."""
    size = tensor.parameters.get("binary_data_size")
    if size is None:
        if rest or data is None:
            raise RequestError(
                400,
                "an input without data found: give data, or binary_data_size and the bytes behind "
                "the JSON",
            )
        return None
    if not binary or data is not None or size != len(rest):
        raise RequestError(
            400,
            f"binary_data_size {size!r} found, {len(rest)} bytes follow the JSON and data is to be "
            "left out",
        )
    return rest


def _requested(request: InferRequest, known: Sequence[str]) -> dict[str, bool]:
    all_binary = bool(request.parameters.get("binary_data_output", False))
    requested = {w.name: bool(w.parameters.get("binary_data", all_binary)) for w in request.outputs}
    unknown = sorted(requested.keys() - set(known))
    if unknown:
        raise RequestError(
            400, f"output {unknown[0][:60]!r} asked for, one of {', '.join(known)} expected"
        )
    return requested or dict.fromkeys(known, all_binary)


def _pixels(
    tensor: InputTensor, data: bytes | None, raw: memoryview | None, check: Check
) -> Sequence[Array]:
    """Raw pixels, N arrays uint8 (H, W, 3)."""
    shape = tensor.shape
    if len(shape) != 4 or shape[3] != 3 or min(shape) < 1 or shape[0] > MAX_REQUEST_IMAGES:
        raise RequestError(
            400, f"shape {shape} found, [N, H, W, 3] with N from 1 to {MAX_REQUEST_IMAGES} expected"
        )
    if raw is None:
        return list(pixels_of(data or b"", shape, check))
    if len(raw) != prod(shape):
        raise RequestError(400, f"{len(raw)} values found, shape {shape} expects another number")
    return list(np.frombuffer(raw, np.uint8).reshape(shape))


def _encoded(tensor: InputTensor, data: bytes | None, raw: memoryview | None) -> Sequence[bytes]:
    """Encoded files."""
    files = _split(raw) if raw is not None else list(map(_from_base64, _texts(data or b"")))
    if (
        tensor.shape not in ([len(files)], [len(files), 1])
        or not 1 <= len(files) <= MAX_REQUEST_IMAGES
    ):
        raise RequestError(
            400,
            f"{len(files)} files and shape {tensor.shape} found, [N] with N from 1 to "
            f"{MAX_REQUEST_IMAGES} expected",
        )
    return files


def _texts(data: bytes) -> list[str]:
    """The strings of a JSON array. They are base64, which has neither quotes nor commas: both are
    counted first.
    """
    if data.count(b'"') > 2 * MAX_REQUEST_IMAGES or data.count(b",") >= MAX_REQUEST_IMAGES:
        raise RequestError(
            400,
            f"more than {MAX_REQUEST_IMAGES} values found, as base64 1 to "
            f"{MAX_REQUEST_IMAGES} files expected",
        )
    try:
        return FILES.decode(data)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise RequestError(
            400, "BYTES data that is not base64 found; send files as base64, or as binary data"
        ) from error


def _split(raw: memoryview) -> list[bytes]:
    """Each file behind its length, four bytes, the lowest first."""
    files: list[bytes] = []
    at = 0
    while at < len(raw) and len(files) <= MAX_REQUEST_IMAGES:
        length = struct.unpack_from("<I", raw, at)[0] if at + 4 <= len(raw) else len(raw)
        if at + 4 + length > len(raw):
            raise RequestError(
                400,
                "BYTES data cut short: each file behind its length, 4 bytes little-endian, "
                "expected",
            )
        files.append(bytes(raw[at + 4 : at + 4 + length]))
        at += 4 + length
    return files


def _from_base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error) as error:
        raise RequestError(
            400, "BYTES data that is not base64 found; send files as base64, or as binary data"
        ) from error


def write_response(
    name: str, version: str, asked: Inference, results: Sequence[Result], check: Check = unbounded
) -> tuple[bytes, int | None]:
    """Returns the answer's body, and the length of the JSON in it where raw bytes follow.

    RequestError 422 where it would be too long.
    """
    tensors, raw = [], []
    values = {output: tensor_of(output, results) for output in asked.binary}
    check_length(sum(v.size for o, v in values.items() if not asked.binary[o]))
    bound(
        sum(v.nbytes for o, v in values.items() if asked.binary[o]),
        MOST_ANSWER_BYTES,
        "bytes of binary tensors",
    )
    for output, binary in asked.binary.items():
        tensor: dict[str, Any] = {
            "name": output,
            "datatype": DATATYPES[values[output].dtype.name],
            "shape": list(values[output].shape),
        }
        if binary:
            raw.append(values[output].tobytes())
            tensor["parameters"] = {"binary_data_size": len(raw[-1])}
        else:
            tensor["data"] = text_of(values[output].ravel(), check)
        tensors.append(tensor)
    answer = {"model_name": name, "model_version": version, "outputs": tensors}
    head = msgspec.json.encode(answer if asked.id is None else {**answer, "id": asked.id})
    return b"".join([head, *raw]), len(head) if raw else None


def check_length(numbers: int) -> None:
    """RequestError 422 where an answer would have too many numbers as JSON."""
    bound(numbers, MAX_JSON_NUMBERS, "numbers as JSON")


def bound(found: int, most: int, what: str) -> None:
    if found > most:
        raise RequestError(
            422,
            f"an answer of {found} {what} found, at most {most} expected: ask for fewer images or "
            "outputs (without the heatmap and the reconstruction, or for these as binary "
            "tensors), or use anomaly score --heatmaps",
        )


TENSORS: dict[str, tuple[type, Callable[[Result], Any]]] = {
    "score": (np.float32, lambda result: result.score),
    "p_value": (np.float32, lambda result: result.p_value),
    "in_range": (np.bool_, lambda result: result.status == "ok"),
    "heatmap": (np.float32, lambda result: result.heatmap),
    "reconstruction": (np.uint8, lambda result: result.reconstruction),
    "type_scores": (np.float32, lambda result: result.type_scores),
}


def tensor_of(output: str, results: Sequence[Result]) -> Array:
    """Returns one output of all images. ``in_range`` is false where a result does not count, and
    ``is_anomaly`` true there and where a person has to look.
    """
    if output == "is_anomaly":  # it has no third value, and only what passes is good
        return np.array([result.result != "not flagged" for result in results])
    dtype, read = TENSORS[output]
    found = [read(result) for result in results]
    if len({np.shape(one) for one in found}) > 1:
        raise RequestError(
            422,
            f"images whose {output}s differ in size found: send those of one size, or leave it out",
        )
    return np.array(found, dtype)
