"""What stands behind the picture of an image file: another picture there is one that nobody would
look at.

Programs put whole files one after another (bursts, dumps of a stream), and every decoder stops
after the first.
"""

from __future__ import annotations

import re
import struct
from io import BytesIO

from PIL.JpegImagePlugin import JpegImageFile

from anomaly.imaging.listing import HEAD, is_image_head

# of the sides of the picture that it belongs to: a smaller copy behind it is no page
PREVIEW = 2 / 3
PADDING = re.compile(rb"[\0\s]*")
# in coded data: what is neither stuffed nor a restart
JPEG_MARKER = re.compile(rb"\xff[^\0\xff\xd0-\xd7]")


def is_preview(size: tuple[int, int], of: tuple[int, int]) -> bool:
    """Returns whether a picture is so much smaller than the one that it stands behind that it is
    taken for its preview.
    """
    return size[0] <= PREVIEW * of[0] and size[1] <= PREVIEW * of[1]


def picture_behind(data: bytes, format: str, end: int = 0) -> bool:
    """Returns whether another picture than a JPEG's preview begins where the file's own one ends.

    ``end``: where that is, if it is known; of TIFF it is behind everything that its directories
    name.
    """
    size: tuple[int, int] | None = None
    while end := end or end_of(data, format):
        end += len(PADDING.match(data, end)[0])  # type: ignore[index]  # it matches nothing, too
        head = data[end : end + HEAD]
        if not is_image_head(head):
            return False
        if format != "JPEG" or not head.startswith(b"\xff\xd8\xff"):
            return True
        size, found = size or _jpeg_size(data), _jpeg_size(data[end:])
        if size is None or found is None or not is_preview(found, size):
            return True
        end += end_of(data[end:], format) or len(data)
    return False


def end_of(data: bytes, format: str) -> int:
    """Returns where a file's picture ends; 0 where that cannot be told."""
    find = {"JPEG": _end_of_jpeg, "PNG": _end_of_png, "WEBP": _end_of_webp, "BMP": _end_of_bmp}.get(
        format
    )
    try:
        return min(find(data), len(data)) if find else 0
    except (struct.error, IndexError):  # cut off or damaged, which decoding says
        return 0


def _end_of_jpeg(data: bytes) -> int:
    # the usual file: coded data cannot hold this, a thumbnail does
    if data.find(b"\xff\xd9") == len(data) - 2:
        return len(data)
    at = 2
    while data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xD9:
            return at + 2
        if marker in (0x01, 0xFF) or 0xD0 <= marker <= 0xD7:  # no length follows, or a filling byte
            at += 1 if marker == 0xFF else 2
            continue
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == 0xDA:
            found = JPEG_MARKER.search(data, at)
            if found is None:
                return 0
            at = found.start()
    return 0


def _end_of_png(data: bytes) -> int:
    at, name = 8, b""
    while name != b"IEND":
        length, name = struct.unpack_from(">I4s", data, at)
        at += 12 + length
    return at


def _end_of_webp(data: bytes) -> int:
    (length,) = struct.unpack_from("<I", data, 4)
    return 8 + int(length) + int(length) % 2


def _end_of_bmp(data: bytes) -> int:
    """The length that the head claims, which some programs leave at 0: then from the size of the
    picture.
    """
    length, offset, head, width, height, _, bits, packed = struct.unpack_from("<2xI4xIIiiHHI", data)
    if packed or head < 40:
        return int(length)
    return max(
        int(length), int(offset) + (int(width) * int(bits) + 31) // 32 * 4 * abs(int(height))
    )


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    try:
        return JpegImageFile(BytesIO(data)).size
    except Exception:  # of any kind: then it is no preview
        return None
