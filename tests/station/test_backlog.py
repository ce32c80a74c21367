"""What waits for the judge: files wait, of frames the oldest is lost, and nothing vanishes."""

from __future__ import annotations

import threading

from anomaly.errors import ImageError
from anomaly.station.backlog import Backlog, Taken


def frame(number: int) -> Taken:
    return Taken("camera", str(number), b"pixels", frame=True)


def test_of_frames_the_oldest_is_lost_and_keeps_its_place() -> None:
    backlog = Backlog(2, stop_line=False)
    assert all(backlog.put(frame(number)) for number in range(4))
    assert (backlog.waiting, backlog.behind) == (2, True)
    found = [backlog.take(0) for _ in range(4)]
    assert [one.path for one in found if one] == ["0", "1", "2", "3"]
    lost = [one.path for one in found if one and isinstance(one.image, ImageError)]
    assert lost == ["0", "1"]
    assert (backlog.waiting, backlog.behind, backlog.take(0)) == (0, False, None)


def test_a_line_that_is_stopped_loses_nothing_before_ten_times_as_many_wait() -> None:
    backlog = Backlog(2, stop_line=True)
    for number in range(20):
        backlog.put(frame(number))
    assert backlog.behind
    assert backlog.waiting == 20
    backlog.put(frame(20))
    first = backlog.take(0)
    assert first is not None
    assert isinstance(first.image, ImageError)


def test_a_file_waits_for_room_and_says_so_when_there_is_none_in_time() -> None:
    backlog = Backlog(1, stop_line=False)
    file = Taken("folder", "a.png", b"file")
    assert backlog.put(file)
    assert not backlog.put(file, seconds=0.01)
    waiting = threading.Thread(target=backlog.put, args=(file,))
    waiting.start()
    assert backlog.take(1) is not None
    waiting.join(5)
    assert not waiting.is_alive()


def test_what_is_closed_takes_nothing_and_gives_what_it_has() -> None:
    backlog = Backlog(1, stop_line=False)
    backlog.put(Taken("folder", "a.png", b"file"))
    waiting = threading.Thread(target=backlog.put, args=(Taken("folder", "b.png", b"file"),))
    waiting.start()
    backlog.close()
    waiting.join(5)
    assert not waiting.is_alive()
    last = backlog.take(0)
    assert last is not None
    assert (last.path, backlog.take(0), backlog.put(frame(1))) == ("a.png", None, False)
