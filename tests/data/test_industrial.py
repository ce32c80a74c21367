"""Benchmark sets in the folders that they are published in, made small."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anomaly.errors import DatasetError
from anomaly.imaging.defect_masks import read_defect_mask
from anomaly.inputs.dataset import labelled_test, normal_training, read_dataset
from data.industrial import SETS, write_manifests


def drawn(root: Path, *names: str, value: int = 90) -> None:
    """Writes small grey pictures of one value."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((4, 6), value, np.uint8)).save(root / name)


def mvtec(root: Path) -> None:
    drawn(root, "bottle/train/good/000.png", "bottle/train/good/001.png")
    drawn(root, "bottle/test/good/000.png", "bottle/test/broken_large/000.png")
    drawn(root, "bottle/ground_truth/broken_large/000_mask.png", value=255)


def btad(root: Path) -> None:
    drawn(root, "03/train/ok/0000.bmp", "03/train/ok/0001.bmp")
    drawn(root, "03/test/ok/0000.bmp", "03/test/ko/0000.bmp")
    drawn(root, "03/ground_truth/ko/0000.bmp", value=255)


def mvtec_2(root: Path) -> None:
    drawn(root, "can/train/good/000_regular.png", "can/validation/good/000_regular.png")
    drawn(root, "can/test_public/good/000_regular.png", "can/test_public/bad/000_overexposed.png")
    drawn(root, "can/test_public/ground_truth/bad/000_overexposed_mask.png", value=255)
    drawn(root, "can/test_private/000_regular.png", "can/test_private_mixed/000_mixed.png")


def visa(root: Path) -> None:
    normal, anomaly = "candle/Data/Images/Normal", "candle/Data/Images/Anomaly"
    drawn(root, f"{normal}/0000.JPG", f"{normal}/0001.JPG", f"{normal}/0002.JPG")
    drawn(root, f"{anomaly}/000.JPG")
    drawn(root, "candle/Data/Masks/Anomaly/000.png", value=1)  # the number of a class
    rows = [
        "object,split,label,image,mask",
        f"candle,train,normal,{normal}/0000.JPG,",
        f"candle,train,normal,{normal}/0001.JPG,",
        f"candle,test,normal,{normal}/0002.JPG,",
        f"candle,test,anomaly,{anomaly}/000.JPG,candle/Data/Masks/Anomaly/000.png",
    ]
    (root / "split_csv").mkdir()
    (root / "split_csv" / "1cls.csv").write_text("\n".join(rows) + "\n")


@pytest.mark.parametrize(
    ("kind", "make", "category", "defect"),
    [
        ("MVTec AD", mvtec, "bottle", "broken_large"),
        ("BTAD", btad, "03", "ko"),
        ("MVTec AD 2", mvtec_2, "can", "bad"),
        ("VisA", visa, "candle", "anomaly"),
    ],
)
def test_a_set_as_it_is_published_is_read(
    kind: str, make: object, category: str, defect: str, tmp_path: Path
) -> None:
    make(tmp_path / "set")  # type: ignore[operator]
    found = write_manifests(kind, tmp_path / "set", tmp_path / "out")
    assert found == {category: tmp_path / "out" / f"{category}.csv"}
    records = read_dataset(found[category])
    assert all(record.path.is_file() for record in records)
    assert len(normal_training(records)) == 2
    tested = labelled_test(records)
    assert Counter(record.label for record in tested) == {"good": 1, defect: 1}
    masks = [(record.label, record.mask) for record in tested if record.mask is not None]
    assert [label for label, _ in masks] == [defect]
    assert read_defect_mask(masks[0][1]).all()


@pytest.mark.parametrize("kind", SETS)
def test_a_folder_of_something_else_is_refused(kind: str, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"no category of|no such file"):
        write_manifests(kind, tmp_path, tmp_path / "out")
    with pytest.raises(DatasetError, match="no such f"):
        write_manifests(kind, tmp_path / "gone", tmp_path / "out")
