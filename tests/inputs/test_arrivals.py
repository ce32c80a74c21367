"""Arrivals: which files are whole, by a clock that the tests set; and who tells of them."""

from __future__ import annotations

import os
import time
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from anomaly.errors import AnomalyError, DatasetError
from anomaly.inputs.arrivals import CHANGED, CLOSED, FOUND, GONE, SETTLED, SURE, Arrivals
from anomaly.inputs.watcher import Watcher, check_folders, drained

PATIENCE = 10.0


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a.png"
    path.write_bytes(b"half")
    return path


@pytest.fixture
def arrivals() -> Arrivals:
    return Arrivals(PATIENCE)


def test_a_file_that_no_event_tells_of_is_read_when_it_has_settled(
    arrivals: Arrivals, file: Path
) -> None:
    arrivals.found(str(file), now=0.0)
    assert arrivals.take(SETTLED / 2) is None
    file.write_bytes(b"half and more")
    assert arrivals.take(SETTLED) is None  # it has changed: it settles anew
    taken = arrivals.take(2 * SETTLED)
    assert taken is not None and (taken.path, taken.closed, taken.last) == (str(file), False, False)
    assert arrivals.take(100.0) is None  # somebody has it


def test_a_closed_file_is_read_at_once_and_one_that_is_written_waits_for_that(
    arrivals: Arrivals, file: Path
) -> None:
    arrivals.told(FOUND, str(file), 0.0)
    arrivals.told(CHANGED, str(file), 0.1)
    assert arrivals.take(0.1 + PATIENCE - 0.01) is None
    arrivals.told(CLOSED, str(file), 5.0)
    taken = arrivals.take(5.0)
    assert taken is not None and taken.closed


def test_a_file_that_is_never_closed_is_read_after_the_patience(
    arrivals: Arrivals, file: Path
) -> None:
    arrivals.told(CHANGED, str(file), 0.0)
    taken = arrivals.take(PATIENCE)
    assert taken is not None and taken.last and not taken.closed


def test_what_does_not_decode_is_read_again_at_doubling_gaps_until_the_patience_ends(
    arrivals: Arrivals, file: Path
) -> None:
    arrivals.found(str(file), 0.0)
    now, reads = 0.0, []
    while not reads or not reads[-1][1]:
        if taken := arrivals.take(now):
            reads.append((round(now, 2), taken.last))
            arrivals.not_yet(taken, now, decodes=False)
        now += 0.01
    assert [last for _, last in reads] == [False] * (len(reads) - 1) + [True]
    assert 4 <= len(reads) <= 8 and reads[-1][0] == pytest.approx(PATIENCE, abs=0.02)


def test_what_decodes_without_an_end_mark_is_taken_when_it_is_sure(
    arrivals: Arrivals, file: Path
) -> None:
    arrivals.found(str(file), 0.0)
    first = arrivals.take(SETTLED)
    assert first is not None
    arrivals.not_yet(first, SETTLED, decodes=True)
    assert arrivals.take(SURE - 0.01) is None
    second = arrivals.take(SURE)
    assert second is not None and second.last


def test_a_file_with_a_row_comes_again_only_when_it_changes(arrivals: Arrivals, file: Path) -> None:
    arrivals.told(CLOSED, str(file), 0.0)
    taken = arrivals.take(0.0)
    assert taken is not None
    arrivals.done(taken)
    for event in (FOUND, CHANGED, CLOSED):
        arrivals.told(event, str(file), 1.0)
    assert arrivals.take(100.0) is None and arrivals.next_due is None
    file.write_bytes(b"another content")
    arrivals.told(CLOSED, str(file), 2.0)
    assert arrivals.take(2.0) is not None


def test_a_change_while_it_is_judged_is_not_lost(arrivals: Arrivals, file: Path) -> None:
    arrivals.told(CLOSED, str(file), 0.0)
    taken = arrivals.take(0.0)
    assert taken is not None
    file.write_bytes(b"another content")
    arrivals.told(CLOSED, str(file), 0.1)
    arrivals.done(taken)
    again = arrivals.take(1.0)
    assert again is not None and again.state != taken.state


