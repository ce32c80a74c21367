"""The routes of `anomaly serve`."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, FastAPI, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from anomaly.errors import RequestError
from anomaly.scorer import Result
from anomaly.serve import bodies, protocol
from anomaly.serve.answers import (
    IMAGE_BODY,
    INFER_BODY,
    JUDGED,
    ImageResult,
    Live,
    Ready,
    ServerMetadata,
    problem,
    problems,
)
from anomaly.serve.detectors import Served
from anomaly.serve.judging import judge_in_time
from anomaly.serve.log import say
from anomaly.serve.numbers import text_of
from anomaly.serve.request_log import RequestLog
from anomaly.serve.service import Service
from anomaly.serve.workers import Deadline, Place
from anomaly.statistics.calibration import named_rate, rate_word
from anomaly.version import __version__

STATUSES = {"damaged detector": 500, "too slow": 504}  # of what is not the image's fault
RELOAD_SECONDS = 1.0
COPIED = (  # of a Result, under the same name
    "status",
    "score",
    "p_value",
    "is_anomaly",
    "result",
    "width",
    "height",
    "area",
    "defect_type",
    "type_score",
    "error",
)


Name = Annotated[
    str, Path(description="A detector's name: that of its run folder, or its file's stem")
]
router = APIRouter()


def service_of(request: Request) -> Service:
    found: Service = request.app.state.service
    return found


def detector_of(request: Request, name: str | None, version: str | None = None) -> Served:
    served = service_of(request).detector(name, version)
    request.state.log["detector"] = served.name
    return served


# --- health and metadata ---
@router.get("/v2/health/live", tags=["health"])
async def live() -> Live:
    """Whether the server runs."""
    return Live(live=True)


@router.get(
    "/v2/health/ready",
    tags=["health"],
    responses={503: {"model": Ready, "description": "Stopping"}},
)
async def ready(request: Request) -> Response:
    """Whether the server takes requests."""
    stopping: bool = request.app.state.stopping
    return JSONResponse({"ready": not stopping}, 503 if stopping else 200)


@router.get("/v2", tags=["health"], responses=problems())
async def server_metadata() -> ServerMetadata:
    """Name and version of the server."""
    return ServerMetadata(name="anomaly", version=__version__, extensions=["binary_tensor_data"])


@router.get(
    "/v2/models/{name}/versions/{version}/ready", tags=["detectors"], responses=problems(404)
)
@router.get("/v2/models/{name}/ready", tags=["detectors"], responses=problems(404))
async def model_ready(request: Request, name: Name, version: str | None = None) -> Ready:
    """Whether a detector is served."""
    detector_of(request, name, version)
    return Ready(ready=True)


@router.get("/v2/models/{name}/versions/{version}", tags=["detectors"], responses=problems(404))
@router.get("/v2/models/{name}", tags=["detectors"], responses=problems(404))
async def model_metadata(
    request: Request, name: Name, version: str | None = None
) -> protocol.ModelMetadata:
    """What a detector takes and gives."""
    served = detector_of(request, name, version)
    card, calibration = served.scorer.card, served.scorer.card.calibration
    numbers = (
        {
            "threshold": float(calibration.threshold),
            **named_rate(calibration.rate, calibration.kind),
            "n": calibration.n,
            "review": None if calibration.review is None else calibration.review.to_json(),
        }
        if calibration
        else {}
    )
    outputs = served.scorer.outputs.items()
    return protocol.ModelMetadata(
        name=served.name,
        versions=[card.version],
        platform="onnxruntime_onnx",
        inputs=[protocol.TensorMetadata(name="images", datatype="UINT8", shape=[-1, -1, -1, 3])],
        outputs=[
            protocol.TensorMetadata(name=n, datatype=protocol.DATATYPES[d], shape=s)
            for n, (d, s) in outputs
        ],
        parameters={
            "detector": card.identity,
            "encoded_images": "datatype BYTES, shape [N]",
            "defect_types": list(card.defect_types),
            **numbers,
        },
    )


@router.get(
    "/metrics",
    tags=["health"],
    responses={**problems(), 200: {"content": {"text/plain": {}}}},
    response_class=Response,
)
async def metrics(request: Request) -> Response:
    """The figures that Prometheus collects."""
    return Response(
        service_of(request).metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8"
    )


# --- judging --------------------------------------------------------------------------------------
@router.post(
    "/score",
    tags=["judging"],
    responses={**JUDGED, 200: {"model": ImageResult}},
    openapi_extra=IMAGE_BODY,
)
async def score(
    request: Request,
    detector: Annotated[str | None, Query(description="Needed where several are served")] = None,
    heatmap: Annotated[bool, Query(description="With the heatmap, rows of numbers")] = False,
) -> Response:
    """The result on one image file, sent as the body or as a form's `file`."""
    served = detector_of(request, detector)

    form = request.headers.get("content-type", "")

    def work(body: bytes, deadline: Deadline) -> bytes:
        image = bodies.file_of(body, form, deadline.check)
        return result_json(served, judged(request, served, [image], deadline)[0], heatmap, deadline)

    return Response(await taken(request, work), media_type="application/json")


