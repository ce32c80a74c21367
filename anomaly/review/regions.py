"""Where exactly a defect is: regions that inspectors draw, which are kept with their verdict."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from anomaly.errors import AnomalyError
from anomaly.imaging.drawn_regions import Region
from anomaly.review.findings import Event

MAX_REGIONS = 50  # of one image
MAX_NUMBERS = 6_000  # of the points of all of them


def read_regions(values: object, width: int | None, height: int | None) -> list[Region]:
    """Returns what a page sent as the regions of an image; AnomalyError where it is not that.

    ``width``, ``height``: of the image in pixels; None where it could not be read.
    """
    if not values:
        return []
    if width is None or height is None:
        raise AnomalyError("a region of an image of unknown size found: score the image again")
    if not isinstance(values, Sequence) or len(values) > MAX_REGIONS:
        raise AnomalyError(f"at most {MAX_REGIONS} regions of an image expected: remove some")
    try:
        regions = [Region.from_json(value) for value in values]
    except (KeyError, TypeError, ValueError) as error:
        raise AnomalyError(
            "a region that is no box, polygon or brush stroke found: draw it again"
        ) from error
    if sum(len(region.points) for region in regions) > MAX_NUMBERS:
        raise AnomalyError(
            f"regions of more than {MAX_NUMBERS // 2:,} points found: draw them with fewer"
        )
    if not all(0 <= x <= width and 0 <= y <= height for r in regions for x, y in r.corners):
        raise AnomalyError("a region outside the image found: draw it again")
    return regions


def regions_of(event: Event) -> list[Region]:
    """Returns the regions that were drawn with a verdict."""
    return [Region.from_json(found) for found in event.payload.get("regions", ())]


def drawn_regions(standing: Iterable[Event]) -> dict[int, list[Region]]:
    """Returns the regions of each finding that has some: those of the newest verdict that counts
    and has any.

    ``standing``: the verdicts that count, the oldest first.
    """
    found = {event.finding: regions_of(event) for event in standing if "regions" in event.payload}
    return {finding: regions for finding, regions in found.items() if finding is not None}