def test_a_file_that_goes_before_it_is_whole_is_none_and_one_that_was_whole_is_not_forgotten(
    arrivals: Arrivals, file: Path, tmp_path: Path
) -> None:
    arrivals.found(str(file), 0.0)
    file.unlink()
    arrivals.told(GONE, str(file), 0.1)
    assert arrivals.take(100.0) is None
    whole = tmp_path / "b.png"
    whole.write_bytes(b"whole")
    arrivals.told(CLOSED, str(whole), 200.0)
    whole.unlink()
    arrivals.told(GONE, str(whole), 200.5)
    taken = arrivals.take(201.0)
    assert taken is not None and not arrivals.renamed(taken)


def test_a_renamed_file_is_forgotten_under_its_first_name(
    arrivals: Arrivals, file: Path, tmp_path: Path
) -> None:
    arrivals.told(CLOSED, str(file), 0.0)
    taken = arrivals.take(0.0)
    final = file.rename(tmp_path / "final.png")
    arrivals.told(CLOSED, str(final), 0.1)
    assert taken is not None and arrivals.renamed(taken)
    second = arrivals.take(1.0)
    assert second is not None and second.path == str(final) and arrivals.take(100.0) is None


def test_how_far_behind(arrivals: Arrivals, tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(b"x")
        arrivals.told(CLOSED, str(tmp_path / f"{number}.png"), float(number))
    assert arrivals.behind(5.0) == (3, 5.0)
    arrivals.take(5.0)
    assert arrivals.behind(5.0) == (2, 4.0)


def test_a_remembered_file_is_read_again_only_if_it_changed_since(
    arrivals: Arrivals, file: Path
) -> None:
    arrivals.remember(str(file), before=time.time() + 100)
    arrivals.found(str(file), 0.0)
    assert arrivals.take(100.0) is None
    later = Arrivals(PATIENCE)
    later.remember(str(file), before=time.time() - 100)
    later.found(str(file), 0.0)
    assert later.take(100.0) is not None


@pytest.mark.parametrize("events", [True, False])
def test_a_watcher_tells_of_new_changed_and_nested_images_and_of_nothing_else(
    tmp_path: Path, events: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not events:
        monkeypatch.setitem(__import__("sys").modules, "watchdog.events", None)
    inbox, said = SimpleQueue[Any](), list[str]()
    (tmp_path / "there.png").write_bytes(b"x")
    watcher = Watcher([tmp_path], inbox, lambda path: None, said.append)
    assert watcher.events is events
    try:
        (tmp_path / "deep").mkdir()
        (tmp_path / "deep" / "new.jpg").write_bytes(b"x")
        (tmp_path / ".hidden.png").write_bytes(b"x")
        (tmp_path / "notes.txt").write_bytes(b"x")
        ends, found = time.monotonic() + 10, set[str]()
        wanted = {str(tmp_path / "there.png"), str(tmp_path / "deep" / "new.jpg")}
        while time.monotonic() < ends and not wanted <= found:
            found |= {path for _, path in drained(inbox, 0.1)}
    finally:
        watcher.close()
    assert found == wanted and said == []


def test_a_folder_that_goes_is_said_once_and_waited_for(tmp_path: Path) -> None:
    folder, inbox, said = tmp_path / "in", SimpleQueue[Any](), list[str]()
    folder.mkdir()
    watcher = Watcher([folder], inbox, lambda path: None, said.append)
    try:
        os.rename(folder, tmp_path / "away")
        ends = time.monotonic() + 10
        while time.monotonic() < ends and not said:
            time.sleep(0.05)
        os.rename(tmp_path / "away", folder)
        (folder / "a.png").write_bytes(b"x")
        assert drained(inbox, 10.0)
    finally:
        watcher.close()
    assert len(said) == 1 and "waiting for it to come back" in said[0]


def test_only_folders_are_watched(tmp_path: Path) -> None:
    with pytest.raises(AnomalyError, match="no folder found"):
        check_folders([str(tmp_path / "none")])
    with pytest.raises(DatasetError, match="cannot be listed"):
        Watcher([tmp_path / "none"], SimpleQueue[Any](), lambda path: None, print)
