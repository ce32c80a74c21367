"""Good images of a run folder: the nearest one is found whatever the light, damage is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from anomaly.errors import DetectorError
from anomaly.imaging.good_images import GoodImages, explained_share, write_good_images
from data.synthetic import make


def test_the_nearest_is_the_one_in_the_same_pose_in_another_light(tmp_path: Path) -> None:
    images = [make("screw", at, 120)[0] for at in range(12)]
    file = tmp_path / "good_images.zip"
    write_good_images(file, [(f"{at}.png", image) for at, image in enumerate(images)], 0.7)
    good = GoodImages.read(file)
    assert good.names == [f"{at}.png" for at in range(12)] and good.expected_helps
    for at, image in enumerate(images):
        darker = (image * 0.7 + 10).astype(np.uint8)
        darker[50:60, 50:60] = 255  # and a defect
        assert good.nearest(darker) == at
        assert good.nearest(darker, besides=f"{at}.png") != at  # not itself
    assert GoodImages(good.names[:1], [], good.looks[:1], None).nearest(images[3], "0.png") == 0


def test_how_much_an_expected_picture_explains() -> None:
    image = make("screw", 1, 120)[0]
    assert explained_share(image, image) == 1
    flat = np.broadcast_to(image.mean((0, 1)).astype(np.uint8), image.shape)
    assert abs(explained_share(image, flat)) < 0.05


def test_what_is_missing_or_damaged_is_said(tmp_path: Path) -> None:
    with pytest.raises(DetectorError, match="train again to get it"):
        GoodImages.read(tmp_path / "good_images.zip")
    (tmp_path / "good_images.zip").write_bytes(b"PK no archive")
    with pytest.raises(DetectorError, match="damaged"):
        GoodImages.read(tmp_path / "good_images.zip")
