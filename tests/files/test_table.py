from __future__ import annotations

import csv
import json
import os
import string
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anomaly.errors import AnomalyError, RuntimeMissing
from anomaly.files.atomic import whole_file
from anomaly.files.table import (
    COLUMNS,
    RESULTS,
    SUFFIXES,
    Row,
    encode_rows,
    join_chunks,
    parquet_schema,
    printable,
    read_table,
    shortest,
    table_suffix,
)

GOOD = Row(
    path="good/0001.png",
    sha256="ab" * 32,
    width=300,
    height=200,
    score=0.4127,
    p_value=1 / 3,
    threshold=0.61,
    review_threshold=0.35,
    is_anomaly=False,
    result="review",
    box_x=10,
    box_y=20,
    box_w=30,
    box_h=40,
    area=1100,
    defect_type="scratch",
    type_score=0.9183,
    status="ok",
    error=None,
    detector="tiles@1 sha256:00ff",
    scored_at="2026-01-31T23:59:59.123Z",
)
UNREADABLE = Row(
    path='new, "odd"/ä\n.png',
    sha256=None,
    width=None,
    height=None,
    score=None,
    p_value=None,
    threshold=0.61,
    review_threshold=0.35,
    is_anomaly=None,
    result="not judged",
    box_x=None,
    box_y=None,
    box_w=None,
    box_h=None,
    area=None,
    defect_type=None,
    type_score=None,
    status="error",
    error="no such file",
    detector="tiles@1 sha256:00ff",
    scored_at="2026-01-31T23:59:59.124Z",
)


def write(path: Path, *chunks: list[Row]) -> Path:
    """Writes a table from parts, as a run does."""
    files = []
    for number, rows in enumerate(chunks):
        files.append(path.with_name(f"{path.stem}{number}{path.suffix}"))
        files[-1].write_bytes(encode_rows(rows, path.suffix))
    with whole_file(path) as file:
        join_chunks(files, path.suffix, file)
    return path


def test_csv_is_written_as_documented(tmp_path: Path) -> None:
    assert write(tmp_path / "t.csv", [GOOD, UNREADABLE]).read_text("utf-8") == (
        "path,sha256,width,height,score,p_value,threshold,review_threshold,is_anomaly,result,box_x,"
        "box_y,box_w,box_h,area,defect_type,type_score,status,error,detector,scored_at\n"
        f"good/0001.png,{'ab' * 32},300,200,0.4127,0.3333333333333333,0.61,0.35,false,review,10,20,"
        "30,40,1100,scratch,0.9183,ok,,tiles@1 sha256:00ff,2026-01-31T23:59:59.123Z\n"
        '"new, ""odd""/ä\n.png",,,,,,0.61,0.35,,not judged,,,,,,,,error,no such file,tiles@1 '
        "sha256:00ff,2026-01-31T23:59:59.124Z\n"
    )


def test_json_lines_are_written_as_documented(tmp_path: Path) -> None:
    assert write(tmp_path / "t.jsonl", [GOOD, UNREADABLE]).read_text("utf-8") == (
        f'{{"path": "good/0001.png", "sha256": "{"ab" * 32}", "width": 300, "height": 200, '
        '"score": 0.4127, "p_value": 0.3333333333333333, "threshold": 0.61, '
        '"review_threshold": 0.35, "is_anomaly": false, "result": "review", '
        '"box_x": 10, "box_y": 20, "box_w": 30, "box_h": 40, "area": 1100, '
        '"defect_type": "scratch", "type_score": 0.9183, "status": "ok", '
        '"error": null, "detector": "tiles@1 sha256:00ff", "scored_at": '
        '"2026-01-31T23:59:59.123Z"}\n'
        '{"path": "new, \\"odd\\"/ä\\n.png", "sha256": null, "width": null, "height": null, '
        '"score": null, "p_value": null, "threshold": 0.61, "review_threshold": 0.35, '
        '"is_anomaly": null, "result": "not judged", "box_x": null, '
        '"box_y": null, "box_w": null, "box_h": null, "area": null, '
        '"defect_type": null, "type_score": null, "status": "error", "error": '
        '"no such file", "detector": "tiles@1 sha256:00ff", "scored_at": '
        '"2026-01-31T23:59:59.124Z"}\n'
    )


