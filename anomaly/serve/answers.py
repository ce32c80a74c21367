"""What the service answers, as its OpenAPI description says it."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from fastapi.responses import JSONResponse
from pydantic import BaseModel

from anomaly.serve import protocol


class Box(BaseModel):
    x: int
    y: int
    w: int
    h: int


class ImageResult(BaseModel):
    """One image's result. ``is_anomaly`` is null where it was not judged: such an image is never
    good. ``result``: not flagged, review (between the two thresholds: a person has to look),
    flagged or not judged; null where the detector only ranks.

    ``guaranteed_per``: image, or unit: then a unit is good only if all its views are. Null where
    nothing is guaranteed; where the rate is estimated ``estimated_per`` says the same.

    ``defect_type``: of what is flagged or for review, the most likely one of the types that the
    detector has learnt, or ``unknown type``; ``type_score``: how likely, 0 to 1. Both null where it
    has learnt none.
    """

    detector: str
    status: str
    score: float
    threshold: float | None
    review_threshold: float | None
    p_value: float | None
    is_anomaly: bool | None
    result: str | None
    width: int
    height: int
    box: Box | None
    area: int | None
    defect_type: str | None
    type_score: float | None
    error: str | None
    guaranteed_per: str | None
    estimated_per: str | None
    heatmap: list[list[float]] | None = None


class Problem(BaseModel):
    """What was found, what was expected, what to do."""

    error: str
    kind: str | None = None


class Live(BaseModel):
    live: bool


class Ready(BaseModel):
    ready: bool


class ServerMetadata(BaseModel):
    name: str
    version: str
    extensions: list[str]


Responses = dict[int | str, dict[str, Any]]


def problems(*statuses: int) -> Responses:
    """What OpenAPI says of answers that are no success."""
    return {
        status: {"model": Problem, "description": HTTPStatus(status).phrase}
        for status in (401, *statuses)
    }


BINARY = {"type": "string", "format": "binary"}
IMAGE_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/octet-stream": {"schema": BINARY},
            "multipart/form-data": {
                "schema": {"type": "object", "properties": {"file": BINARY}, "required": ["file"]}
            },
        },
    }
}
INFER_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": protocol.request_schema()}},
    }
}
JUDGED = problems(400, 404, 408, 413, 415, 422, 429, 500, 504)


def problem(status: int, error: str, headers: Any = None, kind: str | None = None) -> JSONResponse:
    """Returns an answer that says in one line what is wrong."""
    return JSONResponse(
        {"error": error} if kind is None else {"error": error, "kind": kind}, status, headers
    )
