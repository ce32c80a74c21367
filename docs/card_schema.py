"""The JSON Schema of a detector's card, made from the dataclasses that read it.

python docs/card_schema.py    (writes docs/reference/card.schema.json)
"""

from __future__ import annotations

import json
import sys
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[1])]

from anomaly.detector.card import FORMAT, VERSION  # noqa: E402
from anomaly.detector.card_facts import Facts  # noqa: E402
from anomaly.detector.training_facts import TrainingFacts  # noqa: E402

OUT = Path(__file__).parent / "reference/card.schema.json"
PLAIN = {int: "integer", float: "number", str: "string", bool: "boolean"}
TEXT, RATE = {"type": "string"}, {"type": ["number", "null"], "minimum": 0, "maximum": 0.5}
DIGEST = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
SCORES = {"type": "array", "items": {"type": "number"}, "minItems": 1}


def schema() -> dict[str, Any]:
    """Returns the schema of a whole card."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"The card of a detector, format {FORMAT}",
        **_object(
            {
                "format": {"const": FORMAT},
                "name": TEXT,
                "version": {"type": "string", "pattern": f"^{VERSION.pattern}$"},
                "model": TEXT,
                "space": TEXT,
                "size": {"type": "integer", "minimum": 1},
                "score": TEXT,
                "decode": _decode(),
                "calibration": _or_null(_calibration()),
                "pooled": {"type": "boolean"},
                "heatmap": _or_null(_object({"m": {}, "threshold": {}, "scores": SCORES})),
                "training": _of(TrainingFacts),
                "golden": _golden(),
                "licences": {"type": "object", "additionalProperties": TEXT},
                "quality": {"type": ["object", "null"]},
                "parent": _or_null(DIGEST),
                "weights": DIGEST,
            }
        ),
    }


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    """Returns an object of which every property is there; others may be."""
    return {"type": "object", "properties": properties, "required": list(properties)}


def _or_null(of: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [of, {"type": "null"}]}


def _decode() -> dict[str, Any]:
    rule = _object({"orientation": {"const": "exif"}, "alpha": {"const": "white"}})
    rule["properties"] |= {
        "bits": {"enum": [10, 12, 14, 16, None]},
        "reduced": {"type": "boolean"},
        "scale": {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2},
    }
    return rule


def _calibration() -> dict[str, Any]:
    review = {
        "threshold": {"type": "number"},
        "k": {"type": ["integer", "null"]},
        "target_rate": RATE,
        "guaranteed_rate": {"type": ["number", "null"]},
        "estimated_rate": {"type": ["number", "null"]},
        "upper_bound": {"type": "number"},
    }
    return _object(
        {
            "n": {"type": "integer", "minimum": 1},
            "k": {"type": "integer", "minimum": 1},
            "target_rate": RATE,
            "kind": {"enum": ["split", "cross"]},
            "guaranteed_rate": {"type": ["number", "null"]},
            "estimated_rate": {"type": ["number", "null"]},
            "upper_bound": {"type": "number"},
            "threshold": {"type": "number"},
            "m": {"type": "number"},
            "review": _or_null(_object(review)),
            "scores": SCORES,
        }
    )


def _golden() -> dict[str, Any]:
    whole = {"type": "integer"}
    sample = {"height": whole, "width": whole, "a": whole, "b": whole, "score": {"type": "number"}}
    samples = {"type": "array", "items": _object(sample), "minItems": 1}
    return _object({"tolerance": {"type": "number", "exclusiveMinimum": 0}, "samples": samples})


def _of(kind: type[Facts]) -> dict[str, Any]:
    """Returns the schema of facts: the types that their fields have, required if without default,
    null where the field's check takes it.
    """
    hints = typing.get_type_hints(kind)
    properties, required = {}, []
    for one in fields(kind):
        if "check" not in one.metadata:
            continue
        null = one.metadata["check"](None)
        properties[one.name] = _type(hints[one.name], null)
        if one.default is MISSING:
            required.append(one.name)
    said = " ".join((kind.__doc__ or "").split())
    return {
        "type": "object",
        "description": said,
        "properties": properties,
        "required": required,
    }


def _type(hint: Any, null: bool) -> dict[str, Any]:
    """Returns the schema of a type; ``null``: whether null is one of its values."""
    if isinstance(hint, types.UnionType):
        [found] = [one for one in typing.get_args(hint) if one is not type(None)]
        return _or_null(_type(found, False)) if null else _type(found, False)
    if hint in PLAIN:
        return {"type": PLAIN[hint]}
    if typing.get_origin(hint) is tuple:
        item = typing.get_args(hint)[0]
        return {"type": "array", "items": _type(item, type(None) in typing.get_args(item))}
    if typing.get_origin(hint) is Mapping:
        return {"type": "object", "additionalProperties": _type(typing.get_args(hint)[1], False)}
    return _of(hint)


def text() -> str:
    """Returns the schema as the file holds it."""
    return json.dumps(schema(), indent=1) + "\n"


if __name__ == "__main__":
    OUT.write_text(text(), encoding="utf-8")
