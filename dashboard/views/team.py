"""Team: how much is done and by whom, how far inspectors agree, and what needs a second pair of
eyes.
"""

from __future__ import annotations

import streamlit as st

from anomaly.errors import AnomalyError
from anomaly.files.numbers import percent
from anomaly.review import Run, default_key
from anomaly.review.inspectors import Agreement, Inspector
from anomaly.review.types import from_lines as types_from
from anomaly.review.types import to_text as types_text
from anomaly.review.verdicts import Stratum
from dashboard.access import Person
from dashboard.address import filters_here, nothing_yet, query_for, run_here
from dashboard.components import cells, plain
from dashboard.desk import Desk, open_desk


def show(desk: Desk, person: Person) -> None:
    """Shows progress, inspectors, agreement, and for admins the audit sample, known images and
    defect types.
    """
    if not desk.store.runs():
        nothing_yet()
        type_editor(desk, person)  # types may be chosen before the first images come
        return
    run = run_here(desk, filters_here(desk))
    st.caption(plain(f"{run.name}: what its inspectors have done"))
    progress(desk, run)
    team = desk.store.team(run.id)
    left, right = st.columns([1.5, 1], gap="medium")
    with left:
        st.markdown("##### Inspectors")
        if team.inspectors:
            st.dataframe(
                cells([inspector_row(one) for one in team.inspectors]),
                hide_index=True,
                width="stretch",
            )
        else:
            st.caption("Nobody has judged an image of this run yet.")
    with right:
        st.markdown("##### Agreement")
        if team.agreements:
            st.dataframe(
                cells([agreement_row(one) for one in team.agreements]),
                hide_index=True,
                width="stretch",
            )
        st.caption(
            "Cohen's kappa: 1 is perfect agreement, 0 what chance would give. Only images that "
            "both called anomalous or normal count."
        )
    second_opinion(desk, run, team.disagreements, team.unsure)
    with st.expander("Audit sample", expanded=not desk.store.strata(run.id)):
        audit(desk, person, run)
    if person.may("admin"):
        with st.expander("Hidden known images"):
            known(desk, person, run)
    type_editor(desk, person)


def type_editor(desk: Desk, person: Person) -> None:
    """Shows the list of defect types to those who may change it."""
    if person.may("admin"):
        with st.expander("Defect types"):
            types(desk, person)


def progress(desk: Desk, run: Run) -> None:
    """Shows how much of the run is judged."""
    found = desk.store.progress(run.id)
    figures = {
        "Flagged images judged": f"{found.flagged_judged:,} of {found.flagged:,}",
        "Audit sample judged": f"{found.audit_judged:,} of {found.audit:,}",
        "Anomalous": f"{found.states.get('anomalous', 0):,}",
        "Normal": f"{found.states.get('normal', 0):,}",
        "Unsure": f"{found.states.get('unsure', 0):,}",
        "Disagreement": f"{found.states.get('disagreement', 0):,}",
    }
    for column, (name, value) in zip(st.columns(len(figures)), figures.items(), strict=True):
        column.metric(name, value, border=True)


def inspector_row(one: Inspector) -> dict[str, object]:
    """Returns one inspector as a row: counts first, and how they did on known images with its
    interval.
    """
    known = (
        ""
        if one.known is None
        else (
            f"{one.known.flagged} of {one.known.n} ({percent(one.known.low)} to "
            f"{percent(one.known.high)})"
        )
    )
    return {
        "Inspector": one.name,
        "Anomalous": one.anomalous,
        "Normal": one.normal,
        "Unsure": one.unsure,
        "Skipped": one.skipped,
        "Taken back": one.undone,
        "Seconds an image": None if one.median_seconds is None else round(one.median_seconds, 1),
        "Known images right": known,
    }


def agreement_row(one: Agreement) -> dict[str, object]:
    """Returns a pair of inspectors as a row."""
    kappa = (
        f"{one.kappa:.2f}"
        if one.kappa is not None
        else f"{one.needed} more images needed"
        if one.needed
        else "one verdict only"
    )
    return {
        "Inspectors": f"{one.a}, {one.b}",
        "Both judged": one.n,
        "Alike": one.same,
        "Kappa": kappa,
    }


