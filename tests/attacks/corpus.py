"""Writes hostile and odd images into a folder, each with what must come of it.

    python -m tests.attacks.corpus FOLDER

An outcome is ``ok WIDTHxHEIGHT`` or the kind of the `ImageError`.
"""

from __future__ import annotations

import io
import os
import struct
import sys
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms

SIZE = (48, 32)  # width, height of the honest ones
OK = "ok 48x32"
TURNED = "ok 32x48"


def write_corpus(folder: Path) -> dict[Path, str]:
    """Returns the outcome expected of every path that it wrote."""
    folder.mkdir(parents=True, exist_ok=True)
    expected = {}
    for name, content, outcome in files():
        path = folder / name
        path.write_bytes(content)
        expected[path] = outcome
    for name, outcome in odd_entries(folder):
        expected[folder / name] = outcome
    return expected


def files() -> Iterator[tuple[str, bytes, str]]:
    """Yields name, content and outcome of every odd file."""
    for part in (
        cut_short,
        headers_that_lie,
        depths,
        modes,
        orientations,
        metadata,
        frames,
        damaged,
        disguised,
        names,
    ):
        yield from part()


def picture(mode: str = "RGB", size: tuple[int, int] = SIZE) -> Image.Image:
    """Returns a smooth picture with some noise, the same every time."""
    down, across = np.mgrid[0 : size[1], 0 : size[0]]
    noise = np.random.default_rng(7).integers(0, 12, (size[1], size[0], 3))
    values = np.stack([across * 4, down * 6, 200 - across * 3], -1).clip(0, 240) + noise
    return Image.fromarray(values.astype(np.uint8)).convert(mode)


def encoded(image: Image.Image, format: str, **options: object) -> bytes:
    """Returns the file that Pillow writes."""
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


