"""The table of a station: each row once, over kills, and a new one where it was moved away."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from anomaly.errors import AnomalyError
from anomaly.files.table import read_table
from anomaly.station.lines import Table
from anomaly.station.live import read_live
from tests.support.stations import example


def numbers(path: Path) -> list[int]:
    with open(path, newline="") as file:
        return [int(row["seq"]) for row in csv.DictReader(file)]


def test_a_table_is_continued_after_its_last_whole_row(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    table = Table(path)
    assert table.open() is None
    table.send([example(1, serial="=A, 1"), example(2, "not judged"), example(3, "flagged")])
    table.close()
    whole = path.read_bytes()
    for cut in range(len(whole.splitlines(keepends=True)[-1])):
        path.write_bytes(whole[: len(whole) - cut])
        assert table.open() == (3 if cut == 0 else 2)
        table.send([example(4)] if cut == 0 else [example(3, "flagged"), example(4)])
        table.close()
        assert numbers(path) == [1, 2, 3, 4]
    rows = list(read_table(path))
    assert [row.is_anomaly for row in rows] == [False, None, True, False]
    assert [row.path for row in rows] == ["1.png", "2.png", "3.png", "4.png"]


@pytest.mark.parametrize("serial", ["0104\x1d21A7", "A\u2028B", "A\nB", 'A"B'])
def test_a_serial_number_may_hold_what_parts_lines(tmp_path: Path, serial: str) -> None:
    table = Table(tmp_path / "t.csv")
    table.open()
    table.send([example(1, serial=serial)])
    table.close()
    assert table.open() == 1
    table.close()


def test_a_table_that_is_moved_away_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    table = Table(path)
    table.open()
    table.send([example(1)])
    path.rename(tmp_path / "yesterday.csv")
    table.idle()
    table.send([example(2)])
    table.close()
    assert (numbers(tmp_path / "yesterday.csv"), numbers(path)) == ([1], [2])


def test_another_table_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("path,label\na.png,good")
    with pytest.raises(AnomalyError, match="another table found"):
        Table(path).open()
    assert path.read_text() == "path,label\na.png,good"
    with pytest.raises(AnomalyError, match=r"\.parquet found, \.csv expected"):
        Table(tmp_path / "t.parquet")


def test_a_folder_without_a_station_says_so(tmp_path: Path) -> None:
    with pytest.raises(AnomalyError, match=r"start it by anomaly run STATION\.toml"):
        read_live(tmp_path)
    (tmp_path / "live.json").write_text('{"format": 0}')
    with pytest.raises(AnomalyError, match="not the state of a station"):
        read_live(tmp_path)
