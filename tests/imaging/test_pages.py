from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.TiffImagePlugin import AppendingTiffWriter, ImageFileDirectory_v2

from anomaly.errors import ImageError
from anomaly.imaging.decode import Decoded, DecodeRule, decode, decode_pages
from anomaly.imaging.listing import file_and_page, page_name
from anomaly.imaging.pages import MAX_PAGES

PAGES = [
    np.random.default_rng(seed).integers(0, 256, (14, 22, 3), dtype=np.uint8) for seed in range(4)
]


def saved(format: str, pictures: list[Image.Image], **options: Any) -> bytes:
    file = io.BytesIO()
    pictures[0].save(file, format, save_all=True, append_images=pictures[1:], **options)
    return file.getvalue()


def pages(data: bytes, **options: Any) -> list[tuple[int | None, Any]]:
    """The pages' pixels, or the kinds of their errors."""
    found = decode_pages(data, DecodeRule(), **options)
    return [(number, one.pixels if isinstance(one, Decoded) else one.kind) for number, one in found]


def check(data: bytes, expected: list[Any], **options: Any) -> None:
    found = pages(data, **options)
    assert [number for number, _ in found] == (
        [None] if len(expected) == 1 else [*range(1, len(expected) + 1)]
    )
    for (_, pixels), wanted in zip(found, expected, strict=True):
        if isinstance(wanted, str):
            assert pixels == wanted
        else:
            np.testing.assert_array_equal(pixels, wanted)


@pytest.mark.parametrize(
    ("format", "options"),
    [
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("TIFF", {"big_tiff": True}),
        ("PNG", {}),
        ("PNG", {"default_image": True}),
        ("WEBP", {"lossless": True}),
    ],
)
@pytest.mark.parametrize("count", [1, 2, 4])
def test_every_page_is_decoded(format: str, options: dict[str, Any], count: int) -> None:
    data = saved(format, [Image.fromarray(page) for page in PAGES[:count]], **options)
    check(data, PAGES[:count])
    if count == 1:
        np.testing.assert_array_equal(decode(data).pixels, PAGES[0])
        return
    with pytest.raises(
        ImageError, match=f"^image: {count} pages or frames found, one expected"
    ) as refused:
        decode(data)
    assert refused.value.kind == "several pages"
    np.testing.assert_array_equal(decode(data, page=count).pixels, PAGES[count - 1])
    with pytest.raises(ImageError, match=f"page 9 asked for, {count} found"):
        decode(data, page=9)


def test_frames_of_a_gif_are_drawn_over_each_other() -> None:
    greys = [np.full((8, 8), grey, np.uint8) for grey in (10, 200, 90)]
    greys[2][:4] = 200
    check(
        saved("GIF", [Image.fromarray(grey) for grey in greys]),
        [np.stack([grey] * 3, -1) for grey in greys],
    )
    check(saved("GIF", [Image.fromarray(greys[2])]), [np.stack([greys[2]] * 3, -1)])


def test_a_gif_that_was_cut_off_between_its_frames_is_truncated() -> None:
    data = saved("GIF", [Image.fromarray(page).convert("L") for page in PAGES])
    for end in range(13, len(data) - 1):
        assert {kind for _, kind in pages(data[:end])} <= {"truncated", "damaged"}


def test_pages_of_other_sizes_depths_and_orientations() -> None:
    deep = np.arange(14 * 22, dtype=np.uint16).reshape(14, 22) * 200
    turned = ImageFileDirectory_v2()
    turned[274] = 6
    file = io.BytesIO()
    with AppendingTiffWriter(file, True) as writer:
        Image.fromarray(PAGES[0]).save(writer, "TIFF", tiffinfo=turned)
        writer.newFrame()
        Image.fromarray(PAGES[1][:5, :9]).save(writer, "TIFF")
        writer.newFrame()
        Image.fromarray(deep).save(writer, "TIFF")
        writer.newFrame()
    found = list(decode_pages(file.getvalue(), DecodeRule()))
    assert [number for number, _ in found] == [1, 2, 3]
    assert all(isinstance(one, Decoded) for _, one in found)
    described = [(one.width, one.height, one.bits) for _, one in found if isinstance(one, Decoded)]
    assert described == [(14, 22, 8), (9, 5, 8), (22, 14, 16)]
    np.testing.assert_array_equal(found[0][1].pixels, np.rot90(PAGES[0], -1))  # type: ignore[union-attr]


