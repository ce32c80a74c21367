"""Work of one kind on many things, in threads, whose results come in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Done = TypeVar("Done")


def in_order(function: Callable[[Item], Done], items: Iterable[Item], workers: int, ahead: int) -> Generator[Done, None, None]:
    """Yields ``function(item)`` of every item, in order, while ``workers`` threads work on the ``ahead`` items that follow.

    ``items`` is read as the work goes on, in the caller's thread, and may be of any length. Where it raises an exception,
    what was taken before still comes, then the exception; what ``function`` raises comes out in its turn. Close it
    (``contextlib.closing``) where it may not be read to its end: then its threads are gone when that returns.
    """
    pool = ThreadPoolExecutor(workers)
    waiting: deque[Future[Done]] = deque()
    failed: Exception | None = None
    rest = iter(items)
    try:
        while failed is None:
            try:
                waiting.append(pool.submit(function, next(rest)))
            except StopIteration:
                break
            except Exception as error:
                failed = error
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
        if failed is not None:
            raise failed
    finally:
        pool.shutdown(cancel_futures=True)