def png_chunk(kind: bytes, data: bytes) -> bytes:
    """Returns one chunk of a PNG file."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def with_chunk(png: bytes, kind: bytes, data: bytes) -> bytes:
    """Returns the PNG with a chunk put in behind its header."""
    return png[:33] + png_chunk(kind, data) + png[33:]


def with_segments(jpeg: bytes, marker: int, data: bytes) -> bytes:
    """Returns the JPEG with ``data`` put in behind its first marker, in segments of 64 KB."""
    parts = [data[i : i + 65533] for i in range(0, len(data), 65533)]
    return (
        jpeg[:2]
        + b"".join(struct.pack(">BBH", 0xFF, marker, len(p) + 2) + p for p in parts)
        + jpeg[2:]
    )


def cut_short() -> Iterator[tuple[str, bytes, str]]:
    whole = {
        "baseline.jpg": encoded(picture(), "JPEG"),
        "progressive.jpg": encoded(picture(), "JPEG", progressive=True),
        "plain.png": encoded(picture(), "PNG"),
        "plain.bmp": encoded(picture(), "BMP"),
        "raw.tif": encoded(picture(), "TIFF"),
        "lzw.tif": encoded(picture(), "TIFF", compression="tiff_lzw"),
        "lossy.webp": encoded(picture(), "WEBP"),
        "lossless.webp": encoded(picture(), "WEBP", lossless=True),
    }
    for name, content in whole.items():
        yield f"whole_{name}", content, OK
        for tenth in range(10):
            yield (
                f"cut{tenth}_{name}",
                content[: len(content) * tenth // 10],
                "truncated" if tenth else "empty",
            )
        yield f"junk_after_{name}", content + b"\0junk" * 100, OK


def headers_that_lie() -> Iterator[tuple[str, bytes, str]]:
    for width, height in ((1, 1), (1, 20000), (20000, 1)):
        yield (
            f"{width}x{height}.png",
            encoded(picture("L", (width, height)), "PNG"),
            f"ok {width}x{height}",
        )
    yield "one_bit_bomb.png", one_bit_png(30000, 30000), "too large"
    bmp = bytearray(encoded(picture(), "BMP"))
    bmp[18:26] = struct.pack("<ii", 60000, 60000)
    yield "claims_60000.bmp", bytes(bmp), "too large"
    jpeg = bytearray(encoded(picture(), "JPEG"))
    frame = jpeg.index(b"\xff\xc0") + 5
    jpeg[frame : frame + 4] = struct.pack(">HH", 65500, 65500)
    yield "claims_65500.jpg", bytes(jpeg), "too large"
    # metadata bring a size of the canvas
    webp = bytearray(encoded(picture(), "WEBP", exif=Image.Exif().tobytes()))
    webp[24:30] = (16383).to_bytes(3, "little") * 2
    yield "claims_16384.webp", bytes(webp), "too large"
    yield "many_scans.jpg", many_scans(), "too large"
    yield "many_tiles.tif", many_tiles(), "too large"


def one_bit_png(width: int, height: int) -> bytes:
    """Returns a black 1-bit PNG, complete and valid, made without holding the image."""
    row = bytes(1 + (width + 7) // 8)
    packer = zlib.compressobj(9)
    data = b"".join(packer.compress(row * 1000) for _ in range(height // 1000)) + packer.flush()
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", data) + png_chunk(b"IEND", b"")


def many_scans() -> bytes:
    """Returns a progressive JPEG of 9 million pixels whose last scan stands there 400 times."""
    jpeg = encoded(Image.new("L", (3000, 3000), 90), "JPEG", progressive=True, quality=50)
    last = jpeg.rindex(b"\xff\xda")
    return jpeg[:last] + jpeg[last:-2] * 400 + jpeg[-2:]


def many_tiles() -> bytes:
    """Returns an uncompressed TIFF cut into tiles of one pixel."""
    side = 512
    tags = {256: side, 257: side, 258: 8, 259: 1, 262: 1, 277: 1, 322: 1, 323: 1}
    count = side * side
    where = 8 + 2 + (len(tags) + 2) * 12 + 4
    entries = [struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items()]
    entries += [
        struct.pack("<HHII", 324, 4, count, where),
        struct.pack("<HHII", 325, 4, count, where + 4 * count),
    ]
    head = b"II*\0" + struct.pack("<IH", 8, len(entries)) + b"".join(entries) + struct.pack("<I", 0)
    return head + struct.pack("<I", 0) * count + struct.pack("<I", 1) * count


def depths() -> Iterator[tuple[str, bytes, str]]:
    ramp = np.linspace(0, 65535, SIZE[0] * SIZE[1]).reshape(SIZE[1], SIZE[0])
    sixteen = Image.fromarray(ramp.astype(np.uint16))
    yield "sixteen.png", encoded(sixteen, "PNG"), OK
    yield "sixteen.tif", encoded(sixteen, "TIFF"), OK
    yield "sixteen_lzw.tif", encoded(sixteen, "TIFF", compression="tiff_lzw"), OK
    yield "twelve.png", encoded(Image.fromarray((ramp / 16).astype(np.uint16)), "PNG"), OK
    yield "one_bit.png", encoded(picture("1"), "PNG"), OK
    yield "one_bit_g4.tif", encoded(picture("1"), "TIFF", compression="group4"), OK
    yield "int32.tif", encoded(Image.fromarray(ramp.astype(np.int32)), "TIFF"), OK
    yield (
        "int32_negative.tif",
        encoded(Image.fromarray(ramp.astype(np.int32) - 1), "TIFF"),
        "unsupported",
    )
    unit = (ramp / 65535).astype(np.float32)
    nan, infinite = unit.copy(), unit.copy()
    nan[3, 3], infinite[3, 3] = np.nan, np.inf
    yield "float.tif", encoded(Image.fromarray(unit), "TIFF"), OK
    yield "float_nan.tif", encoded(Image.fromarray(nan), "TIFF"), "not finite"
    yield "float_inf.tif", encoded(Image.fromarray(infinite), "TIFF"), "not finite"
    yield "float_negative.tif", encoded(Image.fromarray(unit - 0.5), "TIFF"), "unsupported"
    yield "float_huge.tif", encoded(Image.fromarray(unit * 1e9), "TIFF"), "unsupported"


def modes() -> Iterator[tuple[str, bytes, str]]:
    clear = picture("RGBA")
    clear.putalpha(picture("L"))
    yield "cmyk.jpg", encoded(picture("CMYK"), "JPEG"), OK
    yield "cmyk.tif", encoded(picture("CMYK"), "TIFF"), OK
    yield "ycbcr.tif", encoded(picture("YCbCr"), "TIFF"), OK
    yield "lab.tif", encoded(picture("LAB"), "TIFF"), OK
    yield "grey.jpg", encoded(picture("L"), "JPEG"), OK
    yield "grey_alpha.png", encoded(clear.convert("LA"), "PNG"), OK
    yield "alpha.png", encoded(clear, "PNG"), OK
    yield "alpha.webp", encoded(clear, "WEBP"), OK
    yield "alpha.tif", encoded(clear, "TIFF"), OK
    yield "palette.png", encoded(picture("P"), "PNG"), OK
    yield "palette_alpha.png", encoded(picture("P"), "PNG", transparency=bytes(range(200))), OK
    yield "palette_one_clear.png", encoded(picture("P"), "PNG", transparency=3), OK
    yield "palette.bmp", encoded(picture("P"), "BMP"), OK
    yield "grey_one_clear.png", encoded(picture("L"), "PNG", transparency=100), OK
    yield "rgb_one_clear.png", encoded(picture(), "PNG", transparency=(4, 6, 197)), OK
    # Sixteen bits of colour, and a wrong number of palette entries: files that Pillow does not
    # write itself.
    deep = zlib.compress(b"".join(b"\0" + bytes(SIZE[0] * 6) for _ in range(SIZE[1])))
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", *SIZE, 16, 2, 0, 0, 0))
    rest = png_chunk(b"IDAT", deep) + png_chunk(b"IEND", b"")
    yield "sixteen_rgb.png", b"\x89PNG\r\n\x1a\n" + header + rest, OK
    keyed = png_chunk(b"tRNS", bytes(6))
    yield "sixteen_rgb_clear.png", b"\x89PNG\r\n\x1a\n" + header + keyed + rest, OK


def orientations() -> Iterator[tuple[str, bytes, str]]:
    for turn in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = turn
        for format, suffix in (("JPEG", "jpg"), ("PNG", "png"), ("WEBP", "webp"), ("TIFF", "tif")):
            yield (
                f"exif{turn}.{suffix}",
                encoded(picture(), format, exif=exif),
                TURNED if turn >= 5 else OK,
            )
    exif = Image.Exif()
    exif[0x0112] = 77
    yield "exif77.jpg", encoded(picture(), "JPEG", exif=exif), OK
    broken = bytearray(encoded(picture(), "JPEG", exif=exif))
    at = broken.index(b"Exif\0\0") + 6
    broken[at + 4 : at + 8] = b"\xff\xff\xff\xff"  # the directory lies 4 GB further on
    yield "exif_broken.jpg", bytes(broken), OK


def metadata() -> Iterator[tuple[str, bytes, str]]:
    jpeg, png = encoded(picture(), "JPEG"), encoded(picture(), "PNG")
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for format, suffix in (("JPEG", "jpg"), ("PNG", "png"), ("WEBP", "webp"), ("TIFF", "tif")):
        yield f"icc.{suffix}", encoded(picture(), format, icc_profile=profile), OK
    yield "icc_nonsense.png", with_chunk(png, b"iCCP", b"x\0\0" + zlib.compress(b"nonsense")), OK
    yield "giant_comment.jpg", with_segments(jpeg, 0xFE, bytes(8_000_000)), OK
    yield (
        "giant_xmp.jpg",
        with_segments(jpeg, 0xE1, b"http://ns.adobe.com/xap/1.0/\0" + b"<x>" * 2_000_000),
        OK,
    )
    yield "giant_text.png", with_chunk(png, b"tEXt", b"k\0" + b"v" * 5_000_000), OK
    yield (
        "text_bomb.png",
        with_chunk(png, b"zTXt", b"k\0\0" + zlib.compress(bytes(50_000_000))),
        "too large",
    )
    yield (
        "itxt_bomb.png",
        with_chunk(png, b"iTXt", b"k\0\1\0\0\0" + zlib.compress(bytes(50_000_000))),
        "too large",
    )
    yield (
        "icc_bomb.png",
        with_chunk(png, b"iCCP", b"x\0\0" + zlib.compress(bytes(50_000_000))),
        "too large",
    )
    texts = png_chunk(b"tEXt", b"k\0" + b"v" * 1_000_000) * 70
    yield "text_flood.png", png[:33] + texts + png[33:], "too large"


def frames() -> Iterator[tuple[str, bytes, str]]:
    others = [picture().rotate(180), picture().rotate(90)]
    yield (
        "animated.png",
        encoded(picture(), "PNG", save_all=True, append_images=others),
        "several pages",
    )
    yield (
        "animated.webp",
        encoded(picture(), "WEBP", save_all=True, append_images=others),
        "several pages",
    )
    yield (
        "pages.tif",
        encoded(picture(), "TIFF", save_all=True, append_images=others),
        "several pages",
    )
    yield (
        "stereo.jpg",
        encoded(picture(), "MPO", save_all=True, append_images=others),
        "several pages",
    )
    loop = bytearray(encoded(picture(), "TIFF"))
    directory = struct.unpack_from("<I", loop, 4)[0]
    entries = struct.unpack_from("<H", loop, directory)[0]
    struct.pack_into("<I", loop, directory + 2 + 12 * entries, directory)
    yield "pages_in_a_loop.tif", bytes(loop), OK


def damaged() -> Iterator[tuple[str, bytes, str]]:
    png = bytearray(encoded(picture(), "PNG"))
    png[20] ^= 1  # in the header, against its checksum
    yield "checksum.png", bytes(png), "damaged"
    png = encoded(picture(), "PNG")
    at = png.index(b"IDAT")
    length = struct.unpack(">I", png[at - 4 : at])[0]
    nonsense = png_chunk(b"IDAT", b"\x78\x9c" + b"\xff" * (length - 2))
    yield "nonsense.png", png[: at - 4] + nonsense + png[at + 8 + length :], "damaged"
    jpeg = encoded(picture(), "JPEG")
    scan = jpeg.index(b"\xff\xda")
    yield "no_tables.jpg", jpeg[:2] + jpeg[jpeg.index(b"\xff\xc0") :], "damaged"
    yield "no_scan.jpg", jpeg[:scan] + b"\xff\xd9", "damaged"
    flipped = bytearray(jpeg)
    flipped[scan + 40] ^= 0x55  # libjpeg decodes it: another picture, but a picture
    yield "flipped.jpg", bytes(flipped), OK
    tiff = bytearray(encoded(picture(), "TIFF", compression="tiff_lzw"))
    tiff[8:60] = b"\xff" * 52
    yield "nonsense_lzw.tif", bytes(tiff), "damaged"
    yield "no_directory.tif", b"II*\0" + struct.pack("<IH", 8, 0) + bytes(50), "damaged"
    yield "ones.webp", encoded(picture(), "WEBP")[:20] + b"\xff" * 600, "damaged"


def disguised() -> Iterator[tuple[str, bytes, str]]:
    yield "png_inside.jpg", encoded(picture(), "PNG"), OK
    yield "jpeg_inside.tif", encoded(picture(), "JPEG"), OK
    yield "gif_inside.png", encoded(picture("P"), "GIF"), OK
    yield "pdf_inside.png", encoded(picture(), "PDF"), "not an image"
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("part.png", encoded(picture(), "PNG"))
    yield "zip_inside.png", archive.getvalue(), "not an image"
    yield "text_inside.bmp", b"an ordinary text\n" * 100, "not an image"
    yield "page_inside.jpg", b"<html><title>404 Not Found</title></html>", "not an image"
    yield "zero_bytes.jpg", b"", "empty"
    yield "one_byte.jpg", b"\xff", "not an image"
    yield "zeros.jpg", bytes(4096), "not an image"
    yield (
        "begins_like_a_bmp.bmp",
        b"BMW is a maker of cars, and this is a text." * 10,
        "not an image",
    )
    yield "begins_like_a.webp", b"RIFF\x24\0\0\0WAVEfmt " + bytes(30), "not an image"


def names() -> Iterator[tuple[str, bytes, str]]:
    png = encoded(picture(), "PNG")
    odd = [
        "line\nbreak.png",
        "tab\t.png",
        "=1+1.png",
        "-rf.png",
        "@cmd.png",
        " blank .png",
        "quote'\".png",
        "a,b.png",
    ]
    for name in [*odd, "Stück.PNG", "部品.png", "<b>.png", "%00.png", "x" * 251 + ".png"]:
        yield name, png, OK
    if sys.platform == "linux":  # elsewhere file names are text
        yield os.fsdecode(b"not \xff utf-8.png"), png, OK


def odd_entries(folder: Path) -> Iterator[tuple[str, str]]:
    """Makes what is not a plain file and yields name and outcome."""
    (folder / "folder.png").mkdir(exist_ok=True)
    yield "folder.png", "not a file"
    if not (folder / "pipe.png").exists():
        os.mkfifo(folder / "pipe.png")
    yield "pipe.png", "not a file"
    links = {
        "to_itself.png": "to_itself.png",
        "to_nothing.png": "nothing.png",
        "to_an_image.png": "whole_plain.png",
    }
    for name, target in {**links, "to_a_device.png": "/dev/zero", "around": "."}.items():
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(target)
    yield "to_itself.png", "unreadable"
    yield "to_nothing.png", "missing"
    yield "to_an_image.png", OK
    yield "to_a_device.png", "not a file"
    yield "never_there.png", "missing"
    locked = folder / "locked.png"
    if not locked.exists():
        locked.write_bytes(encoded(picture(), "PNG"))
    locked.chmod(0)
    yield "locked.png", OK if os.geteuid() == 0 else "unreadable"  # nothing is locked to root


if __name__ == "__main__":
    for path, outcome in write_corpus(Path(sys.argv[1])).items():
        print(f"{outcome:14} {path.name!r}")
