"""Which unit a path names, and what the card says of it."""

from __future__ import annotations

import re

import pytest

from anomaly.detector.unit_rule import UnitRule, compiled, unit_name
from anomaly.errors import DatasetError, DetectorError, ImageError

PATTERN = r"(\d+)_cam"


@pytest.mark.parametrize(
    ("pattern", "path", "name"),
    [
        (r"(\d+)_cam", "lot7/part12_cam1.png", "12"),
        (r"part\d+", "lot7/part12_cam1.png", "part12"),  # without a group the whole match
        # the last match: folders above do not matter
        (r"(\d+)/", "photos/2024/0007/cam1.png", "0007"),
        (r"(\d+)/", r"photos\2024\0007\cam1.png", "0007"),
        (r"part(\d+)(_cam)?", "part3.png", "3"),
        (r"part(\d*)", "part.png", None),  # an empty name is none
        (r"x(a)?", "x.png", None),
        (r"(\d+)_cam", "part.png", None),
    ],
)
def test_the_unit_of_a_path(pattern: str, path: str, name: str | None) -> None:
    assert unit_name(compiled(pattern), path) == name


def test_an_image_of_no_unit_says_so() -> None:
    with pytest.raises(
        ImageError,
        match=r"^its path names no unit: '\(\\\\d\+\)_cam' \(--by-unit\) does not match it$",
    ) as raised:
        UnitRule(PATTERN, 1, 2).unit_of("a.png")
    assert raised.value.kind == "of no unit"


def test_a_rule_is_that_of_the_units_seen_and_round_trips_through_a_card() -> None:
    rule = UnitRule.seen(r"(\d)_", ["1", "2", "1", "2", "2"])
    assert (rule, rule.views) == (UnitRule(r"(\d)_", 2, 3), "2 to 3 views")
    assert (UnitRule("a", 6, 6).views, UnitRule("a", 1, 1).views) == ("6 views", "1 view")
    assert UnitRule.from_json(rule.to_json()) == rule


@pytest.mark.parametrize(
    "facts",
    [
        1,
        {},
        {"pattern": "(", "least": 1, "most": 1},
        {"pattern": "a", "least": 2, "most": 1},
        {"pattern": "a", "least": 1, "most": 2**63},
        {"pattern": "a" * 501, "least": 1, "most": 1},
        {"pattern": "a", "least": "x", "most": 1},
    ],
)
def test_a_damaged_rule_is_refused(facts: object) -> None:
    with pytest.raises(DetectorError, match=r"train or copy it again$"):
        UnitRule.from_json(facts)


def test_what_is_no_expression_is_one_line() -> None:
    with pytest.raises(
        DatasetError,
        match=re.escape("--by-unit '(' found, a regular expression expected: missing )"),
    ):
        compiled("(")


# --- expressions ---
@pytest.mark.parametrize(
    "pattern", [r"(a+)+$", r"(a|a)*$", r"(a|aa)+$", r"^(([a-z])+.)+[A-Z]([a-z])+$", r"(.*a){20}$"]
)
def test_an_expression_that_never_ends_is_ended(pattern: str) -> None:
    path = "a" * 200 + "!"
    # the engine sees through some of them
    with pytest.raises(ImageError, match=r"takes longer than 1 s|names no unit"):
        UnitRule(pattern, 1, 1).unit_of(path)


def test_an_expression_that_is_ended_says_what_to_do() -> None:
    with pytest.raises(DatasetError, match=r"takes longer than 1 s on .* a simpler one expected"):
        UnitRule(r"(a|aa)+$", 1, 1).name_in("a" * 200 + "!")


@pytest.mark.parametrize(
    ("pattern", "path", "name"),
    [
        (r"(\w+)_cam", "Größe12_cam1.png", "Größe12"),
        (r"(\d+)_", "lot/٣٤_1.png", "٣٤"),  # digits of any script, as Python has them
        (r"(?P<unit>[A-Z]{2}\d+)", "AB12_front.png", "AB12"),
        (r"(?<=part)\d+(?=_)", "part77_1.png", "77"),
        (r"([^/]+)/[^/]+$", "lot/unit 5/cam.png", "unit 5"),
        (r"(?i)UNIT(\d+)", "unit9.png", "9"),
    ],
)
def test_expressions_mean_what_they_mean_in_python(pattern: str, path: str, name: str) -> None:
    assert UnitRule(pattern, 1, 1).name_in(path) == name
