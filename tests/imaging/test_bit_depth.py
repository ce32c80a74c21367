from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest

from anomaly.errors import ImageError
from anomaly.imaging.bit_depth import is_scale
from anomaly.imaging.decode import decode

TWELVE = np.tile(np.linspace(0, 4095, 64).astype(np.uint16), (8, 1))  # 12 bits in files of 16
FULL = np.full((8, 64), 65535, np.uint16)


def png(kind: int, *channels: np.ndarray) -> bytes:
    """A 16-bit PNG of a colour type."""
    values = np.stack(channels, -1).astype(">u2")

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 64, 8, 16, kind, 0, 0, 0))
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def ppm(largest: int) -> bytes:
    return b"P6 64 8 %d\n" % largest + np.stack([TWELVE] * 3, -1).astype(">u2").tobytes()


@pytest.mark.parametrize(
    "data", [png(0, TWELVE), png(2, *[TWELVE] * 3), png(6, *[TWELVE] * 3, FULL), ppm(4095)]
)
def test_twelve_bits_in_sixteen_keep_their_levels(data: bytes) -> None:
    found = decode(data)
    assert len(np.unique(found.pixels)) == 64 and found.pixels.max() == 255


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (png(4, TWELVE, FULL), "of 16 bits a channel, of which 8 could be read: save it as 8 bits"),
        (ppm(65535), "RGB of 16 bits a channel, of which 8 could be read: save it as 8 bits"),
        (png(6, *[TWELVE] * 3, TWELVE), "16-bit colour whose alpha is nowhere full"),
    ],
)
def test_what_would_lose_its_levels_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(ImageError, match=message) as refused:
        decode(data)
    assert refused.value.kind == "unsupported"


def test_a_scale_is_two_finite_numbers_the_first_the_lower() -> None:
    assert is_scale((0.0, 1.0)) and is_scale((-3, 4))
    for wrong in (
        (1.0, 1.0),
        (2.0, 1.0),
        (0.0, np.inf),
        (np.nan, 1.0),
        (True, 2.0),
        [0.0, 1.0],
        (0.0,),
        None,
    ):
        assert not is_scale(wrong)
