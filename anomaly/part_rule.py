"""How a path names the part that an image shows, and how many views the parts had that set a limit."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from anomaly.errors import DatasetError, DetectorError, ImageError
from anomaly.listing import file_and_page

if TYPE_CHECKING:
    import regex

LONGEST = 500  # characters of a pattern
MOST_VIEWS = 1_000_000
SECONDS = 1.0  # for one path: others take microseconds


@dataclass(frozen=True)
class PartRule:
    """How a path names its part, and how many views (``least`` to ``most``) the parts had that set the limit."""

    pattern: str
    least: int
    most: int

    def __post_init__(self) -> None:
        compiled(self.pattern)
        if not 1 <= self.least <= self.most <= MOST_VIEWS:
            raise DetectorError(
                f"{self.least} to {self.most} views of a part found, 1 or more expected: train or copy it again"
            )

    def name_in(self, path: str) -> str | None:
        """Returns the name of the part that an image shows; None where its path does not name one."""
        return part_name(compiled(self.pattern), file_and_page(path)[0])

    def part_of(self, path: str) -> str:
        """Returns the name of the part that an image shows; ImageError where its path does not name one."""
        try:
            name = self.name_in(path)
        except DatasetError as error:
            raise ImageError("of no part", str(error)) from error
        if name is None:
            raise ImageError("of no part", f"its path names no part: {self.pattern!r} (--by-part) does not match it")
        return name

    @property
    def views(self) -> str:
        """The number of views in words."""
        one = "1 view" if self.most == 1 else f"{self.most:,} views"
        return one if self.least == self.most else f"{self.least:,} to {self.most:,} views"

    def to_json(self) -> dict[str, Any]:
        return {"pattern": self.pattern, "least": self.least, "most": self.most}

    @classmethod
    def of(cls, training: Mapping[str, Any]) -> PartRule | None:
        """Returns the rule in a card's ``training``; None where the promise is per image; DetectorError if damaged."""
        facts = training.get("by_part")
        if facts is None:
            return None
        try:
            return cls(str(facts["pattern"]), int(facts["least"]), int(facts["most"]))
        except (KeyError, TypeError, ValueError, OverflowError, DatasetError) as error:
            raise DetectorError(f"the card's rule of parts is damaged ({error}): train or copy it again") from error

    @classmethod
    def seen(cls, pattern: str, parts: Sequence[str]) -> PartRule:
        """Returns the rule of images, each given by the part that it shows."""
        counts = Counter(parts).values()
        return cls(pattern, min(counts), max(counts))


def compiled(pattern: str) -> regex.Pattern[str]:
    """Returns the regular expression of --by-part, or raises DatasetError.

    What Python's own ``re`` takes, and by its rules; but matched by an engine that can be given a time, since the
    expression may come from a card, and one of ten characters can take years.
    """
    import regex  # on demand: few cards have a rule

    try:
        if len(pattern) > LONGEST:
            raise re.error(f"longer than {LONGEST} characters")
        re.compile(pattern)
        return regex.compile(pattern, regex.VERSION0)
    except (re.error, regex.error, RecursionError, OverflowError) as error:
        raise DatasetError(f"--by-part {pattern[:LONGEST]!r} found, a regular expression expected: {error}") from error


def part_name(pattern: regex.Pattern[str], path: str) -> str | None:
    """Returns the first group (or the whole) of the last match in a path, None without one.

    The last, so that the folders above do not matter: they differ between training and scoring. Raises DatasetError where
    it takes longer than a second to find.
    """
    found = None
    with in_time(pattern, path):
        for match in pattern.finditer(path.replace("\\", "/"), timeout=SECONDS):
            found = match[1 if pattern.groups else 0] or found
    return found


@contextmanager
def in_time(pattern: regex.Pattern[str], path: str) -> Iterator[None]:
    """Turns the TimeoutError of a search with ``timeout`` into a DatasetError that says what to do."""
    try:
        yield
    except TimeoutError as error:
        raise DatasetError(
            f"the expression {pattern.pattern!r} takes longer than {SECONDS:g} s on {path[:200]!r}: a simpler one expected, "
            "without repeats inside of repeats"
        ) from error
