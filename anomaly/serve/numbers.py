"""Numbers in JSON: text becomes arrays, and arrays text, without an object for each number and a
piece at a time.

A piece takes a few milliseconds, between which other threads run and the deadline is looked at.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from math import prod
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from anomaly.errors import RequestError

PIECE = 1 << 18  # bytes of text, or numbers, taken at once
MAX_JSON_NUMBERS = 2_000_000  # in an answer as JSON: some 40 MB of text

NO_PIXEL = re.compile(rb'(?<![\d.eE+"-])(?:-\d+|25[6-9]|2[6-9]\d|[3-9]\d\d|\d{4,})(?![\d.eE"])')

Check = Callable[[], None]
Array = npt.NDArray[Any]


def unbounded() -> None:
    """A deadline that never passes."""


def pixels_of(text: bytes, shape: Sequence[int], check: Check = unbounded) -> npt.NDArray[np.uint8]:
    """Returns uint8 (N, H, W, 3) from the text of a JSON array, flat or nested by the shape;
    RequestError 400 if it is not one.

    Brackets and commas alone are compared with those that the shape demands before any number is
    converted. ``text`` must be valid JSON; a few times its length is all the memory that it takes.
    """
    frame = text.translate(None, b"0123456789 \t\r\n")
    if frame.strip(b"[],") or not frame.startswith(b"["):
        raise _not_pixels(text)
    found = frame.count(b",") + 1 if any(digit in text for digit in b"0123456789") else 0
    if found != prod(shape):
        raise RequestError(
            400,
            f"{found} value{'' if found == 1 else 's'} found, shape {list(shape)} expects another "
            "number",
        )
    if frame != _frame_of(shape, len(frame) - len(frame.lstrip(b"["))):
        raise RequestError(
            400, "ragged data found, a flat list of pixels or nested ones of equal length expected"
        )
    del frame
    pixels = np.empty(found, np.uint8)
    at = 0
    for piece in _pieces(text.translate(bytes.maketrans(b"[]", b"  "))):
        check()
        values = np.fromstring(piece, np.int64, sep=",")
        if values.max() > 255:  # no sign is left, and what overflows stays large
            raise _not_pixels(piece)
        pixels[at : at + len(values)] = values
        at += len(values)
    return pixels.reshape(tuple(shape))


def _not_pixels(text: bytes) -> RequestError:
    """Says which number is no value of a pixel, by its first digits, or that what was found are no
    whole numbers at all.
    """
    found = NO_PIXEL.search(text)
    if found is None:
        return RequestError(400, "data of another kind found, whole numbers from 0 to 255 expected")
    value = found.group().decode()
    shown = value if len(value) <= 20 else f"{value[:20]}... ({len(value)} digits)"
    return RequestError(
        400, f"a pixel value of {shown} found, whole numbers from 0 to 255 expected"
    )


def _frame_of(shape: Sequence[int], depth: int) -> bytes:
    """Brackets and commas of an array of that shape whose first ``depth - 1`` dimensions are
    nested.
    """
    outer = list(shape[: max(0, min(depth, len(shape)) - 1)])
    frame = b"[" + b"," * (prod(shape[len(outer) :]) - 1) + b"]"
    for length in reversed(outer):
        frame = b"[" + b",".join([frame] * length) + b"]"
    return frame


def _pieces(text: bytes) -> Iterator[bytes]:
    start = 0
    while start < len(text):
        end = text.find(b",", start + PIECE)
        end = len(text) if end < 0 else end
        yield text[start:end]
        start = end + 1


def text_of(values: Array, check: Check = unbounded) -> msgspec.Raw:
    """Returns an array as a flat JSON array; one of two dimensions as an array of rows. All must be
    finite.
    """
    if values.ndim == 2:
        return msgspec.Raw(b"[" + b",".join(bytes(text_of(row, check)) for row in values) + b"]")
    flat, parts = values.ravel(), []
    for start in range(0, len(flat), PIECE):
        check()
        parts.append(msgspec.json.encode(flat[start : start + PIECE].tolist())[1:-1])
    return msgspec.Raw(b"[" + b",".join(parts) + b"]")
