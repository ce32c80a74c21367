"""Decodes images: what is refused, and what every pixel means.

What the pixels of each kind of file become (the `decode` rule of a detector's card):

    8-bit grey, RGB        as they are; grey in all three channels
    1 bit                  0 and 255
    16-bit grey            scaled, never clipped: round(255 v / (2^bits - 1)); `bits` is the
                           smallest of 10, 12, 14, 16 that holds the image's largest value, and
                           never less than the rule's
    16-bit colour          the same, by the largest value of its channels; 16-bit alpha by its
                           high byte
    float, 32-bit (TIFF)   255 (v - low) / (high - low) by the rule's `scale` (low, high), which
                           is that of the training images, and `bits` says 32; an image with a
                           value outside is refused, never scaled by its own largest. Without a
                           `scale` (to look at one image): float of 0..1 times 255; else 0..255
                           rounded; else, and integers, 0..65535 as 16-bit grey. Anything else
                           is refused
    white is zero (TIFF)   inverted, at every depth
    palette, CMYK, ...     to RGB (GIF: as it looks at that frame)
    PGM, PPM               as 8 or 16 bits; any other largest value is scaled to these by the
                           file's own statement
    alpha, transparency    over white
    several pages, frames  each is an image of its own (see `pages`): `decode_pages` gives them
                           all, `decode` refuses
    EXIF, XMP orientation  applied; metadata that cannot be read counts as none
    ICC profile            ignored: pixel values are compared, not looked at
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path

from PIL import ImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.PpmImagePlugin import PpmImageFile
from PIL.TiffImagePlugin import TiffImageFile

from anomaly.errors import DetectorError, ImageError
from anomaly.files.regular_files import open_without_waiting
from anomaly.imaging import listing
from anomaly.imaging.bit_depth import (
    DEPTHS,
    Eight,
    Scale,
    check_kind,
    colour_in_full,
    finite_range,
    grey_in_full,
    is_deep,
    is_scale,
    is_wide,
    needs_scale,
    values_of,
)
from anomaly.imaging.damage import says_what_is_wrong
from anomaly.imaging.image_file import printable_text, read_file
from anomaly.imaging.pages import DRAWN_OVER, OpenPage, pages_of, several
from anomaly.imaging.pillow import (
    READERS,
    TURNS,
    Pixels,
    format_of,
    quiet_pillow,
    reader_for,
    to_array,
    to_colour,
    turn_of,
)

MAX_PIXELS = 100_000_000

SIDEWAYS = (TURNS[5], TURNS[6], TURNS[7], TURNS[8])
SCAN_PIXELS = 2_000_000_000  # pixels times scans of a progressive JPEG: some seconds of work
# times max_pixels: of a file's pages together, so that a small file costs no hours
MANY_PAGES = 100
MAX_TILES = 200_000  # of an uncompressed TIFF; each costs Python's time


@dataclass(frozen=True)
class DecodeRule:
    """How files become pixels: recorded in the detector, used alike in training, calibration and
    scoring.

    ``bits`` is the true depth of 16-bit files (10, 12, 14 or 16; None: found in each image from its
    largest value, so that a dark image is scaled by a smaller depth than a bright one). ``reduced``
    allows JPEG to be decoded at 1/2, 1/4 or 1/8 scale where that is still no smaller than the
    model's size. ``scale``: the values of float and 32-bit files that become 0 and 255; None where
    the training images hold none.
    """

    orientation: str = "exif"
    alpha: str = "white"
    bits: int | None = None
    reduced: bool = False
    scale: Scale | None = None

    def __post_init__(self) -> None:
        if (self.orientation, self.alpha) != ("exif", "white"):
            found = f"{self.orientation!r} and {self.alpha!r}"
            raise ValueError(f"orientation and alpha {found} found, 'exif' and 'white' expected")
        if self.bits is not None and (type(self.bits) is not int or self.bits not in DEPTHS):
            raise ValueError(f"bits {self.bits!r} found, one of {DEPTHS} or None expected")
        if type(self.reduced) is not bool:
            raise ValueError(f"reduced {self.reduced!r} found, True or False expected")
        if self.scale is not None and not is_scale(self.scale):
            raise ValueError(f"scale {self.scale!r} found, (low, high) or None expected")

    def to_json(self) -> dict[str, object]:
        """Returns the rule as the card stores it; ``scale`` only where there is one, so that older
        programs know the rest.
        """
        return {
            name: value
            for name, value in asdict(self).items()
            if name != "scale" or value is not None
        }

    @classmethod
    def from_json(cls, stored: dict[str, object]) -> DecodeRule:
        """Returns the rule that a card stores; a rule that this version does not know is a
        `DetectorError`.
        """
        scale = stored.get("scale")
        try:
            if isinstance(scale, list):
                stored = {**stored, "scale": tuple(scale)}
            return cls(**stored)  # type: ignore[arg-type]  # __post_init__ checks every value
        except (TypeError, ValueError) as error:
            raise DetectorError(
                f"decode rule {stored!r} is not known ({error}): update this program"
            ) from error


@dataclass(frozen=True, eq=False)
class Decoded:
    """One decoded image.

    ``pixels`` is uint8 (H, W, 3), RGB, C-contiguous. ``width`` and ``height`` are those of the
    image as one looks at it: turned by its EXIF orientation, and not reduced. ``bits`` is the depth
    that was found (8, that of a 16-bit file, or 32 of float and 32-bit values that have a scale),
    ``mode`` Pillow's name for what the file holds, ``grey`` whether all three channels are equal.
    """

    pixels: Pixels
    width: int
    height: int
    bits: int
    mode: str
    grey: bool
    format: str


def decode(
    source: str | Path | bytes,
    rule: DecodeRule = DecodeRule(),
    max_pixels: int = MAX_PIXELS,
    *,
    reduce_to: int | None = None,
    page: int | None = None,
) -> Decoded:
    """Returns the pixels of one image file, given by its path or its bytes.

    The header's size is checked against ``max_pixels`` before anything is decoded (in TIFF and WebP
    Pillow's own limit of 179 million holds besides). ``reduce_to`` is the model's size, used if the
    rule says ``reduced``. ``page``: the one to decode, from 1 on; without it a file of several is
    an `ImageError` of the kind ``several pages``. Whatever is wrong is an `ImageError` with a kind
    and one line. Threads may call this at the same time.
    """
    try:
        data = (
            source
            if isinstance(source, bytes)
            else read_file(source, limit=8 * max_pixels + (1 << 24))
        )
        return _decode(data, rule, max_pixels, reduce_to, page)
    except ImageError as error:
        name = "image" if isinstance(source, bytes) else printable_text(os.fspath(source))
        raise ImageError(error.kind, f"{name}: {error}") from error


def decode_pages(
    data: bytes, rule: DecodeRule, max_pixels: int = MAX_PIXELS, *, reduce_to: int | None = None
) -> Iterator[tuple[int | None, Decoded | ImageError]]:
    """Yields the pages of a file with their numbers, from 1 on (None: it has only one), or what is
    wrong with each.

    Where a page is missing so are those behind it: its error says so. Pages together have at most a
    hundred times ``max_pixels``. For the rest see `decode`.
    """
    try:
        pages = _pages(data)
    except ImageError as error:
        yield None, error
        return
    left, many = MANY_PAGES * max_pixels, len(pages) > 1
    for number in range(1, len(pages) + 1):
        try:
            decoded: Decoded | ImageError = _page(
                pages, number - 1, data, rule, min(left, max_pixels), reduce_to
            )
        except ImageError as error:
            decoded = error
        last = isinstance(decoded, ImageError) and (
            format_of(data) in DRAWN_OVER or left < max_pixels
        )
        if last and number < len(pages):
            assert isinstance(decoded, ImageError)
            rest = len(pages) - number
            decoded = ImageError(
                decoded.kind, f"{decoded}; nor were the {rest:,} pages behind it judged"
            )
        yield number if many else None, decoded
        left -= decoded.width * decoded.height if isinstance(decoded, Decoded) else 0
        if last:
            return


def _decode(
    data: bytes, rule: DecodeRule, max_pixels: int, reduce_to: int | None, page: int | None
) -> Decoded:
    pages = _pages(data)
    if page is None and len(pages) > 1:
        raise several(len(pages))
    if page is not None and not 1 <= page <= len(pages):
        raise ImageError("missing", f"page {page} asked for, {len(pages):,} found")
    return _page(pages, (page or 1) - 1, data, rule, max_pixels, reduce_to)


def _pages(data: bytes) -> list[OpenPage]:
    reader = reader_for(data)
    with says_what_is_wrong(data):
        return pages_of(reader(BytesIO(data)), data)


def _page(
    pages: Sequence[OpenPage],
    number: int,
    data: bytes,
    rule: DecodeRule,
    max_pixels: int,
    reduce_to: int | None,
) -> Decoded:
    with says_what_is_wrong(data):
        image = pages[number]()
        _check_size(image, data, max_pixels)
        check_kind(image)
        return _decoded(image, rule, reduce_to, lambda: _pages(data)[number]())


def _decoded(
    image: ImageFile.ImageFile, rule: DecodeRule, reduce_to: int | None, again: OpenPage
) -> Decoded:
    mode, original = image.mode, image.size
    if rule.reduced and reduce_to is not None:
        image.draft(None, (reduce_to, reduce_to))  # changes nothing unless it is a JPEG
    reduced = image.size != original
    colour = colour_in_full(image, again, rule.bits)
    image.load()
    if mode == "F" or mode.startswith("I"):
        eight, bits = grey_in_full(image, rule.bits, rule.scale)
    else:
        eight, bits = colour() if colour else Eight(image, 8)
    turn = turn_of(image)
    upright = eight if turn is None else eight.transpose(turn)
    width, height = (original[::-1] if turn in SIDEWAYS else original) if reduced else upright.size
    pixels, grey = to_array(to_colour(upright))
    return Decoded(pixels, width, height, bits, mode, grey, image.format or "")


def has_depth(path: str | Path) -> bool:
    """Whether an image file has more than 8 bits a channel, by its head; False where it cannot be
    read.
    """
    try:
        with open(path, "rb", opener=open_without_waiting) as file, quiet_pillow():
            reader = READERS.get(format_of(file.read(listing.HEAD)))
            if reader not in (PngImageFile, TiffImageFile, PpmImageFile):
                return False
            file.seek(0)
            return is_deep(reader(file))
    except Exception:  # what is wrong with it is said when it is decoded
        return False


def range_of(path: str | Path) -> tuple[Scale, bool] | None:
    """Returns the least and largest value of a float or 32-bit image, and whether they need a scale
    (see `bit_depth`).

    None for other kinds; ImageError for what cannot be read.
    """
    data = read_file(path, limit=8 * MAX_PIXELS + (1 << 24))
    pages = _pages(data)
    with says_what_is_wrong(data):
        image = pages[0]()
        _check_size(image, data, MAX_PIXELS)
        if not is_wide(image):
            return None
        image.load()
        found = finite_range(values_of(image))
        return found, needs_scale(image, *found)


def _check_size(image: ImageFile.ImageFile, data: bytes, max_pixels: int) -> None:
    pixels = image.width * image.height
    if pixels > max_pixels:
        size = f"{image.width} x {image.height} pixels"
        raise ImageError(
            "too large", f"{size}, at most {max_pixels:,} in all expected: --max-pixels allows more"
        )
    if len(image.tile) > MAX_TILES:
        tiles = f"{len(image.tile):,} tiles, at most {MAX_TILES:,}"
        raise ImageError("too large", f"{tiles} expected: save it again in larger ones")
    # Each scan of a progressive JPEG passes over the whole image however few bytes it has.
    if "progressive" in image.info and pixels * data.count(b"\xff\xda") > SCAN_PIXELS:
        raise ImageError(
            "too large", "progressive JPEG of too many scans: save it again as a baseline JPEG"
        )
