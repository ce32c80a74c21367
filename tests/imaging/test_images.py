from __future__ import annotations

import io
import json
import os
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from anomaly.errors import DatasetError, DetectorError, ImageError
from anomaly.imaging.decode import DecodeRule, decode
from anomaly.imaging.find import find_images

RGB = np.random.default_rng(0).integers(0, 256, (7, 11, 3), dtype=np.uint8)
GREY = RGB[..., 0]


def file_of(image: Image.Image | np.ndarray, format: str = "PNG", **options: object) -> bytes:
    out = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(
        out, format, **options
    )
    return out.getvalue()


def three(grey: np.ndarray) -> np.ndarray:
    return np.stack([grey, grey, grey], -1)


# ---- what pixels become ----


@pytest.mark.parametrize(
    ("format", "options"),
    [
        ("PNG", {}),
        ("BMP", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("WEBP", {"lossless": True}),
    ],
)
def test_lossless_colour_comes_back_exactly(format, options):
    decoded = decode(file_of(RGB, format, **options))
    np.testing.assert_array_equal(decoded.pixels, RGB)
    described = (
        decoded.width,
        decoded.height,
        decoded.bits,
        decoded.mode,
        decoded.grey,
        decoded.format,
    )
    assert described == (11, 7, 8, "RGB", False, format)


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF"])
def test_grey_fills_all_three_channels(format):
    decoded = decode(file_of(GREY, format))
    np.testing.assert_array_equal(decoded.pixels, three(GREY))
    assert (decoded.mode, decoded.grey) == ("L", True)


def test_jpeg_is_what_pillow_makes_of_it():
    data = file_of(RGB, "JPEG")
    np.testing.assert_array_equal(decode(data).pixels, np.asarray(Image.open(io.BytesIO(data))))


def test_colours_that_are_equal_everywhere_are_grey():
    assert decode(file_of(three(GREY))).grey
    almost = three(GREY)
    almost[-1, -1, 2] ^= 1
    assert not decode(file_of(almost)).grey


@pytest.mark.parametrize("shape", [(700, 701), (1, 140_000), (140_000, 1), (1, 1)])
def test_large_images_are_copied_strip_by_strip_without_a_seam(shape):
    pixels = np.random.default_rng(1).integers(0, 256, (*shape, 3), dtype=np.uint8)
    np.testing.assert_array_equal(decode(file_of(pixels, "BMP")).pixels, pixels)
    np.testing.assert_array_equal(
        decode(file_of(pixels[..., 0].copy(), "BMP")).pixels, three(pixels[..., 0])
    )


@pytest.mark.parametrize(
    "image", [RGB, GREY, GREY.astype(np.uint16) * 257, GREY.astype(np.float32) / 255]
)
def test_pixels_are_contiguous_and_may_be_written(image):
    pixels = decode(file_of(image, "TIFF")).pixels
    assert (pixels.dtype, pixels.shape) == (np.uint8, (7, 11, 3))
    assert pixels.flags.c_contiguous and pixels.flags.writeable


def test_one_bit_is_black_and_white():
    bits = GREY > 127
    np.testing.assert_array_equal(decode(file_of(bits)).pixels, three(bits * np.uint8(255)))


@pytest.mark.parametrize(
    ("largest", "bits"), [(1, 10), (1023, 10), (1024, 12), (4095, 12), (4096, 14), (16384, 16)]
)
@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_by_the_depth_of_the_largest_value(format, largest, bits):
    values = np.linspace(0, largest, 77).astype(np.uint16).reshape(7, 11)
    decoded = decode(file_of(values, format))
    top = 2**bits - 1
    np.testing.assert_array_equal(
        decoded.pixels, three((values.astype(int) * 255 * 2 + top) // (2 * top))
    )
    assert (decoded.bits, decoded.mode, decoded.grey) == (bits, "I;16", True)


def test_every_sixteen_bit_value_is_scaled_to_the_nearest_grey():
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    pixels = decode(file_of(values)).pixels[..., 0]
    assert np.abs(pixels - values / 257.0).max() <= 0.5
    np.testing.assert_array_equal(pixels[:, 0], np.round(values[:, 0] / 257.0))
    assert list(decode(file_of(np.array([[0, 128, 129, 65535]], np.uint16))).pixels[0, :, 0]) == [
        0,
        0,
        1,
        255,
    ]


def test_big_endian_sixteen_bits():
    values = (np.arange(77, dtype=np.uint16) * 800).reshape(7, 11)
    swapped = Image.frombytes("I;16B", (11, 7), values.astype(">u2").tobytes())
    decoded = decode(file_of(swapped, "TIFF"))
    assert decoded.mode == "I;16B"
    np.testing.assert_array_equal(decoded.pixels, decode(file_of(values)).pixels)


def test_the_rule_fixes_the_depth_unless_a_value_lies_above_it():
    dark = np.array([[0, 100, 900]], np.uint16)
    assert decode(file_of(dark)).pixels[0, :, 0].tolist() == [0, 25, 224]
    fixed = decode(file_of(dark), DecodeRule(bits=12))
    assert (fixed.pixels[0, :, 0].tolist(), fixed.bits) == ([0, 6, 56], 12)
    above = decode(file_of(dark * 50), DecodeRule(bits=12))
    assert (above.pixels[0, :, 0].tolist(), above.bits) == ([0, 19, 175], 16)


@given(arrays(np.uint16, (3, 5)), st.sampled_from([None, 10, 12, 14, 16]))
def test_scaling_keeps_the_order_and_never_clips(values, bits):
    pixels = decode(file_of(values), DecodeRule(bits=bits)).pixels[..., 0]
    order = np.argsort(values, axis=None)
    assert (np.diff(pixels.ravel()[order].astype(int)) >= 0).all()
    depth = decode(file_of(values), DecodeRule(bits=bits)).bits
    assert np.abs(pixels - values * 255.0 / (2**depth - 1)).max() <= 0.5


@pytest.mark.parametrize(
    ("values", "pixels", "bits"),
    [
        ([0.0, 0.5, 1.0], [0, 128, 255], 8),
        ([0.0, 1.4, 255.0], [0, 1, 255], 8),
        ([0.0, 255.0, 1023.0], [0, 64, 255], 10),
        ([0.0, 257.0, 65535.0], [0, 1, 255], 16),
        ([-0.0, 0.0, 0.0], [0, 0, 0], 8),
    ],
)
def test_float_is_0_to_1_or_0_to_255_or_sixteen_bits(values, pixels, bits):
    decoded = decode(file_of(np.array([values], np.float32), "TIFF"))
    assert (decoded.pixels[0, :, 0].tolist(), decoded.bits, decoded.mode) == (pixels, bits, "F")


def test_a_mode_that_pillow_does_not_read_is_named():
    doubles = tiff_of(bytes(16), t256=2, t257=1, t258=64, t259=1, t262=1, t277=1, t339=3)
    with pytest.raises(
        ImageError, match=r"^image: TIFF of a kind that is not read \(unknown pixel mode\)"
    ) as refused:
        decode(doubles)
    assert refused.value.kind == "unsupported"


def tiff_of(pixels: bytes, **tags: int) -> bytes:
    """A TIFF of a kind that Pillow does not write: tags, named t256 and so on, then the pixels."""
    numbers = {int(name[1:]): value for name, value in tags.items()} | {279: len(pixels)}
    numbers[273] = 14 + 12 * (len(numbers) + 1)
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, numbers[tag]) for tag in sorted(numbers))
    return b"II*\0" + struct.pack("<IH", 8, len(numbers)) + entries + bytes(4) + pixels


