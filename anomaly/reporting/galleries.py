"""The pictures of a report: small JPEGs in the page, as many as there is room for."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from anomaly.imaging.colours import STOPS
from anomaly.imaging.overlay import overlay, shrink, stretched
from anomaly.imaging.pillow import Pixels
from anomaly.reporting.report import PICTURES_A_GALLERY, ROWS, GalleryItem

PICTURE_BYTES = 5_000_000  # of all pictures together
LEGEND_END = 4.0  # the legend's right end, in distances from a typical good image to the threshold
LEGEND_NAMES = ((0, "typical"), (1, "threshold"), (2, "2 x"), (4, "4 x as far"))

# What a gallery shows, in the order of the page; others follow under their own name.
GALLERIES = {
    "the threshold": (
        "The calibration images with the highest scores set the threshold; one that shows a defect "
        "makes it too high. Look at them before the detector is used. Mark each as good or as a "
        "defect (page Calibration of anomaly review, or anomaly mark); anomaly retrain leaves out "
        "those marked as defects, with their groups. Good ones have to stay."
    ),
    "suspects": (
        "The most unusual of all good images, each judged by models that have not seen it; yellow "
        "and outlined: twice as unusual as a typical good image. Some good images are always "
        "first: look for defects. A model learns to find them good, and where one helps to set the "
        "threshold, the threshold is too high. suspects.txt beside this page names these and the "
        "others of the most unusual 5 %: delete the lines of the good ones, because a threshold "
        "set without them would be too low, and train again with --exclude."
    ),
    "misses": "Defective images that were not flagged, the least unusual first.",
    "false alarms": "Good images that were flagged, the most unusual first.",
    "most anomalous": "The highest scores of all.",
    "least anomalous": "The lowest scores of all.",
}


@dataclass(frozen=True)
class View:
    """One view of an image (``what``: original, expected or heatmap); ``source`` is the picture as
    a data URI, empty where there is none.
    """

    what: str
    source: str = ""
    width: int = 0
    height: int = 0


@dataclass(frozen=True)
class Figure:
    """An image with its views side by side."""

    path: str
    caption: str
    views: list[View]


@dataclass(frozen=True)
class Gallery:
    """One kind of images; ``rest``: paths of those that there was no room for."""

    heading: str
    meaning: str
    has_expected: bool
    figures: list[Figure]
    rest: list[str]


def galleries(items: Mapping[str, Sequence[GalleryItem]]) -> list[Gallery]:
    """Returns the galleries, as many pictures as there is room for; of the others the names."""
    names = [name for name in GALLERIES if items.get(name)]
    names += [name for name in items if name not in GALLERIES and items[name]][:ROWS]
    return [_gallery(name, items[name], PICTURE_BYTES // len(names)) for name in names]


def _gallery(name: str, items: Sequence[GalleryItem], room: int) -> Gallery:
    has_expected = any(item.expected is not None for item in items[:PICTURES_A_GALLERY])
    figures = []
    for item in items[:PICTURES_A_GALLERY]:
        figure = _figure(item, has_expected)
        room -= _characters(figure)
        if room < 0:
            break
        figures.append(figure)
    meaning = GALLERIES.get(name, "")
    if not has_expected:
        meaning += " What the model expected to see is not available for these."
    rest = [item.path for item in items[len(figures) :]]
    return Gallery(name[:1].upper() + name[1:], meaning, has_expected, figures, rest)


def _figure(item: GalleryItem, with_expected: bool) -> Figure:
    original = shrink(item.original)
    heatmap = (
        None
        if item.heatmap is None
        else overlay(original, item.heatmap, item.median, item.threshold)
    )
    views = [_view("original", original)]
    if with_expected:
        expected = None if item.expected is None else stretched(item.expected, original)
        views.append(_view("expected", expected))
    return Figure(item.path, item.caption, [*views, _view("heatmap", heatmap)])


def _characters(figure: Figure) -> int:
    """Returns about how many characters a figure takes in the page."""
    words = html.escape(figure.path[:300] + figure.caption[:500])
    return len(words) + sum(len(view.source) + 200 for view in figure.views)


def _view(what: str, pixels: Pixels | None) -> View:
    if pixels is None:
        return View(what)
    height, width = pixels.shape[:2]
    return View(what, data_uri(pixels), width, height)


def data_uri(pixels: Pixels, kind: str = "jpeg") -> str:
    """Returns a picture as the address of a JPEG that lies in the page, or of a WebP: a sixth as
    large where pixels are enlarged.
    """
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, quality=85, optimize=True)
    return f"data:image/{kind};base64," + base64.b64encode(file.getvalue()).decode()


def legend_colours() -> str:
    """Returns the colours of every heatmap, as the stops of a CSS gradient."""
    return ",".join(
        f"rgba({red:.0f},{green:.0f},{blue:.0f},{opacity:.2f}) {100 * t / LEGEND_END:.1f}%"
        for t, red, green, blue, opacity in STOPS
    )


def legend_ticks() -> list[tuple[float, str]]:
    """Returns the names below the colours, as (place, text)."""
    return [(distance / LEGEND_END, name) for distance, name in LEGEND_NAMES]