def second_opinion(desk: Desk, run: Run, disagreements: int, unsure: int) -> None:
    """Offers the images that need another inspector."""
    left, right = st.columns([5, 1.5], vertical_alignment="center")
    left.markdown(
        f"**Second opinion:** {disagreements:,} images judged differently, {unsure:,} that "
        "somebody was unsure of."
    )
    if right.button(
        "Give a second opinion",
        disabled=not disagreements + unsure,
        width="stretch",
        icon=":material/group:",
    ):
        st.switch_page("views/image.py", query_params=query_for(filters_here(desk), "second"))


def audit(desk: Desk, person: Person, run: Run) -> None:
    """Shows the audit sample by stratum, and lets an admin draw or enlarge it."""
    strata = desk.store.strata(run.id)
    st.write(
        "Verdicts on flagged images cannot show what the detector missed. An audit sample is drawn "
        "by lot from all images, more densely near the threshold: it makes recall measurable, and "
        "only its normal images may set a new threshold."
    )
    if strata:
        st.dataframe(
            cells([stratum_row(stratum) for stratum in strata]), hide_index=True, width="stretch"
        )
    if not person.may("admin"):
        return
    with st.form("audit", border=False):
        columns = st.columns([1, 1, 4], vertical_alignment="bottom")
        images = columns[0].number_input(
            "Images, about", 10, max(10, run.images), min(200, max(10, run.images)), 10
        )
        if columns[1].form_submit_button("Draw" if not strata else "Enlarge", width="stretch"):
            desk.store.draw_audit(run.id, int(images), by=person.name, key=default_key())
            st.rerun()


def stratum_row(stratum: Stratum) -> dict[str, object]:
    """Returns one stratum of the audit sample as a row."""
    between = (
        ""
        if stratum.low is None or stratum.high is None
        else f"{stratum.low:.4g} to {stratum.high:.4g}"
    )
    name = "flagged" if stratum.number == 0 else f"{stratum.number}"
    return {
        "Stratum": name,
        "Scores": between,
        "Images": stratum.images,
        "Drawn": stratum.drawn,
        "Judged": stratum.judged,
    }


def known(desk: Desk, person: Person, run: Run) -> None:
    """Lets an admin say the truth of an image, which is then shown to inspectors like any other."""
    st.write(
        "Images of which the truth is known are mixed into the queue. Nothing tells an inspector "
        "which they are; the table above says how many were judged right."
    )
    with st.form("known", border=False):
        columns = st.columns([1, 1, 1, 3], vertical_alignment="bottom")
        finding = columns[0].number_input(
            "Number of the finding",
            1,
            step=1,
            help="It stands in the address of its page: finding=...",
        )
        truth = columns[1].selectbox("Truth", ["anomalous", "normal", "no longer known"])
        if columns[2].form_submit_button("Set", width="stretch"):
            if desk.store.finding(int(finding)).run != run.id:
                raise AnomalyError(
                    f"finding {finding} is of another run: choose that run in Queue first"
                )
            value = None if truth == "no longer known" else truth
            desk.store.set_known(int(finding), value, by=person.name, key=default_key())
            columns[3].success("Set")


def types(desk: Desk, person: Person) -> None:
    """Lets an admin edit the list of defect types; the first nine have the keys 1 to 9."""
    known = desk.store.defect_types()
    with st.form("types", border=False):
        text = st.text_area(
            "One type a line; a colour as #rrggbb may follow",
            types_text(known),
            height=30 + 24 * (len(known) + 2),
            key="types",
        )
        st.caption(
            "The first nine are given by the keys 1 to 9, in this order. Verdicts keep the names "
            "that they were given with."
        )
        pressed = st.form_submit_button("Save the types")
    if pressed:
        kinds = types_from(text.splitlines(), known)
        desk.store.set_defect_types(kinds, by=person.name, key=default_key())
        st.success(plain("Saved: " + ", ".join(f"{kind.key or '-'} {kind.name}" for kind in kinds)))


try:
    show(open_desk(), st.session_state["person"])
except AnomalyError as error:
    st.error(plain(str(error)))
