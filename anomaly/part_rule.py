"""How a path names the part that an image shows, and how many views the parts had that set a limit."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from anomaly.errors import DatasetError, DetectorError, ImageError
from anomaly.listing import file_and_page

LONGEST = 500  # characters of a pattern


@dataclass(frozen=True)
class PartRule:
    """How a path names its part, and how many views (``least`` to ``most``) the parts had that set the limit."""

    pattern: str
    least: int
    most: int

    def __post_init__(self) -> None:
        compiled(self.pattern)
        if not 1 <= self.least <= self.most:
            raise DetectorError(
                f"{self.least} to {self.most} views of a part found, 1 or more expected: train or copy it again"
            )

    def name_in(self, path: str) -> str | None:
        """Returns the name of the part that an image shows; None where its path does not name one."""
        return part_name(compiled(self.pattern), file_and_page(path)[0])

    def part_of(self, path: str) -> str:
        """Returns the name of the part that an image shows; ImageError where its path does not name one."""
        name = self.name_in(path)
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
        except (KeyError, TypeError, ValueError, DatasetError) as error:
            raise DetectorError(f"the card's rule of parts is damaged ({error}): train or copy it again") from error

    @classmethod
    def seen(cls, pattern: str, parts: Sequence[str]) -> PartRule:
        """Returns the rule of images, each given by the part that it shows."""
        counts = Counter(parts).values()
        return cls(pattern, min(counts), max(counts))


def compiled(pattern: str) -> re.Pattern[str]:
    """Returns the regular expression of --by-part, or raises DatasetError."""
    try:
        if len(pattern) > LONGEST:
            raise re.error(f"longer than {LONGEST} characters")
        return re.compile(pattern)
    except (re.error, RecursionError) as error:
        raise DatasetError(f"--by-part {pattern[:LONGEST]!r} found, a regular expression expected: {error}") from error


def part_name(pattern: re.Pattern[str], path: str) -> str | None:
    """Returns the first group (or the whole) of the last match in a path, None without one.

    The last, so that the folders above do not matter: they differ between training and scoring.
    """
    found = None
    for match in pattern.finditer(path.replace("\\", "/")):
        found = match[1 if pattern.groups else 0] or found
    return found
