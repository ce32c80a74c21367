from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from anomaly.errors import ImageError
from anomaly.imaging.decode import DecodeRule, decode, decode_pages
from anomaly.imaging.trailing import end_of, is_preview, picture_behind
from tests.imaging.test_pages import PAGES, check, pages

BEHIND = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM")


def alone(format: str, page: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(page).save(file, format)
    return file.getvalue()


@pytest.mark.parametrize("gap", [b"", b"\0" * 40, b"\r\n"], ids=["at once", "padding", "line"])
@pytest.mark.parametrize("second", BEHIND)
@pytest.mark.parametrize("first", BEHIND)
def test_a_picture_behind_the_first_is_never_passed_over(
    first: str, second: str, gap: bytes
) -> None:
    one = alone(first, PAGES[0])
    two = alone(second, PAGES[1])
    assert [number for number, _ in decode_pages(one, DecodeRule())] == [None]
    found = pages(one + gap + two)
    if (first, second) == ("PPM", "PPM") and not gap.startswith(b"\0"):
        assert [number for number, _ in found] == [1, 2]
    else:
        assert [kind for _, kind in found] == ["several pages"]


@pytest.mark.parametrize("first", BEHIND)
@pytest.mark.parametrize(
    "rest", [b"\0" * 64, b"\n", b"no picture at all", b"\xff" * 30, b"ftypmp42" * 4], ids=str
)
def test_other_things_behind_a_picture_change_nothing(first: str, rest: bytes) -> None:
    one = alone(first, PAGES[0])
    np.testing.assert_array_equal(decode(one + rest).pixels, decode(one).pixels)


def test_a_smaller_copy_behind_a_jpeg_is_its_preview() -> None:
    file, small, near = io.BytesIO(), io.BytesIO(), io.BytesIO()
    thumb = Image.Exif()
    Image.new("RGB", (90, 60), (200, 10, 10)).save(file, "JPEG", exif=thumb)
    Image.new("RGB", (60, 40)).save(small, "JPEG")
    Image.new("RGB", (80, 40)).save(near, "JPEG")
    assert len(pages(file.getvalue() + small.getvalue())) == 1
    assert decode(file.getvalue() + small.getvalue()).format == "JPEG"
    for behind in (near.getvalue(), small.getvalue() + near.getvalue()):
        with pytest.raises(ImageError, match="another picture found behind the end of the first"):
            decode(file.getvalue() + behind)


@pytest.mark.parametrize("comment", [b"", b"# the next\n", b"\n#a\n#b\n"])
def test_a_comment_between_two_ppm_pictures_hides_neither(comment: bytes) -> None:
    one, two = (alone("PPM", page) for page in PAGES[:2])
    check(one + comment + two, PAGES[:2])


def test_several_pictures_in_plain_text_are_refused() -> None:
    one = b"P2 # P2 \n2 1\n255\n7 9\n"
    assert decode(one).pixels[0, :, 0].tolist() == [7, 9]
    with pytest.raises(ImageError, match="several pictures in plain text found"):
        decode(one + one)


def test_where_a_picture_ends_and_what_is_its_preview() -> None:
    for format in ("JPEG", "PNG", "BMP", "WEBP"):
        data = alone(format, PAGES[0])
        assert end_of(data, format) == len(data) == end_of(data + b"more", format)
        assert not picture_behind(data, format)
        assert [end_of(data[:end], format) <= end for end in range(len(data))] == [True] * len(data)
    assert is_preview((60, 40), (90, 60)) and not is_preview((60, 41), (90, 60))
