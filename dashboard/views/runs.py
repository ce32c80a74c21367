"""Runs and detectors: what was scored by what, the guarantee of each detector, and two of them on
the same images.
"""

from __future__ import annotations

import shlex
from dataclasses import replace

import altair as alt
import pandas as pd
import streamlit as st

from anomaly.detector.guarantee import Guarantee
from anomaly.detector.training_facts import TrainingFacts
from anomaly.errors import AnomalyError
from anomaly.reporting.guarantee import guarantee_text, preview_text, review_lines
from anomaly.reporting.known_defects import known_defect_lines
from anomaly.review import Comparison, Detector, Run
from anomaly.review.findings import Filters
from dashboard.access import Person
from dashboard.address import (
    filters_here,
    nothing_yet,
    query_for,
    query_here,
    queue_here,
    set_address,
)
from dashboard.components import cells, plain, show_chart
from dashboard.desk import Desk, open_desk
from dashboard.findings import roots, short_path
from dashboard.job_pages import jobs_tab, learn_button
from dashboard.lineage import in_use, lineage

SCATTER = 4000  # points that a browser draws at once
FLIPS = 60
WHAT = st.column_config.TextColumn(width=160)


def show(desk: Desk, person: Person) -> None:
    """Shows all runs, the card of the chosen one's detector, a comparison, and jobs."""
    if desk.jobs is not None and not desk.store.runs():  # the first detector is made here
        nothing_yet()
        jobs_tab(desk, person)
        return
    filters = filters_here(desk)
    runs = desk.store.runs()
    st.caption(plain(in_use(desk)))
    shown = cells([run_row(desk, run) for run in runs])
    st.dataframe(shown, hide_index=True, width="stretch", height=min(260, 36 * (len(runs) + 1)))
    names = {run.id: f"{run.name} ({run.imported_at[:10]})" for run in runs}
    cards, comparison, jobs = st.tabs(["Detector", "Compare two runs", "Jobs"])
    with cards:
        chosen = st.selectbox(
            "Run",
            list(names),
            list(names).index(filters.run or runs[0].id),
            format_func=names.__getitem__,
        )
        # this run on all pages; its folders are others
        other = query_for(replace(filters, run=chosen, folder=None), queue_here())
        set_address(query_here() if chosen == filters.run else other)
        card(desk.detector_of(chosen).detector)
        lineage(desk, desk.store.run(chosen))
        offer_report(desk, desk.store.run(chosen))
        say_learning(desk, person, desk.store.run(chosen))
    with comparison:
        if len(runs) < 2:
            st.info(
                "One run is here. Score the same images with another detector into this database "
                "to compare the two."
            )
        else:
            compare(desk, names, chosen)
    with jobs:
        jobs_tab(desk, person)


def run_row(desk: Desk, run: Run) -> dict[str, object]:
    """Returns one run as a row."""
    progress = desk.store.progress(run.id)
    detector = desk.detector(run.detector).detector
    return {
        "Run": run.name,
        "Detector": f"{detector.name} {detector.version}",
        "Digest": run.detector[:12],
        "Threshold": None if run.threshold is None else float(f"{run.threshold:.6g}"),
        "Images": run.images,
        "Flagged": run.flagged,
        "Judged": progress.flagged_judged + progress.audit_judged,
        "Imported": run.imported_at[:16].replace("T", " "),
        "By": run.imported_by,
    }


def card(detector: Detector) -> None:
    """Shows what a detector says of itself, with its guarantee in the words of the command line."""
    if detector.card is None:
        st.info(
            "The run came without the detector's card: import it with the detector to see its "
            "guarantee."
        )
        return
    with st.container(border=True):
        calibration = detector.calibration
        estimated = calibration is not None and not calibration.is_guaranteed
        st.markdown("###### Estimate" if estimated else "###### Guarantee")
        training = detector.training
        if calibration is None or training is None:
            st.write("Ranks only: orders images by score, guarantees nothing.")
        else:
            rule = training.by_unit
            text = preview_text(calibration, training) or guarantee_text(
                calibration,
                training.images or calibration.n,
                highest=training.highest or (),
                grouped=bool(training.grouped),
                views="" if rule is None else rule.views,
                known_defects=training.known_defects is not None,
            )
            what = "image" if rule is None else "unit"
            guarantee = Guarantee(calibration, training.threshold_moved is not None, what)
            lines = [text, *known_defect_lines(training), *review_lines(guarantee)]
            st.code("\n".join(lines), language=None, wrap_lines=True)
    with st.container(border=True):
        st.markdown("###### Detector")
        st.dataframe(
            cells(facts(detector)), hide_index=True, width="stretch", column_config={"What": WHAT}
        )


