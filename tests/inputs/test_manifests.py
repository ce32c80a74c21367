from __future__ import annotations

import base64
import csv
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from anomaly.errors import DatasetError
from anomaly.inputs.remote import Remote
from anomaly.inputs.source import File, Held, Refused, Source
from anomaly.inputs.sources import list_sources
from tests.attacks.corpus import encoded, picture

PNG = encoded(picture(), "PNG")


def listed(manifest: Path, limit: int = 1 << 20) -> list[Source]:
    return list(list_sources([manifest], limit=limit))


def write_csv(path: Path, *rows: tuple[str, ...]) -> Path:
    with open(path, "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        csv.writer(file).writerows(rows)
    return path


def test_paths_are_relative_to_the_manifest_and_may_be_urls_or_twice(tmp_path: Path) -> None:
    rows = [
        ("label", "path"),
        ("x", "a/1.png"),
        ("", "/b.png"),
        ("", "s3://bucket/c.png"),
        ("", "a/1.png"),
        ("", ""),
    ]
    first = File(str(tmp_path / "a" / "1.png"))
    nothing = Refused(
        f"{tmp_path}/list.csv#5",
        "missing",
        "no path and no bytes of an image in this row of the manifest",
    )
    expected = [first, File("/b.png"), Remote("s3://bucket/c.png"), first, nothing]
    assert listed(write_csv(tmp_path / "list.csv", *rows)) == expected
    table = pa.table({"path": [path or None for _, path in rows[1:]], "label": [1] * 5})
    pq.write_table(table, tmp_path / "list.parquet")
    assert [source.name for source in listed(tmp_path / "list.parquet")[:4]] == [
        source.name for source in expected[:4]
    ]
    assert isinstance(listed(tmp_path / "list.parquet")[4], Refused)


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_bytes(b'path\n=1+1.png\n"line\nbreak.png"\nnot \xff.png\n')
    found = [Path(source.name).name for source in listed(tmp_path / "list.csv")]
    assert found == ["=1+1.png", "line\nbreak.png", "not \udcff.png"]


def test_bytes_of_images(tmp_path: Path) -> None:
    text = base64.b64encode(PNG).decode()
    manifest = write_csv(
        tmp_path / "list.csv",
        ("bytes", "path"),
        (text, "a.png"),
        (text, ""),
        ("%%%", "b"),
        ("", "c.png"),
    )
    assert listed(manifest) == [
        Held(f"{manifest}#a.png", PNG),
        Held(f"{manifest}#2", PNG),
        Refused(
            f"{manifest}#b",
            "damaged",
            "bytes that are not base64 (Only base64 data is allowed): write the manifest again",
        ),
        File(str(tmp_path / "c.png")),
    ]
    assert [type(source) for source in listed(manifest, limit=100)] == [
        Refused,
        Refused,
        Refused,
        File,
    ]


@pytest.mark.parametrize("kind", ["struct", "binary", "path"])
def test_the_image_column_of_a_parquet_file(tmp_path: Path, kind: str) -> None:
    manifest = tmp_path / "train.parquet"
    images = {
        "struct": [
            {"bytes": PNG, "path": "a.png"},
            {"bytes": None, "path": "b.png"},
            {"bytes": None, "path": None},
        ],
        "binary": [PNG, b"", None],
        "path": ["b.png", None, "a.png"],
    }[kind]
    pq.write_table(pa.table({"image": images, "label": [0, 1, 0]}), manifest)
    expected: dict[str, list[type]] = {
        "struct": [Held, File, Refused],
        "binary": [Held, Refused, Refused],
        "path": [File, Refused, File],
    }
    assert [type(source) for source in listed(manifest)] == expected[kind]
    if kind == "struct":
        assert listed(manifest)[:2] == [
            Held(f"{manifest}#a.png", PNG),
            File(str(tmp_path / "b.png")),
        ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"columns none found, 'path', 'image' or 'bytes' expected among them$"),
        (
            "name,label\n",
            r"columns 'name', 'label' found, 'path', 'image' or 'bytes' expected among them$",
        ),
        ("path\n", r"no rows found, images expected$"),
        ("path,path\na,b\n", r"column 'path' found twice, once expected$"),
        ("path,label\na.png\n", r"line 2: 1 cells found, 2 expected$"),
        ('path\n"a.png', r"cannot be read as CSV \(unexpected end of data\)$"),
    ],
)
def test_what_is_no_manifest_is_an_error(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "list.csv").write_text(content)
    with pytest.raises(DatasetError, match=message):
        listed(tmp_path / "list.csv")
    (tmp_path / "list.parquet").write_text(content)
    with pytest.raises(DatasetError, match=r"list\.parquet: cannot be read as Parquet \("):
        listed(tmp_path / "list.parquet")
    with pytest.raises(
        DatasetError,
        match=r"none\.csv: cannot be read \(No such file or directory\), a manifest expected",
    ):
        listed(tmp_path / "none.csv")


@given(
    content=st.binary(max_size=200)
    | st.text(alphabet='path,image\n\r"\0=\ufeff\udcff/.:', max_size=80).map(os.fsencode)
)
@example(b"path\n\x00\n")
def test_anything_is_a_manifest_or_an_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    manifest = tmp_path_factory.mktemp("any") / "list.csv"
    for start in (b"", b"path\n", b"bytes,path\n"):
        manifest.write_bytes(start + content)
        try:
            assert all(source.name for source in listed(manifest))
        except DatasetError as error:
            assert str(error).startswith(str(manifest))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "cp1252"])
def test_manifests_as_excel_and_windows_write_them(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "ü.png").touch()
    (tmp_path / "list.csv").write_bytes(
        "name;path\r\nx, y;sub\\ü.png\r\nz;C:\\a.png\r\n".encode(encoding)
    )
    found = listed(tmp_path / "list.csv")
    assert found[0] == File(str(tmp_path / "sub" / "ü.png"))
    if os.sep == "/":
        assert isinstance(found[1], Refused) and "begins with a drive of Windows" in found[1].why
