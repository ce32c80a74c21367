"""The table of a watch, moved, emptied, removed and replaced by other programs."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from anomaly.errors import AnomalyError
from anomaly.files.table import COLUMNS, Row, read_table
from anomaly.scoring.watch_table import GrowingTable

IDENTITY = "run@1 sha256:00ff"


def row(path: Path, detector: str = IDENTITY) -> Row:
    values = dict.fromkeys(COLUMNS) | {
        "path": str(path),
        "sha256": "ab" * 32,
        "status": "ok",
        "detector": detector,
    }
    return Row(**{**values, "scored_at": "2026-01-31T23:59:59.123Z"})  # type: ignore[arg-type]


@pytest.fixture(params=[".csv", ".jsonl"])
def out(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tmp_path / f"today{request.param}"


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{number}.png" for number in range(6)]
    for path in paths:
        path.write_bytes(b"x")
    return paths


@pytest.fixture
def table(out: Path) -> Iterator[GrowingTable]:
    said: list[str] = []
    table = GrowingTable(out, IDENTITY, said.append)
    assert table.open(force=False)
    yield table
    table.close()


def paths(*tables: Path) -> list[str]:
    return [Path(one.path).name for table in tables for one in read_table(table)]


def again(out: Path) -> tuple[set[str], int, int]:
    """What a new start remembers: the images of former tables, how many rows these had, and how
    many are here.
    """
    table = GrowingTable(out, IDENTITY, print)
    table.open(force=False)
    try:
        former = {Path(path).name for path, _ in table.remembered()}
        rows = len(list(table.read()))
        return former, table.before, rows
    finally:
        table.close()


def moved(out: Path) -> Path:
    return out.rename(out.with_name("moved" + out.suffix))


def copied_and_emptied(out: Path) -> Path:
    copy = out.with_name("moved" + out.suffix)
    shutil.copy(out, copy)
    with open(out, "r+b") as file:
        file.truncate(0)
    return copy


def moved_and_made(out: Path) -> Path:
    copy = moved(out)
    out.touch()
    return copy


@pytest.mark.parametrize("rotate", [moved, copied_and_emptied, moved_and_made])
def test_rows_follow_the_name_and_none_is_lost_or_doubled(
    table: GrowingTable, out: Path, images: list[Path], rotate: Callable[[Path], Path]
) -> None:
    table.append([row(path) for path in images[:3]])
    former = rotate(out)
    table.append([row(path) for path in images[3:5]])
    table.append([row(images[5])])
    assert paths(former) == ["0.png", "1.png", "2.png"] and paths(out) == [
        "3.png",
        "4.png",
        "5.png",
    ]
    assert (table.rows, table.moved) == (3, 3)
    table.close()
    former.unlink()  # packed by now, or on another disk
    assert again(out) == ({"0.png", "1.png", "2.png"}, 3, 3)


def test_rotated_again_and_again(table: GrowingTable, out: Path, images: list[Path]) -> None:
    for number, path in enumerate(images):
        table.append([row(path)])
        out.rename(out.with_name(f"{number}{out.suffix}"))
    table.look()
    table.close()
    assert paths(out) == [] and again(out) == ({path.name for path in images}, 6, 0)


def test_a_table_that_was_removed_is_begun_anew(
    table: GrowingTable, out: Path, images: list[Path]
) -> None:
    table.append([row(images[0])])
    out.unlink()
    table.look()
    assert paths(out) == [] and table.moved == 1
    table.append([row(images[1])])
    assert paths(out) == ["1.png"]


def test_a_table_that_an_editor_has_saved_anew_holds_its_rows(
    table: GrowingTable, out: Path, images: list[Path]
) -> None:
    table.append([row(path) for path in images[:3]])
    copy = out.with_name("copy")
    # and the last row was taken out
    copy.write_bytes(b"".join(out.read_bytes().splitlines(keepends=True)[:-1]))
    copy.replace(out)
    table.append([row(images[3])])
    assert paths(out) == ["0.png", "1.png", "3.png"] and (table.rows, table.moved) == (3, 1)
    table.close()
    assert again(out) == ({"2.png"}, 1, 3)


def test_a_table_of_another_detector_in_its_place_is_refused(
    table: GrowingTable, out: Path, images: list[Path]
) -> None:
    other = GrowingTable(out.with_name("other" + out.suffix), "other@1 sha256:0011", print)
    other.open(force=False)
    other.append([row(images[0], "other@1 sha256:0011")])
    other.close()
    out.with_name("other" + out.suffix).replace(out)
    with pytest.raises(
        AnomalyError, match=r"rows of other@1 .* found, of run@1 sha256:00ff expected"
    ):
        table.append([row(images[1])])


def test_what_is_gone_since_need_not_be_remembered_but_is_counted(
    table: GrowingTable, out: Path, images: list[Path]
) -> None:
    table.append(
        [row(path) for path in [*images, out.parent / "page.tif#2", out.parent / "gone.tif#1"]]
    )
    (out.parent / "page.tif").write_bytes(b"x")
    moved(out)
    table.look()
    table.close()
    images[0].unlink()
    for _ in range(3):
        assert again(out) == ({"page.tif#2", *(path.name for path in images[1:])}, 8, 0)
    with open(out.with_name(f".{out.name}.before"), "a") as file:
        file.write('{"path": "hal')  # a loss of power
    assert again(out)[1] == 8


def test_force_forgets_all(table: GrowingTable, out: Path, images: list[Path]) -> None:
    table.append([row(images[0])])
    moved(out)
    table.look()
    table.close()
    anew = GrowingTable(out, IDENTITY, print)
    assert anew.open(force=True)
    assert list(anew.remembered()) == [] and list(anew.read()) == []
    anew.close()


def test_two_writers_are_refused(table: GrowingTable, out: Path) -> None:
    with pytest.raises(AnomalyError, match="another process is writing this table"):
        GrowingTable(out, IDENTITY, print).open(force=False)


def test_a_full_disk_names_the_table(small_disk: Path, images: list[Path]) -> None:
    out = small_disk / "today.csv"
    table = GrowingTable(out, IDENTITY, print)
    table.open(force=False)
    (small_disk / "filler").write_bytes(b"x" * 180_000)
    with pytest.raises(
        AnomalyError,
        match=r"today\.csv: no room left \(No space left on device\); no image is lost",
    ):
        table.append([row(images[0])] * 2000)
    table.close()
