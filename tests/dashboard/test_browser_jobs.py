"""Jobs in a browser, as an engineer starts them: a dry run, a training that outlives browser and
dashboard, a worker that is killed, learning from verdicts.
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("streamlit")
pytest.importorskip("sqlalchemy")
pytest.importorskip("torch")
pytest.importorskip("playwright")

from playwright.sync_api import expect

from anomaly.review import Filters, Store, default_key
from anomaly.review.jobs import Jobs
from tests.support.review_server import Server, find_chromium, free_port, new_database

pytestmark = pytest.mark.skipif(
    find_chromium() is None, reason="no Chromium found: apt-get install chromium"
)


@pytest.fixture
def jobs_server(made: Path, tmp_path: Path) -> Iterator[Server]:
    """A server that may start jobs below a folder with a run and good images."""
    from tests.support.review_server import SECRET, Settings

    work = tmp_path / "work"
    shutil.copytree(made / "run", work / "run")
    good = sorted((made / "parts" / "train" / "good").iterdir())
    (work / "good").mkdir()
    for path in good[:40]:
        shutil.copy(path, work / "good")
    database, run = new_database(made, tmp_path, name="line 3")
    with Store(database) as store:
        for finding in store.findings(Filters(run=run), limit=8):
            store.record("ann", finding.id, "anomalous", key=default_key(), defect_type="crack")
    settings = Settings(str(database), SECRET, detectors=(str(work / "run"),), jobs=(str(work),))
    server = Server(settings, free_port(), database.with_suffix(".log"))
    yield server.start()
    server.stop()
    jobs = Jobs(database)
    for job in jobs.all():
        jobs.stop(job.id)
    jobs.close()


def type_folder(page: Any, label: str, path: Path) -> None:
    """Types a folder into a field that also offers some."""
    field = page.get_by_role("combobox", name=label)
    field.fill(str(path))
    page.get_by_role("option").first.wait_for()
    field.press("Enter")


def open_jobs(page: Any) -> None:
    page.get_by_role("tab", name="Jobs").click()
    page.get_by_text("New job", exact=True).wait_for()


def state_of(jobs: Jobs, number: int, *wanted: str, seconds: float = 240) -> str:
    """Waits until a job is in one of these states, and returns it."""
    end = time.monotonic() + seconds
    while (state := jobs.job(number).state) not in wanted:
        assert time.monotonic() < end, (state, jobs.lines(number))
        time.sleep(0.2)
    return state


def worker_of(jobs: Jobs) -> int:
    """Returns the process id of the worker."""
    with jobs._db.read() as c:
        return int(str(jobs._holder(c)).split()[1])


def test_a_training_outlives_browser_and_dashboard(
    jobs_server: Server, open_page: Callable[..., Any], tmp_path: Path
) -> None:
    work = tmp_path / "work"
    page = open_page(f"{jobs_server.url}/runs")
    open_jobs(page)
    assert page.get_by_role("button", name="Start: train").count() == 0
    type_folder(page, "Folder of good images", tmp_path / "elsewhere")
    page.get_by_role("button", name="Dry run").click()
    page.get_by_text("not below").wait_for()
    type_folder(page, "Folder of good images", work / "good")
    page.get_by_label("New run folder").last.fill(str(work / "new"))
    page.get_by_label("New run folder").last.press("Enter")
    page.get_by_text("More options").click()
    page.get_by_role("combobox", name="What is modelled").click()
    page.get_by_role("option", name="both").click()  # no choice between recipes, which takes long
    page.get_by_role("button", name="Dry run").click()
    page.get_by_text("nothing was trained").wait_for(timeout=60_000)
    page.get_by_text("40 read, 0 left out").wait_for()
    page.get_by_role("button", name="Start: train").click()
    page.get_by_text("Job 1 is in the queue").wait_for()
    jobs = Jobs(jobs_server.settings.database)
    state_of(jobs, 1, "running")
    page.context.close()
    worker = worker_of(jobs)
    jobs_server.kill()
    jobs_server.start()
    assert worker_of(jobs) == worker and jobs.job(1).state == "running"

    os.kill(worker, signal.SIGKILL)
    page = open_page(f"{jobs_server.url}/runs")
    open_jobs(page)
    page.get_by_text("Job 1: train, interrupted").wait_for(timeout=60_000)
    page.get_by_role("button", name="Resume job 1").click()
    page.get_by_text("Job 1: train, done").wait_for(timeout=240_000)
    with page.expect_download() as saved:
        page.get_by_role("button", name="Report of job 1").click()
    assert "<html" in Path(saved.value.path()).read_text(encoding="utf-8")
    assert (work / "new" / "detector.onnx").is_file()

    page.get_by_role("tab", name="Detector").click()
    page.get_by_role("button", name="Learn from verdicts").click()
    page.get_by_text("Job 2 is in the queue").wait_for()
    page.get_by_role("tab", name="Jobs").click()
    page.get_by_text("Job 2: learn, running").wait_for(timeout=60_000)
    assert jobs.job(2).given == {
        "run": str(work / "run"), "verdicts": "yes", "out": str(work / "run-learnt")
    }  # fmt: skip
    page.get_by_role("button", name="Stop job 2").click()
    page.get_by_text("Job 2: learn, stopped").wait_for(timeout=60_000)
    assert not (work / "run-learnt" / "detector.onnx").exists()
    jobs.close()


def test_only_an_admin_starts_jobs_and_only_where_it_is_allowed(
    jobs_server: Server, server: Server, open_page: Callable[..., Any]
) -> None:
    page = open_page(f"{server.url}/runs")
    page.get_by_role("tab", name="Jobs").click()
    page.get_by_text("This server starts no jobs").wait_for()
    jobs_server.stop()
    jobs_server.settings = replace(jobs_server.settings, open_role="inspector")
    jobs_server.start()
    page = open_page(f"{jobs_server.url}/runs")
    page.get_by_role("tab", name="Jobs").click()
    page.get_by_text("An admin can start and stop jobs").wait_for()
    expect(page.get_by_role("button", name="Dry run")).to_have_count(0)
    page.get_by_role("tab", name="Detector").click()
    expect(page.get_by_role("button", name="Learn from verdicts")).to_have_count(0)
    page.get_by_text("anomaly learn").wait_for()
