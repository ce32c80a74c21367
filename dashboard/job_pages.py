"""What the page Runs shows of jobs: the forms that start them, and how they go."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import streamlit as st

from anomaly.errors import AnomalyError
from anomaly.files.progress import duration
from anomaly.review import Run, default_key
from anomaly.review.job_commands import RESUMABLE, SUBJECT
from anomaly.review.jobs import Job
from dashboard.access import Person
from dashboard.components import plain
from dashboard.desk import Desk
from dashboard.jobs import JobDesk, free_folder

LOOK_SECONDS = 2.0  # between two looks at how jobs go
JOBS_SHOWN, LINES_SHOWN = 6, 100  # the last ones; lines of each job
KINDS = {"train": "Train", "calibrate": "Calibrate", "learn": "Learn"}
WHAT = {
    "train": "A detector from a folder of good images: `anomaly train`.",
    "calibrate": "A new threshold for a detector, from good images that it was not trained on: "
    "`anomaly calibrate`. The old file stays.",
    "learn": "A new detector from an old one, the verdicts of this review and more images: "
    "`anomaly learn`.",
}
KEY, DRY = "key of the next job", "dry run"
QUALITIES = ("default", "fast", "best")
SPACES = ("auto", "both", "features", "filters", "pixels")


def jobs_tab(desk: Desk, person: Person) -> None:
    """Shows the form for the next job, for who may start one, and the last jobs."""
    jobs = desk.jobs
    if jobs is None:
        st.info(
            "This server starts no jobs. Start it with `anomaly review --jobs DIR` to train, "
            "calibrate and learn from here, with images and run folders below DIR; or use the "
            "commands `anomaly train`, `calibrate` and `learn`."
        )
        return
    form, going = st.columns([1, 1], gap="medium")
    with form:
        if person.may("admin"):
            new_job(jobs, person)
        else:
            st.caption("An admin can start and stop jobs.")
    with going:
        st.markdown("###### Jobs")
        how_they_go(jobs, person)


def new_job(jobs: JobDesk, person: Person) -> None:
    """Shows the form of the next job."""
    kind = st.segmented_control(
        "New job", list(KINDS), default="train", format_func=KINDS.__getitem__
    )
    kind = kind or "train"
    st.caption(WHAT[kind])
    images, runs = jobs.places()
    if kind != "train" and not runs:
        st.info(plain(f"No run folder is below {jobs.folders[0]} yet: train a detector first."))
        return
    given = {"train": training, "calibrate": calibration, "learn": learning}[kind](
        jobs, images, runs
    )
    try:
        if kind == "train":
            dry_run(jobs, person, given)
        elif st.button(f"Start: {KINDS[kind].lower()}", type="primary"):
            begin(jobs, person, kind, given)
    except AnomalyError as error:
        st.error(plain(str(error)))


def folder_field(label: str, offered: list[str], help_text: str = "") -> str:
    """Shows a field for a folder, one of those offered or another that is typed."""
    chosen = st.selectbox(
        label,
        offered,
        index=None,
        placeholder="Choose or type a folder",
        accept_new_options=True,
        help=help_text or None,
    )
    return chosen or ""


def training(jobs: JobDesk, images: list[str], _: list[str]) -> dict[str, str]:
    """Returns what a training is asked for."""
    chosen = folder_field("Folder of good images", images)
    name = f"run-{datetime.now(UTC):%Y%m%d}"
    out = st.text_input("New run folder", str(free_folder(jobs.folders[0], name)))
    with st.expander("More options"):
        rate = st.text_input("Rate of good images flagged at most", placeholder="0.01")
        quality = st.selectbox("Quality", QUALITIES)
        space = st.selectbox("What is modelled", SPACES, help="auto: chosen for these images")
        size = st.text_input("Size that the model sees, in pixels", placeholder="chosen")
        group = st.text_input(
            "Images of one part (expression)",
            help="--group-by: the part of a file name that several images of one part share",
        )
        defects = folder_field("Known defects, a folder by type", images)
    return {
        "images": chosen,
        "out": out,
        "false_alarm_rate": rate,
        "quality": "" if quality == QUALITIES[0] else quality,
        "space": "" if space == SPACES[0] else space,
        "size": size,
        "group_by": group,
        "defects": defects,
    }


def calibration(_: JobDesk, images: list[str], runs: list[str]) -> dict[str, str]:
    """Returns what a calibration is asked for."""
    run = folder_field("Run folder", runs)
    normal = folder_field("Folder of new good images", images)
    rate = st.text_input("Rate of good images flagged at most", placeholder="as before")
    worse = st.checkbox("Write it even if the guarantee gets worse")
    return {
        "run": run,
        "normal": normal,
        "false_alarm_rate": rate,
        "accept_worse": "yes" if worse else "",
    }


def learning(jobs: JobDesk, images: list[str], runs: list[str]) -> dict[str, str]:
    """Returns what is to be learnt."""
    run = folder_field("Run folder", runs)
    verdicts = st.checkbox("Learn from the verdicts of this review", value=True)
    normal = folder_field("More good images", images)
    defects = folder_field("Known defects, a folder by type", images)
    name = f"{Path(run or 'run').name}-learnt"
    out = st.text_input("New run folder", str(free_folder(jobs.folders[0], name)))
    return {
        "run": run,
        "out": out,
        "verdicts": "yes" if verdicts else "",
        "normal": normal,
        "defects": defects,
    }


def dry_run(jobs: JobDesk, person: Person, given: dict[str, str]) -> None:
    """Shows what a training would do, then the button that starts it: of the same options only."""
    if st.button("Dry run: what would it do?", icon=":material/fact_check:"):
        with st.spinner("looking at the images"):
            st.session_state[DRY] = (given, *jobs.dry_run(person, given))
    of, possible, text = st.session_state.get(DRY, ({}, False, ""))
    if of != given:
        st.caption("The training can be started once its dry run was seen.")
        return
    if not possible:
        st.error(plain(text))
        return
    st.code(text, language=None, wrap_lines=True)
    if st.button("Start: train", type="primary"):
        begin(jobs, person, "train", given)


def begin(jobs: JobDesk, person: Person, kind: str, given: dict[str, str]) -> None:
    """Puts the job into the queue and says so."""
    key = st.session_state.setdefault(KEY, default_key())
    job = jobs.start(person, kind, given, key)
    del st.session_state[KEY]
    st.session_state.pop(DRY, None)
    st.success(
        f"Job {job.id} is in the queue. It goes on when this page is closed, and when the "
        "dashboard is started anew."
    )


def learn_button(desk: Desk, person: Person, run: Run, folder: Path) -> bool:
    """Shows the button that learns from the verdicts, where this person may start it here."""
    jobs = desk.jobs
    if jobs is None or not person.may("admin"):
        return False
    out = st.text_input(
        "New run folder", str(free_folder(folder.parent, f"{folder.name}-learnt")), key=f"to {run}"
    )
    if st.button("Learn from verdicts", icon=":material/school:"):
        try:
            given = {"run": str(folder), "verdicts": "yes", "out": out}
            begin(jobs, person, "learn", given)
            st.caption("The tab Jobs shows how it goes.")
        except AnomalyError as error:
            st.error(plain(str(error)))
    return True


@st.fragment(run_every=LOOK_SECONDS)
def how_they_go(jobs: JobDesk, person: Person) -> None:
    """Shows the last jobs; only this part runs again."""
    try:
        jobs.wake()  # after a worker was killed, say
        found = jobs.queue.all(JOBS_SHOWN)
    except AnomalyError as error:
        st.error(plain(str(error)))
        return
    if not found:
        st.caption("No job yet.")
    for job in found:
        with st.container(border=True):
            one_job(jobs, person, job)


def one_job(jobs: JobDesk, person: Person, job: Job) -> None:
    """Shows one job: what it does, how it goes, what it says, and what can be done."""
    lines = jobs.queue.lines(job.id, LINES_SHOWN)
    about, buttons = st.columns([4, 1.4])
    with about:
        st.markdown(f"**Job {job.id}: {KINDS[job.kind].lower()}, {job.state}**")
        target = f" into {job.given['out']}" if "out" in job.given else ""
        st.caption(plain(f"{job.given.get(SUBJECT[job.kind])}{target}. {when(job)}"))
    with buttons:
        act(jobs, person, job)
    if job.state == "failed":
        st.error(plain(last_error(lines)))
    elif lines:
        st.write(plain(lines[-1]))
    if job.state == "done":
        offer_result(job)
    if lines:
        with st.expander(f"Output of job {job.id}"):
            st.code("\n".join(lines), language=None, wrap_lines=True)


def act(jobs: JobDesk, person: Person, job: Job) -> None:
    """Shows the button that stops or resumes a job, for who may."""
    if not person.may("admin") or job.state == "done":
        return
    if not job.ended:
        st.button(
            f"Stop job {job.id}",
            width="stretch",
            on_click=jobs.stop,
            args=(person, job.id),
        )
        return
    again = "Resume" if job.kind in RESUMABLE else "Start again:"
    if st.button(f"{again} job {job.id}", width="stretch"):
        try:
            jobs.resume(person, job.id)
        except AnomalyError as error:  # somebody else was quicker
            st.error(plain(str(error)))
        else:
            st.rerun(scope="fragment")


def offer_result(job: Job) -> None:
    """Offers the report of what a job has made, and says how to use it."""
    out = job.given.get("out")
    if out is None:
        return
    report = Path(out) / "report.html"
    if report.is_file():
        st.download_button(
            f"Report of job {job.id}",
            report.read_bytes,
            f"{Path(out).name}-report.html",
            "text/html",
            icon=":material/description:",
        )
    st.caption(
        plain(f"Score images with it: anomaly score {out} IMAGES --out scores.csv --review DB")
    )


def last_error(lines: list[str]) -> str:
    """Returns the line that says why a command failed: its own, else the last one."""
    own = [line.removeprefix("anomaly: ") for line in lines if line.startswith("anomaly: ")]
    return own[-1] if own else lines[-1] if lines else "It ended without a word."


def when(job: Job) -> str:
    """Returns who started a job, when, and how long it has taken."""
    said = f"By {job.made_by}, {job.made_at[:16].replace('T', ' ')} UTC"
    if job.started_at is None or (job.ended and job.ended_at is None):
        return f"{said}."
    now = datetime.now(UTC)
    end = datetime.fromisoformat(job.ended_at) if job.ended_at else now
    seconds = max(0.0, (end - datetime.fromisoformat(job.started_at)).total_seconds())
    what = "took" if job.ended else "running for"
    again = f", resumed {job.resumed} times" if job.resumed > 1 else ", resumed" * job.resumed
    return f"{said}{again}, {what} {duration(seconds)}."