# ---- TIFF: what is no page ----


def tiff(*directories: dict[int, int], tail: int = 0) -> bytes:
    """Grey images of 4 x 3 pixels, each with these tags besides; ``tail``: where the last one says
    the next lies.
    """
    data = bytearray(b"II*\0\0\0\0\0")
    link = 4
    for number, more in enumerate(directories):
        strip = len(data)
        data += bytes([(10 * number + 10) % 256] * 12)
        tags = {256: 4, 257: 3, 258: 8, 259: 1, 262: 1, 273: strip, 277: 1, 278: 3, 279: 12} | more
        struct.pack_into("<I", data, link, len(data))
        data += struct.pack("<H", len(tags))
        for tag, value in sorted(tags.items()):
            data += struct.pack("<HHII", tag, 4, 1, value)
        link = len(data)
        data += bytes(4)
    struct.pack_into("<I", data, link, tail)
    return bytes(data)


def grey(value: int) -> Any:
    return np.full((3, 4, 3), value, np.uint8)


THUMBNAIL, PAGE, MASK = {254: 1, 256: 2, 257: 2}, {254: 2}, {254: 4, 262: 4}


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (tiff(PAGE, PAGE), [grey(10), grey(20)]),
        (tiff({}, THUMBNAIL, THUMBNAIL), [grey(10)]),
        (tiff(THUMBNAIL, {}), [grey(20)]),
        (tiff({255: 1}, {255: 2, 256: 2, 257: 2}, {255: 3}), [grey(10), grey(30)]),
        (tiff({}, MASK), [grey(10)]),
        (tiff({}, {254: 4}), [grey(10), grey(20)]),  # a picture of its own that calls itself a mask
        (tiff({}, {254: 1}), [grey(10), grey(20)]),  # and a smaller copy that is no smaller
        (tiff({}, {254: 1, 257: 2}), [grey(10), np.full((2, 4, 3), 20, np.uint8)]),
        (tiff({254: 1}), [grey(10)]),
        # the second's directory is inside the first too, and is no copy
        (tiff({330: 158}, {}), ["several pages"]),
        (tiff({330: 158}, THUMBNAIL), [grey(10)]),  # a smaller copy inside
        (tiff(THUMBNAIL, THUMBNAIL), ["unsupported"]),
        # as cameras write: what counts is not in the list
        (tiff(THUMBNAIL | {330: 8}), ["unsupported"]),
        (tiff({50706: 0x01040000}), ["unsupported"]),  # DNG
        (tiff({}, tail=1 << 20), ["truncated"]),
        (tiff({}, {}, tail=8 + 12), [grey(10), grey(20)]),  # a loop ends
        (tiff({}, {258: 99}, {}), [grey(10), "unsupported", grey(30)]),
    ],
)
def test_which_directories_of_a_tiff_are_pages(data: bytes, expected: list[Any]) -> None:
    check(data, expected)
    if len(expected) == 1 and not isinstance(expected[0], str):
        np.testing.assert_array_equal(decode(data).pixels, expected[0])


# ---- JPEG: stereo cameras, and telephones ----


def mpo(first: Image.Image, second: Image.Image, kind: int, xmp: bytes = b"") -> bytes:
    data = bytearray(saved("MPO", [first, second]))
    entries = data.index(struct.pack("<HHI", 0xB002, 7, 32))
    at = struct.unpack_from("<I", data, entries + 8)[0] + data.index(b"MPF\0") + 4 + 16
    struct.pack_into("<I", data, at, kind)
    if xmp:
        start = data.index(b"\xff\xd8\xff", 100)
        size = len(data) - start
        segment = b"\xff\xe1" + struct.pack(">H", len(xmp) + 2) + xmp
        data[start + 2 : start + 2] = segment
        struct.pack_into("<I", data, at + 4, size + len(segment))
    return bytes(data)


