"""Delimited text as Excel and Windows write it, byte by byte."""

from __future__ import annotations

import io
import os

import pytest

from anomaly.files.delimited import (
    decimal,
    encoding_of,
    existing_path,
    foreign_drive,
    path_variants,
    plain_text,
    read_delimited,
    read_lines,
    truth,
)

ROWS = [["path", "label"], ["a;b.png", "gut, neu"], ["ü.png", '1" x']]


def excel(separator: str, encoding: str, mark: bytes = b"") -> bytes:
    """Returns ROWS as Excel saves them: quoted where needed, CR LF, with its mark."""

    def cell(text: str) -> str:
        return (
            '"' + text.replace('"', '""') + '"'
            if any(c in text for c in f'{separator}"\n')
            else text
        )

    return mark + "".join(separator.join(map(cell, row)) + "\r\n" for row in ROWS).encode(encoding)


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize(
    ("encoding", "mark"),
    [
        ("utf-8", b""),
        ("utf-8", b"\xef\xbb\xbf"),
        ("utf-16-le", b"\xff\xfe"),
        ("utf-16-be", b"\xfe\xff"),
        ("utf-16-le", b""),
        ("utf-16-be", b""),
        ("utf-32-le", b"\xff\xfe\0\0"),
    ],
)
def test_every_separator_and_encoding(separator, encoding, mark):
    header, rows = read_delimited(io.BytesIO(excel(separator, encoding, mark)), ("path", "label"))
    assert [header, *(cells for _, cells in rows)] == ROWS


def test_a_line_that_tells_excel_the_separator_and_capitals():
    header, rows = read_delimited(
        io.BytesIO(b"sep=;\r\n Path;LABEL;Other\r\na,b.png;x;\r\n\r\n"), ("path", "label")
    )
    assert (header, list(rows)) == (["path", "label", "Other"], [(2, ["a,b.png", "x", ""])])


def test_rows_far_beyond_the_first_piece_are_read_and_the_file_stays_open():
    file = io.BytesIO(b"path\n" + b"".join(b"%06d.png\n" % i for i in range(50_000)))
    assert sum(1 for _ in read_delimited(file, ("path",)).rows) == 50_000
    assert not file.closed


def test_names_in_the_code_page_of_windows(tmp_path):
    raw = "Prüf\\ß.png".encode("cp1252").decode("utf-8", "surrogateescape")
    assert plain_text(raw) == "Prüf\\ß.png"
    (tmp_path / "Prüf").mkdir()
    (tmp_path / "Prüf" / "ß.png").touch()
    assert existing_path(tmp_path, raw) == "Prüf/ß.png"
    assert existing_path(tmp_path, "Prüf\\ß.png") == "Prüf/ß.png"
    assert existing_path(tmp_path, "no\\such.png") == "no\\such.png"
    (tmp_path / "no\\such.png").touch()
    (tmp_path / "no").mkdir()
    (tmp_path / "no" / "such.png").touch()
    # a name that is there as it stands is meant
    assert existing_path(tmp_path, "no\\such.png") == "no\\such.png"


@pytest.mark.skipif(os.sep != "/", reason="there are drives on Windows")
@pytest.mark.parametrize("path", ["C:\\a\\b.png", "d:/b.png", "\\\\server\\share\\a.png"])
def test_drives_of_windows_are_named(path):
    said = foreign_drive(path)
    assert (
        said is not None
        and "begins with a drive of Windows, which is not here: write paths relative" in said
    )


def test_what_begins_with_no_drive():
    assert [
        foreign_drive(path) for path in ("a/b.png", "/a.png", "sub\\a.png", "s3://c/d.png")
    ] == [None] * 4


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_list_that_excel_saved(encoding):
    text = 'a.png\r\n"b, c.png";\r\n\r\n"d ""e"".png"\r\nsub\\f.png,,\r\n'
    assert read_lines(text.encode(encoding)) == ["a.png", "b, c.png", 'd "e".png', "sub\\f.png"]
    assert path_variants("sub\\f.png") == ["sub\\f.png", "sub/f.png"]


def test_numbers_and_truth_in_other_languages():
    assert [decimal(cell) for cell in ("0,4127", "0.4127", "1,5E-05", "-3")] == [
        0.4127,
        0.4127,
        1.5e-05,
        -3.0,
    ]
    assert [
        truth(cell) for cell in ("true", "TRUE", "WAHR", "VRAI", "false", "FALSCH", "FAUX", "0")
    ] == [True] * 4 + [False] * 4
    for cell in ("maybe", "2"):
        with pytest.raises(ValueError, match="true or false"):
            truth(cell)
    with pytest.raises(ValueError, match="could not convert"):
        decimal("1.000,5")


def test_short_and_empty_heads():
    assert [encoding_of(head) for head in (b"", b"a", b"path\n", b"\xff\xfe")] == [
        "utf-8",
        "utf-8",
        "utf-8",
        "utf-16",
    ]
