from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from anomaly.files.threads import in_order


def test_results_come_in_order_whatever_takes_longest() -> None:
    def slow_first(n: int) -> int:
        time.sleep(0.02 if n % 5 == 0 else 0)
        return n * n

    assert list(in_order(slow_first, range(50), workers=4, ahead=8)) == [n * n for n in range(50)]


@pytest.mark.parametrize("count", [0, 1, 3])
def test_fewer_items_than_threads(count: int) -> None:
    assert list(in_order(str, range(count), workers=4, ahead=8)) == [str(n) for n in range(count)]


def test_items_are_taken_as_the_work_goes_on() -> None:
    items = iter(range(1000))
    ahead = [items.__length_hint__() for _ in in_order(int, items, workers=2, ahead=5)]
    assert ahead == [max(0, 994 - done) for done in range(1000)]


def test_what_the_function_raises_comes_out_in_its_turn() -> None:
    results = in_order(lambda n: 1 // (3 - n), range(10), workers=2, ahead=4)
    assert [next(results) for _ in range(3)] == [0, 0, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_what_was_taken_before_the_items_fail_still_comes() -> None:
    def items() -> Iterator[int]:
        yield from range(6)
        raise OSError("the disk is gone")

    done: list[int] = []
    with pytest.raises(OSError, match="the disk is gone"):
        done.extend(in_order(int, items(), workers=2, ahead=2))
    assert done == [0, 1, 2, 3, 4, 5]


def test_ctrl_c_drops_what_waits() -> None:
    def items() -> Iterator[int]:
        yield from range(6)
        raise KeyboardInterrupt

    before, done = threading.active_count(), []
    with pytest.raises(KeyboardInterrupt):
        for one in in_order(int, items(), workers=2, ahead=2):
            done.append(one)
    assert done == [0, 1, 2, 3]
    assert threading.active_count() == before


def test_closing_it_ends_its_threads() -> None:
    before = threading.active_count()
    with closing(in_order(int, iter(int, 1), workers=3, ahead=6)) as results:
        assert next(results) == 0
        assert threading.active_count() > before
    assert threading.active_count() == before
