"""The HTTP routes that the review page calls: the next images, verdicts, and pictures.

A verdict by one key must not wait for a run of the page, so it comes here as a small request of its
own. Each carries the page's token (who asks) and, where it writes, a key under which the store
counts it once. Answers are JSON; what went wrong is ``{"error": one line}``.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import quote

from starlette.concurrency import run_in_threadpool
from starlette.convertors import Convertor, register_url_convertor
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from anomaly.errors import AnomalyError, ImageError
from anomaly.review import QUEUES, VERDICTS, Filters
from anomaly.review.regions import read_regions
from dashboard.access import AccessError, Person
from dashboard.bulk import take_bulk, take_bulk_back
from dashboard.desk import Desk
from dashboard.findings import described, details, recent
from dashboard.images import KINDS
from dashboard.posted import check_seen, numbers, one_of, query_of, seconds, text, whole
from dashboard.stations import picture_of, station_shown
from dashboard.words import readable

MAX_BODY = 64 << 10
MAX_LEASED_AHEAD = 64  # findings that one page may hold leases on
LEASE_SECONDS = 300
MAX_COMMENT_CHARACTERS = 2000


class Number(Convertor[int]):
    """A finding's number in an address; one of more digits than a database counts to stands for a
    finding that is not there.
    """

    regex = "[0-9]+"

    def convert(self, value: str) -> int:
        return int(value) if len(value) < 19 else 10**18

    def to_string(self, value: int) -> str:
        return str(value)


register_url_convertor("number", Number())

Action = Callable[[Desk, Person, dict[str, Any]], dict[str, Any]]


def review_routes(open_desk: Callable[[], Desk]) -> list[Route]:
    """Returns all routes; the desk is opened with the first request."""

    def posted(action: Action, role: str) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            return await answered(
                request, lambda desk, person, body: action(desk, person, body), open_desk, role
            )

        return endpoint

    async def finding(request: Request) -> Response:
        number = request.path_params["finding"]
        return await answered(
            request, lambda desk, person, _: one_finding(desk, person, number), open_desk, "viewer"
        )

    async def live(request: Request) -> Response:
        number = request.path_params["station"]
        return await answered(
            request, lambda desk, _, __: station_shown(desk, number), open_desk, "viewer"
        )

    async def live_picture(request: Request) -> Response:
        return await run_in_threadpool(send_station_picture, open_desk(), request)

    async def evidence(request: Request) -> Response:
        return await run_in_threadpool(send_picture, open_desk(), request)

    return [
        Route("/healthz", lambda _: PlainTextResponse("ok")),
        *(
            Route(path, posted(action, role), methods=["POST"])
            for path, (action, role) in POSTED.items()
        ),
        Route("/api/recent", posted(list_recent, "viewer"), methods=["GET", "POST"]),
        Route("/api/finding/{finding:number}", finding),
        Route("/evidence/{finding:number}/{kind:str}", evidence),
        Route("/api/live/{station:number}", live),
        Route("/station/{station:number}/{name:str}", live_picture),
    ]


async def answered(
    request: Request, action: Action, open_desk: Callable[[], Desk], role: str
) -> Response:
    """Returns an action's answer as JSON, after the checks that all share."""
    try:
        desk = open_desk()
        person = desk.key.person(request.headers.get("x-review-token"))
        if not person.may(role):
            raise AccessError(
                403, f"a {person.role} may not do this, {role} expected: ask an admin for the role"
            )
        body = await read_body(request) if request.method == "POST" else {}
        return JSONResponse(await run_in_threadpool(action, desk, person, body))
    except AnomalyError as error:
        return refusal(error)


