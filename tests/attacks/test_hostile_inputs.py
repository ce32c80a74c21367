"""Everything in the corpus through the command itself: a row with a named error, and the others as
if it were not there.
"""

from __future__ import annotations

import csv
import io
import os
import re
import subprocess
import sys
import threading
import zipfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from anomaly.errors import ImageError
from anomaly.files.table import Row, printable, read_table
from anomaly.imaging.decode import decode
from anomaly.imaging.listing import file_and_page
from tests.attacks.corpus import encoded, picture, write_corpus
from tests.inputs.test_archives import write_tar, write_zip

ROOT = Path(__file__).parents[2]
PNG = encoded(picture(), "PNG")
MAX_KB = 450_000  # with ONNX Runtime and what two threads decode
PROGRAM = (
    "import sys; from anomaly.commands.main import main; status = main(sys.argv[1:])\n"
    "print('peak', open('/proc/self/status').read().split('VmHWM:')[1].split()[0]); "
    "sys.exit(status)"
)


@dataclass(frozen=True)
class Scored:
    status: int
    out: str
    rows: list[Row]

    @property
    def kinds(self) -> dict[str, int]:
        """How many errors of each kind the summary counts."""
        line = re.search(r"^not judged .*?: (.*); treat as not OK$", self.out, re.MULTILINE)
        found = [item.split(" ", 1) for item in line[1].split(", ")] if line else []
        return {kind: int(n) for n, kind in found if kind != "unlike the training images"}


