"""How a path names the unit that an image shows, and how many views the units had that set a
threshold.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Self

from anomaly.detector.card_checks import is_text, whole
from anomaly.detector.card_facts import Facts
from anomaly.errors import DatasetError, DetectorError, ImageError
from anomaly.imaging.listing import file_and_page

if TYPE_CHECKING:
    import regex

MAX_PATTERN_CHARACTERS = 500  # characters of a pattern
MAX_VIEWS = 1_000_000
SECONDS = 1.0  # for one path: others take microseconds


@dataclass(frozen=True)
class UnitRule(Facts):
    """How a path names its unit, and how many views (``least`` to ``most``) the units had that set
    the threshold.
    """

    place: ClassVar[str] = "training.by_unit."
    pattern: str = field(metadata={"check": is_text})
    least: int = field(metadata={"check": whole(1)})
    most: int = field(metadata={"check": whole(1)})

    def __post_init__(self) -> None:
        compiled(self.pattern)
        if not 1 <= self.least <= self.most <= MAX_VIEWS:
            raise DetectorError(
                f"{self.least} to {self.most} views of a unit found, 1 or more expected: train or "
                "copy it again"
            )
        super().__post_init__()

    def name_in(self, path: str) -> str | None:
        """Returns the name of the unit that an image shows; None where its path does not
        name one.
        """
        return unit_name(compiled(self.pattern), file_and_page(path)[0])

    def unit_of(self, path: str) -> str:
        """Returns the name of the unit that an image shows; ImageError where its path does not name
        one.
        """
        try:
            name = self.name_in(path)
        except DatasetError as error:
            raise ImageError("of no unit", str(error)) from error
        if name is None:
            raise ImageError(
                "of no unit",
                f"its path names no unit: {self.pattern!r} (--by-unit) does not match it",
            )
        return name

    @property
    def views(self) -> str:
        """The number of views in words."""
        one = "1 view" if self.most == 1 else f"{self.most:,} views"
        return one if self.least == self.most else f"{self.least:,} to {self.most:,} views"

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """Returns the rule in a card; DetectorError if damaged."""
        try:
            return super().from_json(value)
        except (TypeError, ValueError, DatasetError) as error:
            raise DetectorError(
                f"the card's rule of units is damaged ({error}): train or copy it again"
            ) from error

    @classmethod
    def seen(cls, pattern: str, units: Sequence[str]) -> UnitRule:
        """Returns the rule of images, each given by the unit that it shows."""
        counts = Counter(units).values()
        return cls(pattern, min(counts), max(counts))


def compiled(pattern: str) -> regex.Pattern[str]:
    """Returns the regular expression of --by-unit, or raises DatasetError.

    What Python's own ``re`` takes, and by its rules; but matched by an engine that can be given a
    time, since the expression may come from a card, and one of ten characters can take years.
    """
    import regex  # on demand: few cards have a rule

    try:
        if len(pattern) > MAX_PATTERN_CHARACTERS:
            raise re.error(f"longer than {MAX_PATTERN_CHARACTERS} characters")
        re.compile(pattern)
        return regex.compile(pattern, regex.VERSION0)
    except (re.error, regex.error, RecursionError, OverflowError) as error:
        raise DatasetError(
            f"--by-unit {pattern[:MAX_PATTERN_CHARACTERS]!r} found, a regular expression expected: "
            f"{error}"
        ) from error


def unit_name(pattern: regex.Pattern[str], path: str) -> str | None:
    """Returns the first group (or the whole) of the last match in a path, None without one.

    The last, so that the folders above do not matter: they differ between training and scoring.
    Raises DatasetError where it takes longer than a second to find.
    """
    found = None
    with in_time(pattern, path):
        for match in pattern.finditer(path.replace("\\", "/"), timeout=SECONDS):
            found = match[1 if pattern.groups else 0] or found
    return found


@contextmanager
def in_time(pattern: regex.Pattern[str], path: str) -> Iterator[None]:
    """Turns the TimeoutError of a search with ``timeout`` into a DatasetError that says what
    to do.
    """
    try:
        yield
    except TimeoutError as error:
        raise DatasetError(
            f"the expression {pattern.pattern!r} takes longer than {SECONDS:g} s on "
            f"{path[:200]!r}: a simpler one expected, without repeats inside of repeats"
        ) from error
