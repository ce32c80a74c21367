from __future__ import annotations

import os
import zipfile
from pathlib import Path

from anomaly.inputs.source import File, Held
from anomaly.inputs.sources import list_sources
from anomaly.inputs.stamps import stamp_of


def test_a_file_that_was_replaced_has_another_stamp(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(b"1")
    before = stamp_of(File(str(file)))
    assert stamp_of(File(str(file))) == before
    os.utime(file, ns=(1, 1))
    assert stamp_of(File(str(file))) != before
    file.unlink()
    assert stamp_of(File(str(file))) == "missing"


def test_a_member_has_the_stamp_of_its_archive(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("b.png", b"x")
    (source,) = list_sources([tmp_path / "a.zip"])
    assert stamp_of(source) == stamp_of(File(str(tmp_path / "a.zip")))


def test_bytes_that_came_with_a_list_have_that_of_their_content() -> None:
    assert stamp_of(Held("a", b"1")) == stamp_of(Held("b", b"1")) != stamp_of(Held("a", b"2"))


def test_nothing_is_asked_of_an_address_or_an_odd_name() -> None:
    assert stamp_of(File("https://example.com/a.png")) == ""
    assert stamp_of(File("a\0b")) == "missing"
