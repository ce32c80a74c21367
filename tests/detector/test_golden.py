"""Golden samples are few, small and exact enough to prove something, and the formula is the same
everywhere.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from anomaly.detector.file import CalibrationImages, read_card, recalibrate
from anomaly.detector.golden import MAX_GOLDEN_SAMPLES, MAX_TOTAL_PIXELS, golden_picture
from anomaly.errors import DetectorError
from anomaly.statistics.calibration import calibrate
from tests.detector.test_file import changed, edit_card

SAMPLE = {"height": 40, "width": 40, "a": 1, "b": 1, "score": 0.5}


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ([SAMPLE] * 200_000, f"200000 samples, 1 to {MAX_GOLDEN_SAMPLES} expected"),
        ([SAMPLE] * (MAX_GOLDEN_SAMPLES + 1), f"33 samples, 1 to {MAX_GOLDEN_SAMPLES} expected"),
        (
            [{**SAMPLE, "height": 10_000, "width": 10_000}] * 3,
            f"at most {MAX_TOTAL_PIXELS:,} expected",
        ),
        ([{**SAMPLE, "a": 10**9}], r"0 to 65535 expected"),
    ],
    ids=["200,000", "33", "300 million pixels", "a huge step"],
)
def test_golden_samples_are_few_and_small(
    samples: list[object], message: str, run: Path, tmp_path: Path
) -> None:
    golden = {**read_card(run).golden, "samples": samples}
    path = changed(run, tmp_path / "detector.onnx", lambda model: edit_card(model, golden=golden))
    with pytest.raises(DetectorError, match=message):
        read_card(path)


@pytest.mark.parametrize(
    "tolerance", [1e30, 1.0, 0.0, -1.0, float("nan"), float("inf"), True, "1", None]
)
def test_a_tolerance_that_proves_nothing_is_refused(
    tolerance: object, run: Path, tmp_path: Path
) -> None:
    golden = {**read_card(run).golden, "tolerance": tolerance}
    path = changed(run, tmp_path / "detector.onnx", lambda m: edit_card(m, golden=golden))
    with pytest.raises(
        DetectorError, match=r"no golden samples in the card, or damaged ones|the card is damaged"
    ):
        read_card(path)


def test_a_tolerance_follows_the_threshold_when_that_is_set_anew(run: Path, tmp_path: Path) -> None:
    before = read_card(run)
    scores = (1 + 1e-4 * np.arange(200)).astype(np.float32)
    recalibrate(
        run,
        calibrate(scores, 0.05),
        tmp_path / "new.onnx",
        CalibrationImages(highest=[], count=200, groups=200),
        version="2",
    )
    after = read_card(tmp_path / "new.onnx")
    assert after.calibration is not None
    unit = float(after.calibration.threshold - after.calibration.median)
    assert after.golden["tolerance"] == min(before.golden["tolerance"], 0.01 * unit) == 0.01 * unit
    assert after.golden["samples"] == before.golden["samples"]


@pytest.mark.parametrize(
    ("height", "width", "a", "b"),
    [(1, 1, 0, 0), (40, 50, 7, 2), (333, 7, 65535, 65535), (7, 3000, 11, 13)],
)
def test_a_picture_is_that_of_the_formula(height: int, width: int, a: int, b: int) -> None:
    y, x, c = np.ogrid[:height, :width, :3]
    expected = (a * x + b * y + ((x * y) >> 4) + 64 * c) % 256
    found = golden_picture(height, width, a, b)
    assert found.dtype == np.uint8 and found.tolist() == expected.tolist()