SCORE = router.routes[-1]


@router.post(
    "/v2/models/{name}/versions/{version}/infer", tags=["judging"], openapi_extra=INFER_BODY,
    responses={**JUDGED, 200: {"model": protocol.InferResponse}},
)  # fmt: skip
@router.post(
    "/v2/models/{name}/infer", tags=["judging"], openapi_extra=INFER_BODY,
    responses={**JUDGED, 200: {"model": protocol.InferResponse}},
)  # fmt: skip
async def infer(request: Request, name: Name, version: str | None = None) -> Response:
    """The Open Inference Protocol: results on raw pixels (UINT8) or encoded files (BYTES)."""
    served = detector_of(request, name, version)

    def work(body: bytes, deadline: Deadline) -> tuple[bytes, int | None]:
        json_length = request.headers.get("inference-header-content-length")
        asked = protocol.read_request(
            body, json_length, list(served.scorer.outputs), deadline.check
        )
        results = judged(request, served, asked.images, deadline)
        return protocol.write_response(
            served.name, served.scorer.card.version, asked, results, deadline.check
        )

    answer, json_length = await taken(request, work)
    if json_length is None:
        return Response(answer, media_type="application/json")
    headers = {"Inference-Header-Content-Length": str(json_length)}
    return Response(answer, media_type="application/octet-stream", headers=headers)


async def taken(request: Request, work: Callable[[bytes, Deadline], Any]) -> Any:
    """Returns work(body) from a worker's thread, and notes how long the body waited for it."""
    log, service, place = request.state.log, service_of(request), Place()
    if request.headers.get("content-encoding", "identity") != "identity":
        raise RequestError(
            415, "a compressed body found, a plain one expected: images are compressed already"
        )

    def timed(body: bytes, deadline: Deadline) -> Any:
        waited = time.monotonic() - log.pop("read")
        log["wait_ms"] = round(1000 * waited, 1)
        service.metrics.waited.observe(waited)
        return work(body, deadline)

    async def read_and_note() -> bytes:
        body = await bodies.read(request, service.max_bytes, service.workers.hold, place)
        log["bytes"], log["read"] = len(body), time.monotonic()
        return body

    return await service.workers.run(read_and_note, timed, place)


def judged(
    request: Request, served: Served, images: Sequence[Any], deadline: Deadline
) -> list[Result]:
    """Returns the results of all images, counted and offered to the review database; RequestError
    where one has none.
    """
    service, results = service_of(request), []
    for number, image in enumerate(images):
        result = judge_in_time(served.scorer, image, deadline)
        service.metrics.count(served, result)
        if result.status == "error":
            which = f"image {number + 1} of {len(images)}: " if len(images) > 1 else ""
            raise RequestError(
                STATUSES.get(result.kind or "", 422),
                f"NOT INSPECTED: {which}{result.error}",
                result.kind,
            )
        results.append(result)
        if service.outbox is not None:
            service.outbox.offer(image, result, served.scorer.card)
    request.state.log.update(
        images=len(results), flagged=sum(r.is_anomaly is True for r in results)
    )
    return results