def score(run: Path, *words: object, names: list[bytes] | None = None, folder: Path) -> Scored:
    """Runs the command in ``folder``, ``names`` on standard input, and returns the rows that it
    wrote, undated.
    """
    table = folder.parent / f"{folder.name}.csv"
    inputs = ["-", "-0"] if names is not None else []
    command = [
        sys.executable,
        "-c",
        PROGRAM,
        "score",
        run,
        *words,
        *inputs,
        "--out",
        table,
        "--force",
    ]
    done = subprocess.run(
        [str(word) for word in command],
        input=b"\0".join(names or []),
        cwd=folder,
        capture_output=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=300,
        check=False,
    )
    out, err = done.stdout.decode(), done.stderr.decode()
    assert "Traceback" not in err and "Warning" not in err
    assert int(re.search(r"^peak (\d+)$", out, re.MULTILINE)[1]) < MAX_KB  # type: ignore[index]
    return Scored(done.returncode, out, [row._replace(scored_at="") for row in read_table(table)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hostile") / "corpus"


@pytest.fixture(scope="module")
def corpus(folder: Path) -> dict[str, str]:
    """The outcome expected of every name in the folder."""
    return {path.name: outcome for path, outcome in write_corpus(folder).items()}


def why(path: Path) -> str:
    """Returns what decoding says is wrong, without the name."""
    with pytest.raises(ImageError) as error:
        decode(path)
    return str(error.value.__cause__)


def test_every_odd_image_has_its_row_and_harms_no_other(
    run: Path, folder: Path, corpus: dict[str, str]
) -> None:
    # these have more rows than one
    corpus = {name: outcome for name, outcome in corpus.items() if outcome != "several pages"}
    found = score(run, names=[os.fsencode(name) for name in corpus], folder=folder)
    assert found.status == 3
    assert [row.path for row in found.rows] == [printable(name) for name in corpus]
    for (name, outcome), row in zip(corpus.items(), found.rows, strict=True):
        if outcome.startswith("ok"):
            assert row.status in ("ok", "outside") and f"ok {row.width}x{row.height}" == outcome, (
                name
            )
        else:
            assert (row.status, row.is_anomaly, row.error) == (
                "error",
                None,
                printable(why(folder / name)),
            ), name
    assert found.kinds == Counter(
        outcome for outcome in corpus.values() if not outcome.startswith("ok")
    )
    good = [name for name, outcome in corpus.items() if outcome.startswith("ok")]
    alone = score(run, names=[os.fsencode(name) for name in good], folder=folder)
    assert alone.rows == [row for row in found.rows if row.status != "error"]


def test_a_search_of_the_folder_ends_and_finds_each_file_once(
    run: Path, folder: Path, corpus: dict[str, str]
) -> None:
    found = score(run, ".", folder=folder)
    expected = {printable(name) for name in corpus if name not in ("folder.png", "never_there.png")}
    files = Counter(file_and_page(row.path)[0] for row in found.rows)
    assert set(files) == expected
    assert {name for name, rows in files.items() if rows > 1} == {
        k for k, v in corpus.items() if v == "several pages"
    }


def test_names_in_the_table_are_no_formulas(
    run: Path, folder: Path, corpus: dict[str, str]
) -> None:
    names = ["=1+1.png", "-rf.png", "@cmd.png", "line\nbreak.png", "tab\t.png"]
    found = score(run, names=[name.encode() for name in names], folder=folder)
    text = (folder.parent / f"{folder.name}.csv").read_text(encoding="utf-8")
    cells = [cells[0] for cells in csv.reader(io.StringIO(text))][1:]
    assert cells == ["'=1+1.png", "'-rf.png", "'@cmd.png", "line\nbreak.png", "tab\t.png"]
    assert [row.path for row in found.rows] == names


def test_archives_write_nowhere_and_bombs_do_not_go_off(run: Path, tmp_path: Path) -> None:
    inside = tmp_path / "in" / "side"
    inside.mkdir(parents=True)
    members = {
        "../../evil.png": PNG,
        "/etc/evil.png": PNG,
        "=1+1.png": PNG,
        "bomb.png": bytes(30_000_000),
        "b.png": PNG,
    }
    write_zip(inside / "x.zip", members)
    write_tar(inside / "x.tar.gz", members, "gz")
    (inside / "cut.zip").write_bytes((inside / "x.zip").read_bytes()[:1000])
    with zipfile.ZipFile(inside / "nested.zip", "w") as archive:
        archive.writestr("x.zip", PNG)
        archive.writestr("x.png", (inside / "x.zip").read_bytes())
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    archives = ["x.zip", "x.tar.gz", "cut.zip", "nested.zip"]
    found = score(
        run,
        *archives,
        "--flagged",
        "flagged",
        "--overlays",
        "overlays",
        "--max-pixels",
        1_000_000,
        folder=inside,
    )
    assert [(row.path.split("::")[0], row.status == "error") for row in found.rows] == [
        *((f"zip://{name}", name == "bomb.png") for name in members),
        *((f"tar://{name}", False) for name in list(members)[:3]),
        ("x.tar.gz", True),
        ("cut.zip", True),
        ("zip://x.zip", False),
        ("zip://x.png", True),  # the content decides what is an image
    ]
    assert found.kinds == {"too large": 2, "damaged": 1, "not an image": 1}
    written = {
        path for path in tmp_path.rglob("*") if before.get(path) != path.stat().st_mtime_ns
    } - {inside, tmp_path / "in"}
    allowed = {inside / "flagged", inside / "overlays"}
    assert all(
        path in allowed or path.parent in allowed or path == tmp_path / "in" / "side.csv"
        for path in written
    )


def test_files_that_come_and_go_while_they_are_read(run: Path, tmp_path: Path) -> None:
    inside = tmp_path / "in"
    inside.mkdir()
    paths = [inside / f"{number:03}.png" for number in range(200)]
    for path in paths:
        path.write_bytes(PNG)
    stop = threading.Event()

    def come_and_go() -> None:
        while not stop.is_set():
            for path in paths[::2]:
                path.rename(path.with_suffix(".away"))
            for path in paths[::2]:
                path.with_suffix(".away").rename(path)

    other = threading.Thread(target=come_and_go)
    other.start()
    try:
        found = score(run, names=[path.name.encode() for path in paths], folder=inside)
    finally:
        stop.set()
        other.join()
    assert [row.path for row in found.rows] == [path.name for path in paths]
    assert {row.error for row in found.rows if row.status == "error"} <= {"no such file"}
    assert {row.sha256 for row in found.rows[1::2]} == {found.rows[1].sha256} != {None}