def test_parquet_has_these_types(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    import pyarrow.parquet

    found = pyarrow.parquet.read_schema(write(tmp_path / "t.parquet", [GOOD]))
    assert found == parquet_schema()
    assert [str(field).removeprefix("pyarrow.Field<").removesuffix(">") for field in found] == [
        "path: string not null",
        "sha256: string",
        "width: int32",
        "height: int32",
        "score: float",
        "p_value: double",
        "threshold: float",
        "review_threshold: float",
        "is_anomaly: bool",
        "result: string",
        "box_x: int32",
        "box_y: int32",
        "box_w: int32",
        "box_h: int32",
        "area: int64",
        "defect_type: string",
        "type_score: float",
        "status: string not null",
        "error: string",
        "detector: string not null",
        "scored_at: timestamp[ms, tz=UTC] not null",
    ]


# Text that a table can hold: no lone surrogates (``printable`` removes them) and no NUL (no file
# name has it).
texts = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20
)
awkward = st.sampled_from(
    ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "'=1", "''", "'", " =1", '"', ",", ";", "\r\n"]
)
floats32 = st.floats(width=32, allow_nan=False, allow_infinity=False).map(shortest)
sizes = st.integers(0, 2**31 - 1)
milliseconds = st.integers(0, 999).map(lambda ms: f"2026-02-03T04:05:06.{ms:03}Z")
rows = st.builds(
    Row,
    texts | awkward,
    st.none() | st.text("0123456789abcdef", min_size=64, max_size=64),
    st.none() | sizes,
    st.none() | sizes,
    st.none() | floats32,
    st.none() | st.floats(0, 1),
    st.none() | floats32,
    st.none() | floats32,
    st.none() | st.booleans(),
    st.none() | st.sampled_from(RESULTS),
    *[st.none() | sizes] * 4,
    st.none() | st.integers(0, 2**40),
    st.none() | texts | awkward,
    st.none() | floats32,
    st.sampled_from(["ok", "outside", "error"]),
    st.none() | texts | awkward,
    texts | awkward,
    milliseconds,
)


@pytest.mark.parametrize("suffix", SUFFIXES)
@settings(max_examples=60, deadline=None)
@given(chunks=st.lists(st.lists(rows, min_size=1, max_size=4), max_size=4))
def test_what_was_written_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, chunks: list[list[Row]]
) -> None:
    path = write(tmp_path_factory.mktemp("table") / f"t{suffix}", *chunks)
    assert list(read_table(path)) == [row for chunk in chunks for row in chunk]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_where_it_was_cut_does_not_show(tmp_path: Path, suffix: str) -> None:
    table = [GOOD._replace(path=f"{i}.png", score=i / 8) for i in range(10)]
    whole = write(tmp_path / f"whole{suffix}", table)
    assert (
        write(tmp_path / f"cut{suffix}", table[:3], table[3:4], table[4:]).read_bytes()
        == whole.read_bytes()
    )


def test_parquet_row_groups_are_even(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    import pyarrow.parquet

    table = [GOOD._replace(area=i) for i in range(45_000)]
    path = write(tmp_path / "t.parquet", table[:15_000], table[15_000:30_000], table[30_000:])
    metadata = pyarrow.parquet.read_metadata(path)
    assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] == [
        20_000,
        20_000,
        5_000,
    ]
    assert [row.area for row in read_table(path)] == list(range(45_000))


def test_a_folder_named_like_a_partition_adds_no_column(tmp_path: Path) -> None:
    (tmp_path / "lot=7").mkdir()
    assert list(read_table(write(tmp_path / "lot=7" / "t.parquet", [GOOD]))) == [GOOD]


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "'=1"])
def test_no_cell_of_csv_starts_a_formula(tmp_path: Path, text: str) -> None:
    path = write(tmp_path / "t.csv", [GOOD._replace(path=text, error=text, detector=text)])
    with open(path, newline="") as file:
        cells = next(csv.DictReader(file))
    assert [cells["path"], cells["error"], cells["detector"]] == [f"'{text}"] * 3
    assert next(read_table(path)).path == text


def test_a_semicolon_does_not_part_a_cell(tmp_path: Path) -> None:
    # Where commas are decimal points a spreadsheet cuts at semicolons, and what follows would be a
    # formula.
    line = write(tmp_path / "t.csv", [GOOD._replace(path="a;=1+1.png")]).read_text().splitlines()[1]
    assert line.startswith('"a;=1+1.png",')


def test_numbers_of_csv_are_left_alone(tmp_path: Path) -> None:
    line = (
        write(tmp_path / "t.csv", [GOOD._replace(score=-1.5, threshold=-0.25)])
        .read_text()
        .splitlines()[1]
    )
    assert line.split(",")[4:7] == ["-1.5", "0.3333333333333333", "-0.25"]


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_the_shortest_form_is_the_same_float32(value: float) -> None:
    assert np.float32(shortest(value)) == np.float32(value)
    assert len(repr(shortest(value))) <= len(repr(value))


