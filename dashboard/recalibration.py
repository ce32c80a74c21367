"""Setting a new threshold from the good images of the audit sample, in the page: first what it
would be, then the file.
"""

from __future__ import annotations

import tempfile
import threading
from pathlib import Path

import streamlit as st

from anomaly.detector.file import read_card
from anomaly.errors import AnomalyError
from anomaly.quality.next_file import free_version
from anomaly.quality.recalibrate import Asked, GoodImages, Proposal, propose, write_proposal
from anomaly.reporting.guarantee import change_rows
from anomaly.review import Run, default_key
from anomaly.review.exports import write_calibration_manifest
from anomaly.scorer import Scorer
from dashboard.access import Person
from dashboard.components import plain
from dashboard.desk import Desk

SUGGESTED = "name suggested for"
FOUND, SAID = "proposed threshold", "what came of the proposal"
MOST_NAMED = 5  # images left out that are named
WRITING = threading.Lock()  # two admins at once get two versions


def recalibration(desk: Desk, person: Person, run: Run) -> None:
    """Offers to set the threshold anew by the images of the audit sample judged normal, for who may
    write detectors.
    """
    st.markdown("###### Recalibrate from the audit sample")
    good = len(desk.store.calibration_images(run.id))
    if not good:
        st.caption(
            "No image of an audit sample is judged normal yet. Draw one (page Team) and judge it: "
            "only images drawn at random may set a threshold with a guarantee."
        )
        return
    if desk.detector(run.detector).detector.unit_rule is not None:
        st.caption(
            "This detector guarantees per unit, and an audit sample draws images: give whole units "
            "to anomaly calibrate --normal."
        )
        return
    file = desk.files.find(run)
    if file is None or not person.may("admin"):
        st.caption(
            f"{good:,} images can set a new threshold. "
            + ("An admin can do it." if file else "The detector's file was not found.")
        )
        return
    propose_and_write(desk, person, run, file, good)


def propose_and_write(desk: Desk, person: Person, run: Run, file: Path, good: int) -> None:
    """Shows the button that works out the threshold, then before and after and the button that
    writes it.
    """
    state = st.session_state
    st.caption(
        f"{good:,} images of the audit sample were judged normal. They are scored again, which "
        "takes a moment; nothing is written yet."
    )
    try:
        if st.button("Show before and after", icon=":material/balance:"):
            with st.spinner("scoring the images"):
                state[FOUND] = (run.id, good, proposed(desk, run, file))
        of, judged, found = state.get(FOUND, (None, 0, None))
        if found is not None and (of, judged) == (run.id, good):
            before_and_after(desk, person, run, file, found)
    except (AnomalyError, OSError) as error:
        st.error(plain(str(error)))
    done, text = state.pop(SAID, (True, ""))
    if text:
        (st.success if done else st.error)(plain(text))


def proposed(desk: Desk, run: Run, file: Path) -> tuple[Proposal, list[str]]:
    """Returns the threshold that the audit sample would set, and what was left out."""
    with tempfile.TemporaryDirectory(prefix="anomaly-") as folder:
        manifest = Path(folder) / "audited.csv"
        done = write_calibration_manifest(desk.store, run.id, manifest)
        if not done.written:
            raise AnomalyError(f"no image can be used: {done.left_out[0]}")
        found = propose(Scorer(file, device="cpu"), file, GoodImages(manifest), Asked())
    return found, [*done.left_out, *found.good.left_out]


def before_and_after(
    desk: Desk, person: Person, run: Run, file: Path, found: tuple[Proposal, list[str]]
) -> None:
    """Shows what changes, and the button that writes; what gets worse has to be accepted."""
    proposal, left_out = found
    rows = [
        *change_rows(proposal.before, proposal.after),
        ("images flagged in this run", *flagged(desk, run, proposal)),
    ]
    shown = [{"": label, "Before": old, "After": new} for label, old, new in rows]
    for line in left_out[:MOST_NAMED]:
        st.caption(plain(f"Left out: {line}"))
    if len(left_out) > MOST_NAMED:
        st.caption(f"Left out: {len(left_out) - MOST_NAMED:,} more.")
    with st.form("recalibrate", border=True):
        st.dataframe(shown, hide_index=True, width="stretch")
        reasons = proposal.worse
        accepted = not reasons or st.checkbox(
            f"I accept that the guarantee gets worse: {plain('; '.join(reasons))}"
        )
        if not st.form_submit_button("Write the recalibrated detector", type="primary"):
            return
    if not accepted:
        st.error("Nothing was written: tick that you accept what gets worse, and press again.")
        return
    st.session_state[SAID] = (True, write(desk, person, run, file, proposal))
    del st.session_state[FOUND]
    st.session_state.pop(SUGGESTED, None)  # that name may be taken now
    st.rerun(scope="fragment")


def flagged(desk: Desk, run: Run, proposal: Proposal) -> list[str]:
    """Returns how many images of the run are flagged before and after."""
    scores = desk.scores(run.id)
    calibrations = (proposal.before.calibration, proposal.after.calibration)
    return [
        "none" if one is None else f"{int((scores > one.threshold).sum()):,} of {len(scores):,}"
        for one in calibrations
    ]


def write(desk: Desk, person: Person, run: Run, file: Path, proposal: Proposal) -> str:
    """Writes the file and notes in the log who did it; returns what to tell."""
    with WRITING:
        version, target = free_version(read_card(file), file, None, desk.store.identities())
        write_proposal(proposal, file, file, target, version, by=person.name)
        card = read_card(target)
        desk.store.set_threshold(
            run.id,
            float(proposal.calibration.threshold),
            by=person.name,
            key=default_key(),
            detector=card.digest,
            path=str(target.resolve()),
            identity=(card.name, card.version),
        )
    return (
        f"Written: {target}, {card.identity}. Score with it: what was scored before keeps its "
        "threshold."
    )