def offer_report(desk: Desk, run: Run) -> None:
    """Offers the report of the training, where it lies beside the detector's file."""
    file = desk.files.find(run)
    report = None if file is None else file.with_name("report.html")
    if report is not None and report.is_file():
        name = f"{desk.detector_of(run.id).detector.name}-report.html"
        st.download_button(
            "Report of the training",
            report.read_bytes(),
            name,
            "text/html",
            icon=":material/description:",
        )


def say_learning(desk: Desk, person: Person, run: Run) -> None:
    """Offers to learn from the verdicts, once there are some on defects; where no job may be
    started, it says how.
    """
    file = desk.files.find(run)
    defects = desk.store.count(Filters(state="anomalous"))
    if file is None or not defects:
        return
    with st.container(border=True):
        st.markdown("###### Learn from the verdicts")
        what = f"{defects:,} finding{'s are' if defects > 1 else ' is'} judged anomalous"
        st.write(
            f"{what}: a new detector knows these defects and still finds others. Its threshold is "
            "set by good images again. It takes as long as the first training:"
        )
        folder = file.parent
        if learn_button(desk, person, run, folder):
            return
        new = folder.with_name(f"{folder.name}-learnt")
        database = desk.settings.database
        if "@" in database:  # an address may hold a password
            database = "DATABASE"
        line = ["anomaly", "learn", str(folder), "--review", database, "--out", str(new)]
        st.code(shlex.join(line), language=None)


def facts(detector: Detector) -> list[dict[str, str]]:
    """Returns the card as rows of a name and a value."""
    said = detector.card or {}
    training = detector.training or TrainingFacts()
    rows = {
        "name": f"{detector.name} {detector.version}",
        "digest": detector.digest,
        "parent": said.get("parent"),
        "model": f"{said.get('model')} on {said.get('space')}, {said.get('size')} pixels",
        "trained": training.created,
        "good images": training.images,
        "command": training.command,
        "threshold moved by": training.threshold_moved_by,
        "licences": "; ".join(
            f"{what}: {licence}" for what, licence in (said.get("licences") or {}).items()
        ),
    }
    return [{"What": name, "Value": str(value)} for name, value in rows.items() if value]


def compare(desk: Desk, names: dict[int, str], chosen: int) -> None:
    """Shows two runs on the images that both have: who flags what, and the flips."""
    columns = st.columns(2)
    numbers = list(names)
    old, new = first_pair(desk, numbers, chosen)
    a = columns[0].selectbox("Old", numbers, numbers.index(old), format_func=names.__getitem__)
    shared = [number for number in numbers if number in desk.with_common_images(a)]
    if not shared:
        st.info(
            "No other run judged an image of this one. Score the same images with another detector "
            "into this database to compare the two."
        )
        return
    place = shared.index(new) if new in shared else 0
    # of another run other ones are offered
    b = columns[1].selectbox(
        "New",
        shared,
        place,
        format_func=names.__getitem__,
        key=f"compared with {a}",
        help="Runs that share images with the old one",
    )
    found = desk.store.compare(a, b)
    left, right = st.columns([1, 1], gap="medium")
    with left.container(border=True):
        show_chart(scatter(found), "Scores of both runs against each other")
        if len(found.paths) > SCATTER:
            st.caption(
                f"All flips and every {-(-len(found.paths) // SCATTER)}th of the "
                f"{len(found.paths):,} images are drawn."
            )
    with right:
        st.markdown(
            f"**{len(found.paths):,} images in both.** {len(found.newly_flagged):,} newly flagged, "
            f"{len(found.newly_passed):,} no longer flagged."
        )
        flips(desk, found)


