"""Protocol buffers as plain bytes: reads and writes the few that an ONNX file needs, without the
package `onnx`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

from anomaly.errors import DetectorError

Value: TypeAlias = int | memoryview

NOT_ONNX = "not an ONNX file, or a truncated one: copy it again"
MAX_FIELDS = 2_000_000  # of one file: reading so many takes seconds; ours have some ten thousand


class Budget:
    """How many fields of one file may still be read, so that a file of tiny ones does not take
    minutes.
    """

    def __init__(self, left: int = MAX_FIELDS) -> None:
        self._left = left

    def spend(self) -> None:
        """Counts one field; DetectorError where there were too many."""
        self._left -= 1
        if self._left < 0:
            raise DetectorError(
                f"more than {MAX_FIELDS} fields found in the file: not a detector, not loaded"
            )


def fields(message: memoryview, budget: Budget | None = None) -> Iterator[tuple[int, Value]]:
    """Yields (field number, value) of a protobuf message: int for numbers, bytes for everything
    else.
    """
    position = 0
    while position < len(message):
        if budget is not None:
            budget.spend()
        key, position = _varint(message, position)
        number, kind = key >> 3, key & 7
        if kind == 0:
            value, position = _varint(message, position)
            yield number, value
            continue
        length = {1: 8, 5: 4}.get(kind)
        if length is None:
            if kind != 2:
                raise DetectorError("not an ONNX file (damaged or of another kind)")
            length, position = _varint(message, position)
        if position + length > len(message):
            raise DetectorError(NOT_ONNX)
        yield number, message[position : position + length]
        position += length


def numbers(value: Value) -> list[int]:
    """Returns the numbers of one field of a repeated integer, which may be packed."""
    if isinstance(value, int):
        return [value]
    found, position = [], 0
    while position < len(value):
        number, position = _varint(value, position)
        found.append(number)
    return found


def inside(value: Value) -> memoryview:
    """Returns a field that must hold bytes."""
    if isinstance(value, int):
        raise DetectorError("not an ONNX file (damaged or of another kind)")
    return value


def string(value: Value) -> str:
    """Returns a field that must hold text."""
    return bytes(inside(value)).decode("utf-8", "replace")


def written(number: int, value: int | bytes) -> bytes:
    """Returns one field of a protobuf message: an integer of at least 0, or bytes."""
    if isinstance(value, int):
        return _as_varint(number << 3) + _as_varint(value)
    return _as_varint(number << 3 | 2) + _as_varint(len(value)) + value


def _as_varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while position < len(message) and shift < 64:
        byte = message[position]
        value |= (byte & 0x7F) << shift
        position += 1
        if byte < 0x80:
            return value, position
        shift += 7
    raise DetectorError(NOT_ONNX)
