from __future__ import annotations

import os
import pickle
from itertools import islice
from pathlib import Path

import pytest
from PIL import Image

from anomaly.errors import DatasetError, ImageError
from anomaly.sources import File, as_source, list_sources


def picture(path: Path, grey: int = 100) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (8, 6), grey).save(path)
    return path


def names(*inputs: str | Path) -> list[str]:
    return [source.name for source in list_sources(inputs)]


def test_files_folders_and_manifests_come_in_order(tmp_path: Path) -> None:
    first, second = picture(tmp_path / "a" / "1.png", 1), picture(tmp_path / "a" / "2.png", 2)
    (tmp_path / "list.csv").write_text("path\na/2.png\na/1.png\n")
    found = names(tmp_path / "none.png", tmp_path / "a", tmp_path / "list.csv")
    assert found == [str(path) for path in (tmp_path / "none.png", first, second, second, first)]


def test_a_folder_without_images_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r": no image in this folder; \.jpg"):
        names(tmp_path)


def test_a_folder_is_listed_as_its_images_are_asked_for(tmp_path: Path) -> None:
    for folder in ("a", "b", "c"):
        picture(tmp_path / folder / "1.png")
    sources = list_sources([tmp_path])
    assert next(sources).name == str(tmp_path / "a" / "1.png")
    picture(tmp_path / "b" / "0.png")  # after the listing has begun
    assert [source.name for source in islice(sources, 2)] == [str(tmp_path / "b" / name) for name in ("0.png", "1.png")]


def test_a_file_is_read_up_to_a_limit(tmp_path: Path) -> None:
    path = picture(tmp_path / "1.png")
    source = as_source(path)
    assert source == File(str(path)) == as_source(source) == pickle.loads(pickle.dumps(source))  # noqa: S301
    assert source.read(10_000) == path.read_bytes()
    with pytest.raises(ImageError, match="bytes, at most 10 expected") as error:
        source.read(10)
    assert error.value.kind == "too large"
    with pytest.raises(ImageError, match="no such file"):
        File(os.path.join(tmp_path, "none.png")).read(10)
