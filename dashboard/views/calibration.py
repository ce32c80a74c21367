"""Calibration: the images that set a detector's threshold, for a person to mark each as good or as
a defect.

Made before anything is scored: it needs a run folder that `anomaly review --detector` names, and no
run in the database.
"""

from __future__ import annotations

import shlex
from pathlib import Path

import streamlit as st

from anomaly.detector.card import Card
from anomaly.detector.file import find_detector
from anomaly.detector.size_sensitivity import MAX_NAMED_IMAGES
from anomaly.errors import AnomalyError
from anomaly.imaging.overlay import overlay, shrink
from anomaly.imaging.pillow import Pixels
from anomaly.quality.marks import (
    DEFECT,
    GOOD,
    UNKNOWN,
    Highest,
    Mark,
    add_mark,
    read_highest,
    read_marks,
)
from anomaly.reporting.detector import cost_text
from anomaly.reporting.guarantee import why
from anomaly.scorer import Scorer
from anomaly.statistics.calibration import Calibration
from dashboard.access import Person
from dashboard.components import plain
from dashboard.desk import Desk, open_desk

SIDE = 560  # pixels of a picture at most


def show(desk: Desk, person: Person) -> None:
    """Shows the images of the chosen run folder, and what to do with those that are defects."""
    folders = run_folders(desk)
    if not folders:
        st.info(plain(none_known(desk)))
        return
    folder = (
        st.selectbox("Run folder", folders, format_func=str) if len(folders) > 1 else folders[0]
    )
    card, highest = read_highest(folder)
    calibration = card.calibration
    if calibration is None:
        return
    marks = read_marks(folder)
    introduce(card, calibration, folder)
    for image in highest[: max(calibration.k, MAX_NAMED_IMAGES)]:
        row(folder, card, calibration, image, marks.get(image.sha256), person)
    finish(folder, [mark for mark in marks.values() if mark.mark == DEFECT])


def run_folders(desk: Desk) -> list[Path]:
    """Returns the run folders of the detectors that are known here, those named at the start first.

    One that does not list its highest images is among them: why it cannot be shown is said when it
    is chosen.
    """
    named = [Path(place) for place in desk.settings.detectors]
    found = [desk.files.find(run) for run in desk.store.runs()[:20]]
    folders = [
        place if place.is_dir() else place.parent
        for place in [*named, *(file for file in found if file)]
    ]
    return list(dict.fromkeys(f.resolve() for f in folders if (f / "detector.onnx").is_file()))


def none_known(desk: Desk) -> str:
    """Returns why there is no run folder to show."""
    named = desk.settings.detectors
    start = "start with one to see which images set its threshold: anomaly review --detector RUN"
    if not named:
        return f"No run folder is known here; {start}"
    return (
        f"{', '.join(named)}: a detector without its run folder found, the folder that anomaly "
        f"train wrote expected; {start}"
    )


def introduce(card: Card, calibration: Calibration, folder: Path) -> None:
    """Says what the images do, and what they cost if they are defects."""
    st.markdown(f"##### {plain(card.name)} {plain(card.version)}: which images set the threshold?")
    st.write(
        plain(
            f"The threshold {calibration.threshold:.4g} is the score at rank {calibration.k:,} of "
            f"{calibration.n:,} good images. A defect among them makes it too high, and defects "
            "pass. Look at each before the detector is used."
        )
    )
    if not calibration.is_guaranteed:
        st.caption(
            f"{why(calibration.kind)[0]} The pictures are those of the finished detector, which "
            "has learnt from these images: it finds them less unusual than the models that set "
            "the scores."
        )
    cost = card.training.cost
    if cost is not None:
        said = cost_text(cost, float(calibration.threshold))
        names = cost.without
        they = "shows a defect, without it" if len(names) == 1 else "show defects, without them"
        st.info(plain(f"If {' and '.join(names)} {they}: {said}."))


