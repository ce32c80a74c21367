from __future__ import annotations

import io

import pytest

from anomaly.files.progress import Progress, duration, speed_text


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Closed(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError


class Clock:
    """Time that passes only when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def run(
    stream: io.StringIO, seconds: float, total: int | None, steps: int, quiet: bool = False
) -> str:
    """Does ``steps`` steps of ``seconds`` each and returns what was said."""
    clock = Clock()
    with Progress(total, "scoring images", quiet=quiet, stream=stream, clock=clock) as progress:
        for _ in range(steps):
            clock.now += seconds
            progress.advance()
    return stream.getvalue()


def test_a_pipe_gets_plain_lines_at_growing_distance() -> None:
    assert run(io.StringIO(), 0.5, 100, 100).splitlines() == [
        "scoring images: 8 of 100 (8 %), 2.0 a second, 46 s left",
        "scoring images: 16 of 100 (16 %), 2.0 a second, 42 s left",
        "scoring images: 32 of 100 (32 %), 2.0 a second, 34 s left",
        "scoring images: 64 of 100 (64 %), 2.0 a second, 18 s left",
        "scoring images: 100 in 50 s, 2.0 a second",
    ]


def test_the_lines_of_a_day_fit_on_a_screen() -> None:
    lines = run(io.StringIO(), 60, 1440, 1440).splitlines()
    assert len(lines) < 160
    assert lines[-2:] == [
        "scoring images: 1,436 of 1,440 (99 %), 1.0 a minute, 4 min left",
        "scoring images: 1,440 in 1 d, 1.0 a minute",
    ]


def test_short_work_says_nothing() -> None:
    assert run(io.StringIO(), 0.01, 100, 100) == ""
    assert run(Terminal(), 0.001, 10, 10) == ""


def test_a_terminal_has_one_line_that_is_redrawn() -> None:
    assert run(Terminal(), 1, 3, 3).split("\r") == [
        "",
        "scoring images: 1 of 3 (33 %), 1.0 a second, 2.0 s left\x1b[K",
        "scoring images: 2 of 3 (66 %), 1.0 a second, 1.0 s left\x1b[K",
        "scoring images: 3 of 3 (100 %), 1.0 a second, 0.0 s left\x1b[K",
        "scoring images: 3 in 3.0 s, 1.0 a second\x1b[K\n",
    ]


def test_a_terminal_is_not_redrawn_for_every_image() -> None:
    assert run(Terminal(), 0.001, 1000, 1000).count("\r") <= 11


def test_a_line_never_wraps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    assert run(Terminal(), 1, 3, 1).split("\r")[1] == "scoring images: 1 of 3 (33 %)\x1b[K"


def test_a_dumb_terminal_is_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    assert "\r" not in run(Terminal(), 1, 10, 10)


def test_without_a_total_there_is_no_time_left() -> None:
    assert run(io.StringIO(), 1, None, 5).splitlines() == [
        "scoring images: 4, 1.0 a second, 4.0 s so far",
        "scoring images: 5 in 5.0 s, 1.0 a second",
    ]


def test_quiet_says_nothing() -> None:
    assert run(io.StringIO(), 10, 100, 100, quiet=True) == ""


def test_what_was_done_before_does_not_make_it_look_fast() -> None:
    stream, clock = io.StringIO(), Clock()
    with Progress(100, "scoring images", stream=stream, clock=clock) as progress:
        progress.skip(90)
        clock.now = 5.0
        progress.advance(5)
        assert progress.seconds_left == 5.0
    assert (
        stream.getvalue().splitlines()[0]
        == "scoring images: 95 of 100 (95 %), 1.0 a second, 5.0 s left"
    )


def test_a_note_stays_until_the_next() -> None:
    stream, clock = io.StringIO(), Clock()
    with Progress(4, "epochs", stream=stream, clock=clock) as progress:
        for note in ("loss 0.9", "", "loss 0.5", ""):
            clock.now += 5
            progress.advance(note=note)
    notes = [line.split(", ")[2] for line in stream.getvalue().splitlines()]
    assert notes == ["loss 0.9", "loss 0.9", "loss 0.5", "loss 0.5"]


def test_an_error_starts_on_a_line_of_its_own() -> None:
    stream, clock = Terminal(), Clock()
    with (
        pytest.raises(ZeroDivisionError),
        Progress(4, "epochs", stream=stream, clock=clock) as progress,
    ):
        clock.now = 1.0
        progress.advance()
        raise ZeroDivisionError
    assert stream.getvalue().endswith("epochs: 1 of 4 (25 %), 1.0 a second, 3.0 s left\x1b[K\n")


def test_work_goes_on_when_nobody_listens() -> None:
    assert run(Closed(), 5, 10, 10) == ""


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (4.21, "4.2 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (61, "1 min 1 s"),
        (3599, "59 min 59 s"),
        (3600, "1 h"),
        (7500, "2 h 5 min"),
        (86400, "1 d"),
        (100_000, "1 d 3 h"),
    ],
)
def test_durations_are_read_easily(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_speeds_are_read_easily() -> None:
    assert [speed_text(s) for s in (12345, 57.3, 1.25, 0.5, 0.001, 0)] == [
        "12,345 a second", "57 a second", "1.2 a second", "30 a minute", "3.6 an hour", "",
    ]  # fmt: skip
