from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anomaly.errors import DatasetError
from anomaly.inputs.dataset import read_dataset
from data.synthetic import make, write_dataset
from data.turned import turned, write_turned


@pytest.mark.parametrize("channels", [slice(None), 1])
def test_quarter_turns_are_exact(channels):
    pixels = make("disc", 1, 64)[0][..., channels]
    for quarters in range(4):
        np.testing.assert_array_equal(turned(pixels, 90 * quarters), np.rot90(pixels, quarters))


def test_there_and_back_shows_the_same_within_the_circle():
    pixels = make("cell", 1, 96)[0]
    back = turned(turned(pixels, 33), -33)
    y, x = np.mgrid[:96, :96] - 47.5
    change = np.abs(back.astype(int) - pixels)[np.hypot(x, y) < 46]
    assert back.shape == pixels.shape and change.mean() < 6


def test_corners_are_filled_with_background_whatever_the_shape():
    pixels = np.full((60, 90, 3), (200, 120, 40), np.uint8)
    pixels[20:40, 30:60] = 0
    made = turned(pixels, 20)
    assert made.shape == pixels.shape
    for corner in (made[:12, :12], made[-12:, :12], made[:12, -12:], made[-12:, -12:]):
        assert (corner == (200, 120, 40)).all()


def test_a_set_keeps_its_layout_and_its_masks_turn_along(tmp_path):
    write_dataset(tmp_path / "a", "disc", train=3, good=2, per_defect=1, size=64, seed=1)
    assert write_turned(tmp_path / "a", tmp_path / "b") == 3 + 2 + 6
    old, new = read_dataset(tmp_path / "a"), read_dataset(tmp_path / "b")
    assert [(r.split, r.label, r.path.name) for r in old] == [
        (r.split, r.label, r.path.name) for r in new
    ]
    for before, after in zip(old, new, strict=True):
        assert (before.mask is None) == (after.mask is None)
        if before.mask is not None and after.mask is not None:
            areas = [
                np.asarray(Image.open(mask)).astype(bool).sum()
                for mask in (before.mask, after.mask)
            ]
            assert areas[1] == pytest.approx(areas[0], rel=0.3)
            assert before.mask.read_bytes() != after.mask.read_bytes()


def test_the_command_turns_by_its_seed(tmp_path):
    write_dataset(tmp_path / "a", "disc", train=2, good=1, per_defect=0, size=32)
    for out, seed in (("b", "0"), ("c", "0"), ("d", "1")):
        command = [sys.executable, "-m", "data.turned", "a", out, "--seed", seed]
        command[3:5] = [str(tmp_path / "a"), str(tmp_path / out)]
        subprocess.run(command, check=True, cwd=Path(__file__).parents[2], timeout=60)
    b, c, d = ((tmp_path / out / "train/good/0000.png").read_bytes() for out in "bcd")
    assert b == c and b != d


def test_two_images_of_one_name_are_refused(tmp_path):
    for suffix in ("png", "jpg"):
        path = tmp_path / "a/train/good" / f"x.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(make("disc", 1, 32)[0]).save(path)
    with pytest.raises(DatasetError, match=r"^several images are called train/good/x, one exp"):
        write_turned(tmp_path / "a", tmp_path / "b")
