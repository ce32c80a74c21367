"""Threshold: where the threshold lies among good images, this run and the verdicts; try another
one, and keep it.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import streamlit as st
from numpy.typing import NDArray

from anomaly.detector.file import read_card
from anomaly.detector.guarantee import Guarantee
from anomaly.detector.versions import next_version, versions_of
from anomaly.errors import AnomalyError
from anomaly.files.numbers import one_in, percent
from anomaly.files.table import shortest
from anomaly.quality.before_after import worse
from anomaly.quality.moved_threshold import (
    free_name,
    largest_rank,
    nearest,
    with_rank,
    with_review,
    write_moved,
)
from anomaly.reporting.guarantee import PREVIEW, change_rows, place_text, review_rows
from anomaly.reporting.review import estimate_text
from anomaly.review import Run, default_key
from anomaly.review.threshold_preview import Preview, band, preview
from anomaly.statistics.calibration import Calibration
from dashboard.access import Person
from dashboard.address import filters_here, query_for, queue_here, run_here
from dashboard.components import plain, threshold_chart
from dashboard.desk import Desk, open_desk
from dashboard.findings import roots, short_path
from dashboard.recalibration import SUGGESTED, WRITING, recalibration
from dashboard.threshold_chart import chart_data

MISSES = 8  # that are named
CHART = "threshold chart"
WHOLE = "whole range of scores"
WITH_REVIEW = "with a review threshold"
NAME, ACCEPTED, SAID = "name of the new file", "worse accepted", "what came of it"


def show(desk: Desk, person: Person) -> None:
    """Shows the histograms with the threshold to be dragged, and what the threshold under the hand
    would do.
    """
    filters = filters_here(desk)
    run = run_here(desk, filters)
    known = desk.detector(run.detector)
    calibration = known.calibration
    if calibration is None:
        st.info(
            "The run came without the detector's card: import it with the detector to see where "
            "its threshold lies among good images."
            if known.detector.card is None
            else "This detector only ranks images: it has no threshold, and guarantees nothing. "
            "`anomaly calibrate` sets one from good images."
        )
        return
    st.caption(
        plain(f"{run.name}: {run.images:,} images, {run.flagged:,} flagged at the threshold in use")
    )
    state = st.session_state
    if state.get("threshold of") != run.id:
        state["threshold of"] = run.id
        show_those_in_use(calibration)
    # a field is forgotten once its page is left
    state.setdefault(WITH_REVIEW, state["two"])
    desk_of_threshold(desk, person, run, calibration)


def show_those_in_use(calibration: Calibration) -> None:
    """Puts the detector's own thresholds into the fields."""
    low = None if calibration.review is None else float(calibration.review.threshold)
    two = low is not None
    st.session_state.update(
        {"threshold": float(calibration.threshold), "review": low, "two": two, WITH_REVIEW: two}
    )


@st.fragment
def desk_of_threshold(desk: Desk, person: Person, run: Run, calibration: Calibration) -> None:
    """Shows chart, preview and what to do with it; only this part runs again while the threshold is
    dragged.
    """
    sample, scores = desk.store.sample(run.id), desk.scores(run.id)
    whole = st.toggle("Whole range of scores", key=WHOLE)
    chart = st.container()
    tried = controls(desk, calibration)
    with chart:
        threshold_chart(
            CHART,
            chart_data(
                sample,
                scores,
                calibration,
                tried,
                what=desk.detector(run.detector).what,
                whole=whole,
            ),
            follow,
        )
        st.caption(
            "Drag the threshold, or move it by the arrow keys. It stands on the score of a good "
            "image: between two of them the guarantee is the same, above the highest there is "
            "none. Heights are square roots of counts; the figures at the edges count the images "
            "beyond them."
        )
    # as the score table has it: the run's own threshold must be found to be the same one
    what = desk.detector(run.detector).what
    tell(
        preview(sample, scores, calibration, shortest(float(tried.threshold))),
        tried,
        scores,
        what,
    )
    misses(desk, run, shortest(float(tried.threshold)))
    keep(desk, person, run, tried)
    recalibration(desk, person, run)


