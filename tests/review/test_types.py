"""The list of defect types as people write it."""

from __future__ import annotations

import pytest

from anomaly.errors import AnomalyError
from anomaly.review.findings import DefectType
from anomaly.review.types import COLOURS, from_lines, to_text


def test_the_first_nine_have_keys_and_each_a_colour_of_its_own() -> None:
    types = from_lines([f"type {number}" for number in range(10)])
    assert [kind.key for kind in types] == [*range(1, 10), None]
    assert len({kind.colour for kind in types[: len(COLOURS)]}) == min(10, len(COLOURS))


def test_a_colour_is_that_of_the_line_or_else_the_known_one() -> None:
    known = [DefectType("dent", 1, "#111111"), DefectType("burr", 2, "#222222")]
    assert [kind.colour for kind in from_lines(["burr", "dent=#333333", ""], known)] == [
        "#222222",
        "#333333",
    ]


def test_types_go_through_text_and_back() -> None:
    types = from_lines(["dent #9b5de5", "loose wire=#3a86ff"])
    assert from_lines(to_text(types).splitlines()) == types


@pytest.mark.parametrize(
    ("lines", "message"),
    [([""], "no defect type found"), (["#9b5de5"], "^defect type '#9b5de5' found")],
)
def test_what_names_no_type_is_refused(lines: list[str], message: str) -> None:
    with pytest.raises(AnomalyError, match=message):
        from_lines(lines)