async def read_body(request: Request) -> dict[str, Any]:
    """Returns the JSON object that was posted; a body that is large, not JSON or not declared as
    JSON is refused.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise AccessError(415, "a request of another kind found, application/json expected")
    data = b""
    async for part in request.stream():
        data += part
        if len(data) > MAX_BODY:
            raise AccessError(
                413,
                f"a request of more than {MAX_BODY} bytes found: a shorter comment, or regions of "
                "fewer points, please",
            )
    try:
        body = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise AccessError(400, "a request that is no JSON found, an object expected") from error
    if not isinstance(body, dict):
        raise AccessError(400, "a request that is no JSON object found")
    return body


def refusal(error: AnomalyError) -> JSONResponse:
    """Returns an error as the pages show it."""
    status = error.status if isinstance(error, AccessError) else 422
    return JSONResponse({"error": readable(str(error))}, status)


# ---- work ----


def hand_out(desk: Desk, person: Person, body: dict[str, Any]) -> dict[str, Any]:
    """Returns the next findings besides those that the page holds already: leased to who may judge,
    else just in order.
    """
    filters = Filters.from_query(query_of(body, "filters"))
    held = numbers(body, "held")
    count = min(max(1, whole(body, "count")), MAX_LEASED_AHEAD)
    queue = one_of(body, "order", QUEUES)
    after = anchor(desk, filters, body)
    if person.may("inspector"):
        share = known_share(queue)
        found = desk.store.next(
            person.name,
            queue,
            filters,
            count=count,
            seconds=LEASE_SECONDS,
            known_share=share,
            after=after,
            besides=held,
        )
    else:
        order = "uncertain" if queue == "uncertain" else "score"
        found = desk.store.findings(filters, order=order, limit=count, after=after, besides=held)
    return {
        "findings": [described(desk, finding, person) for finding in found],
        "left": left(desk, queue, filters),
    }


def anchor(desk: Desk, filters: Filters, body: dict[str, Any]) -> int | None:
    """Returns the finding behind which a queue goes on; None where none is named, or it is not of
    the queue's run.
    """
    if body.get("after") is None:
        return None
    number = whole(body, "after")
    try:
        return number if desk.store.finding(number).run == filters.run else None
    except AnomalyError:
        return None


def left(desk: Desk, queue: str, filters: Filters) -> str:
    """Returns in words how much of a queue is left for anybody to judge, within all filters."""
    run = desk.store.run(filters.run or 0)  # of a run that is gone nothing is counted
    waiting, total = desk.store.remaining(queue, filters)
    if queue == "audit":
        return f"{waiting:,} of {total:,} of the audit sample left"
    if queue == "second":
        return f"{waiting:,} to look at again"
    default = "flagged or for review" if run.review else "flagged"
    named = {None: default, "review": "for review"}.get(filters.result, filters.result)
    return f"{waiting:,} of {total:,} {named} left"


def known_share(queue: str) -> float:
    """Returns how much of a queue is hidden known images; none where a sample was drawn by lot, or
    people disagree.
    """
    return 0.03 if queue in ("anomalous", "uncertain") else 0.0


def one_finding(desk: Desk, person: Person, number: int) -> dict[str, Any]:
    """Returns everything about one finding, as a link names it."""
    finding = desk.store.finding(number)
    return {**described(desk, finding, person), **details(desk, finding, person)}


def take_verdict(desk: Desk, person: Person, body: dict[str, Any]) -> dict[str, Any]:
    """Records a verdict; the answer means that it is on the disk."""
    verdict, number = one_of(body, "verdict", VERDICTS), whole(body, "finding")
    if verdict != "skip":
        check_seen(desk, number, text(body, "seen", 64))
    finding = desk.store.finding(number)
    event = desk.store.record(
        person.name,
        number,
        verdict,
        key=text(body, "key", 100),
        defect_type=(text(body, "type", 200) or None) if verdict == "anomalous" else None,
        comment=text(body, "comment", MAX_COMMENT_CHARACTERS),
        seconds=seconds(body),
        regions=read_regions(body.get("regions"), finding.width, finding.height),
    )
    return {"event": event.id, "at": event.at}


def take_back(desk: Desk, person: Person, body: dict[str, Any]) -> dict[str, Any]:
    """Undoes this person's current verdict on a finding, by another event."""
    finding = whole(body, "finding")
    key = text(body, "key", 100)
    done = desk.store.events(inspector=person.name, finding=finding, actions=("undo",), limit=100)
    if any(event.key == key for event in done):
        return {}  # this request was sent twice: the verdict before it must stand
    current = desk.store.current(finding).get(person.name)
    if current is not None:
        desk.store.undo(person.name, key=key, event=current.id)
    return {}


