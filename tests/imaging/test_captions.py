"""Pictures with captions: large enough to be seen, and a PNG that says what it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from anomaly.imaging.captions import captioned, enlarged, save_with_facts

PICTURE = np.arange(28 * 20 * 3, dtype=np.uint32).reshape(28, 20, 3).astype(np.uint8)


def test_small_pictures_are_enlarged_by_whole_pixels_and_large_ones_stay() -> None:
    large = enlarged(PICTURE, 60)
    assert large.shape == (84, 60, 3) and np.array_equal(large[::3, ::3], PICTURE)
    assert np.array_equal(enlarged(large, 60), large)


def test_a_caption_stands_above_the_picture_which_stays_as_it_is() -> None:
    found = captioned(PICTURE, ["one line", "another one that is much too long " * 9])
    assert found.shape == (2 * 21 + 8 + 28, 640, 3)
    assert np.array_equal(found[-28:, :20], PICTURE)
    head = found[:-28]
    assert (head[:25] < 100).any() and (head[25:] < 100).any()
    assert (head[:, -8:] == 255).all()  # cut before the edge


def test_a_png_says_what_it_shows_in_any_language(tmp_path: Path) -> None:
    save_with_facts(tmp_path / "a.png", PICTURE, {"Description": "Gehäuse 良品"})
    with Image.open(tmp_path / "a.png") as image:
        assert np.array_equal(np.asarray(image), PICTURE)
        assert image.text["Description"] == "Gehäuse 良品"
