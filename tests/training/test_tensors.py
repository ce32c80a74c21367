"""What training looks at of its images before it trusts them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from PIL import Image

from anomaly.errors import DatasetError
from anomaly.imaging.decode import DecodeRule
from anomaly.inputs.dataset import Record, read_dataset
from anomaly.inputs.near_copies import THUMB
from data.synthetic import make
from tests.training.test_sets import names, record
from training.preprocess import Preprocess
from training.spaces import FilterSpace, PixelSpace
from training.tensors import Extracted, digest_of, extract, sha256_of


# --- what is seen of the images -------------------------------------------------------------------
@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Record]:
    """Returns the records of 40 discs of two sizes, one file that is broken and one that is
    missing.
    """
    folder = tmp_path_factory.mktemp("photos")
    for seed in range(40):
        Image.fromarray(make("disc", seed, 48 + 16 * (seed % 2))[0]).save(folder / f"{seed:02}.png")
    (folder / "99.png").write_bytes(b"\x89PNG")
    return [*read_dataset(folder), record("100.png", folder=folder)]


def extracted_of(records: list[Record], space: torch.nn.Module) -> tuple[Extracted, int]:
    count = []
    found = extract(
        records, DecodeRule(), Preprocess(64), space.eval(), "cpu", lambda: count.append(1)
    )
    return found, len(count)


def test_see_gives_what_every_part_of_training_needs(photos: list[Record]) -> None:
    seen, count = extracted_of(photos, PixelSpace((64, 64)))
    assert count == 42
    assert names(seen.records) == [f"{i:02}.png" for i in range(40)]
    assert (seen.maps.shape, seen.maps.dtype) == ((40, 3, 64, 64), torch.uint8)
    assert (seen.pictures.shape, seen.pictures.dtype) == ((40, 3, 96, 96), torch.uint8)
    assert seen.thumbs.shape == (40, THUMB, THUMB)
    assert seen.facts[:2] == [(48, 48, 8, False), (64, 64, 8, False)]
    folder = photos[0].path.parent
    assert [line.split(": ")[0] for line in seen.left_out] == [
        str(folder / "99.png"),
        str(folder / "100.png"),
    ]
    assert seen.left_out[1] == f"{folder / '100.png'}: no such file"
    maps = extracted_of(photos[:3], FilterSpace((64, 64)))[0].maps
    assert (maps.shape, maps.dtype) == ((3, 26, 7, 7), torch.float32)


def test_see_gives_the_same_whatever_else_is_looked_at(photos: list[Record]) -> None:
    space = FilterSpace((64, 64))
    together, alone = extracted_of(photos, space)[0], extracted_of(photos[7:8], space)[0]
    assert torch.equal(together.maps[7:8], alone.maps)
    assert torch.equal(together.pictures[7:8], alone.pictures)


def test_a_part_holds_its_records_in_the_order_of_the_whole(photos: list[Record]) -> None:
    seen, _ = extracted_of(photos, PixelSpace((64, 64)))
    subset = seen.subset([photos[9], photos[2], record("other.png")])
    assert names(subset.records) == ["02.png", "09.png"]
    assert torch.equal(subset.maps, seen.maps[[2, 9]])
    assert subset.facts == [seen.facts[2], seen.facts[9]]
    assert subset.left_out == []


def test_nothing_readable_is_an_error_that_names_the_first(photos: list[Record]) -> None:
    with pytest.raises(
        DatasetError, match=r"^none of 2 images could be read, the first: .*99\.png: begins with b'"
    ):
        extracted_of(photos[-2:], PixelSpace((64, 64)))


# --- digests --------------------------------------------------------------------------------------
def test_the_digest_of_a_set_depends_on_its_contents_alone(tmp_path: Path) -> None:
    for name, content in (("a.png", b"1"), ("b.png", b"2"), ("c.png", b"1"), ("d.png", b"2")):
        (tmp_path / name).write_bytes(content)
    a, b, c, d = (record(name, folder=tmp_path) for name in ("a.png", "b.png", "c.png", "d.png"))
    assert sha256_of(a) == hashlib.sha256(b"1").hexdigest()
    assert digest_of([a, b]) == digest_of([d, c]) != digest_of([a, c])
