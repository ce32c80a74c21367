"""The baselines: what their papers define, and that a benchmark can train, export and judge them
like our models.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from anomaly import Scorer
from anomaly.inputs.dataset import labelled_test, read_dataset
from training.experiments.baselines import BASELINES, MemoryBank, Padim
from training.models import MODELS
from training.pipeline import TrainOptions, train


def test_padim_is_the_mahalanobis_distance_of_each_location() -> None:
    maps = torch.randn(400, 3, 2, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor(
        [1.0, 2.0, 3.0]
    ).view(3, 1, 1)
    model = Padim(3, 2, 2, pixels=False)
    model.fit_maps(maps)
    vectors = maps[:, :, 1, 0]
    deviation = (vectors - vectors.mean(0)).double()
    covariance = deviation.T @ deviation / 399 + 0.01 * torch.eye(3)
    expected = torch.einsum(
        "ni,ij,nj->n", deviation, torch.linalg.inv(covariance), deviation
    ).sqrt()
    assert torch.allclose(model(maps)[0][:, 1, 0].double(), expected, atol=1e-4)


def test_the_memory_bank_gives_the_distance_to_the_nearest_neighbourhood() -> None:
    maps = torch.randn(50, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    model = MemoryBank(3, 4, 4, pixels=False)
    model.fit_maps(maps)
    assert model.bank.shape == (8, 3)  # 1 % of 800
    x = torch.full((1, 3, 4, 4), 5.0)
    expected = (torch.full((3,), 5.0) - model.bank).norm(dim=1).min()
    assert torch.allclose(model(x)[0], expected.expand(1, 4, 4), atol=1e-5)
    # The greedy choice takes the farthest each time: the bank's members are farther apart than
    # random ones.
    spread = torch.pdist(model.bank).min()
    assert (
        spread
        > torch.pdist(
            torch.nn.functional.avg_pool2d(maps, 3, 1, 1).permute(0, 2, 3, 1).reshape(-1, 3)[:8]
        ).min()
    )


@pytest.mark.parametrize("name", BASELINES)
def test_a_baseline_goes_the_whole_way(
    name: str, parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MODELS, name, BASELINES[name])
    train(
        TrainOptions(
            images=parts,
            out=tmp_path / "run",
            model=name,
            space="filters",
            size=64,
            expected_picture=False,
        ),
        say=lambda line: None,
    )
    scorer = Scorer(tmp_path / "run", device="cpu")
    assert scorer.card.training.parity is not None
    scores: dict[bool, list[float]] = {True: [], False: []}
    for record in labelled_test(read_dataset(parts)):
        scores[record.label == "good"].append(scorer.score(record.path).score or 0.0)
    assert np.median(scores[False]) > np.median(scores[True])
