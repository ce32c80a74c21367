"""Images that a program hands over are read as the files that they are written to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anomaly.errors import DatasetError
from anomaly.imaging.decode import DecodeRule, decode
from anomaly.inputs.dataset import read_dataset
from anomaly.inputs.given_images import write_given

GREY = np.arange(64, dtype=np.uint8).reshape(8, 8)
COLOUR = np.stack([GREY, GREY + 1, GREY + 2], 2)
ALPHA = np.dstack([COLOUR, GREY])


def test_arrays_paths_and_pictures_keep_order_pixels_labels_and_groups(tmp_path: Path) -> None:
    Image.fromarray(COLOUR).save(tmp_path / "photo, =1.png")
    wide = Image.fromarray(GREY.astype(np.float32) - 5)
    given = [GREY, COLOUR, ALPHA, GREY[..., None], tmp_path / "photo, =1.png", wide]
    (tmp_path / "run").mkdir()
    manifest = write_given(
        tmp_path / "run", given, labels=["good", "a", "b", "c", "d", "e"], groups=[1, 1, 2, 3, 4, 5]
    )
    records = read_dataset(manifest)
    assert [record.label for record in records] == ["good", "a", "b", "c", "d", "e"]
    assert [record.group for record in records] == ["1", "1", "2", "3", "4", "5"]
    found = [decode(r.path, DecodeRule(scale=(-10.0, 100.0))).pixels for r in records[:5]]
    assert np.array_equal(found[0], COLOUR * 0 + GREY[..., None])
    assert np.array_equal(found[1], COLOUR) and np.array_equal(found[4], COLOUR)
    assert np.array_equal(found[3], found[0])
    assert np.array_equal(np.asarray(Image.open(records[2].path)), ALPHA)
    assert np.array_equal(np.asarray(Image.open(records[5].path)), GREY.astype(np.float32) - 5)


def test_one_path_twice_is_refused(tmp_path: Path) -> None:
    Image.fromarray(GREY).save(tmp_path / "a.png")
    manifest = write_given(tmp_path, [tmp_path / "a.png"] * 2)
    with pytest.raises(DatasetError, match="stands in line 2 already"):
        read_dataset(manifest)
