from __future__ import annotations

import hashlib
import os
import re
import subprocess
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from anomaly.errors import AnomalyError
from anomaly.files.table import read_table
from anomaly.imaging.listing import MARK
from anomaly.inputs.source import Held
from anomaly.inputs.sources import list_sources
from anomaly.reporting.scoring import summary_text
from anomaly.scorer import Scorer
from anomaly.scoring.batch import RunOptions, score_table
from anomaly.scoring.pictures import OURS, Pictures, _name
from tests.scoring.test_batch import Brightness, Stop, card, picture, stopping, threads


@pytest.fixture
def inputs(tmp_path: Path) -> list[Path]:
    """Eight images, of which numbers 1, 3 and 6 are stopped; number 5 is none; names that are alike
    or hostile.
    """
    folder = tmp_path / "in"
    names = [
        "a/x.png",
        "b/x.png",
        "c.png",
        "=1+1.png",
        "ü\n.png",
        "none.png",
        "x" * 250 + ".png",
        "z.png",
    ]
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        picture(folder / name, 240 if number in (1, 3, 6) else 100)
    (folder / "none.png").write_text("no image")
    return [folder / name for name in names]


FLAGGED = ["00000001-x.png", "00000003-_1_1.png", f"00000006-{'x' * 50}.png"]


def files(folder: Path) -> list[str]:
    """The names in a folder, but for the mark that its pictures are no images to judge."""
    return sorted(set(os.listdir(folder)) - {MARK})


def test_flagged_images_are_copied_under_names_of_their_own(
    tmp_path: Path, inputs: list[Path]
) -> None:
    out = tmp_path / "flagged"
    score_table(
        Brightness(), inputs, tmp_path / "t.csv", options=RunOptions(pictures=Pictures(flagged=out))
    )
    assert files(out) == FLAGGED
    rows = list(read_table(tmp_path / "t.csv"))
    for name in FLAGGED:
        row = rows[int(name[:8])]
        assert (
            row.is_anomaly and row.sha256 == hashlib.sha256((out / name).read_bytes()).hexdigest()
        )
    assert sum(row.is_anomaly is True for row in rows) == len(FLAGGED)


def test_links_lead_to_files_and_what_is_in_an_archive_is_copied(
    tmp_path: Path, inputs: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.write(inputs[1], "../../../evil.png")
    monkeypatch.chdir(tmp_path)
    sources = list_sources(["in/b/x.png", "x.zip"])
    score_table(
        Brightness(),
        sources,
        Path("t.csv"),
        options=RunOptions(pictures=Pictures(Path("flagged"), link=True)),
    )
    assert files(tmp_path / "flagged") == ["00000000-x.png", "00000001-evil.png"]
    assert (tmp_path / "flagged" / "00000000-x.png").readlink() == inputs[1]
    assert not (tmp_path / "flagged" / "00000001-evil.png").is_symlink()
    assert (tmp_path / "flagged" / "00000001-evil.png").read_bytes() == inputs[1].read_bytes()


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("../../up.png", "00000000-up.png"),
        ("/", "00000000-.png"),
        ("..", "00000000-...png"),
        ("a\\..\\b.png", "00000000-b.png"),
        ("zip://../x/y.png::z.zip", "00000000-y.png"),
        ("s3://bucket/a b?c=d.png", "00000000-a_b_c_d.png"),
        ("not \udcff.jpg", "00000000-not__.png"),
        ("é" * 300, f"00000000-{'é' * 50}.png"),
        ("nul\0.png", "00000000-nul_.png"),
    ],
)
def test_no_name_leads_out_of_the_folder(
    tmp_path: Path, inputs: list[Path], name: str, written: str
) -> None:
    source = Held(name, inputs[1].read_bytes())
    score_table(
        Brightness(),
        [source],
        tmp_path / "t.csv",
        options=RunOptions(pictures=Pictures(tmp_path / "flagged")),
    )
    assert files(tmp_path / "flagged") == [written]


