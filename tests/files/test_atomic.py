"""Files that appear whole or not at all, and lines added in one write."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from anomaly.files.atomic import append_line, whole_file, write_atomically


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "whole.txt"
    path.write_bytes(b"old")
    with pytest.raises(ZeroDivisionError), whole_file(path) as file:
        file.write(b"half")
        raise ZeroDivisionError
    assert (path.read_bytes(), os.listdir(tmp_path)) == (b"old", ["whole.txt"])
    with whole_file(path) as file:
        file.write(b"new")
    assert (path.read_bytes(), os.listdir(tmp_path)) == (b"new", ["whole.txt"])


def test_a_file_and_its_folder_are_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    sync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: (synced.append(handle), sync(handle))[1])
    write_atomically(tmp_path / "a", b"new")
    assert ((tmp_path / "a").read_bytes(), len(synced)) == (b"new", 2 if os.name == "posix" else 1)


def test_lines_are_added(tmp_path: Path) -> None:
    append_line(tmp_path / "log", "one")
    append_line(tmp_path / "log", "two")
    assert (tmp_path / "log").read_text(encoding="utf-8") == "one\ntwo\n"
