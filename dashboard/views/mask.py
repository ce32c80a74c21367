"""Mask: what of the images is inspected, drawn on one of them, as the PNG that
`anomaly train --mask` takes.
"""

from __future__ import annotations

import base64
import io

import streamlit as st
from PIL import Image

from anomaly.errors import AnomalyError, ImageError
from anomaly.imaging.decode import MAX_PIXELS, Decoded, decode
from anomaly.imaging.mask import of_rectangles, to_png
from anomaly.imaging.overlay import shrink
from dashboard.components import mask_drawing, plain
from dashboard.settings import UPLOAD_MB
from dashboard.words import readable

SIDE = 1200  # pixels of the picture that is drawn on


def show() -> None:
    """Shows a picture to draw on, and the mask to download."""
    st.caption(
        "Choose an image and drag rectangles over it: what is dark is ignored, by the model and by "
        "the score. A later one lies over an earlier one; begin with Ignore to inspect all the "
        "rest."
    )
    # its content decides, as everywhere
    given = st.file_uploader("Image", max_upload_size=UPLOAD_MB)
    if given is None:
        return
    held = st.session_state.get("mask picture")
    if held is None or held[0] != given.file_id:  # decoded once, not at every rectangle
        held = st.session_state["mask picture"] = (given.file_id, *picture_of(given.getvalue()))
    _, uri, height, width = held
    shapes = mask_drawing(uri)
    if not shapes:
        return
    mask = of_rectangles(shapes, height, width)
    if mask.all() or not mask.any():
        st.info("Nothing is left to inspect, or nothing is ignored: draw a rectangle more.")
        return
    st.write(f"{100 * mask.mean():.0f} % of the image is inspected, the rest is ignored.")
    st.download_button(
        "Save mask.png", to_png(mask), "mask.png", "image/png", type="primary", on_click="ignore"
    )
    st.code("anomaly train photos/good --out run --mask mask.png", language=None, wrap_lines=True)


def picture_of(data: bytes) -> tuple[str, int, int]:
    """Returns a picture for the page, and height and width of the image; AnomalyError says why
    there is none.
    """
    try:
        image = decode(data)
    except ImageError as error:
        if error.kind == "too large":
            raise AnomalyError(
                f"the image is too large; at most {MAX_PIXELS // 1_000_000} megapixels expected"
            ) from error
        raise
    return data_uri(image), image.height, image.width


def data_uri(image: Decoded) -> str:
    """Returns a picture for the page, at most 1,200 pixels a side."""
    file = io.BytesIO()
    Image.fromarray(shrink(image.pixels, SIDE)).save(file, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode("ascii")


try:
    show()
except AnomalyError as error:
    st.error(plain(readable(str(error))))
