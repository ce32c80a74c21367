"""`anomaly run` as a process: images from a folder and posts, every sink on this machine, several
cameras of a unit, restarts and kills.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from anomaly.files.table import read_table
from anomaly.review import Store
from anomaly.station.check import check_station
from anomaly.station.reading import read_station
from tests.support.kill_station import kill
from tests.support.review_server import free_port
from tests.support.runs import Said
from tests.support.stations import (
    ROOT,
    Station,
    find_mosquitto,
    picture,
    station,
    wait_until,
)

TOML = """
not_judged = "reject"
[[source]]
kind = "folder"
path = "incoming"
serial = '([^/]+)[.]png$'
patience = 1
[[source]]
kind = "http"
port = {port}
[[sink]]
kind = "stdout"
[[sink]]
kind = "table"
path = "results.csv"
[[sink]]
kind = "folder"
path = "kept"
outcomes = ["flagged", "not judged"]
[[sink]]
kind = "review"
database = "review.db"
create = true
audit_share = 0.0001
"""


def arrive(line: Station, name: str, data: bytes) -> None:
    """A file arrives in the folder, whole at once."""
    hidden = line.home / "incoming" / f".{name}"
    hidden.write_bytes(data)
    hidden.rename(hidden.with_name(name))


def test_each_image_has_one_result_everywhere(tmp_path: Path, run: Path) -> None:
    (tmp_path / "incoming").mkdir()
    port = free_port()
    with station(tmp_path, run, TOML.format(port=port)) as line:
        line.start()
        arrive(line, "A1.png", picture(1))
        arrive(line, "A2.png", picture(2, "missing"))
        arrive(line, "A3.png", picture(3)[:600])
        line.judged(3)
        answer = line.post(port, picture(4, "missing"), "?serial=A4&id=7")
        again = line.post(port, picture(4, "missing"), "?serial=A4&id=7")
        assert (answer.status, answer.json["outcome"], answer.json["action"]) == (
            200, "flagged", "reject",
        )  # fmt: skip
        assert again.json == answer.json
        assert line.post(port, b"").status == 422
        live = line.judged(4)
        assert live["counts"] == {"not flagged": 1, "review": 0, "flagged": 2, "not judged": 1}
        wait_until(lambda: line.live["last"][0]["heatmap"], "the pictures")
        shown = line.live["last"][0]
        with Image.open(tmp_path / "station" / shown["heatmap"]) as image:
            assert image.size == (64, 64)
        # what arrives while the station is down is judged at the start, and nothing twice
        assert line.stop() == 0, line.log
        arrive(line, "A5.png", picture(5))
        line.start()
        live = line.judged(5)
        time.sleep(1.0)
        assert sum(line.live["counts"].values()) == 5
        assert line.stop() == 0
    expected = {
        "A1": "not flagged", "A2": "flagged", "A3": "not judged", "A4": "flagged",
        "A5": "not flagged",
    }  # fmt: skip
    assert {one["serial"]: one["outcome"] for one in line.lines} == expected
    assert [one["seq"] for one in line.lines] == [1, 2, 3, 4, 5]
    rows = list(read_table(tmp_path / "results.csv"))
    assert [row.is_anomaly for row in rows].count(None) == 1
    assert [row.status for row in rows].count("error") == 1
    kept = sorted(path.name.partition("-")[2] for path in (tmp_path / "kept").rglob("0*"))
    assert kept == ["A2.png", "A3.png", "A4.png"]
    with Store(tmp_path / "review.db") as store:
        (found,) = store.runs()
        assert (found.images, found.flagged, found.not_judged) == (5, 2, 1)
        findings = store.findings(order="position")
        assert sorted(one.status for one in findings) == ["error", "ok", "ok"]
        assert {store.image(one.id).state for one in findings} == {"same"}


UNIT = """
[unit]
views = ["left", "right"]
seconds = 8
[[source]]
name = "left"
kind = "http"
port = {left}
[[source]]
name = "right"
kind = "http"
port = {right}
[[sink]]
kind = "stdout"
[[sink]]
kind = "table"
path = "results.csv"
"""


def test_views_of_a_unit_have_one_result_over_a_kill(tmp_path: Path, run: Path) -> None:
    left, right = free_port(), free_port()
    with station(tmp_path, run, UNIT.format(left=left, right=right)) as line:
        line.start()
        for serial, defect in (("A", None), ("B", "missing")):
            line.post(left, picture(1), f"?serial={serial}")
            line.post(right, picture(2, defect), f"?serial={serial}")
        line.judged(2)
        line.post(left, picture(3), "?serial=C")
        line.kill()
        line.start()
        line.post(right, picture(4), "?serial=C")
        line.judged(3)
        line.post(right, picture(5), "?serial=D")
        live = line.judged(4)
        assert line.stop() == 0
    units = {one["serial"]: (one["outcome"], len(one["views"])) for one in line.lines}
    assert units == {
        "A": ("not flagged", 2), "B": ("flagged", 2), "C": ("not flagged", 2),
        "D": ("not judged", 1),
    }  # fmt: skip
    assert live["per"] == "unit"
    assert live["last"][0]["error"] == "no view of left within 8 s"
    assert len(list(read_table(tmp_path / "results.csv"))) == 7


FAST = """
waiting = 2
[[source]]
name = "camera"
kind = "video"
address = "clip.avi"
[[sink]]
kind = "table"
path = "results.csv"
[[sink]]
kind = "folder"
path = "kept"
outcomes = ["flagged", "not judged"]
"""


def test_frames_of_a_video_are_judged_once_and_kept(tmp_path: Path, run: Path) -> None:
    files = picture(1), picture(2, "missing")
    frames = [np.asarray(Image.open(io.BytesIO(file))) for file in files]
    writer = cv2.VideoWriter(str(tmp_path / "clip.avi"), cv2.VideoWriter.fourcc(*"FFV1"), 10,
                             (64, 64))  # fmt: skip
    for number in range(12):
        writer.write(np.ascontiguousarray(frames[number % 6 == 0][..., ::-1]))
    writer.release()
    with station(tmp_path, run, FAST) as line:
        line.start()
        live = line.judged(12)
        line.kill()
        line.start()
        time.sleep(1.0)
        assert sum(line.live["counts"].values()) == 12
        assert line.stop() == 0
    assert live["counts"] == {"not flagged": 10, "review": 0, "flagged": 2, "not judged": 0}
    kept = sorted((tmp_path / "kept").rglob("*.png"))
    assert [np.array_equal(np.asarray(Image.open(path)), frames[1]) for path in kept] == [True] * 2


def test_check_says_of_each_part_whether_it_works(tmp_path: Path, run: Path, said: Said) -> None:
    line = Station(tmp_path, run, TOML.format(port=free_port()))
    line.file.write_text(f"detector = '{run}'\n{line.toml}")
    status, out, _ = said("run", "--check", line.file)
    assert status == 1
    assert "source folder (folder)" in out
    assert "FAILED: " in out.splitlines()[1]
    (tmp_path / "incoming").mkdir()
    tried = list(check_station(read_station(line.file)))
    assert [good for _, good, _ in tried] == [True] * 7, tried
    assert not (tmp_path / "station").exists()
    assert not (tmp_path / "review.db").exists()


def test_what_cannot_judge_or_is_running_is_refused(
    tmp_path: Path, run: Path, rank_only: Path, said: Said
) -> None:
    (tmp_path / "incoming").mkdir()
    line = Station(tmp_path, rank_only, TOML.format(port=free_port()))
    line.file.write_text(f"detector = '{rank_only}'\n{line.toml}")
    status, _, err = said("run", line.file)
    assert status == 1
    assert "a detector without a threshold found" in err
    shutil.rmtree(tmp_path / "station")
    with station(tmp_path, run, TOML.format(port=free_port())) as line:
        line.start()
        status, _, err = said("run", line.file)
        assert status == 1
        assert "another process runs this station" in err


@pytest.mark.skipif(find_mosquitto() is None, reason="mosquitto is not installed")
def test_three_kills_at_random_moments_lose_and_double_nothing(tmp_path: Path, run: Path) -> None:
    assert kill(tmp_path, run, rounds=3, seed=0, remove=True)["images"] > 0


def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    if (systemd := shutil.which("systemd-analyze")) is None:
        pytest.skip("systemd is not installed")
    unit = (ROOT / "docs/embed/anomaly-station@.service").read_text()
    assert "/opt/anomaly/bin/anomaly" in unit  # which has to be there
    file = tmp_path / "anomaly-station@.service"
    file.write_text(unit.replace("/opt/anomaly/bin/anomaly", sys.executable))
    done = subprocess.run([systemd, "verify", file], capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
