"""idx files as folders of PNG files, as training and evaluation read them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anomaly.errors import DatasetError
from anomaly.inputs.dataset import normal_training, read_dataset
from data.idx import read_subset, write_folders


def test_one_normal_class_has_the_layout_of_train_and_evaluate(
    digits: Path, tmp_path: Path
) -> None:
    counts = write_folders(digits, tmp_path / "three", normal=[3], train=50, test=7)
    assert counts == {"train/good": 50} | {
        f"test/{'good' if one == 3 else one}": 7 for one in range(10)
    }
    records = read_dataset(tmp_path / "three")
    assert len(normal_training(records)) == 50
    images, classes = read_subset(digits, "train")
    first = sorted((tmp_path / "three" / "train" / "good").iterdir())[0]
    assert np.array_equal(np.asarray(Image.open(first)), images[classes == 3][0])


def test_without_a_normal_class_each_has_a_folder(digits: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "data.idx", digits, tmp_path / "all", "--train", "5", "--test", "2"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0 and len(done.stdout.splitlines()) == 20
    assert len(list((tmp_path / "all" / "train" / "4").iterdir())) == 5
    assert len(list((tmp_path / "all" / "test" / "9").iterdir())) == 2


def test_what_cannot_be_written_is_said_in_one_line(digits: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no class 12 found, one of 0, 1, 2"):
        write_folders(digits, tmp_path / "out", normal=[12])
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a").touch()
    with pytest.raises(DatasetError, match="not empty, a new folder expected"):
        write_folders(digits, tmp_path / "full")
    with pytest.raises(DatasetError, match="a file, a new folder expected"):
        write_folders(digits, tmp_path / "full" / "a")
