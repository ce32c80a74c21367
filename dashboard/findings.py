"""What the pages say of a finding, ready to be shown: the review page gets it as JSON, with signed
links to pictures.

Blind where it must be: what others said is shown to an inspector after their own verdict only, and
nothing ever tells that an image is one of the hidden known ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from anomaly.errors import AnomalyError
from anomaly.reporting.charts import calibration_scale, place
from anomaly.reporting.known_defects import type_text
from anomaly.reporting.result import result_text, unit_text
from anomaly.review import VERDICTS, Event, Finding
from dashboard.access import Person
from dashboard.desk import Desk, Known
from dashboard.words import readable

MAX_SIMILAR_FINDINGS = 4
MAX_LAST_VERDICTS = 10  # verdicts that are listed to be changed


def described(desk: Desk, finding: Finding, person: Person) -> dict[str, Any]:
    """Returns what the review page shows of a finding before anything slow is looked up."""
    known = desk.detector_of(finding.run)
    calibration = known.calibration
    judged = finding.status == "ok"
    scored = judged and finding.score is not None and calibration is not None
    return {
        "id": finding.id,
        "name": short_path(finding.path, roots(desk, finding.run)),
        "run": desk.store.run(finding.run).name,
        "runId": finding.run,
        "detectorName": known.short,
        "threshold": finding.threshold,
        "status": finding.status,
        "result": finding.result,
        "words": words(finding, known),
        "size": f"{finding.width:,} x {finding.height:,}"
        if finding.width and finding.height
        else "",
        "width": finding.width,
        "height": finding.height,
        "likely": finding.likely_type,
        "likelyWords": type_text(finding.likely_type, finding.type_score),
        "box": finding.box if judged else None,
        "place": asdict(place(calibration, float(finding.score or 0.0), what=known.what))
        if scored and calibration
        else None,
        "why": "audit sample, drawn by lot" if finding.sampled_as == "audit" else "",
        "mine": own_verdict(desk, finding.id, person),
        "links": links(desk, finding.id, calibration is not None and judged),
        "expectedHelps": expected_helps(desk, finding.run),
    }


def expected_helps(desk: Desk, run: int) -> bool:
    """Whether the expected picture is shown unasked: it is where it explains good images, and where
    nothing is known of that.
    """
    try:
        return desk.files.good_images(desk.store.run(run)).expected_helps
    except AnomalyError:
        return True


def who_judges(desk: Desk, person: Person) -> dict[str, Any]:
    """Returns what a page needs to talk to the routes in a person's name."""
    return {
        "token": desk.key.token(person),
        "user": person.name,
        "mayJudge": person.may("inspector"),
    }


def words(finding: Finding, known: Known) -> str:
    """Returns the sentence that says the verdict of the detector; never as a chance that the part
    is bad.
    """
    score, threshold = finding.score, finding.threshold
    if known.detector.card is None and finding.status == "ok" and None not in (score, threshold):
        return (
            f"{(finding.result or '').capitalize()}. Score {score:.4g}, threshold {threshold:.4g}. "
            "The run came without the detector's card, so nothing is known of good images."
        )
    error = None if finding.error is None else readable(finding.error)
    return result_text(finding.status, finding.score, known.calibration, error, known.what)


def links(desk: Desk, finding: int, with_heatmap: bool) -> dict[str, str]:
    """Returns the signed links to a finding's pictures."""
    kinds = ("original", "good", "expected", "difference", *(("heatmap",) if with_heatmap else ()))
    return {kind: desk.key.link(finding, kind) for kind in kinds}


def own_verdict(desk: Desk, finding: int, person: Person) -> dict[str, Any] | None:
    """Returns the current verdict of this person on a finding."""
    event = desk.store.current(finding).get(person.name)
    return (
        None
        if event is None
        else {
            "verdict": event.action,
            "type": event.defect_type,
            "comment": comment_of(event),
            "regions": event.payload.get("regions", []),
        }
    )


def details(desk: Desk, finding: Finding, person: Person) -> dict[str, Any]:
    """Returns what may come a moment later: the unit, other detectors, similar findings, what was
    said before.
    """
    store = desk.store
    return {
        "unit": unit_shown(desk, finding),
        "others": [
            {
                "id": other.id,
                "detectorName": desk.detector_of(other.run).short,
                "said": in_short(other),
            }
            for other in store.other_detectors(finding.id)
        ],
        "similar": [
            {
                "id": other.id,
                "name": short_path(other.path, roots(desk, other.run)),
                "thumb": desk.key.link(other.id, "thumb"),
            }
            for other in store.similar(finding.id, limit=MAX_SIMILAR_FINDINGS)
        ],
        **history(desk, finding.id, person),
    }


def unit_shown(desk: Desk, finding: Finding) -> dict[str, Any] | None:
    """Returns the verdict on the unit that an image shows, with its views."""
    found = desk.store.unit(finding.id)
    if found is None:
        return None
    unit, views = found
    shown = [
        {
            "id": v.id,
            "name": v.path,
            "thumb": desk.key.link(v.id, "thumb"),
            "said": in_short(v),
            "here": v.id == finding.id,
        }
        for v in views
    ]
    return {
        "name": unit.unit,
        "words": unit_text(unit),
        "result": unit.result,
        "views": shown,
    }


