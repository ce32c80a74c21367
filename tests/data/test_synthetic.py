from __future__ import annotations

import gzip
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from anomaly.errors import DatasetError
from anomaly.inputs.dataset import labelled_test, normal_training, read_dataset
from data import elpv, idx
from data.synthetic import DEFECTS, make, write_dataset

EVERY_DEFECT = [(kind, defect) for kind, defects in DEFECTS.items() for defect in defects]


@pytest.mark.parametrize("kind", DEFECTS)
def test_good_parts_differ_a_little_and_have_no_mask(kind):
    pictures = [make(kind, seed) for seed in range(8)]
    for pixels, mask in pictures:
        assert (pixels.shape, pixels.dtype, mask.shape, mask.any()) == (
            (128, 128, 3),
            np.uint8,
            (128, 128),
            False,
        )
    brightness = [pixels.mean() for pixels, _ in pictures]
    assert min(brightness) > 60 and max(brightness) < 190 and np.std(brightness) > 0.5
    assert len({pixels.tobytes() for pixels, _ in pictures}) == 8


@pytest.mark.parametrize(("kind", "defect"), [*EVERY_DEFECT, *((kind, None) for kind in DEFECTS)])
def test_the_same_seed_makes_the_same_picture(kind, defect):
    (first, first_mask), (second, second_mask) = (
        make(kind, 3, 64, defect),
        make(kind, 3, 64, defect),
    )
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(first_mask, second_mask)


@pytest.mark.parametrize(("kind", "defect"), EVERY_DEFECT)
def test_a_defect_changes_the_picture_where_its_mask_is_and_nowhere_else(kind, defect):
    for seed in range(12):
        good, _ = make(kind, seed)
        bad, mask = make(kind, seed, defect=defect)
        change = abs(bad.astype(int) - good).max(-1)
        assert 8 <= mask.sum() < 0.3 * mask.size
        assert change[mask].mean() > 12  # grey levels: it can be seen
        around = (
            np.asarray(Image.fromarray(mask).convert("L").filter(ImageFilter.MaxFilter(11))) > 0
        )
        assert change[~around].max() <= 12


@pytest.mark.parametrize("size", [32, 100, 384])
@pytest.mark.parametrize(("kind", "defect"), EVERY_DEFECT)
def test_other_sizes_show_the_same_kind_of_thing(kind, defect, size):
    pixels, mask = make(kind, 1, size, defect)
    assert (pixels.shape, mask.shape) == ((size, size, 3), (size, size))
    assert mask.any() and not mask.all()


def test_kinds_and_defects_that_are_not_made():
    with pytest.raises(
        ValueError, match=r"^kind 'gear' found, one of disc, fabric, cell, casting, screw expected$"
    ):
        make("gear", 0)
    with pytest.raises(
        ValueError, match=r"^defect 'dent' found, one of hole, stain, thread, snag expected for"
    ):
        make("fabric", 0, defect="dent")


def outline(pixels: np.ndarray) -> np.ndarray:
    """Where the screw is: darker than the ground, in the corners too, and than its shadow."""
    return pixels.mean(2) < 0.73 * np.median(pixels)


def test_screws_lie_whole_in_the_picture_at_any_angle_and_anywhere():
    angles, places = [], []
    for seed in range(40):
        found = outline(make("screw", seed, 200)[0])
        rows, columns = np.nonzero(found)
        assert not found[[0, -1]].any() and not found[:, [0, -1]].any()
        spread = np.cov(columns, rows)
        long, short = np.sqrt(np.linalg.eigvalsh(spread))[::-1] * np.sqrt(12)  # of a rectangle
        assert 0.55 * 200 < long < 0.80 * 200 and short < 0.2 * 200
        angles.append(np.arctan2(2 * spread[0, 1], spread[0, 0] - spread[1, 1]) / 2)
        places.append((columns.mean(), rows.mean()))
    assert np.histogram(angles, 4, (-np.pi / 2, np.pi / 2))[0].min() >= 4
    assert np.ptp(places, axis=0).min() > 0.25 * 200


