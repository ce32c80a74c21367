"""Masks of defects, however they were drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from anomaly.imaging.defect_masks import MaskNotes, read_defect_mask
from anomaly.reporting.evaluation import masks_text

MARKED = np.zeros((40, 60), bool)
MARKED[10:20, 15:45] = True


def saved(folder: Path, image: Image.Image, name: str = "mask.png") -> Path:
    image.save(folder / name)
    return folder / name


def palette(colours: list[int]) -> Image.Image:
    image = Image.fromarray(MARKED.astype(np.uint8), "L").copy()
    indexed = Image.new("P", image.size)
    indexed.putdata(
        list(
            image.get_flattened_data() if hasattr(image, "get_flattened_data") else image.getdata()
        )
    )
    indexed.putpalette(colours)
    return indexed


def rgba(colour: tuple[int, int, int]) -> Image.Image:
    pixels = np.zeros((*MARKED.shape, 4), np.uint8)
    pixels[MARKED] = (*colour, 255)
    return Image.fromarray(pixels)


@pytest.mark.parametrize(
    "image",
    [
        Image.fromarray(MARKED.astype(np.uint8)),
        Image.fromarray(MARKED.astype(np.uint8) * 255),
        Image.fromarray(MARKED),
        Image.fromarray(MARKED.astype(np.uint8) * 3),
        Image.fromarray(MARKED.astype(np.uint16)),
        Image.fromarray(MARKED.astype(np.uint16) * 65535),
        Image.fromarray(np.stack([MARKED * 0, MARKED * 0, MARKED * 1], 2).astype(np.uint8)),
        palette([0, 0, 0, 128, 0, 0]),
        palette([0, 0, 0, 0, 0, 0]),
        palette([0, 0, 0, 1, 1, 1]),
        rgba((255, 0, 0)),
        rgba((0, 0, 0)),
    ],
    ids=[
        "0-1",
        "0-255",
        "1 bit",
        "0-3",
        "16 bits 0-1",
        "16 bits",
        "blue 1",
        "palette",
        "black palette",
        "palette 0-1",
        "red on transparent",
        "black on transparent",
    ],
)
def test_every_pixel_that_is_not_zero_is_marked(tmp_path, image):
    assert (read_defect_mask(saved(tmp_path, image)) == MARKED).all()


def test_of_soft_edges_and_jpeg_the_upper_half_is_marked(tmp_path):
    grey = Image.fromarray(MARKED.astype(np.uint8) * 255)
    for image, name in (
        (grey.filter(ImageFilter.GaussianBlur(1.5)), "soft.png"),
        (grey, "mask.jpg"),
    ):
        found = read_defect_mask(saved(tmp_path, image, name))
        assert (found != MARKED).sum() <= 8


def test_an_empty_mask_marks_nothing(tmp_path):
    assert not read_defect_mask(saved(tmp_path, Image.new("L", (5, 5)))).any()


def test_what_masks_lack_is_counted_and_named():
    notes = MaskNotes()
    for name, mask in (
        ("a/1.png", None),
        ("a/2.png", MARKED & False),
        ("b/3.png", MARKED),
        ("b/4.png", ~MARKED),
        ("b/5.png", None),
    ):
        notes.add(Path("x") / name, mask)
    assert masks_text(notes) == (
        "defect images: 2 of 5 without a mask (a/1.png b/5.png), 1 of 5 with an empty mask "
        "(a/2.png): left out of the pixel figures; 1 of 5 masks mark more than half of the image "
        "(b/4.png): inverted?"
    )
    assert notes.to_json()["missing"] == ["x/a/1.png", "x/b/5.png"]
    assert masks_text(MaskNotes()) == ""