def misses(desk: Desk, run: Run, threshold: float) -> None:
    """Names the images judged anomalous that the threshold lets pass, each with a link."""
    missed = replace(filters_here(desk), state="anomalous", result=None, low=None, high=threshold)
    count = desk.store.count(missed)
    if not count:
        return
    said = "image judged anomalous passes" if count == 1 else "images judged anomalous pass"
    st.markdown(f"**{count:,} {said} at this threshold:**")
    folders = roots(desk, run.id)
    with st.container(horizontal=True, gap="small"):
        for finding in desk.store.findings(missed, limit=MISSES):
            score = "no score" if finding.score is None else f"{finding.score:.4g}"
            st.page_link(
                "views/image.py",
                label=plain(f"{short_path(finding.path, folders)} ({score})"),
                icon=":material/image:",
                query_params=query_for(missed, "anomalous", finding=str(finding.id)),
            )
        if count > MISSES:
            st.page_link(
                "views/queue.py",
                label=f"All {count:,}",
                icon=":material/photo_library:",
                query_params=query_for(missed, "anomalous"),
            )


def follow() -> None:
    """Takes over where the threshold, or the one for review, was dragged to."""
    moved = st.session_state[CHART]
    for name in ("threshold", "review"):
        value = moved.get(name)
        if value is not None and value != st.session_state.get(f"{name} moved"):
            st.session_state[name] = st.session_state[f"{name} moved"] = float(value)


def controls(desk: Desk, calibration: Calibration) -> Calibration:
    """Shows the fields beside the chart; returns the thresholds that are tried."""
    state = st.session_state
    columns = st.columns([1, 1, 1.5, 1.5, 2.8], vertical_alignment="bottom")
    tried = nearest(calibration, state["threshold"])
    if columns[0].button(
        "Flag fewer", icon=":material/arrow_forward:", width="stretch", disabled=tried.k <= 1
    ):
        tried = with_rank(calibration, tried.k - 1)
    if columns[1].button(
        "Flag more",
        icon=":material/arrow_back:",
        width="stretch",
        disabled=tried.k >= largest_rank(calibration.n),
    ):
        tried = with_rank(calibration, tried.k + 1)
    if columns[2].button("Back to the threshold in use", width="stretch"):
        tried = calibration
        show_those_in_use(calibration)
    state["threshold"] = float(tried.threshold)
    helped = "Between the two thresholds a person looks; above the higher one an image is flagged."
    state["two"] = columns[3].toggle("Second threshold, for review", key=WITH_REVIEW, help=helped)
    if columns[4].button(
        "Show the images between it and the threshold in use", icon=":material/photo_library:"
    ):
        show_between(desk, *sorted((float(tried.threshold), float(calibration.threshold))))
    return with_second(tried, calibration)


def with_second(tried: Calibration, calibration: Calibration) -> Calibration:
    """Returns the threshold that is tried with the one for review, as the page's fields say."""
    state, used = st.session_state, calibration.review
    if not state["two"]:
        return replace(tried, review_rate=None, review_score=None)
    low = float(calibration.median) if state["review"] is None else state["review"]
    unmoved = float(tried.threshold) == float(calibration.threshold)
    if unmoved and used is not None and np.float32(low) == used.threshold:
        return calibration  # with the rate that it was asked for
    found = with_review(tried, low)
    if found.review is None:
        st.caption("No good image scores below this threshold: there is no second one below it.")
    state["review"] = None if found.review is None else float(found.review.threshold)
    return found


def show_between(desk: Desk, low: float, high: float) -> None:
    """Goes to the queue, with the images between two thresholds."""
    query = query_for(filters_here(desk), queue_here(), low=repr(low), high=repr(high))
    st.switch_page("views/queue.py", query_params=query)


def tell(shown: Preview, tried: Calibration, scores: NDArray[np.float32], what: str) -> None:
    """Says what the threshold would do, counts before percent, and nothing that the verdicts do not
    carry.
    """
    columns = st.columns(4)
    with columns[0].container(border=True, height="stretch"):
        st.metric("Images flagged in this run", f"{shown.flagged:,} of {shown.images:,}")
        if tried.review is not None:
            shares = band(scores, float(tried.review.threshold), float(tried.threshold))
            st.caption(
                f"{shares.passed:,} pass, a person looks at {shares.looked_at:,}, "
                f"{shares.flagged:,} are flagged"
            )
    with columns[1].container(border=True, height="stretch"):
        st.metric(f"Good {what}s flagged", f"about {one_in(tried.rate)}")
        st.caption(place_text(tried, what) + ("" if shown.own else f" {PREVIEW}"))
        for label, said in review_rows(Guarantee(tried, not shown.own, what)):
            st.caption(plain(f"{label}: {said}" if label else said))
    for column, name, figure in (
        (columns[2], "Of the flagged, defects", shown.precision),
        (columns[3], "Of all defects, flagged", shown.recall),
    ):
        with column.container(border=True, height="stretch"):
            st.metric(name, "unknown" if figure.value is None else percent(figure.value))
            st.caption(plain(estimate_text(figure)))


