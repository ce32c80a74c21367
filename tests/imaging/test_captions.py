"""Pictures with captions: large enough to be seen, and a PNG that says what it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from anomaly.imaging.captions import captioned, enlarged, save_with_facts, wrapped

PICTURE = np.arange(28 * 20 * 3, dtype=np.uint32).reshape(28, 20, 3).astype(np.uint8)


def test_small_pictures_are_enlarged_by_whole_pixels_and_large_ones_stay() -> None:
    large = enlarged(PICTURE, 60)
    assert large.shape == (84, 60, 3) and np.array_equal(large[::3, ::3], PICTURE)
    assert np.array_equal(enlarged(large, 60), large)


def test_a_caption_stands_above_the_picture_which_stays_as_it_is() -> None:
    found = captioned(PICTURE, ["one line", "another one that is much too long " * 4])
    assert found.shape == (3 * 21 + 8 + 28, 640, 3)
    assert np.array_equal(found[-28:, :20], PICTURE)
    head = found[:-28]
    assert all((head[4 + 21 * line :][:21] < 100).any() for line in range(3))
    assert (head[:, -8:] == 255).all()  # it goes on before the edge


def test_lines_are_cut_between_words_and_long_words_where_they_must() -> None:
    assert wrapped("one two three", 7, len) == ["one two", "three"]
    assert wrapped("incomprehensible words", 7, len) == ["incompr", "words"]
    assert wrapped("", 7, len) == []


def test_a_png_says_what_it_shows_in_any_language(tmp_path: Path) -> None:
    save_with_facts(tmp_path / "a.png", PICTURE, {"Description": "Gehäuse 良品"})
    with Image.open(tmp_path / "a.png") as image:
        assert np.array_equal(np.asarray(image), PICTURE)
        assert image.text["Description"] == "Gehäuse 良品"