def history(desk: Desk, finding: int, person: Person) -> dict[str, Any]:
    """Returns what was said of a finding, newest first, or for who has yet to judge it only that
    others did.
    """
    said = [
        e
        for e in desk.store.events(finding=finding, actions=(*VERDICTS, "comment"), limit=20)
        if not e.undone
    ]
    mine = any(e.inspector == person.name and e.action in VERDICTS for e in said)
    if person.may("inspector") and not mine:
        before = said_before(desk, finding)
        if before:
            return {"history": before, "hidden": ""}
        others = sorted({e.inspector for e in said if e.inspector != person.name})
        hidden = (
            (
                f"{len(others)} other{'s have' if len(others) > 1 else ' has'} judged it: shown "
                "after your own verdict"
            )
            if others
            else ""
        )
        return {"history": [], "hidden": hidden}
    return {"history": [event_shown(event) for event in said], "hidden": ""}


def said_before(desk: Desk, finding: int) -> list[dict[str, Any]]:
    """Returns the verdicts that settled the same image in another run; none where it is to be
    judged blind.
    """
    twin = desk.store.settled_before([finding]).get(finding)
    if twin is None:
        return []
    run = desk.store.run(twin.run).name
    events = desk.store.current(twin.id).values()
    return [{**event_shown(one), "where": run} for one in events if one.action != "skip"]


def event_shown(event: Event) -> dict[str, Any]:
    """Returns one line of a finding's history."""
    return {
        "verdict": event.action,
        "who": event.inspector,
        "when": event.at[:16].replace("T", " "),
        "type": event.defect_type,
        "comment": comment_of(event),
        "regions": event.payload.get("regions", []),
    }


def comment_of(event: Event) -> str:
    """Returns the text that goes with an event."""
    return str(event.payload.get("text") or "")


def recent(desk: Desk, person: Person) -> list[dict[str, Any]]:
    """Returns this person's last verdicts that still hold, the newest of each image, to be looked
    at and changed.
    """
    events = desk.store.events(inspector=person.name, actions=VERDICTS, limit=4 * MAX_LAST_VERDICTS)
    shown: dict[int, dict[str, Any]] = {}
    for event in events:
        if (
            event.undone
            or event.finding is None
            or event.finding in shown
            or len(shown) == MAX_LAST_VERDICTS
        ):
            continue
        finding = desk.store.finding(event.finding)
        name = short_path(finding.path, roots(desk, finding.run))
        shown[finding.id] = {"finding": finding.id, "name": name, **event_shown(event)}
    return list(shown.values())


def roots(desk: Desk, run: int) -> list[str]:
    """Returns the folders of a run's images, the deepest first."""
    return sorted((str(folder) for folder in desk.store.roots(run)), key=len, reverse=True)


def short_path(path: str, folders: Sequence[str]) -> str:
    """Returns a path without the folder that all images of its run lie in."""
    inside = (
        path.removeprefix(folder).lstrip("/")
        for folder in folders
        if path.startswith(f"{folder.rstrip('/')}/")
    )
    return next(inside, path)


def in_short(finding: Finding) -> str:
    """Returns a finding in a few words."""
    if finding.status != "ok" or finding.score is None:
        return "unlike training images" if finding.status == "outside" else "not readable"
    return f"{finding.result or 'ranked'}, {finding.score:.4g}"


def rows(desk: Desk, findings: Sequence[Finding]) -> list[dict[str, Any]]:
    """Returns the cards of the queue's sheet."""
    folders = roots(desk, findings[0].run) if findings else []
    before = desk.store.settled_before([finding.id for finding in findings])
    return [row(desk, finding, folders, before.get(finding.id)) for finding in findings]


def row(
    desk: Desk, finding: Finding, folders: Sequence[str], before: Finding | None
) -> dict[str, Any]:
    """Returns one card: score against the threshold, what was decided, here or of the same image
    ``before``.
    """
    calibration = desk.detector_of(finding.run).calibration
    scale = None if calibration is None else calibration_scale(calibration)
    return {
        "id": finding.id,
        "name": short_path(finding.path, folders),
        "thumb": desk.key.link(finding.id, "thumb"),
        "large": desk.key.link(finding.id, "large"),
        "heatmap": desk.key.link(finding.id, "heatmap")
        if calibration is not None and finding.status == "ok"
        else None,
        "width": finding.width,
        "height": finding.height,
        "box": finding.box if finding.status == "ok" else None,
        "score": "" if finding.score is None or finding.status != "ok" else f"{finding.score:.4g}",
        "note": finding.defect_type
        or type_text(finding.likely_type, finding.type_score)
        or (in_short(finding).split(",")[0]),
        "verdict": "" if finding.state == "open" else finding.state,
        "section": "Not judged by the detector: treat as not OK"
        if finding.status != "ok"
        else "Judged by the detector",
        "result": finding.result,
        "at": scale.at(finding.score)
        if scale and finding.score is not None and finding.status == "ok"
        else None,
        "thresholdAt": scale.at(finding.threshold)
        if scale and finding.threshold is not None
        else None,
        "busy": "audit"
        if finding.sampled_as == "audit"
        else f"{before.state} in {desk.store.run(before.run).name}"
        if before
        else "",
    }
