"""A bounded number of requests inside, a few threads that judge, and a time limit for each."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from dataclasses import dataclass
from typing import Any, TypeVar

from anomaly.errors import RequestError

T = TypeVar("T")
SPARE_SECONDS = 3.0  # beyond a request's own, for its job to come to an end when the server stops


@dataclass(frozen=True)
class Deadline:
    """The moment, on the monotonic clock, at which a request has waited long enough."""

    at: float
    seconds: float

    def check(self) -> None:
        """Raises RequestError (504) when it has passed."""
        if time.monotonic() > self.at:
            raise RequestError(
                504,
                f"not done within {self.seconds:g} s: send fewer or smaller images, or raise "
                "--timeout",
            )


class Place:
    """A request's place inside. ``bytes``: of its body so far."""

    def __init__(self) -> None:
        self.bytes = 0


class Workers:
    """``threads`` judge, ``waiting`` more requests may wait or be on their way in; all others are
    told to come again (429).

    So are those whose bodies would take more than ``most_bytes`` together with the bodies that are
    inside.
    """

    def __init__(
        self, threads: int, waiting: int, seconds: float, most_bytes: int = 256 << 20
    ) -> None:
        self.threads, self.most, self.seconds, self.most_bytes = (
            threads,
            threads + waiting,
            seconds,
            most_bytes,
        )
        self.inside = self.bytes = 0
        self._jobs: set[Future[Any]] = set()
        self._stop_at: float | None = None
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="judge")

    def hold(self, place: Place, size: int) -> None:
        """Notes that more of a request's body has come in; RequestError 429 where all bodies
        together are too long.
        """
        if self.bytes + size > self.most_bytes:
            raise RequestError(
                429,
                f"{self.bytes} bytes of requests are inside already: try again in a second, or add "
                "a server",
            )
        place.bytes += size
        self.bytes += size

    async def run(
        self,
        read: Callable[[], Awaitable[bytes]],
        work: Callable[[bytes, Deadline], T],
        place: Place | None = None,
    ) -> T:
        """Returns work(body, deadline), done in a thread; RequestError 429 (full), 408 (slow body)
        or 504 (too slow).

        ``place``: what ``read`` holds bytes for; they are given back when the work has ended.
        """
        place = place or Place()
        if self.inside >= self.most:
            raise RequestError(
                429,
                f"{self.inside} requests are inside already: try again in a second, or add a "
                "server",
            )
        self.inside += 1
        job = None
        loop = asyncio.get_running_loop()
        deadline = Deadline(time.monotonic() + self.seconds, self.seconds)
        try:
            async with asyncio.timeout(self.seconds):
                body = await read()
                job = self._submit(work, body, deadline)
                return await asyncio.wrap_future(job)
        except TimeoutError as error:
            if job is None:
                raise RequestError(
                    408, f"the body did not arrive within {self.seconds:g} s"
                ) from error
            raise RequestError(
                504, f"not done within {self.seconds:g} s: the server is too slow for this"
            ) from error
        finally:
            # A job that is running cannot be stopped: its place is free when it has really ended.
            if job is None or job.done():
                self._leave(place)
            else:
                job.add_done_callback(lambda _: loop.call_soon_threadsafe(self._leave, place))

    def _leave(self, place: Place) -> None:
        self.inside -= 1
        self.bytes -= place.bytes

    def _submit(
        self, work: Callable[[bytes, Deadline], T], body: bytes, deadline: Deadline
    ) -> Future[T]:
        job = self._pool.submit(work, body, deadline)
        self._jobs.add(job)
        job.add_done_callback(self._jobs.discard)
        return job

    def stop(self) -> None:
        """Notes that the server has been asked to stop: `close` counts from here."""
        self._stop_at = time.monotonic()

    def close(self) -> int:
        """Waits for the jobs that were taken, at most a request's seconds and a few more; returns
        how many still run.

        An inference cannot be stopped within one operator: such a job ends with the process.
        """
        since = time.monotonic() if self._stop_at is None else self._stop_at
        jobs = list(self._jobs)
        left = since + self.seconds + SPARE_SECONDS - time.monotonic()
        _, running = wait_for(jobs, max(left, 0.1))
        self._pool.shutdown(wait=not running, cancel_futures=True)
        return sum(not job.done() for job in running)
