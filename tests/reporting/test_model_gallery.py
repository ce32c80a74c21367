"""The page of the models side by side: what stands on it is what it was given."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from anomaly.reporting.model_gallery import (
    Exhibit,
    ModelGallery,
    Panel,
    Sheet,
    scatter,
    sheet,
    write_model_gallery,
)

PICTURES = [np.full((8, 12, 3), level, np.uint8) for level in (0, 100, 200)]


def test_small_pictures_are_enlarged_and_laid_row_by_row() -> None:
    view = sheet(PICTURES, 2, "levels")
    # eight times as large, two columns and two rows, with gaps of 4
    assert (view.width, view.height) == (2 * 100 + 4, 2 * 68 + 4)
    assert view.source.startswith("data:image/webp;base64,")


def test_the_page_escapes_what_comes_from_outside_and_shows_counts_before_percent(
    tmp_path: Path,
) -> None:
    panel = Panel("Seen", "<b>said</b>", [Sheet(sheet(PICTURES, 3, "levels"), "rows")])
    one = Exhibit(
        "vae",
        61.0,
        0.5,
        (3, 4),
        (0, 0),
        (2, 3),
        [("score", "<i>")],
        [panel],
        sheet(PICTURES, 3, "maps"),
    )
    gallery = ModelGallery("<script>", [], sheet(PICTURES, 3, "images"), "captions", [one], ["<u>"])
    write_model_gallery(tmp_path / "page.html", gallery)
    page = (tmp_path / "page.html").read_text()
    assert "<script>" not in page and "&lt;script&gt;" in page
    assert "&lt;b&gt;said" in page and "&lt;u&gt;" in page
    cells = ("1 min 1 s", "0.500", "3 of 4 (75 %)", "\N{EN DASH}", "2 of 3 (67 %)")
    assert "".join(f"<td>{cell}</td>" for cell in cells) in page
    assert page.count("not trained here") == 3  # of four branches the VAE is on one
    assert "KL(<i>q</i>" in page  # an equation is HTML of our own


def test_a_scatter_names_its_kinds_and_keeps_every_dot() -> None:
    chart = scatter("t", ("x", "y"), {"good": ([0, 1], [0, 1]), "spot": ([2], [5])})
    assert [mark.kind for mark in chart.marks] == ["point p0", "point p0", "point p1"]
    assert [name for name, _ in chart.keys] == ["good", "spot"]