@pytest.mark.parametrize(
    ("values", "kind", "message"),
    [
        ([0, np.nan], "not finite", "holds NaN or infinite values: replace them before saving"),
        ([0, np.inf], "not finite", "holds NaN or infinite values: replace them before saving"),
        (
            [-1, 1],
            "unsupported",
            "values from -1 to 1 found, 0..1, 0..255 or 0..65535 expected: rescale them",
        ),
        (
            [0, 1e6],
            "unsupported",
            "values from 0 to 1e+06 found, 0..1, 0..255 or 0..65535 expected: rescale them",
        ),
    ],
)
def test_float_that_is_no_picture_is_refused(values, kind, message):
    with pytest.raises(ImageError) as refused:
        decode(file_of(np.array([values], np.float32), "TIFF"))
    assert (refused.value.kind, str(refused.value)) == (kind, "image: " + message)


def over_white(colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """The definition, in whole numbers, rounded to the nearest."""
    alpha = alpha.astype(int)[..., None]
    return (2 * (colour * alpha + 255 * (255 - alpha)) + 255) // 510


@pytest.mark.parametrize("format", ["PNG", "TIFF", "WEBP"])
def test_alpha_lies_over_white(format):
    options = {"lossless": True, "exact": True} if format == "WEBP" else {}
    alpha = np.random.default_rng(2).integers(0, 256, (7, 11), dtype=np.uint8)
    decoded = decode(file_of(np.dstack([RGB, alpha]), format, **options))
    np.testing.assert_array_equal(decoded.pixels, over_white(RGB.astype(int), alpha))
    assert decoded.mode == "RGBA"


def test_grey_with_alpha_lies_over_white():
    alpha = GREY[::-1]
    decoded = decode(file_of(Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(alpha)])))
    np.testing.assert_array_equal(decoded.pixels, over_white(three(GREY).astype(int), alpha))
    assert decoded.grey


