"""The pages of an image file: every picture in it that somebody has to look at.

    TIFF              each directory, but those that call themselves a smaller copy (thumbnail, pyramid) or a mask
    GIF, PNG, WebP    each frame, as one sees it: drawn over those before
    JPEG (MPO)        each view that is as large as the first; previews, gain maps and depth maps belong to the first
    PBM, PGM, PPM     each of the pictures that follow one another

A page is called ``file.tif#2`` in tables; the only one of a file has the file's name.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from functools import partial
from io import BytesIO
from typing import Any, TypeAlias

from PIL.ImageFile import ImageFile
from PIL.MpoImagePlugin import MpoImageFile
from PIL.PpmImagePlugin import PpmImageFile

from anomaly.errors import ImageError

MOST_PAGES = 10_000
MOST_TAGS = 4096  # of a directory: a photograph's has dozens
DRAWN_OVER = ("GIF", "PNG", "WEBP")  # a frame that cannot be read spoils those behind it
GAIN_MAP = re.compile(rb"hdrgm:|HDRGainMap|iso:ts:21496|Device:DepthMap", re.IGNORECASE)
PNM_HEAD = re.compile(rb"P([456])" + rb"(?:\s+|#[^\r\n]*[\r\n])+(\d+)" * 2)
PNM_LARGEST = re.compile(rb"(?:\s+|#[^\r\n]*[\r\n])+(\d+)")

OpenPage: TypeAlias = Callable[[], ImageFile]


def several(count: int) -> ImageError:
    """Returns the error where one image is wanted and a file has several."""
    return ImageError("several pages", f"{count:,} pages or frames found, one expected: save each as a file of its own")


def pages_of(image: ImageFile, data: bytes) -> list[OpenPage]:
    """Returns how to open each page of a file that is open as ``image``, in order, at least one; ImageError."""
    if image.format == "TIFF":
        return [partial(_frame, image, frame) for frame in _tiff_pages(data)]
    if image.format == "GIF":
        return [partial(_frame, image, frame) for frame in range(_gif_frames(data))]
    if image.format == "PPM":
        found = [(start, end) for start, end in _pnm_pictures(data)]
        return [partial(_cut, data[start:end]) for start, end in found] if len(found) > 1 else [lambda: image]
    if image.format == "JPEG" and "mp" in image.info:
        return _views(image, data)
    return [partial(_frame, image, frame) for frame in range(_bounded(int(getattr(image, "n_frames", 1))))]


def _frame(image: ImageFile, frame: int) -> ImageFile:
    if frame or image.tell():
        image.seek(frame)
    return image


def _cut(data: bytes) -> ImageFile:
    return PpmImageFile(BytesIO(data))


def _bounded(count: int) -> int:
    if count > MOST_PAGES:
        raise ImageError("too large", f"{count:,} pages found, at most {MOST_PAGES:,} expected: split the file")
    return count


# ---- TIFF ----


def _tiff_pages(data: bytes) -> list[int]:
    """Returns the numbers of the directories that are pages."""
    try:
        found = list(_directories(data))
    except struct.error as error:
        raise ImageError("truncated", "TIFF whose list of pages leads behind its end: copy it again") from error
    if data[8:10] == b"CR" or any(50706 in tags for tags in found):  # Canon's, and Adobe's DNGVersion
        raise ImageError("unsupported", "a camera's raw format, which is not read: convert it to TIFF, PNG or JPEG")
    pages = [number for number, tags in enumerate(found) if not _is_aside(tags)]
    if not pages and (len(found) > 1 or 330 in found[0]):
        raise ImageError("unsupported", "TIFF of smaller copies only (a camera's raw format?): convert it to TIFF or PNG")
    return pages or [0]


def _is_aside(tags: dict[int, int]) -> bool:
    """Whether a directory is a smaller copy of another page (NewSubfileType 1, SubfileType 2), or its mask (4)."""
    return bool(tags.get(254, 0) & 5) or tags.get(255) == 2


def _directories(data: bytes) -> Iterator[dict[int, int]]:
    """Yields the tags of each directory in the chain, with their values as far as these are one short or long."""
    order, big = "<" if data[:2] == b"II" else ">", b"+" in data[2:4]
    offset, number, entry = (order + "Q", order + "Q", 20) if big else (order + "I", order + "H", 12)
    (at,) = struct.unpack_from(offset, data, 8 if big else 4)
    seen: set[int] = set()
    while at and at not in seen:
        seen.add(at)
        _bounded(len(seen))
        (count,) = struct.unpack_from(number, data, at)
        if count > MOST_TAGS:
            raise ImageError("damaged", f"TIFF with a directory of {count:,} tags: copy it again")
        first = at + struct.calcsize(number)
        yield dict(_tag(data, order, first + entry * i, entry - struct.calcsize(offset)) for i in range(count))
        (at,) = struct.unpack_from(offset, data, first + entry * count)


def _tag(data: bytes, order: str, at: int, value: int) -> tuple[int, int]:
    tag, kind = struct.unpack_from(order + "HH", data, at)
    (found,) = struct.unpack_from(order + ("H" if kind == 3 else "I"), data, at + value)
    return tag, found


# ---- GIF ----


def _gif_frames(data: bytes) -> int:
    """Returns how many frames there are. Pillow takes the end of a file that was cut off for that of its frames."""
    frames, at = 0, 13 + _colours(data[10:11])
    while data[at : at + 1] != b";":
        if data[at : at + 1] == b",":
            frames += 1
            at += 11 + _colours(data[at + 9 : at + 10])
        elif data[at : at + 1] == b"!":
            at += 2
        elif at < len(data):
            raise ImageError("damaged", "GIF with something else between its frames: copy it again")
        while length := data[at] if at < len(data) else 0:
            at += 1 + length
        at += 1
        if at >= len(data):
            raise ImageError("truncated", f"GIF that ends early after {len(data):,} bytes: copy it again")
    return max(1, _bounded(frames))


def _colours(flags: bytes) -> int:
    return 3 << ((flags[0] & 7) + 1) if flags and flags[0] & 0x80 else 0


# ---- JPEG ----


def _views(image: ImageFile, data: bytes) -> list[OpenPage]:
    """Returns the views of a stereo, panorama or multi-angle JPEG."""
    try:
        whole: Any = MpoImageFile(BytesIO(data))
        entries = whole.mpinfo[0xB002]
    except Exception:  # what the index says may be damaged in every way: then it is a JPEG
        return [lambda: image]
    start = int(image.info["mpoffset"])
    sizes = [(entry["DataOffset"] + start, entry["Size"]) for entry in entries]
    views = [0] + [
        number
        for number, (entry, (at, size)) in enumerate(zip(entries, sizes, strict=True))
        if number and "Thumbnail" not in entry["Attribute"]["MPType"] and _is_view(data[at : at + size], image)
    ]
    return [partial(_frame, whole, _bounded(number)) for number in views] if len(views) > 1 else [lambda: image]


def _is_view(data: bytes, first: ImageFile) -> bool:
    """Whether a picture behind the first one shows something itself, and is no map that belongs to it."""
    from PIL.JpegImagePlugin import JpegImageFile

    if not data.startswith(b"\xff\xd8\xff") or GAIN_MAP.search(data[: 1 << 16]):
        return False
    try:
        return JpegImageFile(BytesIO(data)).size >= first.size
    except Exception:  # the same as for any page: that it is damaged is said when its turn comes
        return True


# ---- PBM, PGM, PPM ----


def _pnm_pictures(data: bytes) -> Iterator[tuple[int, int]]:
    """Yields where each picture begins and ends; the formats in plain text have only one."""
    at, count = 0, 0
    while head := PNM_HEAD.match(data, at):
        count = _bounded(count + 1)
        kind, width, height, end = head[1], int(head[2]), int(head[3]), head.end()
        row = (width + 7) // 8
        if kind != b"4":
            largest = PNM_LARGEST.match(data, end)
            if largest is None:
                break
            end, row = largest.end(), width * (2 if int(largest[1]) > 255 else 1) * (3 if kind == b"6" else 1)
        end += 1 + row * height
        yield at, end
        at = end + len(data[end : end + 100]) - len(data[end : end + 100].lstrip())
