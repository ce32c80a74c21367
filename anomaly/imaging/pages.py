"""The pages of an image file: every picture in it that somebody has to look at.

    TIFF              each directory, but those that say they are a smaller copy (thumbnail,
                      pyramid) and are smaller, or a mask
    GIF, PNG, WebP    each frame, as one sees it: drawn over those before
    JPEG (MPO)        each view; previews (a third smaller at least), gain maps and depth maps
                      belong to the first
    PBM, PGM, PPM     each of the pictures that follow one another

Pictures that cannot be opened one by one (whole files one after another, full-size pictures in a
TIFF's SubIFD) are an error: a file with a picture that nobody would look at has no result.

A page is called ``file.tif#2`` in tables; the only one of a file has the file's name.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from functools import partial
from io import BytesIO
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from PIL.ImageFile import ImageFile
from PIL.MpoImagePlugin import MpoImageFile
from PIL.PpmImagePlugin import PpmImageFile

from anomaly.errors import ImageError
from anomaly.imaging.trailing import end_of, is_preview, picture_behind

MAX_PAGES = 10_000
MAX_TAGS = 4096  # of a directory: a photograph's has dozens
DRAWN_OVER = ("GIF", "PNG", "WEBP")  # a frame that cannot be read spoils those behind it
GAIN_MAP = re.compile(rb"hdrgm:|HDRGainMap|iso:ts:21496|Device:DepthMap", re.IGNORECASE)
PNM_GAP = rb"(?:\s+|#[^\r\n]*[\r\n])"
PNM_HEAD = re.compile(PNM_GAP + rb"*P([456])" + (PNM_GAP + rb"+(\d+)") * 2)
PNM_PLAIN = re.compile(rb"\sP[1-6]\s")  # what follows the numbers of a picture in plain text
PNM_LARGEST = re.compile(PNM_GAP + rb"+(\d+)")
MASK_OF_ANOTHER = 4  # PhotometricInterpretation
# kinds of TIFF values that are lengths and places
NUMBERS = {3: "u2", 4: "u4", 13: "u4", 16: "u8", 18: "u8"}
BYTES = {
    1: 1,
    2: 1,
    3: 2,
    4: 4,
    5: 8,
    6: 1,
    7: 1,
    8: 2,
    9: 4,
    10: 8,
    11: 4,
    12: 8,
    13: 4,
    16: 8,
    17: 8,
    18: 8,
}
PLACES = {273: 279, 324: 325, 513: 514}  # of strips, tiles and a JPEG: the tag of their lengths

OpenPage: TypeAlias = Callable[[], ImageFile]


def several(count: int) -> ImageError:
    """Returns the error where one image is wanted and a file has several."""
    return ImageError(
        "several pages",
        f"{count:,} pages or frames found, one expected: save each as a file of its own",
    )


def pages_of(image: ImageFile, data: bytes) -> list[OpenPage]:
    """Returns how to open each page of a file that is open as ``image``, in order, at least one;
    ImageError.
    """
    pages, end = _pages_and_end(image, data)
    if picture_behind(data, image.format or "", end):
        raise ImageError(
            "several pages",
            "another picture found behind the end of the first: save each as a file of its own",
        )
    return pages


def _pages_and_end(image: ImageFile, data: bytes) -> tuple[list[OpenPage], int]:
    """Returns the pages, and where the last one ends; 0 where that is left to `trailing`."""
    if image.format == "TIFF":
        frames, end = _tiff_pages(data)
        return [partial(_frame, image, frame) for frame in frames], end
    if image.format == "GIF":
        count, end = _gif_frames(data)
        return [partial(_frame, image, frame) for frame in range(count)], end
    if image.format == "PPM":
        found = list(_pnm_pictures(data))
        cut = [partial(_cut, data[start:end]) for start, end in found]
        return (list(cut) if len(cut) > 1 else [lambda: image]), found[-1][1] if found else 0
    if image.format == "JPEG" and "mp" in image.info:
        return _views(image, data)
    return [
        partial(_frame, image, frame)
        for frame in range(_bounded(int(getattr(image, "n_frames", 1))))
    ], 0


def _frame(image: ImageFile, frame: int) -> ImageFile:
    if frame or image.tell():
        image.seek(frame)
    return image


def _cut(data: bytes) -> ImageFile:
    return PpmImageFile(BytesIO(data))


def _bounded(count: int) -> int:
    if count > MAX_PAGES:
        raise ImageError(
            "too large", f"{count:,} pages found, at most {MAX_PAGES:,} expected: split the file"
        )
    return count


# ---- TIFF ----


class _Directory(NamedTuple):
    """A TIFF directory: the first value of each tag, its SubIFDs' places, and where what it names
    ends.
    """

    tags: dict[int, int]
    inside: list[int]
    end: int

    @property
    def size(self) -> tuple[int, int]:
        return self.tags.get(256, 0), self.tags.get(257, 0)


def _tiff_pages(data: bytes) -> tuple[list[int], int]:
    """Returns the numbers of the directories that are pages, and where the last thing that any of
    them names ends.
    """
    try:
        return _pages_of_tiff(data)
    except (struct.error, ValueError) as error:
        raise ImageError(
            "truncated", "TIFF whose list of pages leads behind its end: copy it again"
        ) from error


def _pages_of_tiff(data: bytes) -> tuple[list[int], int]:
    found = list(_directories(data))
    # Canon's, and Adobe's DNGVersion
    if data[8:10] == b"CR" or any(50706 in one.tags for one in found):
        raise ImageError(
            "unsupported",
            "a camera's raw format, which is not read: convert it to TIFF, PNG or JPEG",
        )
    if all(_says_aside(one.tags) for one in found) and (len(found) > 1 or found[0].inside):
        raise ImageError(
            "unsupported",
            "TIFF of smaller copies only (a camera's raw format?): convert it to TIFF or PNG",
        )
    inside = [_directory(data, at)[0] for one in found for at in one.inside[:MAX_PAGES] if at]
    largest = max((one.size for one in found if not _says_aside(one.tags)), default=(0, 0))
    hidden = sum(not _is_aside(one, largest) for one in inside)
    if hidden:
        raise ImageError(
            "several pages",
            f"{hidden:,} more pictures found inside the first (SubIFD): save each as a file of its "
            "own",
        )
    pages = [number for number, one in enumerate(found) if not _is_aside(one, largest)]
    return pages or [0], max(one.end for one in [*found, *inside])


def _says_aside(tags: dict[int, int]) -> bool:
    """Whether a directory calls itself a smaller copy of another page (NewSubfileType 1,
    SubfileType 2), or its mask (4).
    """
    return bool(tags.get(254, 0) & 5) or tags.get(255) == 2


def _is_aside(one: _Directory, largest: tuple[int, int]) -> bool:
    """Whether a directory belongs to another one and is what it says: smaller than the largest
    page, or its mask.
    """
    if one.tags.get(254, 0) & 4:
        return one.tags.get(262) == MASK_OF_ANOTHER
    return _says_aside(one.tags) and one.size[0] < largest[0] and one.size[1] < largest[1]


def _directories(data: bytes) -> Iterator[_Directory]:
    """Yields each directory in the chain."""
    order, offset, _ = _layout(data)
    (at,) = struct.unpack_from(order + offset, data, 8 if offset == "Q" else 4)
    seen: set[int] = set()
    while at and at not in seen:
        seen.add(at)
        _bounded(len(seen))
        found, at = _directory(data, at)
        yield found


def _layout(data: bytes) -> tuple[str, str, int]:
    """Returns the byte order, the type of a place, and the bytes of an entry of a directory."""
    order = "<" if data[:2] == b"II" else ">"
    return (order, "Q", 20) if b"+" in data[2:4] else (order, "I", 12)


def _directory(data: bytes, at: int) -> tuple[_Directory, int]:
    """Returns the directory at a place, and the place of the next one."""
    order, offset, entry = _layout(data)
    number = order + ("Q" if offset == "Q" else "H")
    (count,) = struct.unpack_from(number, data, at)
    if count > MAX_TAGS:
        raise ImageError("damaged", f"TIFF with a directory of {count:,} tags: copy it again")
    first = at + struct.calcsize(number)
    behind = first + entry * count
    values = {}
    ends = [behind + struct.calcsize(offset)]
    for i in range(count):
        tag, found, end = _entry(data, order, offset, first + entry * i)
        values[tag] = found
        ends.append(end)
    for places, lengths in PLACES.items():
        starts, sizes = values.get(places, ()), values.get(lengths, ())
        ends += [start + size for start, size in zip(starts, sizes, strict=False)]
    tags = {tag: found[0] for tag, found in values.items() if found}
    (following,) = struct.unpack_from(order + offset, data, behind)
    return _Directory(tags, values.get(330, []), min(max(ends), len(data))), following


def _entry(data: bytes, order: str, offset: str, at: int) -> tuple[int, list[int], int]:
    """Returns an entry's tag, its values (of kinds that are lengths or places), and where
    they end.
    """
    tag, kind = struct.unpack_from(order + "HH", data, at)
    (count,) = struct.unpack_from(order + offset, data, at + 4)
    start, room = at + 4 + struct.calcsize(offset), struct.calcsize(offset)
    length = count * BYTES.get(kind, 1)
    if length > room:
        (start,) = struct.unpack_from(order + offset, data, start)
    if kind not in NUMBERS or start + length > len(data):
        return tag, [], start + length if kind in BYTES else 0
    return tag, np.frombuffer(data, order + NUMBERS[kind], count, start).tolist(), start + length


# ---- GIF ----


def _gif_frames(data: bytes) -> tuple[int, int]:
    """Returns how many frames there are, and where they end: Pillow takes the end of a file that
    was cut off for that.
    """
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
            raise ImageError(
                "truncated", f"GIF that ends early after {len(data):,} bytes: copy it again"
            )
    return max(1, _bounded(frames)), at + 1


def _colours(flags: bytes) -> int:
    return 3 << ((flags[0] & 7) + 1) if flags and flags[0] & 0x80 else 0


# ---- JPEG ----


def _views(image: ImageFile, data: bytes) -> tuple[list[OpenPage], int]:
    """Returns the views of a stereo, panorama or multi-angle JPEG, and where the last entry of its
    index ends.
    """
    try:
        whole: Any = MpoImageFile(BytesIO(data))
        entries = whole.mpinfo[0xB002]
        start = int(image.info["mpoffset"])
        places = [(entry["DataOffset"] + start, entry["Size"]) for entry in entries]
    except Exception:  # what the index says may be damaged in every way: then it is a JPEG
        return [lambda: image], 0
    views = [0] + [
        number
        for number, (entry, (at, size)) in enumerate(zip(entries, places, strict=True))
        if number
        and _is_view(data[at : at + size], image, "Thumbnail" in entry["Attribute"]["MPType"])
    ]
    last = max(at for at, _ in [(0, 0), *places[1:]] if at < len(data))
    # not by the sizes of the index, which some programs write wrongly
    end = last + (end_of(data[last:], "JPEG") or len(data))
    pages = (
        [partial(_frame, whole, _bounded(number)) for number in views]
        if len(views) > 1
        else [lambda: image]
    )
    return list(pages), end


def _is_view(data: bytes, first: ImageFile, thumbnail: bool) -> bool:
    """Whether a picture behind the first one shows something itself: no map that belongs to it, and
    no smaller copy.
    """
    from PIL.JpegImagePlugin import JpegImageFile

    if not data.startswith(b"\xff\xd8\xff") or GAIN_MAP.search(data[: 1 << 16]):
        return False
    try:
        width, height = JpegImageFile(BytesIO(data)).size
    except Exception:  # the same as for any page: that it is damaged is said when its turn comes
        return True
    if thumbnail:
        return width >= first.width or height >= first.height
    return not is_preview((width, height), first.size)


# ---- PBM, PGM, PPM ----


def _pnm_pictures(data: bytes) -> Iterator[tuple[int, int]]:
    """Yields where each picture begins and ends; ImageError for several in plain text, which are
    not read one by one.
    """
    if data[1:2] in b"123" and PNM_PLAIN.search(re.sub(rb"#[^\r\n]*", b"", data[2:])):
        raise ImageError(
            "several pages", "several pictures in plain text found: save each as a file of its own"
        )
    at, count = 0, 0
    while head := PNM_HEAD.match(data, at):
        count = _bounded(count + 1)
        kind, width, height, end = head[1], int(head[2]), int(head[3]), head.end()
        row = (width + 7) // 8
        if kind != b"4":
            largest = PNM_LARGEST.match(data, end)
            if largest is None:
                break
            end, row = (
                largest.end(),
                width * (2 if int(largest[1]) > 255 else 1) * (3 if kind == b"6" else 1),
            )
        end += 1 + row * height
        yield head.start(1) - 1, end
        at = end
