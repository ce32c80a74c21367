"""Which images made a detector: read from the table beside it, whoever saved that table last."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pytest

from anomaly import Scorer
from anomaly.errors import DatasetError
from anomaly.inputs.dataset import normal_training, read_dataset
from anomaly.inputs.used_images import LEARNT, USED, divided, listing_of
from anomaly.quality.evaluate import evaluate_labelled
from anomaly.quality.recalibrate import Asked, GoodImages, recalibrate_on
from data.synthetic import write_dataset


def test_a_recalibrated_detector_knows_what_set_its_threshold(run: Path, tmp_path: Path) -> None:
    write_dataset(tmp_path, kind="disc", train=30, good=5, per_defect=1, size=64, seed=77)
    out = tmp_path / "models" / "v2.onnx"
    out.parent.mkdir()
    recalibrate_on(run, GoodImages(tmp_path / "train"), out=out, asked=Asked(0.1))
    assert listing_of(out) == out.with_name("v2.images.csv")
    for path in sorted((tmp_path / "train" / "good").glob("*.png"))[:7]:
        shutil.copy(path, tmp_path / "test" / "good" / f"again-{path.name}")
    found = evaluate_labelled(Scorer(out, device="cpu"), tmp_path)
    assert (len(found.used), found.evaluation.n_normal, found.checked) == (7, 5, True)
    # these images did not make the first one
    assert evaluate_labelled(Scorer(run, device="cpu"), tmp_path).used == ()


def test_a_table_that_excel_saved_again_still_tells(run: Path, parts: Path, tmp_path: Path) -> None:
    with open(run / "images.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    listing = tmp_path / "images.csv"
    listing.write_bytes("".join(";".join(row) + "\r\n" for row in rows).encode("utf-16"))
    records = normal_training(read_dataset(parts))
    assert len(divided(records, listing, USED)[1]) == 120
    assert len(divided(records, listing, LEARNT)[0]) == sum(row[2] == "calibration" for row in rows)


def test_a_table_without_digests_is_refused(tmp_path: Path) -> None:
    (tmp_path / "images.csv").write_text("path,score\na.png,1\n")
    with pytest.raises(
        DatasetError, match=r"images\.csv: columns path, score found, sha256 and set expected"
    ):
        divided([], tmp_path / "images.csv", USED)


@pytest.mark.parametrize(
    "content",
    [b"", b"\0" * 100, b"[]", b"\xff\xfe", b"path,label\na.png,good\n", bytes(range(256))],
)
def test_a_damaged_table_in_a_run_folder_is_no_missing_one(
    run: Path, tmp_path: Path, content: bytes
) -> None:
    """Passed over, images that the detector learnt from would set its threshold."""
    (tmp_path / "detector.onnx").write_bytes((run / "detector.onnx").read_bytes())
    (tmp_path / "images.csv").write_bytes(content)
    assert listing_of(tmp_path / "detector.onnx") is None  # no run folder: somebody's own table
    (tmp_path / "train.jsonl").touch()
    with pytest.raises(
        DatasetError, match=r"images\.csv: no table of the images that made the detector found"
    ):
        listing_of(tmp_path / "detector.onnx")