def test_heatmaps_and_overlays_of_a_detector(tmp_path: Path, run: Path, parts: Path) -> None:
    images = sorted((parts / "test").rglob("*.png"))[:5]
    wanted = Pictures(heatmaps=tmp_path / "heatmaps", overlays=tmp_path / "overlays")
    scorer = Scorer(run)
    score_table(
        scorer,
        [*images, tmp_path / "none.png"],
        tmp_path / "t.csv",
        options=RunOptions(pictures=wanted),
    )
    for number, path in enumerate(images):
        with Image.open(tmp_path / "heatmaps" / f"{number:08d}-{path.stem}.tif") as stored:
            assert stored.mode == "F"
            np.testing.assert_array_equal(np.asarray(stored), scorer.score(path).heatmap)
        with (
            Image.open(tmp_path / "overlays" / f"{number:08d}-{path.stem}.jpg") as stored,
            Image.open(path) as original,
        ):
            assert stored.size == original.size
    assert len(files(tmp_path / "heatmaps")) == len(files(tmp_path / "overlays")) == 5


def test_pictures_of_a_killed_run_end_like_those_of_a_whole_one(
    tmp_path: Path, inputs: list[Path]
) -> None:
    out = tmp_path / "flagged"
    with pytest.raises(Stop):
        score_table(
            Brightness(),
            stopping(inputs, 5),
            tmp_path / "t.csv",
            options=RunOptions(threads(1), Pictures(out), chunk_rows=2),
        )
    (out / ".00000003-_1_1.png.123.tmp").write_bytes(b"half")
    (out / FLAGGED[2]).write_bytes(b"of a row that was not safe yet")
    score_table(
        Brightness(), inputs, tmp_path / "t.csv", options=RunOptions(pictures=Pictures(out))
    )
    assert files(out) == FLAGGED
    assert [(out / name).read_bytes() for name in FLAGGED] == [
        inputs[number].read_bytes() for number in (1, 3, 6)
    ]


def test_a_run_that_is_gone_on_with_has_the_same_pictures(
    tmp_path: Path, inputs: list[Path]
) -> None:
    with pytest.raises(Stop):
        score_table(
            Brightness(),
            stopping(inputs, 5),
            tmp_path / "t.csv",
            options=RunOptions(chunk_rows=2, engine=threads(1)),
        )
    with pytest.raises(
        AnomalyError, match=r"an unfinished run with pictures .* found, this one has pictures"
    ):
        score_table(
            Brightness(),
            inputs,
            tmp_path / "t.csv",
            options=RunOptions(pictures=Pictures(tmp_path / "flagged")),
        )
    assert not (tmp_path / "flagged").exists()


def test_pictures_go_into_an_empty_folder_and_force_removes_only_ours(
    tmp_path: Path, inputs: list[Path]
) -> None:
    out = Pictures(tmp_path / "flagged")
    score_table(Brightness(), inputs, tmp_path / "t.csv", options=RunOptions(pictures=out))
    with pytest.raises(
        AnomalyError,
        match=r"flagged: 00000001-x\.png found, an empty folder expected: choose another, or",
    ):
        score_table(Brightness(), inputs, tmp_path / "u.csv", options=RunOptions(pictures=out))
    score_table(
        Brightness(), inputs[:3], tmp_path / "t.csv", options=RunOptions(pictures=out, force=True)
    )
    assert files(tmp_path / "flagged") == FLAGGED[:1]
    (tmp_path / "flagged" / "thesis.txt").write_text("only copy")
    with pytest.raises(AnomalyError, match=r"flagged: thesis\.txt found, an empty folder expected"):
        score_table(
            Brightness(), inputs, tmp_path / "t.csv", options=RunOptions(pictures=out, force=True)
        )
    assert files(tmp_path / "flagged") == [*FLAGGED[:1], "thesis.txt"]


def test_what_cannot_be_written_is_said_before_the_work(tmp_path: Path, inputs: list[Path]) -> None:
    (tmp_path / "file").write_text("")
    cases = [
        (
            Brightness(),
            Pictures(tmp_path / "file"),
            r"file: a file found, a folder to write pictures into expected",
        ),
        (
            Brightness(),
            Pictures(overlays=tmp_path / "none" / "x"),
            r"none: no such folder; make it first, or choose another",
        ),
        (
            Brightness(),
            Pictures(tmp_path / "x", overlays=tmp_path / "in" / ".." / "x"),
            r"one folder found twice, a folder for",
        ),
        (
            Brightness(card(threshold=None)),
            Pictures(tmp_path / "x"),
            r"--flagged: this detector ranks only and flags nothing",
        ),
    ]
    for scorer, pictures, message in cases:
        with pytest.raises(AnomalyError, match=message):
            score_table(scorer, inputs, tmp_path / "t.csv", options=RunOptions(pictures=pictures))
    assert files(tmp_path) == ["file", "in"]


