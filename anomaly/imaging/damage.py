"""What is wrong with an image file that Pillow could not decode."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image

from anomaly.errors import ImageError
from anomaly.imaging.bit_depth import (
    PLANAR_FOUND,
)
from anomaly.imaging.pillow import (
    format_of,
    quiet_pillow,
)


@contextmanager
def says_what_is_wrong(data: bytes) -> Iterator[None]:
    try:
        with quiet_pillow():
            yield
    except ImageError:
        raise
    except Exception as error:
        # Broad on purpose: on damaged files Pillow raises nearly everything there is (struct.error,
        # SyntaxError, ValueError, ZeroDivisionError, OSError ...), and one bad image must not end a
        # run over a million.
        raise ImageError(*_what_is_wrong(error, data, format_of(data))) from error


def _what_is_wrong(error: Exception, data: bytes, format: str) -> tuple[str, str]:
    """Returns the kind and the message for an exception out of Pillow."""
    text = " ".join(str(error).split())[:100] or type(error).__name__
    if isinstance(error, MemoryError):
        return (
            "too large",
            "not enough memory to decode it: --max-pixels refuses such images beforehand",
        )
    if (
        isinstance(error, Image.DecompressionBombError)
        or "too large" in text
        or "Too much memory" in text
    ):
        return (
            "too large",
            f"{format} too large ({text}): save it again, smaller or without its metadata",
        )
    if re.search("unknown pixel mode|not supported|[Uu]nsupported", text):
        return (
            "unsupported",
            f"{format} of a kind that is not read ({text}): convert it to 8-bit grey or RGB",
        )
    # it has more planes than its mode has letters
    if format == "TIFF" and text == "string index out of range":
        return "unsupported", PLANAR_FOUND
    if "truncated" in text.lower() or ends_early(data, format):
        return (
            "truncated",
            f"{format} that ends early after {len(data):,} bytes ({text}): copy it again",
        )
    return "damaged", f"{format} that is damaged ({text}): copy it again"


def ends_early(data: bytes, format: str) -> bool:
    """Whether an image file lacks its end, by its end mark (JPEG, PNG) or the length that
    it names.
    """
    if format == "JPEG":
        return not data.endswith(b"\xff\xd9")
    if format == "PNG":
        return b"IEND" not in data[-12:]
    if len(data) < 12:
        return True
    if format == "GIF":
        return b";" not in data[-2:]
    # the directory, not of BigTIFF, lies behind the end
    if format == "TIFF" and data[2:4] in (b"*\0", b"\0*"):
        return int(struct.unpack_from("<I" if data[:2] == b"II" else ">I", data, 4)[0]) >= len(data)
    if format == "WEBP":
        return int(struct.unpack_from("<I", data, 4)[0]) + 8 > len(data)
    return format == "BMP" and int(struct.unpack_from("<I", data, 2)[0]) > len(data)