@pytest.mark.parametrize(
    ("second", "kind", "xmp", "count"),
    [
        ((200, 100), 0x020002, b"", 2),  # the other eye
        ((200, 100), 0x020003, b"", 2),
        ((200, 100), 0x000000, b"", 2),  # as Pillow writes it
        ((150, 75), 0x010002, b"", 1),  # a preview
        ((200, 100), 0x010002, b"", 2),  # a preview is smaller
        ((190, 95), 0x000000, b"", 2),
        ((100, 50), 0x000000, b"", 1),  # smaller than the first: a preview, too
        # a gain map
        ((200, 100), 0x000000, b"http://ns.adobe.com/xap/1.0/\0<x hdrgm:Version='1.0'/>", 1),
    ],
)
def test_views_of_a_jpeg_are_pages_and_previews_are_none(
    second: tuple[int, int], kind: int, xmp: bytes, count: int
) -> None:
    data = mpo(
        Image.new("RGB", (200, 100), (200, 10, 10)),
        Image.new("RGB", second, (10, 10, 200)),
        kind,
        xmp,
    )
    found = pages(data)
    assert [number for number, _ in found] == ([None] if count == 1 else [1, 2])
    assert [tuple(int(v) for v in pixels[5, 5] > 100) for _, pixels in found] == [
        (1, 0, 0),
        (0, 0, 1),
    ][:count]
    if count == 1:
        assert decode(data).format == "JPEG"


def test_a_damaged_index_of_views_is_that_of_a_plain_jpeg() -> None:
    data = mpo(Image.new("RGB", (20, 10), (200, 10, 10)), Image.new("RGB", (20, 10)), 0)
    broken = bytearray(data)
    at = data.index(b"MPF\0")
    broken[at + 4 : at + 20] = b"\xff" * 16
    assert pages(bytes(broken))[0][0] is None


# ---- PBM, PGM, PPM ----


def test_pictures_that_follow_one_another_in_a_pnm_file() -> None:
    one, two = (
        np.arange(12, dtype=np.uint8).reshape(3, 4),
        np.arange(30, dtype=np.uint8).reshape(5, 6),
    )
    first, second = b"P5\n# a comment\n4 3\n255\n" + one.tobytes(), b"P5 6 5 255\n" + two.tobytes()
    check(first, [np.stack([one] * 3, -1)])
    check(first + second, [np.stack([one] * 3, -1), np.stack([two] * 3, -1)])
    check(first + second[:-3], [np.stack([one] * 3, -1), "truncated"])
    check(first + b"\n", [np.stack([one] * 3, -1)])
    assert [
        number for number, _ in pages(b"P4 9 2\n" + bytes(4) + b"P6 1 1 65535 " + bytes(6))
    ] == [1, 2]


# ---- how many ----


def test_too_many_pages_are_refused_at_once() -> None:
    assert pages(tiff(*[{}] * (MAX_PAGES + 1))) == [(None, "too large")]


def test_frames_that_an_animation_only_claims_are_one_error() -> None:
    data = bytearray(saved("PNG", [Image.fromarray(page) for page in PAGES[:2]]))
    at = data.index(b"acTL")
    data[at + 4 : at + 8] = struct.pack(">I", 5000)
    data[at + 12 : at + 16] = struct.pack(">I", zlib.crc32(bytes(data[at : at + 12])))
    found = list(decode_pages(bytes(data), DecodeRule()))
    assert [number for number, _ in found] == [1, 2, 3]
    assert isinstance(
        found[2][1], ImageError
    ) and "nor were the 4,997 pages behind it judged" in str(found[2][1])


def test_the_pixels_of_all_pages_together_are_bounded() -> None:
    found = list(decode_pages(tiff(*[{}] * 300), DecodeRule(), 12))
    assert [number for number, _ in found] == list(range(1, 102))  # a hundred times 12
    assert isinstance(found[-1][1], ImageError) and found[-1][1].kind == "too large"
    assert "nor were the 199 pages" in str(found[-1][1])


# ---- names ----


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("a/b.tif#2", ("a/b.tif", 2)),
        ("b.tif", ("b.tif", None)),
        ("b#2.tif", ("b#2.tif", None)),
        ("list.csv#3", ("list.csv#3", None)),
        ("list.csv#3#2", ("list.csv#3", 2)),
        ("list.parquet#a.tif#12", ("list.parquet#a.tif", 12)),
        ("b.tif#0", ("b.tif#0", None)),
        ("#1", ("#1", None)),
    ],
)
def test_the_name_of_a_page_tells_its_file(name: str, found: tuple[str, int | None]) -> None:
    assert file_and_page(name) == found
    assert page_name(*found) == name