def test_the_shortest_form_keeps_the_order_at_a_threshold() -> None:
    threshold = np.float32(0.4127)
    above, below = np.nextafter(threshold, np.float32(1)), np.nextafter(threshold, np.float32(0))
    assert shortest(float(below)) < shortest(float(threshold)) < shortest(float(above))
    assert shortest(float(threshold)) == 0.4127


def test_bytes_that_are_not_utf8_are_percent_escaped() -> None:
    assert printable(os.fsdecode(b"a\xff\xc3(\xc3\xa4.png")) == "a%FF%C3(ä.png"
    assert printable("\ud83d") == "%ED%A0%BD"


@given(st.binary(max_size=20).map(os.fsdecode))
def test_every_file_name_can_be_written(name: str) -> None:
    printable(name).encode()


@pytest.mark.parametrize(
    ("encoding", "separator", "true", "comma"),
    [
        ("utf-8-sig", ",", "TRUE", "."),
        ("utf-8-sig", ";", "WAHR", ","),
        ("utf-16", "\t", "VRAI", ","),
        ("cp1252", ";", "VERDADERO", ","),
    ],
)
def test_a_table_that_excel_saved_again_is_the_same(
    tmp_path: Path, encoding: str, separator: str, true: str, comma: str
) -> None:
    false = {"TRUE": "FALSE", "WAHR": "FALSCH", "VRAI": "FAUX", "VERDADERO": "FALSO"}[true]
    flagged = GOOD._replace(path="ng/ü; 2.png", is_anomaly=True, score=1.5, p_value=2.5e-05)

    def cell(value: object) -> str:
        text = (
            ""
            if value is None
            else {True: true, False: false}.get(value)
            if isinstance(value, bool)
            else str(value)
        )
        text = text.replace(".", comma) if isinstance(value, float) else text
        return f'"{text}"' if separator in text else text

    lines = [
        separator.join(COLUMNS),
        *(separator.join(map(cell, row)) for row in (GOOD, flagged)),
        separator * 16,
    ]
    (tmp_path / "t.csv").write_bytes("".join(f"{line}\r\n" for line in lines).encode(encoding))
    found = list(read_table(tmp_path / "t.csv"))
    assert found == [GOOD, flagged._replace(path=found[1].path)]
    assert printable(found[1].path) == ("ng/%FC; 2.png" if encoding == "cp1252" else flagged.path)


def test_a_flag_that_is_no_truth_is_refused(tmp_path: Path) -> None:
    table = write(tmp_path / "t.csv", [GOOD])
    table.write_text(table.read_text("utf-8").replace(",false,", ",perhaps,"), "utf-8")
    with pytest.raises(AnomalyError, match="'perhaps' where true or false is expected"):
        list(read_table(table))


def test_a_table_of_another_suffix_is_refused() -> None:
    assert table_suffix(Path("T.CSV")) == ".csv"
    with pytest.raises(
        AnomalyError, match=r"^out/t\.xlsx: \.xlsx found, \.parquet, \.csv or \.jsonl expected for "
    ):
        table_suffix(Path("out/t.xlsx"))
    with pytest.raises(AnomalyError, match=r"^t: no suffix found"):
        table_suffix(Path("t"))


def test_parquet_without_pyarrow_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(
        RuntimeMissing, match=r"^a Parquet table .* pip install 'anomaly\[batch\]'$"
    ):
        table_suffix(Path("t.parquet"))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.csv", b""),
        ("t.csv", b"a,b\n1,2\n"),
        ("t.csv", (",".join(COLUMNS) + "\nx.png\n").encode()),
        ("t.csv", (",".join(COLUMNS) + "\nx.png,,wide" + "," * 14 + "\n").encode()),
        ("t.csv", b"\xff\xfe"),
        ("t.jsonl", b"{}\n"),
        ("t.jsonl", b"[1]\n"),
        ("t.jsonl", b'{"path": "x'),
        ("t.parquet", b"PAR1"),
    ],
)
def test_what_is_not_a_score_table_is_an_error(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(
        AnomalyError, match=r": not a score table, or a damaged one \(.*\): write it again$"
    ):
        list(read_table(path))


def test_json_lines_are_read_by_any_reader(tmp_path: Path) -> None:
    row = GOOD._replace(path="line\u2028separator\x85.png")
    lines = write(tmp_path / "t.jsonl", [row]).read_bytes().split(b"\n")
    assert json.loads(lines[0])["path"] == row.path
    assert lines[1:] == [b""]


def test_the_columns_are_these() -> None:
    # Other people's programs depend on them.
    assert " ".join(COLUMNS) == (
        "path sha256 width height score p_value threshold review_threshold is_anomaly result box_x "
        "box_y box_w box_h area defect_type type_score status error detector scored_at"
    )
    assert all(set(name) <= set(string.ascii_lowercase + string.digits + "_") for name in COLUMNS)