def keep(desk: Desk, person: Person, run: Run, tried: Calibration) -> None:
    """Offers to write a new detector file with the threshold that is tried; the file in use never
    changes.
    """
    if not person.may("admin"):
        st.caption("An admin can write a detector with this threshold.")
        return
    file = desk.files.find(run)
    if file is None:
        st.caption(
            "The detector's file was not found, so no new one can be written: give --detector FILE "
            "to anomaly review."
        )
        return
    try:
        offer(desk, person, run, tried, file)
    except (AnomalyError, OSError) as error:
        st.error(plain(str(error)))
    done, text = st.session_state.pop(SAID, (True, ""))
    if text:
        (st.success if done else st.error)(plain(text))


def offer(desk: Desk, person: Person, run: Run, tried: Calibration, file: Path) -> None:
    """Shows before and after, and a button that writes the file; what gets worse has to be accepted
    by a tick.
    """
    before = Guarantee.of(read_card(file))
    after = guarantee_of(before, tried)
    reasons = worse(before, after) if after != before else []
    if NAME not in st.session_state or st.session_state.get(SUGGESTED) != (
        run.id,
        str(file),
    ):
        suggest(desk, run, file)
    shown = [
        {"": label, "Before": old, "After": new} for label, old, new in change_rows(before, after)
    ]
    with st.form("keep", border=True):
        st.dataframe(shown, hide_index=True, width="stretch")
        if reasons:
            st.checkbox(f"I accept what gets worse: {plain('; '.join(reasons))}", key=ACCEPTED)
        columns = st.columns([5, 1.5], vertical_alignment="bottom")
        columns[0].text_input(
            f"Write a new detector file with this threshold, in {plain(str(file.parent))}", key=NAME
        )
        given = (desk, person, run, tried, file, bool(reasons))
        columns[1].form_submit_button(
            "Use this threshold", type="primary", width="stretch", on_click=press, args=given
        )


def press(
    desk: Desk,
    person: Person,
    run: Run,
    tried: Calibration,
    file: Path,
    gets_worse: bool,
) -> None:
    """Writes the file under the name in the field as it is when the button is pressed, and keeps
    what to tell.
    """
    state = st.session_state
    if gets_worse and not state.get(ACCEPTED):
        state[SAID] = (
            False,
            "Nothing was written: tick that you accept what gets worse, and press again.",
        )
        return
    try:
        state[SAID] = (True, write(desk, person, run, tried, file))
        state[ACCEPTED] = False
        suggest(desk, run, file)
    except (AnomalyError, OSError) as error:
        state[SAID] = (False, str(error))


def guarantee_of(before: Guarantee, tried: Calibration) -> Guarantee:
    """Returns what a file with the threshold that is tried guarantees: nothing more than now, and
    nothing once it moved.
    """
    old = before.calibration
    moved = old is None or float(old.threshold) != float(tried.threshold)
    if old is not None and not moved:  # at most the one for review is another
        tried = replace(old, review_rate=tried.review_rate, review_score=tried.review_score)
    return Guarantee(tried, before.preview or moved, before.what)


def suggest(desk: Desk, run: Run, file: Path) -> None:
    """Puts a free name into the field: at first, and after a file was written; what a person typed
    meanwhile stays.
    """
    detector = desk.detector(run.detector).detector
    version = next_version(
        detector.version,
        versions_of(detector.name, file.parent, file.parent, desk.store.identities()),
    )
    st.session_state.update({NAME: free_name(file, version).name, SUGGESTED: (run.id, str(file))})


def target(file: Path, name: str) -> Path:
    """Returns the file that a name means: beside the detector, unless it is a whole path."""
    return file.parent / name


def write(desk: Desk, person: Person, run: Run, tried: Calibration, file: Path) -> str:
    """Writes the file and notes in the log who did it; returns what to tell."""
    out = target(file, str(st.session_state[NAME]).strip())
    if out.suffix != ".onnx" or out.parent.resolve() != file.parent.resolve():
        raise AnomalyError(f"{out}: a new .onnx file in {file.parent} expected")
    with WRITING:
        card = write_moved(file, tried, out, by=person.name, known=desk.store.identities())
        desk.store.set_threshold(
            run.id,
            float(tried.threshold),
            by=person.name,
            key=default_key(),
            detector=card.digest,
            path=str(out),
            identity=(card.name, card.version),
        )
    moved = f" {PREVIEW}" if Guarantee.of(card).preview else ""
    return (
        f"Written: {out}, {card.identity}. Score with it: what was scored before keeps its "
        f"threshold.{moved}"
    )


try:
    show(open_desk(), st.session_state["person"])
except AnomalyError as error:
    st.error(plain(str(error)))