@pytest.mark.parametrize("defect", [None, *DEFECTS["screw"]])
def test_a_screw_that_lies_still_is_the_same_screw_with_the_same_defect(defect):
    for seed in range(6):
        still, mask = make("screw", seed, 300, defect, still=True)
        rows, columns = np.nonzero(outline(still))
        assert abs(np.ptp(columns) - 0.68 * 300) < 15 and abs(rows.mean() - 149.5) < 3
        turned, turned_mask = make("screw", seed, 300, defect)
        areas = [outline(picture).sum() for picture in (still, turned)]
        assert areas[0] == pytest.approx(areas[1], rel=0.25)
        if defect is not None:
            assert turned_mask.sum() == pytest.approx(mask.sum(), rel=0.35)


def test_a_screw_has_a_head_at_one_end():
    found = outline(make("screw", 2, 300, still=True)[0])
    widths = found[:, found.any(0)].sum(0)
    assert widths[:10].max() > 1.5 * widths[-10:].max()


def test_only_screws_lie_still_or_not():
    with pytest.raises(ValueError, match=r"^kind 'disc' found, screw expected: the other kinds"):
        make("disc", 0, still=True)


def test_a_data_set_has_the_layout_of_mvtec_and_no_part_twice(tmp_path):
    write_dataset(tmp_path, "cell", train=5, good=3, per_defect=2, size=32, seed=4)
    records = read_dataset(tmp_path)
    counts = {
        label: sum(r.label == label for r in labelled_test(records))
        for label in ("good", *DEFECTS["cell"])
    }
    assert counts == {"good": 3, "crack": 2, "dead": 2, "finger": 2, "spot": 2}
    assert len(normal_training(records)) == 5
    assert [r.mask is not None for r in records] == [r.label != "good" for r in records]
    assert len({r.path.read_bytes() for r in records}) == len(records)
    for r in records:
        if r.mask is not None:
            assert set(np.unique(Image.open(r.mask))) == {0, 255}


def test_the_command_writes_a_data_set(tmp_path):
    options = "--kind disc --train 3 --good 2 --per-defect 1 --size 32 --seed 1".split()
    command = [sys.executable, "-m", "data.synthetic", str(tmp_path / "disc"), *options]
    subprocess.run(command, check=True, cwd=Path(__file__).parents[2], timeout=60)
    assert len(read_dataset(tmp_path / "disc")) == 3 + 2 + 6


# ---- the loaders of other people's images ----


def test_solar_cells(tmp_path):
    pytest.importorskip("elpv_dataset", reason="needs the package elpv-dataset")
    records = read_dataset(elpv.write_manifest(tmp_path))
    counts = {(r.split, r.label): 0 for r in records}
    for r in records:
        counts[r.split, r.label] += 1
    assert counts == {
        ("train", "good"): 1206,
        ("test", "good"): 302,
        ("test", "weak"): 295,
        ("test", "likely"): 106,
        ("test", "defective"): 715,
    }
    assert all(r.path.is_file() for r in records)
    again = read_dataset(elpv.write_manifest(tmp_path / "again"))
    other = read_dataset(elpv.write_manifest(tmp_path / "other", seed=1))
    assert again == records and other != records


def idx_of(array: np.ndarray) -> bytes:
    head = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    return head + array.astype(np.uint8).tobytes()


def test_idx_files_plain_and_packed(tmp_path):
    images, classes = np.arange(3 * 28 * 28).reshape(3, 28, 28) % 251, np.array([4, 0, 9])
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx_of(images))
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx_of(classes)))
    read_images, read_classes = idx.read_subset(tmp_path, "train")
    np.testing.assert_array_equal(read_images, images)
    np.testing.assert_array_equal(read_classes, classes)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"begins with b'', an idx file of unsigned bytes expected$"),
        (b"\x89PNG", r"begins with b'\\x89PNG', an idx file"),
        (b"\0\0\x08\1\0\0\0\5abc", r"11 bytes found, 13 expected: copy it again$"),
        (b"\0\0\x08\3\0\0", r"6 bytes found"),
        (b"\x1f\x8b\x08", r"cannot be read \(.+\), an idx file expected$"),
    ],
)
def test_idx_files_that_are_none(tmp_path, content, message):
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(DatasetError, match=message):
        idx.read_idx(tmp_path / "a")
    with pytest.raises(DatasetError, match=r"cannot be read \(.+No such file"):
        idx.read_subset(tmp_path, "test")