def test_a_full_disk_in_the_middle_of_the_pictures_loses_nothing(
    small_disk: Path, tmp_path: Path, inputs: list[Path]
) -> None:
    out, paths = small_disk / "flagged", [inputs[1]] * 300
    (small_disk / "filler").write_bytes(b"x" * 60_000)
    with pytest.raises(
        AnomalyError,
        match=r"flagged/0.*\.png: no room left to write it .*: make room and run the same",
    ):
        score_table(
            Brightness(),
            paths,
            tmp_path / "t.csv",
            options=RunOptions(chunk_rows=10, pictures=Pictures(out)),
        )
    assert 0 < len(files(out)) < 300 and {path.name for path in out.glob(".*")} == {MARK}
    subprocess.run(["mount", "-o", "remount,size=4m", str(small_disk)], check=True)
    assert (
        score_table(
            Brightness(),
            paths,
            tmp_path / "t.csv",
            options=RunOptions(chunk_rows=10, pictures=Pictures(out)),
        ).resumed
        > 0
    )
    assert len(files(out)) == 300
    assert {(out / name).read_bytes() for name in files(out)} == {inputs[1].read_bytes()}


def listed(*inputs: Path | str) -> tuple[list[str], dict[str, int]]:
    passed = Counter[str]()
    return [
        Path(source.name).name for source in list_sources(list(map(str, inputs)), passed=passed)
    ], passed


@pytest.mark.parametrize("through", ["", "link"])
def test_pictures_among_the_inputs_are_never_judged(
    tmp_path: Path, inputs: list[Path], through: str
) -> None:
    home = tmp_path / "in"
    if through:  # the same folders by another name
        (tmp_path / "link").symlink_to(home)
    out = (tmp_path / "link" if through else home / "a" / "..") / "flagged"
    expected, nothing = listed(home)
    assert nothing == {}
    for name, force in (("t.csv", False), ("u.csv", True), ("v.csv", True)):
        passed = Counter[str]()
        sources = list_sources([str(home)], passed=passed)
        summary = score_table(
            Brightness(),
            sources,
            home / name,
            options=RunOptions(pictures=Pictures(out), force=force, chunk_rows=2),
            passed=passed,
        )
        # and t.csv.chunks
        assert summary.images == 8 and summary.passed_over["folder written by anomaly"] == 2
        assert "2 folders written by anomaly" in summary_text(summary)
    assert len(files(out)) == 3
    assert listed(home) == (expected, {"folder written by anomaly": 1, ".csv": 3})
    assert len(listed(out)[0]) == 3  # named itself, it is judged


def test_pictures_into_the_input_itself_are_refused(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "link").symlink_to("in")
    for folder in (tmp_path / "in", tmp_path / "link", tmp_path / "x" / ".." / "in"):
        with pytest.raises(
            AnomalyError, match=r"^--overlays .*: is the input .*in itself; another folder expected"
        ):
            Pictures(overlays=folder).check_apart([str(tmp_path / "in")])
    Pictures(overlays=tmp_path / "in" / "ov").check_apart([str(tmp_path / "in"), "-", "s3://x/y"])


def test_a_folder_with_images_of_others_is_not_marked_as_ours(tmp_path: Path) -> None:
    home = tmp_path / "photos"
    home.mkdir()
    picture(home / "a.png", 100)
    Pictures(overlays=home).go_on(0)
    assert not (home / MARK).exists() and (home / "a.png").exists()
    (tmp_path / "t.csv.chunks").mkdir()
    picture(tmp_path / "t.csv.chunks" / "b.png", 100)
    with pytest.raises(AnomalyError, match=r"t\.csv\.chunks: b\.png found"):
        score_table(Brightness(), [], tmp_path / "t.csv")
    assert listed(tmp_path)[0] == ["a.png", "b.png"]


@given(name=st.text(max_size=400) | st.text(alphabet="./\\:\0\udcffa", max_size=40))
def test_any_name_makes_one_file_in_the_folder(name: str) -> None:
    written = _name(7, Held(name, b""), ".png")
    assert (
        written == os.path.basename(written)
        and OURS.fullmatch(written)
        and len(os.fsencode(written)) < 240
    )
    assert re.fullmatch(r"00000007-[^/\\\0\n]*\.png", written)
