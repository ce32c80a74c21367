"""Facts of a card: an object of JSON as a dataclass that is valid when it exists, and that is
written again as it was read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any, ClassVar, Self

from anomaly.detector.card_checks import Check, shown
from anomaly.errors import AnomalyError


def fact(check: Check) -> Any:
    """Returns the field of a fact that may be absent; null only where the check takes it."""
    return field(default=None, metadata={"check": check})


def object_of(kind: type[Facts], null: bool = True) -> dict[str, Any]:
    """Returns the metadata of a field whose fact is an object, or null where ``null``."""
    return {
        "check": lambda value: isinstance(value, kind) or (null and value is None),
        "kind": kind,
    }


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a card says of one subject: each field is a fact with its check, None where it is
    absent.

    ``stated``: the names in the order in which they are written, with a null too; a fact that is
    not None is always among them. ``unknown``: what stands under names that are not known here; it
    is kept and never read.
    """

    place: ClassVar[str] = ""  # of these facts in the card, before a fact's name in an error
    stated: tuple[str, ...] = field(default=(), compare=False, repr=False)
    unknown: Mapping[str, Any] = field(default_factory=dict, hash=False, repr=False)

    def __post_init__(self) -> None:
        """Raises ValueError where a fact is not of its kind."""
        stated = dict.fromkeys(self.stated)
        for one in _facts(type(self)):
            value = getattr(self, one.name)
            if value is None and one.name not in stated and one.default is not MISSING:
                continue
            if not one.metadata["check"](value):
                found = shown(_plain(value))
                raise ValueError(f"{self.place}{one.name}: {found} found, which it cannot be")
            stated[one.name] = None
        object.__setattr__(self, "stated", (*stated, *(n for n in self.unknown if n not in stated)))

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """Returns the facts of an object; ValueError where one is missing or not of its kind."""
        if not isinstance(value, dict):
            raise TypeError(f"an object expected, {type(value).__name__} found")
        known = {one.name: one for one in _facts(cls)}
        for name, one in known.items():
            if one.default is MISSING and name not in value:
                raise ValueError(f"{cls.place}{name} not found")
        return cls(
            **{name: _read(value[name], one) for name, one in known.items() if name in value},
            stated=tuple(value),
            unknown={name: inner for name, inner in value.items() if name not in known},
        )

    def to_json(self) -> dict[str, Any]:
        """Returns the object that they were read from, with what was changed since."""
        return {
            name: self.unknown[name] if name in self.unknown else _plain(getattr(self, name))
            for name in self.stated
        }

    def stating(self, *names: str) -> tuple[str, ...]:
        """Returns ``stated`` with these names too, for a change that may make them null."""
        return tuple(dict.fromkeys((*self.stated, *names)))


def _facts(kind: type[Facts]) -> Iterator[Field[Any]]:
    return (one for one in fields(kind) if "check" in one.metadata)


def _read(value: Any, one: Field[Any]) -> Any:
    """Lists become tuples, and objects the facts of their kind; one that is damaged stays as it is,
    which the check of its field then refuses.
    """
    if isinstance(value, list | tuple):
        return tuple(_read(inner, one) for inner in value)
    kind: type[Facts] | None = one.metadata.get("kind")
    if kind is None or not isinstance(value, dict):
        return value
    try:
        return kind.from_json(value)
    except (TypeError, ValueError, OverflowError, AnomalyError):
        return value


def _plain(value: Any) -> Any:
    if isinstance(value, Facts):
        return value.to_json()
    if isinstance(value, tuple):
        return [_plain(inner) for inner in value]
    return dict(value) if isinstance(value, dict) else value
