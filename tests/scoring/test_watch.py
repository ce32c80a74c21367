"""`anomaly score --watch` as a process: files that come slowly, in pieces, by rename, while it is
down; kills.
"""

from __future__ import annotations

import io
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import pytest
from PIL import Image

from anomaly.errors import AnomalyError
from anomaly.files.table import Row, read_table
from anomaly.imaging.listing import MARK
from anomaly.scoring.watch_table import mend
from data.synthetic import make
from tests.test_scorer import ROOT

# within which a row comes; others may be using the cores
SECOND = 1.0 if os.environ.get("ANOMALY_QUIET_MACHINE") else 3.0


def picture(seed: int, format: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(make("disc", 500 + seed, 64)[0]).save(file, format)
    return file.getvalue()


class Line:
    """A folder that is watched, the table, and the process that watches."""

    def __init__(self, run: Path, home: Path) -> None:
        self.run, self.folder, self.out, self.log = (
            run,
            home / "incoming",
            home / "t.csv",
            home / "log.txt",
        )
        self.folder.mkdir()
        self.process: subprocess.Popen[str] | None = None

    def start(self, *options: str, ready: bool = True) -> None:
        words = [
            "score",
            str(self.run),
            "--watch",
            str(self.folder),
            "--out",
            str(self.out),
            "--device",
            "cpu",
            *options,
        ]
        said = len(self.said())
        with open(self.log, "a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "anomaly", *words],
                cwd=ROOT,
                stdout=log,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        if ready:
            until(lambda: "watching" in self.said()[said:])

    def stop(self, number: int = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(30)

    def said(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    def rows(self) -> list[Row]:
        """The rows that are there now. The last one may be under way."""
        with suppress(AnomalyError):
            return list(read_table(self.out))
        return []

    def row(self, name: str, seconds: float = 90.0) -> Row:
        """Waits for the row of a file, and returns it."""
        found = until(lambda: [row for row in self.rows() if Path(row.path).name == name], seconds)
        assert len(found) == 1
        return found[0]


def until(look: Callable[[], object], seconds: float = 90.0) -> object:
    ends = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < ends, "it did not come"
        time.sleep(0.02)
    return found


@pytest.fixture
def line(run: Path, tmp_path: Path) -> Iterator[Line]:
    line = Line(run, tmp_path)
    yield line
    if line.process is not None and line.process.poll() is None:
        line.process.kill()
        line.process.wait()


@pytest.mark.parametrize("format", ["PNG", "JPEG", "BMP", "TIFF"])
def test_a_file_written_slowly_gets_one_row_when_it_is_closed(line: Line, format: str) -> None:
    line.start()
    data, name = picture(1, format), f"slow.{format.lower()}"
    with open(line.folder / name, "wb", buffering=0) as file:
        for start in range(0, len(data), len(data) // 4 + 1):
            file.write(data[start : start + len(data) // 4 + 1])
            time.sleep(0.4)
        assert line.rows() == []
    closed = time.time()
    row = line.row(name)
    assert row.status == "ok" and (row.width, row.height) == (64, 64)
    assert datetime.fromisoformat(row.scored_at).timestamp() - closed < SECOND
    assert line.stop() == 0 and len(line.rows()) == 1


def test_files_in_pieces_by_rename_and_by_link_are_judged_once_and_whole(line: Line) -> None:
    line.start()
    data = picture(2)
    for start in range(0, len(data), len(data) // 3 + 1):  # closed after each piece
        with open(line.folder / "pieces.png", "ab") as file:
            file.write(data[start : start + len(data) // 3 + 1])
        time.sleep(0.5)
    outside = line.folder.parent / "elsewhere.tmp"
    outside.write_bytes(picture(3))
    outside.rename(line.folder / "moved.png")
    hidden = line.folder / ".upload"
    hidden.write_bytes(picture(4))
    os.link(hidden, line.folder / "linked.png")
    hidden.unlink()
    (line.folder / "deep").mkdir()
    (line.folder / "deep" / "below.png").write_bytes(picture(5))
    for name in ("pieces.png", "moved.png", "linked.png", "below.png"):
        assert line.row(name).status == "ok"
    assert line.stop(signal.SIGINT) == 0
    assert sorted(Path(row.path).name for row in line.rows()) == [
        "below.png",
        "linked.png",
        "moved.png",
        "pieces.png",
    ]
    assert "4 images" in line.said() and "Traceback" not in line.said()


def test_what_never_becomes_whole_gets_an_error_row_and_what_changes_another_row(
    line: Line,
) -> None:
    line.start("--patience", "1")
    (line.folder / "half.png").write_bytes(picture(6)[:200])
    (line.folder / "a.png").write_bytes(picture(7))
    half = line.row("half.png")
    assert half.status == "error" and half.is_anomaly is None
    first = line.row("a.png")
    os.utime(line.folder / "a.png")  # touched: the same content
    time.sleep(1.5)
    assert len(line.rows()) == 2
    (line.folder / "a.png").write_bytes(picture(8))
    until(lambda: len(line.rows()) == 3)
    assert line.rows()[-1].path == first.path and line.rows()[-1].sha256 != first.sha256
    assert line.stop() == 3


def test_killed_at_random_moments_no_image_is_lost_and_none_doubled(line: Line) -> None:
    choose, wanted = random.Random(0), 0
    for round in range(6):
        line.start(ready=False)
        ends = time.monotonic() + choose.uniform(0.4, 1.6)
        while time.monotonic() < ends:
            # no two alike
            (line.folder / f"{wanted:03}.png").write_bytes(picture(wanted % 40) + bytes(wanted))
            wanted += 1
            time.sleep(0.02)
        assert line.process is not None
        line.process.kill()
        line.process.wait()
        if round % 2 and line.out.exists():
            with open(line.out, "ab") as table:  # a loss of power in the middle of a row
                table.write(b'incoming/"torn')
    (line.folder / "while-down.png").write_bytes(picture(41))
    line.start()
    until(lambda: len(line.rows()) >= wanted + 1)
    assert line.stop() == 0
    counts = Counter(Path(row.path).name for row in line.rows())
    assert counts == Counter([f"{number:03}.png" for number in range(wanted)] + ["while-down.png"])
    assert {row.status for row in line.rows()} == {"ok"}
    assert "half a row" in line.said()


def test_falling_behind_is_said_and_pictures_belong_to_rows(line: Line, tmp_path: Path) -> None:
    count = 2000  # more than the quickest machine judges in the second that an image may wait
    pictures = [picture(seed) for seed in range(40)]
    for number in range(count):
        (line.folder / f"{number:04}.png").write_bytes(pictures[number % 40] + bytes(number))
    line.start("--overlays", str(tmp_path / "overlays"), "--workers", "1")
    until(lambda: "behind: " in line.said())
    until(lambda: len(line.rows()) == count, 240)
    until(lambda: "no longer behind" in line.said())
    line.stop()
    names = [f"{number:08d}-{Path(row.path).stem}.jpg" for number, row in enumerate(line.rows())]
    assert sorted(os.listdir(tmp_path / "overlays")) == sorted([MARK, *names])


def paged(*seeds: int) -> bytes:
    file = io.BytesIO()
    first, *others = (Image.open(io.BytesIO(picture(seed))) for seed in seeds)
    first.save(file, "TIFF", save_all=True, append_images=others)
    return file.getvalue()


def test_pages_other_suffixes_and_none_get_rows_and_the_rest_is_counted(line: Line) -> None:
    (line.folder / "there.pgm").write_bytes(b"P5 64 64 255\n" + bytes(64 * 64))
    line.start("--patience", "1")
    (line.folder / "p.tif").write_bytes(paged(20, 21, 22))
    (line.folder / "bare").write_bytes(picture(23))
    (line.folder / "x.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(100))
    (line.folder / "note.txt").write_text("no image")
    (line.folder / ".x.png").write_bytes(picture(24))
    os.mkfifo(line.folder / "pipe")
    names = ["bare", "p.tif#1", "p.tif#2", "p.tif#3", "there.pgm", "x.heic"]
    until(lambda: sorted(Path(row.path).name for row in line.rows()) == names)
    assert {Path(row.path).name for row in line.rows() if row.status == "error"} == {"x.heic"}
    time.sleep(1.5)  # a look or two
    assert line.stop() == 3
    assert "passed over             1 .txt, 1 hidden file, 1 pipe or device" in line.said()
    line.start("--patience", "1")
    (line.folder / "a.png").write_bytes(picture(25))
    line.row("a.png")
    assert line.stop() == 3
    assert sorted(Path(row.path).name for row in line.rows()) == ["a.png", *names]


def test_pictures_in_the_watched_folder_are_not_judged(line: Line) -> None:
    line.start("--overlays", str(line.folder / "ov"), "--flagged", str(line.folder / "ov2"))
    for number in range(5):
        (line.folder / f"{number}.png").write_bytes(picture(number))
        line.row(f"{number}.png")
    time.sleep(2)
    assert len(line.rows()) == 5 and len(list((line.folder / "ov").glob("0*"))) == 5
    line.stop()
    assert "2 folders written by anomaly" in line.said()
    line.process = None
    words = [
        "score",
        str(line.run),
        "--watch",
        str(line.folder),
        "--out",
        str(line.out),
        "--overlays",
        str(line.folder),
    ]
    found = subprocess.run(
        [sys.executable, "-m", "anomaly", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 1 and "is the input" in found.stderr


@pytest.mark.parametrize("copied", [False, True])
def test_a_table_that_is_rotated_loses_and_doubles_nothing(line: Line, copied: bool) -> None:
    line.start()
    for number in range(6):
        (line.folder / f"{number}.png").write_bytes(picture(number))
        line.row(f"{number}.png")
        if number in (1, 3):  # as logrotate does
            former = line.out.with_name(f"t.csv.{number}")
            if copied:
                former.write_bytes(line.out.read_bytes())
                os.truncate(line.out, 0)
            else:
                line.out.rename(former)
            until(
                lambda number=number: (
                    line.said().count("moved away or emptied") == (number + 1) // 2
                )
            )
    assert line.stop() in (0, 3)
    assert "t.csv (2 rows; 4 in tables that were moved away)" in line.said()
    line.out.with_name("t.csv.1").rename(line.out.with_name("packed.csv"))
    line.start()
    (line.folder / "6.png").write_bytes(picture(6))
    line.row("6.png")
    line.stop()
    found = {
        name: [Path(row.path).name for row in read_table(line.out.with_name(name))]
        for name in ("packed.csv", "t.csv")
    }
    assert found == {"packed.csv": ["0.png", "1.png"], "t.csv": ["4.png", "5.png", "6.png"]}


def test_lines_on_standard_output_and_what_is_refused(
    line: Line, run: Path, tmp_path: Path
) -> None:
    words = [sys.executable, "-m", "anomaly", "score", str(run), "--watch"]
    (line.folder / "a.png").write_bytes(picture(9))
    process = subprocess.Popen(
        [*words, str(line.folder), "--out", "-"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert '"status": "ok"' in process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    assert "scored" in process.communicate(timeout=30)[1] and process.returncode == 0
    for given, why in (
        ([str(tmp_path / "none"), "--out", "t.csv"], "no folder found"),
        (
            [str(line.folder), "--out", str(tmp_path / "t.parquet")],
            "with --watch .csv or .jsonl expected",
        ),
        ([str(line.folder), "--out", str(tmp_path / "t.csv"), "--shard", "1/2"], "--shard found"),
    ):
        done = subprocess.run(
            [*words, *given], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == 1 and why in done.stderr and done.stderr.count("\n") == 1


def test_two_watchers_do_not_write_one_table_nor_two_detectors(line: Line, pixel_run: Path) -> None:
    (line.folder / "a.png").write_bytes(picture(10))
    line.start()
    line.row("a.png")
    first, line.process = line.process, None
    line.start(ready=False)
    assert line.process.wait(60) == 1 and "another process is writing this table" in line.said()  # type: ignore[attr-defined]
    line.process = first
    assert line.stop() == 0
    line.run = pixel_run
    line.start(ready=False)
    assert line.process.wait(60) == 1 and "choose another --out" in line.said()


@pytest.mark.parametrize(
    ("suffix", "rest"),
    [
        (".csv", b'a,"b\nc'),
        (".csv", b"a,b"),
        (".csv", b"\0\0\0"),
        (".jsonl", b'{"a": "b'),
        (".csv", b""),
    ],
)
def test_what_is_left_of_a_row_is_cut_off(tmp_path: Path, suffix: str, rest: bytes) -> None:
    path, whole = tmp_path / "t", b'x,"y\n""z"\n' if suffix == ".csv" else b'{"k": "\\""}\n'
    path.write_bytes(whole + rest)
    with open(path, "r+b") as table:
        assert mend(table, suffix) == len(rest)
    assert path.read_bytes() == whole
