"""Jobs: the queue on both databases, what a job may run, and a real worker that is killed."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("sqlalchemy")

from anomaly.errors import AnomalyError
from anomaly.review import Store
from anomaly.review.job_commands import arguments, check_free, checked, environment
from anomaly.review.job_worker import Lines
from anomaly.review.jobs import LEASE_SECONDS, Jobs
from tests.review.test_review import database, postgres  # noqa: F401


def test_one_worker_holds_the_queue_until_it_is_dead(database: str) -> None:  # noqa: F811
    now = [1000.0]
    Store(database).close()
    jobs = Jobs(database, clock=lambda: now[0])
    first = jobs.put("train", {"images": "/a", "out": "/b"}, by="ann", key="1")
    assert jobs.put("train", {"images": "/other"}, by="ann", key="1") == first
    second = jobs.put("learn", {"run": "/b", "out": "/c"}, by="bo", key="2")
    assert jobs.needs_worker() and [job.state for job in jobs.all()] == ["waiting", "waiting"]

    taken = jobs.take("one")
    assert taken is not None and (taken.id, taken.state) == (first.id, "running")
    assert jobs.take("two") is None and not jobs.needs_worker()  # doubled by nobody
    assert jobs.note("one", first.id, [(1, "a"), (2, "b: 1 of 9"), (3, "nul \0")])
    assert jobs.note("one", first.id, [(2, "b: 2 of 9")])
    assert jobs.lines(first.id) == ["a", "b: 2 of 9", "nul "]
    assert not jobs.note("two", first.id, [(9, "x")])

    now[0] += LEASE_SECONDS + 1  # killed
    assert [job.state for job in jobs.all()] == ["waiting", "interrupted"]
    with pytest.raises(AnomalyError, match="is waiting: only one that ended"):
        jobs.resume(second.id)
    jobs.resume(first.id)
    again = jobs.take("two")
    assert again is not None and (again.id, again.resumed) == (first.id, 1)
    jobs.end("one", first.id, 0)  # it comes back, and is not listened to
    assert jobs.job(first.id).state == "running"
    jobs.stop(first.id)
    assert not jobs.note("two", first.id, [])
    jobs.end("two", first.id, 130)
    jobs.stop(second.id)
    assert jobs.take("two") is None and not jobs.needs_worker()
    assert [(job.state, job.status) for job in jobs.all()] == [("stopped", None), ("stopped", 130)]
    jobs.close()


def test_a_job_stays_below_the_folders_that_are_allowed(tmp_path: Path) -> None:
    allowed, secret = tmp_path / "allowed", tmp_path / "allowed-not"
    for folder in (allowed / "good", allowed / "full", secret):
        folder.mkdir(parents=True)
    (allowed / "full" / "detector.onnx").touch()
    (allowed / "way out").symlink_to(secret)
    given = {"images": "good", "out": str(allowed / "run"), "group_by": "-x", "quality": " "}
    options = checked("train", given, [allowed])
    assert arguments("train", options, "review.db", resume=True) == [
        "train", str(allowed / "good"), f"--out={allowed / 'run'}", "--group-by=-x", "--resume",
    ]  # fmt: skip
    for wrong, said in (
        ({"images": str(secret)}, "not below"),
        ({"images": "../allowed-not"}, "not below"),
        ({"images": "way out"}, "not below"),
        ({"images": str(allowed)}, "not below"),
        ({"images": "none"}, "no such folder"),
        ({"out": "/etc/run"}, "not below"),
        ({"images": ""}, "without images"),
        ({"backbone": "hub:x:y"}, "with backbone found"),
    ):
        with pytest.raises(AnomalyError, match=said):
            checked("train", {**given, **wrong}, [allowed])
    with pytest.raises(AnomalyError, match="is there already"):
        check_free({"out": str(allowed / "full")})
    address = "postgresql://ann:secret@host/db"
    learn = checked("learn", {"run": "full", "out": "new", "verdicts": "yes"}, [allowed])
    line = arguments("learn", learn, address)
    assert "--review" in line and "secret" not in " ".join(line)
    assert environment(address) == {"PGPASSWORD": "secret"}


def test_lines_of_progress_replace_each_other() -> None:
    lines = Lines(4)
    said = ["reading: 1 of 9 (11 %), 4 s left", "reading: 2 of 9 (22 %), 3 s left", "epoch 1"]
    said += ["fit: 1 of 2, 1 s left", "score: 1 of 2, 1 s left"]
    assert [lines.number(text)[0] for text in said] == [5, 5, 6, 7, 8]


def children(pid: int) -> list[int]:
    """Returns the processes that a process has started."""
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def until(seconds: float, found: Callable[[], object]) -> None:
    """Waits until ``found`` returns something true."""
    end = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < end
        time.sleep(0.1)


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="looks into /proc")
def test_what_a_killed_worker_ran_ends_and_errors_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("streamlit")
    from dashboard.jobs import start_worker
    from data.synthetic import write_dataset

    monkeypatch.setenv("ANOMALY_REVIEW_SECRET", "not for commands")
    file = tmp_path / "review.db"
    Store(file).close()
    jobs = Jobs(file)
    for name in ("run", "empty"):
        (tmp_path / "all" / name).mkdir(parents=True)
    write_dataset(tmp_path / "all" / "parts", kind="disc", train=60, good=0, per_defect=0, size=48)
    bad = jobs.put("train", {"images": "empty", "out": "none"}, by="ann", key="1")
    images = {"images": "parts/train/good", "out": "new", "quality": "best"}
    long = jobs.put("train", images, by="ann", key="2")
    worker = start_worker(str(file), [tmp_path / "all"])
    other = start_worker(str(file), [tmp_path / "all"])
    until(60, lambda: jobs.job(long.id).state == "running" and jobs.lines(long.id))
    assert jobs.job(bad.id).state == "failed"
    assert jobs.lines(bad.id)[-1].startswith("anomaly: ")
    ended, alive = (worker, other) if worker.poll() is not None else (other, worker)
    until(20, lambda: ended.poll() is not None)  # of two one works
    (command,) = children(alive.pid)
    assert b"ANOMALY_REVIEW" not in Path(f"/proc/{command}/environ").read_bytes()
    os.kill(alive.pid, signal.SIGKILL)
    alive.wait()
    until(LEASE_SECONDS, lambda: not Path(f"/proc/{command}").exists())
    later = Jobs(file, clock=lambda: time.time() + LEASE_SECONDS)
    assert later.job(long.id).state == "interrupted"
    for one in (later, jobs):
        one.close()