def first_pair(desk: Desk, numbers: list[int], chosen: int) -> tuple[int, int]:
    """Returns the two runs, old and new, that a comparison begins with: the chosen one and the
    newest with images in common.

    ``numbers``: of all runs, the newest first. Where the chosen one has none in common with any, it
    is the newest pair that has; where there is no such pair, the chosen one and another.
    """
    for run in (chosen, *(number for number in numbers if number != chosen)):
        others = desk.with_common_images(run)
        if others:
            return min(run, others[0]), max(run, others[0])
    other = next(number for number in numbers if number != chosen)
    return min(chosen, other), max(chosen, other)


def scatter(found: Comparison) -> alt.LayerChart | alt.FacetChart:
    """Returns the scores of both runs against each other, the thresholds as lines, flips
    in colour.
    """
    every = -(-len(found.paths) // SCATTER)
    flips = set(found.flips)
    kept = sorted(flips | set(range(0, len(found.paths), every)))
    flagged, passed = set(found.newly_flagged), set(found.newly_passed)
    kinds = [
        "newly flagged" if i in flagged else "no longer flagged" if i in passed else "the same"
        for i in kept
    ]
    points = pd.DataFrame(
        {
            "old": found.scores_a[kept],
            "new": found.scores_b[kept],
            "image": [found.paths[i] for i in kept],
            "verdict": kinds,
        }
    )
    drawn = (
        alt.Chart(points)
        .mark_circle(size=26, opacity=0.7)
        .encode(
            x=alt.X("old:Q", title=f"score, {found.a.name}", scale=alt.Scale(zero=False)),
            y=alt.Y("new:Q", title=f"score, {found.b.name}", scale=alt.Scale(zero=False)),
            color=alt.Color(
                "verdict:N",
                scale=alt.Scale(
                    domain=["the same", "newly flagged", "no longer flagged"],
                    range=["#8a9099", "#d1433a", "#1f8f63"],
                ),
                legend=alt.Legend(orient="top", title=None),
            ),
            tooltip=["image:N", "old:Q", "new:Q", "verdict:N"],
        )
    )
    rules = [
        alt.Chart(pd.DataFrame([{"v": threshold}]))
        .mark_rule(strokeDash=[5, 4], color="#888")
        .encode(**{axis: "v:Q"})
        for axis, threshold in (("x", found.a.threshold), ("y", found.b.threshold))
        if threshold is not None
    ]
    return alt.layer(drawn, *rules).properties(height=360)


def flips(desk: Desk, found: Comparison) -> None:
    """Lists the images on which the two disagree; a click opens one."""
    if not found.flips:
        st.success("Both give every image the same verdict.")
        return
    shown, folders = found.flips[:FLIPS], roots(desk, found.a.id)
    rows = [
        {
            "Image": short_path(found.paths[i], folders),
            "Old": "flagged" if found.flagged_a[i] else "passed",
            "New": "flagged" if found.flagged_b[i] else "passed",
            "Score old": float(found.scores_a[i]),
            "Score new": float(found.scores_b[i]),
        }
        for i in shown
    ]
    event = st.dataframe(
        cells(rows),
        hide_index=True,
        width="stretch",
        height=320,
        on_select="rerun",
        selection_mode="single-row",
        key="flips",
    )
    if len(found.flips) > FLIPS:
        st.caption(f"The first {FLIPS} of {len(found.flips):,}.")
    chosen = event.selection.rows
    if chosen and st.button("Open the image", icon=":material/open_in_new:"):
        finding = int(found.findings_b[shown[chosen[0]]])
        st.switch_page(
            "views/image.py",
            query_params=query_for(
                filters_here(desk), "anomalous", run=str(found.b.id), finding=str(finding)
            ),
        )


try:
    show(open_desk(), st.session_state["person"])
except AnomalyError as error:
    st.error(plain(str(error)))