def test_palettes_are_looked_up_and_their_alpha_lies_over_white():
    image = Image.frombytes("P", (3, 1), b"\0\1\2")
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    assert decode(file_of(image)).pixels.tolist() == [[[10, 20, 30], [40, 50, 60], [70, 80, 90]]]
    clear = decode(file_of(image, transparency=bytes([255, 0, 128])))
    assert clear.pixels.tolist() == [[[10, 20, 30], [255, 255, 255], [162, 167, 172]]]


@pytest.mark.parametrize("type", [np.uint8, np.uint16])
def test_the_one_grey_that_stands_for_clear_becomes_white(type):
    values = np.array([[0, 1, 2, np.iinfo(type).max]], type)
    one = 1 if type is np.uint8 else 0
    assert decode(file_of(values, transparency=2)).pixels[0, :, 0].tolist() == [0, one, 255, 255]


@pytest.mark.parametrize(
    ("format", "options"), [("TIFF", {}), ("JPEG", {"quality": 100, "subsampling": 0})]
)
def test_cmyk(format, options):
    # cyan, magenta, yellow, black, paper
    inks = np.array(
        [[[255, 0, 0, 0], [0, 255, 0, 0], [0, 0, 255, 0], [0, 0, 0, 255], [0, 0, 0, 0]]], np.uint8
    )
    inks = inks.repeat(16, 0).repeat(16, 1)
    decoded = decode(file_of(Image.fromarray(inks, "CMYK"), format, **options))
    colours = [[0, 255, 255], [255, 0, 255], [255, 255, 0], [0, 0, 0], [255, 255, 255]]
    assert decoded.mode == "CMYK"
    np.testing.assert_allclose(decoded.pixels[8, 8::16].astype(int), colours, atol=3)


def test_sixteen_bit_colour_is_scaled_like_grey():
    pixel = struct.pack("<HHH", 0x1234, 0xFFFF, 0x00FF)
    decoded = decode(tiff_of(pixel, t256=1, t257=1, t258=16, t259=1, t262=2, t277=3))
    assert (decoded.pixels.tolist(), decoded.bits) == ([[[0x12, 0xFF, 0x01]]], 16)


