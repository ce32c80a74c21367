"""Where exactly a defect is: what a region is, how it is kept, taken back, exported and learnt."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("sqlalchemy")

from anomaly.errors import AnomalyError
from anomaly.imaging.drawn_regions import Region, frame_of
from anomaly.inputs.dataset import read_dataset
from anomaly.review import Filters, Store
from anomaly.review.coco import run_lengths
from anomaly.review.exports import export_findings, export_folder, learnable
from anomaly.review.regions import read_regions, regions_of
from anomaly.review.yolo import export_yolo
from tests.review.test_review import (  # noqa: F401
    DENT,
    SCRATCH,
    database,
    give_verdict,
    lite,
    picture,
    postgres,
    store,
    write_table,
)

BOX = Region("box", (10, 20, 40, 60), defect_type="dent")
TRIANGLE = Region("polygon", (0, 0, 20, 0, 0, 20))
STROKE = Region("brush", (50, 50, 80, 50), 9)
ALL = [BOX, TRIANGLE, STROKE]


def drawn_on(kept: Store, folder: Path) -> list[int]:
    """Fills a store with five images: two defects with regions, one without, two good ones."""
    rows = [picture(folder / "photos" / f"part{i}.png", i) for i in range(5)]
    kept.import_table(write_table(folder / "t.csv", rows))
    kept.set_defect_types([SCRATCH, DENT], by="eve", key="types")
    first, second, bare, *good = [f.id for f in kept.findings(Filters(), "position", 9)]
    give_verdict(kept, first, "anomalous", "ann", defect_type="scratch", regions=ALL)
    give_verdict(kept, second, "anomalous", "ann", regions=[BOX])
    give_verdict(kept, second, "anomalous", "bob", defect_type="dent")  # says no place
    give_verdict(kept, bare, "anomalous", "ann")
    for finding in good:
        give_verdict(kept, finding, "normal", "ann")
    return [first, second, bare, *good]


def test_the_pixels_of_each_kind_of_region() -> None:
    marked = BOX.mask(100, 80)
    assert frame_of(marked) == (10, 20, 30, 40) and marked.sum() == 1200
    # corners at the edges of pixels: half of 20 x 20, and no more than its edge besides
    assert 190 <= TRIANGLE.mask(100, 80).sum() <= 231
    stroke = STROKE.mask(100, 80)
    x, y, width, height = frame_of(stroke)
    assert 45 <= x <= 46 and 38 <= width <= 40 and 45 <= y <= 46 and 9 <= height <= 11
    assert Region("polygon", (5, 5, 5.1, 5, 5, 5.1)).mask(100, 80).sum() >= 1  # never nothing
    assert Region("brush", (100, 80), 1).mask(100, 80).any()


def test_run_lengths_are_those_of_coco() -> None:
    rng = np.random.default_rng(0)
    for share in (0.0, 0.3, 1.0):
        marked = rng.random((7, 5)) < share
        found = run_lengths(marked)
        values = np.arange(len(found["counts"])) % 2 == 1
        again = np.repeat(values, found["counts"]).reshape(found["size"], order="F")
        assert (again == marked).all() and found["size"] == [7, 5]


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        ([{"kind": "circle", "points": [1, 2, 3, 4]}], "no box, polygon or brush stroke"),
        ([{"kind": "box", "points": [9, 2, 3, 4]}], "no box, polygon or brush stroke"),
        ([{"kind": "box", "points": ["a", 2, 3, 4]}], "no box, polygon or brush stroke"),
        ([{"kind": "polygon", "points": [1, 2, 3, 4]}], "no box, polygon or brush stroke"),
        ([{"kind": "brush", "points": [1, 2], "width": float("nan")}], "no box, polygon or"),
        ([{"kind": "brush", "points": [1, 2]}], "no box, polygon or brush stroke"),
        ([{"kind": "box", "points": [0, 0, 101, 4]}], "a region outside the image"),
        ([{"kind": "box", "points": [0, 0, 1, 1]}] * 51, "at most 50 regions"),
        ([{"kind": "polygon", "points": [1] * 6002}], "more than 3,000 points"),
        ({"kind": "box"}, "at most 50 regions"),
        (["box"], "no box, polygon or brush stroke"),
    ],
)
def test_what_is_no_region_is_refused(sent: Any, said: str) -> None:
    with pytest.raises(AnomalyError, match=said):
        read_regions(sent, 100, 80)
    with pytest.raises(AnomalyError, match="unknown size"):
        read_regions(sent, None, None)
    assert read_regions(None, None, None) == []


def test_regions_are_part_of_the_verdict_and_go_with_it(
    store: Store,  # noqa: F811
    tmp_path: Path,
) -> None:
    first, second, *_ = drawn_on(store, tmp_path)
    assert regions_of(store.current(first)["ann"]) == ALL
    give_verdict(store, first, "anomalous", "ann", regions=[BOX])
    assert regions_of(store.current(first)["ann"]) == [BOX]
    store.undo("ann", key="back", event=store.current(first)["ann"].id)
    assert regions_of(store.current(first)["ann"]) == ALL  # those of the verdict before
    store.undo("ann", key="back again", event=store.current(first)["ann"].id)
    assert store.current(first) == {} and store.log_chain().wrong == []
    with pytest.raises(AnomalyError, match="only anomalous images have some"):
        give_verdict(store, second, "normal", "ann", regions=[BOX])
    with pytest.raises(AnomalyError, match="'burr' found"):
        give_verdict(
            store, second, "anomalous", "ann", regions=[Region("box", BOX.points, 0, "burr")]
        )


@pytest.fixture
def drawn(lite: Store, tmp_path: Path) -> Iterator[tuple[Store, list[int]]]:  # noqa: F811
    yield lite, drawn_on(lite, tmp_path)


def test_coco_has_a_segmentation_of_each_region(
    drawn: tuple[Store, list[int]], tmp_path: Path
) -> None:
    kept, (first, second, bare, *_) = drawn
    export_findings(kept, tmp_path / "out.json", Filters())
    found = json.loads((tmp_path / "out.json").read_text())
    names = {one["id"]: one["name"] for one in found["categories"]}
    notes = found["annotations"]
    assert [(n["image_id"], names[n["category_id"]], n["source"]) for n in notes] == [
        (first, "dent", "inspector"),
        (first, "scratch", "inspector"),  # of the image, where the region has none
        (first, "scratch", "inspector"),
        (second, "dent", "inspector"),
        (bare, "anomalous", "detector"),
    ]
    assert notes[0]["segmentation"] == [[10, 20, 40, 20, 40, 60, 10, 60]]
    assert notes[0]["bbox"] == [10, 20, 30, 40] and notes[0]["area"] == 1200
    assert notes[2]["segmentation"]["size"] == [200, 300]
    assert sum(notes[2]["segmentation"]["counts"][1::2]) == notes[2]["area"]
    assert "segmentation" not in notes[4] and notes[4]["bbox"] == [10, 20, 30, 40]


def test_a_folder_has_masks_and_yolo_has_boxes(
    drawn: tuple[Store, list[int]], tmp_path: Path
) -> None:
    kept, _ = drawn
    export_folder(kept, tmp_path / "set", Filters())
    masks = {r.path.stem[:5]: r.mask for r in read_dataset(tmp_path / "set") if r.mask is not None}
    assert sorted(masks) == ["part0", "part1"]  # the loader finds them
    marked = np.asarray(Image.open(masks["part1"]))
    assert marked.shape == (200, 300) and frame_of(marked > 0) == (10, 20, 30, 40)
    done = export_yolo(kept, tmp_path / "yolo", Filters())
    assert done.written == 4 and ["no region was drawn" in line for line in done.left_out] == [True]
    texts = {p.stem[:5]: p.read_text() for p in (tmp_path / "yolo" / "labels").rglob("*.txt")}
    assert len(texts["part0"].splitlines()) == 3 and texts["part3"] == texts["part4"] == ""
    assert texts["part1"] == f"1 {25 / 300:.6f} {40 / 200:.6f} {30 / 300:.6f} {40 / 200:.6f}\n"
    assert '  0: "scratch"\n  1: "dent"\n' in (tmp_path / "yolo" / "data.yaml").read_text()
    with pytest.raises(AnomalyError, match=r"holds a data\.yaml already"):
        export_yolo(kept, tmp_path / "yolo", Filters())


def test_what_may_be_learnt_comes_with_its_mask(
    drawn: tuple[Store, list[int]], tmp_path: Path
) -> None:
    kept, _ = drawn
    found = learnable(kept)
    assert {path.name for path, _ in found.defects} == {f"part{i}.png" for i in range(3)}
    assert {path.name for path in found.masks} == {"part0.png", "part1.png"}
