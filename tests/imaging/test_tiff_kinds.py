"""TIFF files whose values would come out wrong without a word are refused in one line."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from anomaly.errors import ImageError
from anomaly.imaging.decode import decode


def tiff(
    values: np.ndarray, photometric: int, compression: int = 1, planar: int = 2, form: int = 1
) -> bytes:
    """A TIFF that Pillow does not write, in one strip a channel: values (channels, H, W)."""
    channels, height, width = values.shape
    size = values.itemsize * height * width
    tags = {
        256: (4, [width]),
        257: (4, [height]),
        258: (3, [8 * values.itemsize] * channels),
        259: (3, [compression]),
    }
    tags |= {
        262: (3, [photometric]),
        277: (3, [channels]),
        278: (4, [height]),
        279: (4, [size] * channels),
    }
    tags |= {284: (3, [planar]), 339: (3, [form] * channels)}
    tags |= {338: (3, [0] * (channels - 1))} if photometric == 1 and channels > 1 else {}
    tags[273] = (4, [0] * channels)
    place, entries, beside = 8 + 2 + 12 * len(tags) + 4, b"", b""
    start = place + sum(
        len(v) * (2 if f == 3 else 4) for f, v in tags.values() if len(v) * (2 if f == 3 else 4) > 4
    )
    tags[273] = (4, [start + size * i for i in range(channels)])
    for tag in sorted(tags):
        kind, found = tags[tag]
        packed = struct.pack(f"<{len(found)}{'H' if kind == 3 else 'I'}", *found)
        inline = (
            packed.ljust(4, b"\0") if len(packed) <= 4 else struct.pack("<I", place + len(beside))
        )
        beside += packed if len(packed) > 4 else b""
        entries += struct.pack("<HHI", tag, kind, len(found)) + inline
    return (
        b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + beside + values.tobytes()
    )


def test_planar_8_bit_rgb_is_read() -> None:
    values = np.arange(60, dtype=np.uint8).reshape(3, 4, 5) * 4
    np.testing.assert_array_equal(decode(tiff(values, 2)).pixels, values.transpose(1, 2, 0))


@pytest.mark.parametrize(("type", "photometric"), [(np.uint16, 2), (np.uint16, 1), (np.uint8, 1)])
def test_planar_tiff_of_another_kind_is_refused(type: type, photometric: int) -> None:
    values = np.arange(60).reshape(3, 4, 5).astype(type)
    with pytest.raises(
        ImageError, match=r"^image: planar TIFF \(each channel by itself\) of other than 8-bit RGB"
    ) as refused:
        decode(tiff(values, photometric))
    assert refused.value.kind == "unsupported"


def test_signed_8_bit_values_are_refused() -> None:
    with pytest.raises(
        ImageError,
        match=r"^image: TIFF of signed 8-bit values, which is not read: save it as 8-bit grey",
    ):
        decode(tiff(np.array([[[-1, 0, 1, 127]]], np.int8), 1, planar=1, form=2))