def deep_png(values: np.ndarray) -> bytes:
    """A PNG of 16-bit colour, uint16 (H, W, 3 or 4), which Pillow does not write."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    height, width, channels = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    head = struct.pack(">IIBBBBB", width, height, 16, {3: 2, 4: 6}[channels], 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def deep_tiff(values: np.ndarray) -> bytes:
    height, width, channels = values.shape
    tags = {
        "t256": width,
        "t257": height,
        "t258": 16,
        "t259": 1,
        "t262": 2,
        "t277": channels,
        "t278": height,
    }
    return tiff_of(values.astype("<u2").tobytes(), **tags, **({"t338": 2} if channels == 4 else {}))


@pytest.mark.parametrize("write", [deep_png, deep_tiff])
@pytest.mark.parametrize("bits", [10, 12, 14, 16])
def test_every_level_of_sixteen_bit_colour_counts(write, bits):
    values = np.random.default_rng(0).integers(0, 2**bits, (20, 30, 3), np.uint16)
    values[0, 0] = 2**bits - 1
    decoded = decode(write(values))
    assert (decoded.bits, decoded.grey, decoded.mode) == (bits, False, "RGB")
    np.testing.assert_array_equal(
        decoded.pixels, np.rint(values * (255 / (2**bits - 1))).astype(np.uint8)
    )
    dark = decode(write(values // 8), DecodeRule(bits=bits))
    assert dark.bits == bits and int(dark.pixels.max()) == round(
        255 * (2**bits // 8 - 1) / (2**bits - 1)
    )
    same = np.repeat(values[..., :1], 3, axis=2)
    assert decode(write(same)).grey
    np.testing.assert_array_equal(
        decode(write(same)).pixels[..., 0], decode(file_of(same[..., 0])).pixels[..., 0]
    )


def test_transparent_sixteen_bit_colour_lies_over_white():
    values = np.full((4, 4, 4), 1000, np.uint16)
    values[..., 3], values[0, 0, 3], values[1, 1, 0] = 65535, 0, 4095
    decoded = decode(deep_png(values))
    assert (decoded.bits, decoded.pixels[0, 0].tolist(), decoded.pixels[2, 2].tolist()) == (
        12,
        [255] * 3,
        [62] * 3,
    )


@pytest.mark.parametrize(
    ("kind", "bits", "top"), [("<u2", 16, 65535), ("<u2", 16, 4095), ("u1", 8, 255)]
)
def test_white_is_zero_at_every_depth(kind, bits, top):
    values = np.array([[0, top // 3, top]])
    tags = {"t256": 3, "t257": 1, "t258": bits, "t259": 1, "t277": 1}
    white, black = (
        decode(tiff_of(values.astype(kind).tobytes(), **tags, t262=zero)) for zero in (0, 1)
    )
    assert (white.pixels[0, :, 0].tolist(), black.pixels[0, :, 0].tolist()) == (
        [255, 170, 0],
        [0, 85, 255],
    )


# ---- float and 32-bit values: one scale for a set ----


@pytest.mark.parametrize("values", [[0.98, 0.5, -0.1], [1.02, 0.5, -0.1]])
def test_values_are_scaled_by_the_rule_and_never_by_their_own_maximum(values):
    rule = DecodeRule(scale=(-1.0, 4.0))
    decoded = decode(file_of(np.array([values], np.float32), "TIFF"), rule)
    assert decoded.pixels[0, :, 0].tolist() == [round(51 * (value + 1)) for value in values]
    assert decoded.bits == 32


@pytest.mark.parametrize("value", [4.01, -1.01, 1e30])
def test_a_value_outside_the_scale_is_refused(value):
    with pytest.raises(ImageError, match="expected by the training images") as refused:
        decode(file_of(np.array([[0.5, value]], np.float32), "TIFF"), DecodeRule(scale=(-1.0, 4.0)))
    assert refused.value.kind == "out of range"


def test_32_bit_integers_have_a_scale_too_and_64_bits_are_refused():
    rule = DecodeRule(scale=(-1e8, 4e9))
    tags = {"t256": 2, "t257": 1, "t259": 1, "t262": 1, "t277": 1}
    unsigned = struct.pack("<II", 0, 4_000_000_000)
    for stated in ({"t339": 1}, {}):
        assert decode(tiff_of(unsigned, **tags, t258=32, **stated), rule).pixels[
            0, :, 0
        ].tolist() == [6, 255]
    signed = tiff_of(struct.pack("<ii", -100_000_000, 2_000_000_000), **tags, t258=32, t339=2)
    assert decode(signed, rule).pixels[0, :, 0].tolist() == [0, 131]
    with pytest.raises(ImageError, match=r"^image: TIFF of a kind that is not read"):
        decode(tiff_of(struct.pack("<dd", 0, 1), **tags, t258=64, t339=3), rule)


def test_a_rule_with_a_scale_is_stored_and_read():
    rule = DecodeRule(scale=(0.9, 1.1))
    assert DecodeRule.from_json(json.loads(json.dumps(rule.to_json()))) == rule
    for scale in (
        [1.1, 0.9],
        [0, float("nan")],
        [0, float("inf")],
        [0],
        "ab",
        [True, 2],
        [0, 1, 2],
    ):
        with pytest.raises(DetectorError, match="is not known"):
            DecodeRule.from_json({**rule.to_json(), "scale": scale})


def test_a_colour_profile_changes_nothing():
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()
    np.testing.assert_array_equal(decode(file_of(RGB, icc_profile=profile)).pixels, RGB)


# ---- orientation ----

UPRIGHT = {  # from what is stored to what one sees
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a, 1),
}


@pytest.mark.parametrize("turn", UPRIGHT)
@pytest.mark.parametrize("format", ["PNG", "TIFF", "WEBP", "16-bit PNG", "16-bit TIFF"])
def test_exif_orientation_is_applied(turn, format):
    exif = Image.Exif()
    exif[0x0112] = turn
    options = {"lossless": True} if format == "WEBP" else {}
    stored = GREY.astype(np.uint16) * 257 if "16" in format else RGB
    decoded = decode(file_of(stored, format.split()[-1], exif=exif, **options))
    seen = UPRIGHT[turn](three(GREY) if "16" in format else RGB)
    np.testing.assert_array_equal(decoded.pixels, seen)
    assert (decoded.height, decoded.width) == seen.shape[:2]


def test_orientation_from_xmp():
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    decoded = decode(file_of(np.zeros((8, 16, 3), np.uint8), "JPEG", xmp=xmp))
    assert (decoded.width, decoded.height) == (8, 16)


# ---- reduced JPEG ----


@pytest.mark.parametrize(
    ("reduce_to", "shape"),
    [(50, (60, 80)), (100, (120, 160)), (200, (240, 320)), (300, (480, 640))],
)
def test_jpeg_at_reduced_scale_is_no_smaller_than_asked(reduce_to, shape):
    data = file_of(Image.effect_mandelbrot((640, 480), (-2, -1, 1, 1), 50), "JPEG")
    decoded = decode(data, DecodeRule(reduced=True), reduce_to=reduce_to)
    assert (decoded.pixels.shape[:2], decoded.width, decoded.height) == (shape, 640, 480)


def test_reduced_and_turned():
    exif = Image.Exif()
    exif[0x0112] = 6
    decoded = decode(
        file_of(Image.new("RGB", (640, 480)), "JPEG", exif=exif),
        DecodeRule(reduced=True),
        reduce_to=100,
    )
    assert (decoded.pixels.shape[:2], decoded.width, decoded.height) == ((160, 120), 480, 640)


def test_nothing_is_reduced_unless_the_rule_says_so_and_the_size_is_known():
    data = file_of(Image.new("RGB", (640, 480)), "JPEG")
    assert decode(data, reduce_to=50).pixels.shape == (480, 640, 3)
    assert decode(data, DecodeRule(reduced=True)).pixels.shape == (480, 640, 3)
    png = file_of(Image.new("RGB", (640, 480)))
    assert decode(png, DecodeRule(reduced=True), reduce_to=50).pixels.shape == (480, 640, 3)


# ---- the rule ----


@given(st.builds(DecodeRule, bits=st.sampled_from([None, 10, 12, 14, 16]), reduced=st.booleans()))
def test_rule_survives_the_card(rule):
    assert DecodeRule.from_json(rule.to_json()) == rule


def test_rule_in_the_card():
    assert DecodeRule(bits=12).to_json() == {
        "orientation": "exif",
        "alpha": "white",
        "bits": 12,
        "reduced": False,
    }


@pytest.mark.parametrize(
    "stored",
    [
        {"orientation": "none"},
        {"alpha": "black"},
        {"bits": 11},
        {"bits": True},
        {"reduced": 1},
        {"gamma": 2.2},
    ],
)
def test_a_rule_of_another_version_is_refused(stored):
    with pytest.raises(
        DetectorError, match=r"^decode rule \{.*\} is not known \(.*\): update this program$"
    ):
        DecodeRule.from_json(stored)


# ---- files ----


def test_path_text_and_bytes_are_the_same_image_whatever_the_name(tmp_path):
    path = tmp_path / "not really.jpg"
    path.write_bytes(file_of(RGB))
    for source in (path, str(path), path.read_bytes()):
        np.testing.assert_array_equal(decode(source).pixels, RGB)


def test_messages_name_the_file_on_one_line(tmp_path):
    path = tmp_path / "two\nlines.png"
    path.write_bytes(b"XIF89a")
    with pytest.raises(ImageError) as refused:
        decode(path)
    shown = str(path).replace("\n", "\\n")
    expected = (
        f"{shown}: begins with b'XIF89a', which is none of JPEG, PNG, BMP, TIFF, WEBP, GIF, PPM, "
        "DIB: convert it"
    )
    assert (refused.value.kind, str(refused.value)) == ("not an image", expected)


def test_size_is_checked_before_decoding():
    data = file_of(np.zeros((100, 100), np.uint8))
    assert decode(data, max_pixels=10_000).width == 100
    with pytest.raises(
        ImageError, match=r"^image: 100 x 100 pixels, at most 9,999 in all expected: --max-pixels"
    ):
        decode(data[:50], max_pixels=9_999)  # the rest of the file is not needed to see it


def test_a_file_is_not_read_that_could_not_hold_so_few_pixels(tmp_path):
    path = tmp_path / "large.png"
    with open(path, "wb") as file:
        file.truncate(1 << 25)  # a hole: it takes no room on the disk
    with pytest.raises(
        ImageError, match="file of 33,554,432 bytes, at most 16,785,216 expected"
    ) as refused:
        decode(path, max_pixels=1000)
    assert refused.value.kind == "too large"


@pytest.mark.parametrize(("format", "options"), [("PNG", {}), ("TIFF", {"compression": "group4"})])
def test_pillows_own_size_limit_says_nothing_below_ours(format, options):
    # Pillow warns from 89 million pixels on
    data = file_of(Image.new("1", (9500, 9500)), format, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decode(data).pixels.shape == (9500, 9500, 3)


def test_metadata_warnings_refuse_nothing_and_the_filters_stay_as_they_were():
    exif = Image.Exif()
    exif[0x013B] = "the name of an artist, long enough to lie elsewhere"
    data = bytearray(file_of(RGB, "TIFF", exif=exif))
    at = data.index(b"\x3b\x01\x02\x00")
    data[at + 8 : at + 12] = b"\xff\xff\xff\x7f"  # it lies behind the end of the file
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning):
            Image.open(io.BytesIO(data)).load()
        before = list(warnings.filters)
        np.testing.assert_array_equal(decode(bytes(data)).pixels, RGB)
        assert warnings.filters == before


def test_threads_decode_at_the_same_time():
    rng = np.random.default_rng(3)
    images = [rng.integers(0, 256, (40, 50 + i, 3), dtype=np.uint8) for i in range(40)]
    files = [file_of(image) for image in images] + [b"nothing"] * 10

    def outcome(data: bytes) -> np.ndarray | str:
        try:
            return decode(data).pixels
        except ImageError as error:
            return error.kind

    before = list(warnings.filters)
    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(outcome, files * 4))
    for i, found in enumerate(outcomes):
        if i % 50 < 40:
            np.testing.assert_array_equal(found, images[i % 50])
        else:
            assert found == "not an image"
    assert warnings.filters == before


# ---- the search of a folder ----


def test_find_images_takes_what_has_the_name_of_an_image_in_order(tmp_path):
    for name in ["b.PNG", "a.jpg", "c.jpeg", "sub/d.tiff", "sub/e.tif", "sub/deep/f.webp", "g.bmp"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    for name in ["notes.txt", ".hidden.png", "._a.jpg", "png", "archive.zip"]:
        (tmp_path / name).touch()
    (tmp_path / ".thumbnails").mkdir()
    (tmp_path / ".thumbnails/h.png").touch()
    found = [path.relative_to(tmp_path).as_posix() for path in find_images(tmp_path)]
    assert found == [
        "a.jpg",
        "b.PNG",
        "c.jpeg",
        "g.bmp",
        "sub/d.tiff",
        "sub/deep/f.webp",
        "sub/e.tif",
    ]


def test_find_images_follows_links_but_lists_each_folder_once(tmp_path):
    (tmp_path / "images/sub").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "images/sub/a.png").touch()
    (tmp_path / "elsewhere/b.png").touch()
    (tmp_path / "images/sub/up").symlink_to("..")
    (tmp_path / "images/there").symlink_to("../elsewhere")
    (tmp_path / "images/to_nothing.png").symlink_to("nothing")
    found = [path.relative_to(tmp_path).as_posix() for path in find_images(tmp_path / "images")]
    assert found == ["images/sub/a.png", "images/there/b.png", "images/to_nothing.png"]


def test_find_images_keeps_names_that_are_not_utf_8(tmp_path):
    name = os.fsencode(tmp_path) + b"/\xff.png"
    try:
        with open(name, "wb") as file:
            file.write(file_of(RGB))
    except OSError:
        pytest.skip("this file system knows UTF-8 names only")
    (path,) = find_images(tmp_path)
    assert os.fsencode(path) == name
    np.testing.assert_array_equal(decode(path).pixels, RGB)


def test_find_images_needs_a_folder(tmp_path):
    with pytest.raises(
        DatasetError,
        match=r"none: cannot be listed \(No such file or directory\), a folder of images",
    ):
        find_images(tmp_path / "none")
    (tmp_path / "a.png").touch()
    with pytest.raises(DatasetError, match=r"a\.png: cannot be listed \(Not a directory\)"):
        find_images(tmp_path / "a.png")
    assert find_images(tmp_path) == [tmp_path / "a.png"]