def renew(desk: Desk, person: Person, body: dict[str, Any]) -> dict[str, Any]:
    """Keeps leases for the images that a page still holds."""
    return {"held": desk.store.renew(person.name, numbers(body, "findings"), seconds=LEASE_SECONDS)}


def release(desk: Desk, person: Person, body: dict[str, Any]) -> dict[str, Any]:
    """Gives images back that a page will not judge."""
    desk.store.release(person.name, numbers(body, "findings"))
    return {}


def list_recent(desk: Desk, person: Person, body: dict[str, Any]) -> dict[str, Any]:
    """Returns this person's last verdicts, and how much of a queue is left where one is named."""
    said = {"events": recent(desk, person)}
    if "filters" not in body:
        return said
    return {
        **said,
        "left": left(
            desk, one_of(body, "order", QUEUES), Filters.from_query(query_of(body, "filters"))
        ),
    }


def send_picture(desk: Desk, request: Request) -> Response:
    """Returns the bytes of one picture of a finding, by a signed link."""
    finding, kind = request.path_params["finding"], request.path_params["kind"]
    query = request.query_params
    try:
        desk.key.check_link(request.url.path, query.get("until", ""), query.get("sign", ""))
        if kind not in KINDS:
            raise AccessError(404, f"{kind!r} found, one of {', '.join(KINDS)} expected")
        picture = desk.pictures.picture(finding, kind)
    except ImageError as error:
        return JSONResponse({"error": readable(str(error))}, 422, {"X-Image-State": error.kind})
    except AnomalyError as error:
        return refusal(error)
    # an hour in this browser alone; a file that changes shows at the next link
    headers = {
        "Cache-Control": "private, max-age=3600",
        "X-Image-State": picture.state,
        "Content-Disposition": "inline",
    }
    if picture.digest:
        # of the original this browser asks each time whether it still is there: what was moved must
        # not be judged
        headers |= {
            "Cache-Control": "private, no-cache",
            "X-Image-Digest": picture.digest,
            "ETag": f'"{picture.digest}"',
        }
    if picture.name:
        headers["X-Image-Name"] = quote(picture.name)
    if picture.state != "same":
        headers["Cache-Control"] = "no-store"
    elif picture.digest and request.headers.get("if-none-match") == headers["ETag"]:
        return Response(status_code=304, headers=headers)
    return Response(picture.data, media_type=picture.media, headers=headers)


def send_station_picture(desk: Desk, request: Request) -> Response:
    """Returns the bytes of one picture of a station, by a signed link."""
    station, name = request.path_params["station"], request.path_params["name"]
    query = request.query_params
    try:
        desk.key.check_link(request.url.path, query.get("until", ""), query.get("sign", ""))
        data = picture_of(desk, station, name)
    except AnomalyError as error:
        return refusal(error)
    headers = {"Cache-Control": "private, max-age=3600", "Content-Disposition": "inline"}
    return Response(data, media_type="image/jpeg", headers=headers)


POSTED: dict[str, tuple[Action, str]] = {  # what is done, and who at least may do it
    "/api/next": (hand_out, "viewer"),
    "/api/verdict": (take_verdict, "inspector"),
    "/api/verdicts": (take_bulk, "inspector"),
    "/api/undo": (take_back, "inspector"),
    "/api/verdicts/undo": (take_bulk_back, "inspector"),
    "/api/renew": (renew, "inspector"),
    "/api/release": (release, "inspector"),
}
