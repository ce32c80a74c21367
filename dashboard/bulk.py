"""Verdicts on many images by one request, from the queue's sheet: what the two routes do."""

from __future__ import annotations

from typing import Any

from dashboard.access import AccessError, Person
from dashboard.desk import Desk
from dashboard.posted import check_seen, numbers, one_of, seconds, text

IN_BULK = ("anomalous", "normal", "unsure")


def take_bulk(desk: Desk, person: Person, body: dict[str, Any]) -> dict[str, Any]:
    """Records a verdict on many images, all of which the page has painted at size L."""
    verdict = one_of(body, "verdict", IN_BULK)
    findings, seen = numbers(body, "findings"), body.get("seen")
    if not isinstance(seen, list) or len(seen) != len(findings):
        raise AccessError(400, "seen: a digest for each of the findings expected")
    for finding, digest in zip(findings, seen, strict=True):
        check_seen(desk, finding, text({"seen": digest}, "seen", 64))
    done = desk.store.record_bulk(
        person.name,
        findings,
        verdict,
        key=text(body, "key", 100),
        defect_type=(text(body, "type", 200) or None) if verdict == "anomalous" else None,
        seconds=seconds(body),
    )
    left_out = {str(finding): why for finding, why in done.left_out.items()}
    return {"judged": [event.finding for event in done.events], "leftOut": left_out}


def take_bulk_back(desk: Desk, person: Person, body: dict[str, Any]) -> dict[str, Any]:
    """Takes a verdict on many images back."""
    undone = desk.store.undo_bulk(
        person.name, numbers(body, "findings"), of=text(body, "of", 100), key=text(body, "key", 100)
    )
    return {"undone": [event.finding for event in undone]}
