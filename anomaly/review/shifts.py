"""The days and shifts of a plant, as spans of time: a night shift belongs to the day on which it
began.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from typing import NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from anomaly.errors import AnomalyError
from anomaly.files.table import utc_text

MAX_SHIFTS = 12
MAX_DAYS = 400  # that one report may span


class Span(NamedTuple):
    """One shift of one day, from ``start`` to before ``end``, both UTC as tables write it."""

    day: str
    shift: str
    start: str
    end: str


@dataclass(frozen=True)
class Shifts:
    """When shifts start, in order; a day begins with the first. ``zone``: None for the time of
    this machine.
    """

    starts: tuple[time, ...] = (time(0),)
    zone: ZoneInfo | None = None

    @classmethod
    def of(cls, starts: Sequence[str] = (), zone: str = "") -> Shifts:
        """Shifts that start at times like ``06:00``; AnomalyError for others."""
        try:
            times = tuple(time.fromisoformat(text.strip()) for text in starts) or (time(0),)
        except ValueError as error:
            raise AnomalyError(
                f"shifts {', '.join(starts)} found, times such as 06:00,14:00,22:00 expected"
            ) from error
        if list(times) != sorted({*times}) or len(times) > MAX_SHIFTS or times[0].tzinfo:
            raise AnomalyError(
                f"shifts {', '.join(starts)} found, up to {MAX_SHIFTS} times in order expected: "
                "the first one begins the day"
            )
        try:
            return cls(times, ZoneInfo(zone) if zone else None)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise AnomalyError(
                f"time zone {zone!r} found, a name such as Europe/Berlin expected"
            ) from error

    @property
    def names(self) -> list[str]:
        """What the shifts are called."""
        if len(self.starts) == 1:
            return ["all day"]
        said = [f"{start:%H:%M}" for start in (*self.starts, self.starts[0])]
        return [f"{start} to {end}" for start, end in pairwise(said)]

    def spans(self, first: date, last: date) -> list[Span]:
        """The shifts of all days from ``first`` to ``last``, in order."""
        if not 0 <= (last - first).days < MAX_DAYS:
            raise AnomalyError(
                f"{first} to {last} found, 1 to {MAX_DAYS} days in order expected: choose fewer"
            )
        days = [first + timedelta(days=at) for at in range((last - first).days + 1)]
        return [span for day in days for span in self._of_day(day)]

    def day_of(self, moment: str) -> date:
        """The day that a moment, UTC as tables write it, belongs to."""
        local = datetime.fromisoformat(moment).astimezone(self.zone)
        early = local.time() < self.starts[0]
        return local.date() - timedelta(days=1) if early else local.date()

    def today(self) -> date:
        """The day that has begun."""
        return self.day_of(utc_text(datetime.now(UTC)))

    def _of_day(self, day: date) -> list[Span]:
        moments = [self._moment(day, start) for start in self.starts]
        ends = [*moments[1:], self._moment(day + timedelta(days=1), self.starts[0])]
        return [
            Span(f"{day}", name, utc_text(start), utc_text(end))
            for name, start, end in zip(self.names, moments, ends, strict=True)
        ]

    def _moment(self, day: date, at: time) -> datetime:
        local = datetime.combine(day, at)
        there = local.astimezone() if self.zone is None else local.replace(tzinfo=self.zone)
        return there.astimezone(UTC)