def result_json(served: Served, result: Result, heatmap: bool, deadline: Deadline) -> bytes:
    """Returns a result as JSON; RequestError 422 where its heatmap is too large for that."""
    card = served.scorer.card
    answer = {name: getattr(result, name) for name in COPIED}
    per = "unit" if card.training.by_unit else "image"
    answer["detector"] = card.identity
    answer["threshold"] = float(card.calibration.threshold) if card.calibration else None
    review = card.calibration.review if card.calibration else None
    answer["review_threshold"] = None if review is None else float(review.threshold)
    for word in ("guaranteed", "estimated"):
        stated = card.calibration is not None and rate_word(card.calibration) == word
        answer[f"{word}_per"] = per if stated else None
    answer["box"] = dict(zip("xywh", result.box, strict=True)) if result.box else None
    if heatmap and result.heatmap is not None:
        protocol.check_length(result.heatmap.size)
        answer["heatmap"] = text_of(result.heatmap, deadline.check)
    return msgspec.json.encode(answer)


async def refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)
    request.state.log["error"] = str(error)
    headers = {"Retry-After": "1"} if error.status == 429 else None
    return problem(error.status, str(error), headers, error.kind)


async def not_valid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    return problem(422, f"{'.'.join(map(str, first['loc']))}: {first['msg']}")


async def http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return problem(
        error.status_code,
        f"{request.method} {request.url.path[:200]}: {error.detail}",
        error.headers,
    )


async def gone(request: Request, error: Exception) -> Response:
    return problem(400, "the client went away before its body had arrived")


async def bug(request: Request, error: Exception) -> Response:
    say("a bug", logging.ERROR, error, error=repr(error))
    return problem(500, "the server failed on this request; its log says where")


class App(FastAPI):
    """FastAPI, past which `POST /score` without a query goes: its layers took longer than a small
    detector needs for an image.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = [scope.get(part) for part in ("method", "path", "query_string")]
        if asked == ["POST", "/score", b""]:
            scope["app"], scope["route"] = self, SCORE
            await self.direct(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)

    @functools.cached_property
    def direct(self) -> RequestLog:
        return RequestLog(score_directly, self.state.service)


async def score_directly(scope: Scope, receive: Receive, send: Send) -> None:
    request = Request(scope, receive)
    try:
        answer = await score(request)
    except RequestError as error:
        answer = await refused(request, error)
    except ClientDisconnect as error:
        answer = await gone(request, error)
    except Exception as error:
        answer = await bug(request, error)
    await answer(scope, receive, send)


def build_app(service: Service) -> FastAPI:
    """Returns the application. It watches the detectors' files while it runs, and closes the
    workers when it ends.
    """

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        watching = asyncio.create_task(watch_files(service))
        yield
        watching.cancel()
        await asyncio.to_thread(service.close)

    app = App(
        title="anomaly",
        version=__version__,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        description="Results on images, by the Open Inference Protocol v2 and a plain POST /score.",
        redirect_slashes=False,  # to whatever the request's Host says
    )
    app.state.service, app.state.stopping = service, False
    app.include_router(router)
    handlers = (
        (RequestError, refused),
        (RequestValidationError, not_valid),
        (HTTPException, http_error),
    )
    for kind, handler in (*handlers, (ClientDisconnect, gone), (Exception, bug)):
        app.add_exception_handler(kind, handler)
    app.add_middleware(RequestLog, service=service)
    return app


async def watch_files(service: Service) -> None:
    """Looks for changed detectors once a second, in a thread: loading one takes a while."""
    while True:
        await asyncio.sleep(RELOAD_SECONDS)
        try:
            await asyncio.to_thread(service.refresh)
        except Exception as error:  # a bug here must not end the watching
            say("a bug", logging.ERROR, error, error=repr(error))
