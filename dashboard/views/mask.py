"""Mask: what of the images is inspected, drawn on one of them, as the PNG that
`anomaly train --mask` takes.
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import Any

import streamlit as st
from PIL import Image

from anomaly.errors import AnomalyError, ImageError
from anomaly.imaging.decode import MAX_PIXELS, Decoded, decode
from anomaly.imaging.mask import Mask, coarser, mask_from, of_shapes, to_png
from anomaly.imaging.overlay import shrink
from anomaly.review import Filters
from dashboard.components import mask_drawing, plain
from dashboard.desk import Desk, open_desk
from dashboard.findings import roots, short_path
from dashboard.settings import UPLOAD_MB
from dashboard.words import readable

SIDE = 4096  # pixels of the picture of an uploaded file that is drawn on
MAX_LISTED = 200  # images of a run to choose from


@dataclass(frozen=True)
class Canvas:
    """What is drawn on: ``of`` names it, ``picture`` is its address."""

    of: str
    picture: str
    width: int
    height: int


def show(desk: Desk) -> None:
    """Shows a picture to draw on, and the mask to download."""
    st.caption(
        "Choose an image and draw on it: what is dark is ignored, by the model and by the score. A "
        "later shape lies over an earlier one; begin with Ignore to inspect all the rest. A press "
        "selects a shape: drag it, or its corners."
    )
    image, edited = st.columns(2)
    with image:
        canvas = chosen(desk)
    with edited:
        given = st.file_uploader("Mask to edit (PNG), if there is one", type=["png"])
    if canvas is None:
        return
    base = None if given is None else mask_from(given.getvalue(), given.name)
    shapes = drawn_on(canvas, base, "" if given is None else given.file_id)
    if not shapes and base is None:
        return
    mask = of_shapes(shapes, canvas.height, canvas.width, base)
    if mask.all() or not mask.any():
        st.info("Nothing is left to inspect, or nothing is ignored: draw one shape more.")
        return
    st.write(f"{100 * mask.mean():.0f} % of the image is inspected, the rest is ignored.")
    st.download_button(
        "Save mask.png", to_png(mask), "mask.png", "image/png", type="primary", on_click="ignore"
    )
    st.code("anomaly train photos/good --out run --mask mask.png", language=None, wrap_lines=True)


def chosen(desk: Desk) -> Canvas | None:
    """Returns what is drawn on: an image of a run, or of a file; None where none is chosen yet."""
    runs = desk.store.runs()
    sources = ["of a run", "of a file"] if runs else ["of a file"]
    source = st.segmented_control("Image", sources, default=sources[0], required=True)
    if source == "of a run":
        return image_of_run(desk, st.selectbox("Run", runs, format_func=lambda run: run.name).id)
    # its content decides, as everywhere
    given = st.file_uploader("File", max_upload_size=UPLOAD_MB)
    if given is None:
        return None
    held = st.session_state.get("mask picture")
    if held is None or held.of != given.file_id:  # decoded once, not at every shape
        held = st.session_state["mask picture"] = picture_of(given.file_id, given.getvalue())
    found: Canvas = held
    return found


def image_of_run(desk: Desk, run: int) -> Canvas | None:
    """Returns the image of a run that is chosen, at full size."""
    found = [
        one
        for one in desk.store.findings(Filters(run=run), "position", MAX_LISTED)
        if one.width and one.height
    ]
    folders = roots(desk, run)
    if not found:
        st.info("None of the run's images could be read.")
        return None
    one = st.selectbox("Image of the run", found, format_func=lambda f: short_path(f.path, folders))
    return Canvas(
        f"finding {one.id}", desk.key.link(one.id, "original"), one.width or 0, one.height or 0
    )


def drawn_on(canvas: Canvas, base: Mask | None, base_of: str) -> list[dict[str, Any]]:
    """Shows the picture with the mask that is edited, and returns the shapes on it."""
    address = "" if base is None else address_of("png", to_png(coarser(base, SIDE)))
    return mask_drawing(
        {
            "of": f"{canvas.of} {base_of}",
            "picture": canvas.picture,
            "width": canvas.width,
            "height": canvas.height,
            "base": address,
        }
    )


def picture_of(of: str, data: bytes) -> Canvas:
    """Returns a picture for the page; AnomalyError says why there is none."""
    try:
        image = decode(data)
    except ImageError as error:
        if error.kind == "too large":
            raise AnomalyError(
                f"the image is too large; at most {MAX_PIXELS // 1_000_000} megapixels expected"
            ) from error
        raise
    return Canvas(of, address_of("jpeg", jpeg(image)), image.width, image.height)


def jpeg(image: Decoded) -> bytes:
    """Returns a picture for the page, at most 4,096 pixels a side."""
    file = io.BytesIO()
    Image.fromarray(shrink(image.pixels, SIDE)).save(file, "JPEG", quality=85)
    return file.getvalue()


def address_of(kind: str, data: bytes) -> str:
    """Returns a picture as an address that holds it."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"


try:
    show(open_desk())
except AnomalyError as error:
    st.error(plain(readable(str(error))))