def row(
    folder: Path,
    card: Card,
    calibration: Calibration,
    image: Highest,
    mark: Mark | None,
    person: Person,
) -> None:
    """Shows one image beside its heatmap, with the marks; an image that is not shown cannot be
    marked.
    """
    threshold = float(calibration.threshold)
    place = (
        "above the threshold"
        if image.score > threshold
        else "sets the threshold"
        if image.score == threshold
        else "below it"
    )
    with st.container(border=True):
        columns = st.columns([2, 2, 1.4])
        try:
            original, marked = pictures(
                str(find_detector(folder)), card.digest, image.path, image.sha256
            )
        except AnomalyError as error:
            columns[0].warning(
                plain(f"{image.name} cannot be shown, so it cannot be marked: {error}")
            )
            return
        name, said = plain(image.name), "heatmap: outlined where it reaches the threshold"
        columns[0].image(original, caption=name, alt=name, width="stretch")
        columns[1].image(marked, caption=said, alt=said, width="stretch")
        with columns[2]:
            st.write(f"**Score {image.score:.4g}**, {place}")
            said = (
                "Not marked yet."
                if mark is None
                else f"Marked as {'a defect' if mark.mark == DEFECT else 'good'} by {mark.by}."
            )
            st.write(plain(f"{said} {mark.at[:16].replace('T', ' ') if mark else ''}"))
            if person.may("inspector"):
                buttons(folder, image, mark, person)


def buttons(folder: Path, image: Highest, mark: Mark | None, person: Person) -> None:
    """Shows the buttons that mark an image."""
    for kind, label in ((GOOD, "Good"), (DEFECT, "Defect"), (UNKNOWN, "Take back")):
        chosen = mark is not None and mark.mark == kind
        off = chosen or (kind == UNKNOWN and mark is None)
        st.button(
            f"{label}",
            key=f"{kind} {image.sha256}",
            type="primary" if chosen else "secondary",
            disabled=off,
            width="stretch",
            on_click=note,
            args=(folder, image, kind, person),
        )


def note(folder: Path, image: Highest, kind: str, person: Person) -> None:
    """Keeps a mark in the run folder."""
    try:
        add_mark(folder, image.path, image.sha256, kind, person.name)
    except (AnomalyError, OSError) as error:
        st.error(plain(f"The mark was not kept: {error}"))


def finish(folder: Path, defects: list[Mark]) -> None:
    """Says how the marks are acted on."""
    if not defects:
        st.caption(
            "None is marked as a defect: the threshold stays as it is. Good images stay, however "
            "unusual they look."
        )
        return
    count = f"{len(defects):,} image{'s are' if len(defects) > 1 else ' is'} marked as a defect."
    st.write(
        plain(f"{count} Train again without them and their groups, which shows before and after:")
    )
    new = folder.with_name(f"{folder.name}-2")
    st.code(
        shlex.join(["anomaly", "retrain", str(folder), "--out", str(new)]),
        language=None,
        wrap_lines=True,
    )


@st.cache_data(max_entries=64, show_spinner="reading an image")
def pictures(detector: str, digest: str, path: str, sha256: str) -> tuple[Pixels, Pixels]:
    """Returns an image and the same with its heatmap, uint8 (h, w, 3); AnomalyError where it is not
    the one that was scored.

    ``digest`` and ``sha256`` are part of the key: another detector or another image is looked at
    anew.
    """
    from anomaly.quality.marks import sha256_of_image

    if sha256_of_image(Path(path)) != sha256:
        raise AnomalyError("the file has changed since the training")
    scorer = scorer_of(detector, digest)
    decoded = scorer.decode(Path(path))
    anchors, heatmap = scorer.card.heatmap_anchors, scorer.judge(decoded).heatmap
    small = shrink(decoded.pixels, SIDE)
    if anchors is None or heatmap is None:
        return small, small
    return small, overlay(small, heatmap, *anchors)


@st.cache_resource(max_entries=2, show_spinner=False)
def scorer_of(detector: str, digest: str) -> Scorer:
    """Returns a scorer of a detector file."""
    return Scorer(detector, device="cpu", threads=1)


try:
    show(open_desk(), st.session_state["person"])
except AnomalyError as error:
    st.error(plain(str(error)))
