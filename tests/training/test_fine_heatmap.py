"""A fine heatmap lies where the early stage sees a change, and never outside of a mask."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from anomaly.detector.file import read_card
from anomaly.scorer import Scorer
from data.synthetic import make, write_dataset
from training.fine_heatmap import FineHeatmap
from training.options import TrainOptions
from training.pipeline import train
from training.restore import restore


def test_a_fine_heatmap_is_the_mean_of_both_and_keeps_to_the_mask() -> None:
    random = torch.Generator().manual_seed(0)
    good = torch.randn(50, 3, 8, 8, generator=random) * torch.tensor([1.0, 2.0, 0.5])[:, None, None]
    fine = FineHeatmap((3, 8, 8), (2, 2), None)
    fine.fit(good.split(7))
    distance = fine.distance(good)
    assert float(distance.mean()) == pytest.approx(1, abs=0.05)  # whatever the channels' units
    defect = good[:1].clone()
    defect[0, 2, 5, 6] += 10.0  # 20 standard deviations of the third channel
    coarse = torch.tensor([[[1.0, 1.0], [1.0, 9.0]]])
    heatmap = fine(coarse, defect)
    assert heatmap.shape == (1, 8, 8)
    assert divmod(int(heatmap[0].argmax()), 8) == (5, 6)
    assert float(heatmap[0, 7, 7]) == pytest.approx(3 * float(distance[0, 7, 7]) ** 0.5, rel=1e-4)
    mask = torch.ones(8, 8)
    mask[5, 6] = 0
    masked = FineHeatmap((3, 8, 8), (2, 2), mask)
    masked.fit(good.split(7))
    assert float(masked(coarse, defect)[0, 5, 6]) == float(masked(coarse, defect).min())


@pytest.mark.parametrize("calibrate", ["split", "cross"])
def test_a_scratch_looks_like_one_the_whole_way(tmp_path: Path, calibrate: str) -> None:
    write_dataset(tmp_path / "parts", "disc", train=24, good=2, per_defect=1, size=128)
    options = TrainOptions(
        tmp_path / "parts",
        tmp_path / "run",
        space="features",
        size=128,
        calibrate=calibrate,
        expected_picture=calibrate == "split",
    )
    train(options, say=lambda line: None)
    card = read_card(tmp_path / "run")
    assert not card.pooled and card.heatmap is not None and card.calibration is not None
    assert card.heatmap.n == card.calibration.n
    pixels, mask = make("disc", 77, 128, "scratch")
    result = Scorer(tmp_path / "run", device="cpu").score(pixels)
    assert result.heatmap.shape == (16, 16)  # of 6 x 6 cells that score
    row, column = np.unravel_index(result.heatmap.argmax(), (16, 16))
    assert mask[8 * row : 8 * row + 8, 8 * column : 8 * column + 8].any()
    assert restore(tmp_path / "run").graph.fine is not None
