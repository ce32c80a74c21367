"""The pieces of the pages that Streamlit has not: the review desk, the sheet of findings, the
draggable threshold, the mask.

Names, comments and all other text reach them as data and become text nodes; none of it is ever put
into the HTML.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import streamlit as st

from anomaly.files.csv_cells import guarded

NUMBER = re.compile(r"[+-]?[\d.,]+ ?%?")
HERE = Path(__file__).parent
Renderer = Callable[..., Any]


def _component(name: str, *scripts: str) -> Renderer:
    folder = HERE / name
    js = "\n".join(
        (folder / script).read_text(encoding="utf-8") for script in (*scripts, f"{name}.js")
    )
    html, css = (
        (folder / f"{name}.{kind}").read_text(encoding="utf-8") for kind in ("html", "css")
    )
    made: Renderer = st.components.v2.component(f"anomaly.{name}", html=html, css=css, js=js)
    return made


_viewer = _component(
    "viewer",
    "outbox.js",
    "drafts.js",
    "panes.js",
    "looking.js",
    "contours.js",
    "regions.js",
    "gestures.js",
)
_sheet = _component("sheet", "../viewer/outbox.js", "../viewer/contours.js")
_threshold = _component("limit")
_mask = _component("mask", *(f"../viewer/{name}.js" for name in ("panes", "regions", "gestures")))
_live = _component("live")
_remember: Renderer = st.components.v2.component(
    "anomaly.remember",
    js="""export default function ({ data }) {
  const value = encodeURIComponent(data.value);
  document.cookie = `${data.name}=${value}; path=/; max-age=31536000; SameSite=Strict`;
}""",
)


# Streamlit's own HTML leaves SVG out; the drawing is parsed as one, not as a page's HTML.
_drawing: Renderer = st.components.v2.component(
    "anomaly.drawing",
    html='<div class="drawing"></div>',
    js="""export default function ({ data, parentElement }) {
  const drawn = new DOMParser().parseFromString(data.svg, 'image/svg+xml').documentElement;
  parentElement.querySelector('.drawing').replaceChildren(drawn);
}""",
)


def drawing(key: str, svg: str) -> None:
    """Shows a drawing of ours, whose texts are escaped, in the colours of the page's theme."""
    _drawing(key=f"drawing {key}", data={"svg": svg})


def viewer(data: dict[str, Any]) -> None:
    """Shows the review desk; it talks to the routes by itself."""
    _viewer(key="viewer", data=data, on_renew_change=lambda: None)


def _rerun() -> None:
    """What Streamlit calls before it runs the page again, which is all that is wanted."""


def sheet(data: dict[str, Any]) -> int | None:
    """Shows a sheet of findings and returns the one that was clicked; verdicts on many go to the
    routes, and then the page runs again.
    """
    opened = _sheet(key="sheet", data=data, on_open_change=_rerun, on_judged_change=_rerun).open
    return None if opened is None else int(opened)


def threshold_chart(key: str, data: dict[str, Any], moved: Callable[[], None]) -> None:
    """Shows histograms with the threshold on them; ``moved`` is called when ``threshold`` or
    ``review`` was dragged.
    """
    _threshold(key=key, data=data, on_threshold_change=moved, on_review_change=moved)


def mask_drawing(data: dict[str, Any]) -> list[dict[str, Any]]:
    """Shows a picture to draw a mask on, and returns its shapes; see
    ``anomaly.imaging.mask.of_shapes``.

    ``data``: address of the ``picture``, its ``width`` and ``height``, and of the mask that is
    edited, ``base`` ("": none).
    """
    found = _mask(key=f"mask {data['of']}", data=data, on_shapes_change=_rerun).shapes
    return found if isinstance(found, list) else []


def show_chart(chart: Any, said: str) -> None:
    """Shows an Altair chart that a screen reader names by ``said``: its thousand marks have no
    names.
    """
    st.altair_chart(chart.properties(description=said).configure_mark(aria=False), width="stretch")


def live_station(data: dict[str, Any]) -> None:
    """Shows a station that runs; it asks its route by itself, and says when nothing answers."""
    _live(key=f"live {data['station']}", data=data)


def plain(text: str) -> str:
    """Returns text for Streamlit's Markdown fields that shows as it is: names and comments are not
    markup.
    """
    return re.sub(r"([\\`*_{}\[\]()<>#+\-.!|~$:^&])", r"\\\1", text)


def cells(rows: Sequence[Mapping[str, object]]) -> list[dict[str, object]]:
    """Returns the rows of a table as they are shown: who looks at it can save it as CSV, and open
    that in a spreadsheet.
    """
    return [{name: _cell(value) for name, value in row.items()} for row in rows]


def _cell(value: object) -> object:
    return guarded(value) if isinstance(value, str) and not NUMBER.fullmatch(value) else value


def remember(name: str, value: str) -> None:
    """Keeps a setting in this browser, in a cookie that is sent to this server only."""
    _remember(key=f"remember {name}", data={"name": name, "value": value})
