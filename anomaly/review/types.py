"""The list of defect types as people write it: one type a line, a colour behind it where one is
chosen.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from anomaly.errors import AnomalyError
from anomaly.review.findings import DefectType
from anomaly.review.schema import FIRST_TYPES

KEYS = 9  # of the keyboard: 1 to 9
COLOUR = re.compile("#[0-9a-fA-F]{6}")
LINE = re.compile(r"\s*(.*?)\s*(?:[=\s]\s*(#\S*))?\s*")
COLOURS = tuple(colour for _, colour in FIRST_TYPES)


def check_names(lines: Iterable[str]) -> None:
    """Raises AnomalyError for a line that names no type: an empty one, a colour alone, or several
    lines in one.
    """
    for line in lines:
        match = LINE.fullmatch(line)
        if match is None or not match[1] or COLOUR.fullmatch(match[1]):
            raise AnomalyError(
                f"defect type {line[:60]!r} found, a name like burr or burr=#3a86ff expected: give "
                "it a name"
            )


def in_order(types: Iterable[DefectType]) -> list[DefectType]:
    """Returns the types with the keys 1 to 9 given to the first nine, in their order."""
    return [
        DefectType(kind.name, at + 1 if at < KEYS else None, kind.colour)
        for at, kind in enumerate(types)
    ]


def to_text(types: Iterable[DefectType]) -> str:
    """Returns types as lines of text, for an editor."""
    return "\n".join(f"{kind.name} {kind.colour}" for kind in types)


def from_lines(lines: Iterable[str], known: Sequence[DefectType] = ()) -> list[DefectType]:
    """Returns the types of lines like ``dent`` or ``dent #9b5de5``; empty lines are passed over.

    A type without a colour keeps the one it has in ``known``, a new one gets one that no other has,
    as far as there are any. AnomalyError where no line names a type, or one holds a colour alone.
    """
    given = [line for line in lines if line.strip()]
    check_names(given)
    read = [match for line in given if (match := LINE.fullmatch(line))]
    if not read:
        raise AnomalyError(
            "no defect type found, at least one expected: the keys 1 to 9 would do nothing"
        )
    colours = {kind.name: kind.colour for kind in known}
    taken = {match[2] for match in read if match[2]} | {colours.get(match[1], "") for match in read}
    free = [colour for colour in COLOURS if colour not in taken]
    types = []
    for at, (name, colour) in enumerate(match.groups() for match in read):
        colour = (
            colour or colours.get(name) or (free.pop(0) if free else COLOURS[at % len(COLOURS)])
        )
        types.append(DefectType(name, None, colour))
    return in_order(types)
