"""Which part a path names, and what the card says of it."""

from __future__ import annotations

import re

import pytest

from anomaly.errors import DatasetError, DetectorError, ImageError
from anomaly.part_rule import PartRule, compiled, part_name

PATTERN = r"(\d+)_cam"


@pytest.mark.parametrize(
    ("pattern", "path", "name"),
    [
        (r"(\d+)_cam", "lot7/part12_cam1.png", "12"),
        (r"part\d+", "lot7/part12_cam1.png", "part12"),  # without a group the whole match
        (r"(\d+)/", "photos/2024/0007/cam1.png", "0007"),  # the last match: folders above do not matter
        (r"(\d+)/", r"photos\2024\0007\cam1.png", "0007"),
        (r"part(\d+)(_cam)?", "part3.png", "3"),
        (r"part(\d*)", "part.png", None),  # an empty name is none
        (r"x(a)?", "x.png", None),
        (r"(\d+)_cam", "part.png", None),
    ],
)
def test_the_part_of_a_path(pattern: str, path: str, name: str | None) -> None:
    assert part_name(compiled(pattern), path) == name


def test_an_image_of_no_part_says_so() -> None:
    with pytest.raises(
        ImageError, match=r"^its path names no part: '\(\\\\d\+\)_cam' \(--by-part\) does not match it$"
    ) as raised:
        PartRule(PATTERN, 1, 2).part_of("a.png")
    assert raised.value.kind == "of no part"


def test_a_rule_is_that_of_the_parts_seen_and_round_trips_through_a_card() -> None:
    rule = PartRule.seen(r"(\d)_", ["1", "2", "1", "2", "2"])
    assert (rule, rule.views) == (PartRule(r"(\d)_", 2, 3), "2 to 3 views")
    assert (PartRule("a", 6, 6).views, PartRule("a", 1, 1).views) == ("6 views", "1 view")
    assert PartRule.of({"by_part": rule.to_json()}) == rule
    assert PartRule.of({}) is None and PartRule.of({"by_part": None}) is None


@pytest.mark.parametrize(
    "facts",
    [
        1,
        {},
        {"pattern": "(", "least": 1, "most": 1},
        {"pattern": "a", "least": 2, "most": 1},
        {"pattern": "a" * 501, "least": 1, "most": 1},
        {"pattern": "a", "least": "x", "most": 1},
    ],
)
def test_a_damaged_rule_is_refused(facts: object) -> None:
    with pytest.raises(DetectorError, match=r"train or copy it again$"):
        PartRule.of({"by_part": facts})


def test_what_is_no_expression_is_one_line() -> None:
    with pytest.raises(DatasetError, match=re.escape("--by-part '(' found, a regular expression expected: missing )")):
        compiled("(")
