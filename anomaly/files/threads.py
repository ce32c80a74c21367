"""Work of one kind on many things, in threads, whose results come in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import TypeVar

INTERRUPTED_SECONDS = 1.0  # for what runs when Ctrl-C comes

Item = TypeVar("Item")
Done = TypeVar("Done")


def in_order(
    function: Callable[[Item], Done], items: Iterable[Item], workers: int, ahead: int
) -> Generator[Done, None, None]:
    """Yields ``function(item)`` of every item, in order, while ``workers`` threads work on the
    ``ahead`` items that follow.

    ``items`` is read as the work goes on, in the caller's thread, and may be of any length. Where
    it raises an exception, what was taken before still comes, then the exception; what ``function``
    raises comes out in its turn. Close it (``contextlib.closing``) where it may not be read to its
    end: then its threads are gone when that returns, but after a KeyboardInterrupt those that are
    not done within a second.
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
                waiting[0].result()
                yield waiting.popleft().result()
        while waiting:
            waiting[0].result()  # an interrupt here leaves it among those that run
            yield waiting.popleft().result()
        if failed is not None:
            raise failed
    except BaseException as error:
        _end(pool, waiting, error)
        raise
    pool.shutdown()


@contextmanager
def interruptible(pool: ThreadPoolExecutor) -> Iterator[ThreadPoolExecutor]:
    """Ends a pool's threads behind the block; after a KeyboardInterrupt they are left to the end of
    the process.
    """
    try:
        yield pool
    except KeyboardInterrupt:
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    except BaseException:
        pool.shutdown()
        raise
    pool.shutdown()


def _end(pool: ThreadPoolExecutor, waiting: Iterable[Future[Done]], error: BaseException) -> None:
    """Drops what waits, and ends the threads; after a KeyboardInterrupt those that are
    done soon.
    """
    pool.shutdown(wait=not _interrupted(error), cancel_futures=True)
    _, running = wait([future for future in waiting if future.running()], INTERRUPTED_SECONDS)
    if not running:
        pool.shutdown()


def _interrupted(error: BaseException | None) -> bool:
    """Whether it is a KeyboardInterrupt, or comes of one: a generator that one leaves open is
    closed by GeneratorExit.
    """
    while isinstance(error, GeneratorExit):
        error = error.__context__
    return isinstance(error, KeyboardInterrupt)
