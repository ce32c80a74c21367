"""The portable form of a finished detector: the same filter, golden samples that hold, the same
explain.onnx.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from anomaly.commands.main import main
from anomaly.detector.file import read_card
from anomaly.detector.golden import golden_picture
from anomaly.errors import DetectorError
from anomaly.quality.portable import write_portable
from anomaly.scorer import Scorer


@pytest.mark.parametrize("which", ["run", "pixel_run", "grey_run"])
def test_it_scores_alike_at_all_sizes(
    which: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    run = request.getfixturevalue(which)
    write_portable(run / "detector.onnx", tmp_path / "detector.onnx")
    model = onnx.load(tmp_path / "detector.onnx")
    assert not any(
        a.name == "antialias" and a.i for node in model.graph.node for a in node.attribute
    )
    one, other = Scorer(run, device="cpu"), Scorer(tmp_path, device="cpu", verify=True)
    assert one.card.calibration is not None
    unit = float(one.card.calibration.threshold - one.card.calibration.median)
    typical = float(one.card.calibration.median)
    for height, width in ((1, 1), (1, 300), (64, 64), (63, 65), (301, 17), (200, 333)):
        image = golden_picture(height, width, 3, 5)[None]
        a, b = one.run(image), other.run(image)
        assert np.abs(a["heatmap"] - b["heatmap"]).max() < 1e-3 * max(
            unit, float(np.abs(a["heatmap"] - typical).max())
        )
        assert abs(a["score"][0] - b["score"][0]) < 1e-3 * max(
            unit, float(abs(a["score"][0] - typical))
        )


def test_calibrate_writes_it_and_says_where_it_comes_from(
    run: Path, parts: Path, tmp_path: Path
) -> None:
    arguments = [
        "calibrate",
        str(run),
        "--normal",
        str(parts / "test" / "good"),
        "--out",
        str(tmp_path / "p.onnx"),
    ]
    assert (
        main([*arguments, "--target", "portable", "--false-alarm-rate", "0.1", "--accept-worse"])
        == 0
    )
    old, new = read_card(run), read_card(tmp_path / "p.onnx")
    assert (new.parent, new.weights, new.version, new.training.target) == (
        old.digest,
        old.weights,
        "2",
        "portable",
    )
    assert new.calibration is not None and new.calibration.n == 30
    Scorer(tmp_path / "p.onnx", device="cpu", verify=True)
    with pytest.raises(DetectorError, match="it is portable as it is"):
        write_portable(tmp_path / "p.onnx", tmp_path / "again.onnx")
