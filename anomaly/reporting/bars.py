"""Stacked bars, one row for each name: worked out once, and drawn as SVG for pages and as PNG."""

from __future__ import annotations

import io
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from PIL import ImageFont

WIDTH, NARROW = 900, 540  # pixels: of a drawing, and of one that stands beside another
NAMES, SAID = 210, 160  # of the names, and of what is said behind the longest bar
LARGER = 1.2  # on a wide page, at the most: a drawing's texts grow with it
ROW, THICK, TOP = 28, 18, 62  # of a row, of its bar, above the first one
MAX_NAME = 30  # characters
MAX_BARS = 62  # rows: two months of days


class Kind(NamedTuple):
    """What one colour of the bars stands for."""

    name: str
    colour: str


class Bar(NamedTuple):
    """A row: ``counts`` has one number for each kind; ``said`` stands behind it."""

    name: str
    counts: Sequence[int]
    said: str


class Rect(NamedTuple):
    x: float
    y: float
    width: float
    height: float
    colour: str
    said: str


class Text(NamedTuple):
    x: float
    y: float
    text: str
    anchor: str  # start or end
    strong: bool = False


class Drawing(NamedTuple):
    """``width`` and ``height`` in pixels; texts lie on their middle line."""

    title: str
    width: int
    height: int
    rects: list[Rect]
    texts: list[Text]


def bars(title: str, kinds: Sequence[Kind], rows: Sequence[Bar], width: int = WIDTH) -> Drawing:
    """Returns the drawing; of too many rows the last are drawn, and how many are not is said."""
    shown, left_out = rows[-MAX_BARS:], max(0, len(rows) - MAX_BARS)
    longest = max([1, *(sum(row.counts) for row in shown)])
    rects, texts = _legend(kinds)
    texts.append(Text(8, 18, title, "start", True))
    for at, row in enumerate(shown):
        y, x = float(TOP + ROW * at), float(NAMES)
        texts.append(Text(NAMES - 10, y + ROW / 2, _short(row.name), "end"))
        for kind, count in zip(kinds, row.counts, strict=True):
            wide = (width - NAMES - SAID) * count / longest
            if count:
                said = f"{row.name}: {count:,} {kind.name}"
                rects.append(Rect(x, y + (ROW - THICK) / 2, wide, THICK, kind.colour, said))
            x += wide
        texts.append(Text(x + 8, y + ROW / 2, row.said, "start"))
    height = TOP + ROW * len(shown) + 8
    if left_out:
        texts.append(Text(NAMES, height + 8, f"and {left_out:,} before these", "start"))
        height += 24
    return Drawing(title, width, height, rects, texts)


def _legend(kinds: Sequence[Kind]) -> tuple[list[Rect], list[Text]]:
    rects, texts, x = [], [], float(NAMES)
    for kind in kinds if len(kinds) > 1 else ():
        rects.append(Rect(x, 36, 12, 12, kind.colour, kind.name))
        texts.append(Text(x + 18, 42, kind.name, "start"))
        x += 36 + 7.5 * len(kind.name)
    return rects, texts


def _short(name: str) -> str:
    half = MAX_NAME // 2
    return name if len(name) <= MAX_NAME else f"{name[:half]}…{name[1 - half :]}"


def svg(drawing: Drawing) -> str:
    """Returns the drawing as SVG with texts in the colour of what stands round it."""
    said = ". ".join([drawing.title, *(rect.said for rect in drawing.rects)])[:4000]
    rects = "".join(
        f'<rect x="{r.x:.1f}" y="{r.y:.1f}" width="{r.width:.1f}" height="{r.height:.1f}" '
        f'fill="{r.colour}"><title>{escape(r.said)}</title></rect>'
        for r in drawing.rects
    )
    texts = "".join(
        f'<text x="{t.x:.1f}" y="{t.y + 4.5:.1f}" text-anchor="{t.anchor}" fill="currentColor" '
        f'font-size="{15 if t.strong else 13}" font-weight="{600 if t.strong else 400}">'
        f"{escape(t.text)}</text>"
        for t in drawing.texts
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {drawing.width} {drawing.height}" '
        f'role="img" style="width: 100%; height: auto; '
        f'max-width: {LARGER * drawing.width:.0f}px"'
        f' aria-label="{escape(said)}">{rects}{texts}</svg>'
    )


def png(drawing: Drawing, scale: int = 2) -> bytes:
    """Returns the drawing as a PNG file on white, ``scale`` times as large."""
    from PIL import Image, ImageDraw

    picture = Image.new("RGB", (drawing.width * scale, drawing.height * scale), "white")
    draw = ImageDraw.Draw(picture)
    for r in drawing.rects:
        corners = (r.x, r.y, r.x + r.width, r.y + r.height)
        draw.rectangle([round(scale * one) for one in corners], fill=r.colour)
    for t in drawing.texts:
        place = scale * t.x, scale * t.y
        font = _font(scale * (15 if t.strong else 13))
        draw.text(place, t.text, "black", font, anchor="lm" if t.anchor == "start" else "rm")
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    return file.getvalue()


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """A font with most alphabets where the system has it, else Pillow's own."""
    from PIL import ImageFont

    try:
        return ImageFont.truetype("DejaVuSans.ttf", size)
    except OSError:
        return ImageFont.load_default(size)
