"""Pictures enlarged pixel by pixel, captions above them, and texts inside a PNG file."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from anomaly.files.atomic import whole_file
from anomaly.imaging.pillow import Pixels

LEAST_SIDE = 192  # pixels: a picture of fewer is enlarged by a whole factor
LEAST_WIDTH = 640  # pixels of a picture with a caption
TEXT_PIXELS, LINE_PIXELS, MARGIN = 15, 21, 8


def enlarged(picture: Pixels, least: int = LEAST_SIDE) -> Pixels:
    """Returns a picture (h, w, 3) whose shorter side has ``least`` pixels or more, each pixel of a
    smaller one a square.
    """
    return repeated(picture, -(-least // min(picture.shape[:2])))


def repeated(picture: Pixels, times: int) -> Pixels:
    """Returns a picture (h, w, 3) so many times as large, each pixel a square."""
    return picture.repeat(times, 0).repeat(times, 1)


def captioned(picture: Pixels, lines: Sequence[str]) -> Pixels:
    """Returns a picture (h, w, 3) with lines of text above it, on white; long lines are
    wrapped.
    """
    from PIL import Image, ImageDraw, ImageFont

    height, width = picture.shape[:2]
    wide, font = max(width, LEAST_WIDTH), ImageFont.load_default(TEXT_PIXELS)
    shown = [part for line in lines for part in wrapped(line, wide - 2 * MARGIN, font.getlength)]
    top = LINE_PIXELS * len(shown) + MARGIN
    sheet = Image.new("RGB", (wide, top + height), "white")
    sheet.paste(Image.fromarray(picture), (0, top))
    draw = ImageDraw.Draw(sheet)
    for number, line in enumerate(shown):
        draw.text((MARGIN, MARGIN // 2 + LINE_PIXELS * number), line, "black", font)
    return np.asarray(sheet)


def wrapped(line: str, width: float, length: Callable[[str], float]) -> list[str]:
    """Returns a line as several, each at most ``width`` long by ``length``; a word that alone is
    longer is cut.
    """
    found = [""]
    for word in line.split(" "):
        longer = f"{found[-1]} {word}" if found[-1] else word
        if length(longer) <= width:
            found[-1] = longer
            continue
        while length(word) > width:
            word = word[:-1]
        found.append(word)
    return [part for part in found if part]


def save_with_facts(
    path: str | os.PathLike[str], picture: Pixels, facts: Mapping[str, str]
) -> None:
    """Writes a picture (h, w, 3) as PNG with texts that say what it is; it appears whole or not at
    all.
    """
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    for name, text in facts.items():
        info.add_itxt(name, text)
    with whole_file(Path(path)) as file:
        Image.fromarray(picture).save(file, "PNG", pnginfo=info)
