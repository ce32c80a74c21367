"""The facts of a training: written as they were read, absent ones None, never damaged."""

from __future__ import annotations

import base64
import json
from dataclasses import FrozenInstanceError, replace
from typing import Any

import numpy as np
import pytest

from anomaly.detector.training_facts import GuardFacts, Ranges, TrainingFacts
from anomaly.detector.unit_rule import UnitRule
from anomaly.errors import DetectorError
from anomaly.imaging.mask import to_png

PNG = base64.b64encode(to_png(np.array([[False, True], [True, True]]))).decode()
# not in the order of the fields, with names that are not known, and some that are null
FACTS: dict[str, Any] = {
    "zeta": {"b": 1, "a": [None]},
    "cost": {
        "of": 5,
        "flagged_now": 2,
        "new": None,
        "flagged": 4,
        "rate": 1 / 61,
        "threshold": 1,
        "without": ["a.png"],
    },
    "size_sensitivity": {
        "sizes": [
            {
                "met": None,
                "scores": [0.5, None],
                "pixels": 2,
                "of": 2,
                "flagged": 1,
                "kind": "dent",
            },
            {"pixels": 4, "flagged": 0, "of": 3},
        ],
        "pixel": 1.5,
    },
    "stated": "a name of ours",
    "choice": None,
    "mask": {"png": PNG, "share": 0.75, "sha256": "0" * 64, "file": "mask.png"},
    "guard": {"noticed": {"blurred": 1, "darker": 0.5}, "refused": 0.0},
    "tiles": {"tile": 64, "down": 4, "across": 5, "width": 256},
    "by_unit": {"most": 3, "more": [], "least": 2, "pattern": r"(\d)_"},
    "ranges": {"grey": False, "depth": 3, "bits": [8, 16], "aspect": [1.0, 2]},
    "options": {"seed": 0, "good": ["ok"], "independent": True, "mask": None},
    "warnings": ["one"],
    "target_rate": None,
    "images": 120,
}


def test_facts_are_written_byte_for_byte_as_they_were_read() -> None:
    facts = TrainingFacts.from_json(FACTS)
    assert json.dumps(facts.to_json()) == json.dumps(FACTS)
    assert TrainingFacts.from_json(facts.to_json()) == facts


def test_facts_are_attributes_and_what_is_absent_is_none() -> None:
    facts = TrainingFacts.from_json(FACTS)
    assert (facts.images, facts.groups, facts.target_rate, facts.warnings) == (
        120,
        None,
        None,
        ("one",),
    )
    assert facts.by_unit == UnitRule(r"(\d)_", 2, 3, unknown={"more": []})
    assert facts.guard == GuardFacts(0.0, {"blurred": 1, "darker": 0.5})
    assert facts.ranges is not None and facts.ranges.bits == (8, 16)
    assert facts.mask is not None and facts.mask.mask.tolist() == [[False, True], [True, True]]
    assert facts.tiles is not None and (facts.tiles.width, facts.tiles.height) == (256, None)
    assert TrainingFacts().to_json() == {}


def test_a_change_keeps_the_order_and_adds_what_is_new_behind() -> None:
    facts = TrainingFacts.from_json({"images": 3, "cost": None, "new": 1})
    changed = replace(facts, images=4, groups=2)
    assert list(changed.to_json().items()) == [
        ("images", 4),
        ("cost", None),
        ("new", 1),
        ("groups", 2),
    ]
    stated = replace(changed, stated=changed.stating("mask", "groups"), groups=1)
    assert list(stated.to_json()) == ["images", "cost", "new", "groups", "mask"]
    assert stated.to_json()["mask"] is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("images", None),
        ("images", 0),
        ("images", True),
        ("ranges", None),
        ("ranges", {"bits": [16, 8]}),
        ("highest", [1, "x", None]),
        ("highest", "x"),
        ("guard", [{"refused": 0, "noticed": {}}]),
        ("guard", {"refused": 0}),
        ("tiles", {"tile": 64, "down": 4, "across": 5, "width": "wide"}),
        ("size_sensitivity", {"pixel": 1, "sizes": [FACTS["size_sensitivity"]["sizes"][0]] * 2}),
        ("size_sensitivity", {"pixel": 1, "sizes": [{"pixels": 2, "flagged": 2, "of": 1}]}),
        ("cost", FACTS["cost"] | {"without": []}),
        ("cost", FACTS["cost"] | {"of": None}),
        ("cost", {"without": ["a"], "threshold": 1.0, "rate": 0.1}),
        ("by_unit", {"pattern": "(", "least": 1, "most": 1}),
        ("by_unit", {"pattern": "a", "least": 2, "most": 1}),
        ("mask", FACTS["mask"] | {"png": "AAAA"}),
        ("options", {"seed": 0.5}),
    ],
)
def test_a_damaged_fact_is_refused_with_what_stands_there(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=r"found, which it cannot be$") as caught:
        TrainingFacts.from_json({"zeta": 1, "images": 120, name: value})
    shown = repr(value)[:60]
    assert str(caught.value).startswith(f"training.{name}: {shown}")


def test_facts_are_valid_whoever_makes_them() -> None:
    with pytest.raises(ValueError, match=r"^training\.images: 0 found, which it cannot be$"):
        TrainingFacts(images=0)
    with pytest.raises(ValueError, match=r"^training\.ranges\.aspect: \[2\.0, 1\.0\] found"):
        Ranges(aspect=(2.0, 1.0))
    with pytest.raises(ValueError, match=r"^training\.images: None found"):
        replace(TrainingFacts(images=1), images=None)
    with pytest.raises(TypeError, match="an object expected, list found"):
        TrainingFacts.from_json([])
    with pytest.raises(FrozenInstanceError):
        TrainingFacts().images = 1  # type: ignore[misc]


def test_a_mask_that_inspects_another_share_is_refused() -> None:
    facts = TrainingFacts.from_json({"mask": FACTS["mask"] | {"share": 0.5}})
    assert facts.mask is not None
    with pytest.raises(DetectorError, match=r"its mask inspects 0\.5 of the image, 0\.75 by its"):
        _ = facts.mask.mask
