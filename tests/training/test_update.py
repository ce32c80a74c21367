"""More good images: what is learnt by a run's kept maps is what a new fit to all of them finds."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from anomaly.detector.file import read_card
from anomaly.inputs.used_images import read_listing
from anomaly.scorer import Scorer
from tests.support.runs import SIZE, Said, trained
from training.folds import folds
from training.kept_maps import MAPS, load_maps
from training.models.autoencoder import LinearAutoencoder
from training.restore import restore
from training.scores import Heatmap

pytestmark = pytest.mark.usefixtures("one_thread")
NEW = 20


@pytest.fixture(scope="module")
def given(parts: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Returns folders of 100 good images to train on, and of 20 more."""
    folder = tmp_path_factory.mktemp("given")
    first, more = folder / "first", folder / "more"
    shutil.copytree(parts / "train" / "good", first)
    more.mkdir()
    kept = sorted(first.iterdir())
    for path, name in zip(kept[::6], kept[1::6], strict=True):
        path.rename(more / name.name)  # a name that stands in the first folder too
    assert len(list(more.iterdir())) == NEW
    return first, more


def fitted(maps: Tensor, groups: list[str]) -> LinearAutoencoder:
    model = LinearAutoencoder(*maps.shape[1:], pixels=False)
    model.groups = groups
    model.fit_maps(maps)
    return model.eval()


@torch.inference_mode()
def scores(model: LinearAutoencoder, maps: Tensor, to_heatmap: Heatmap) -> np.ndarray:
    return to_heatmap.pool(to_heatmap(model(maps)[0])).numpy()


@pytest.mark.parametrize("kind", ["cross", "split"])
def test_the_model_is_that_of_all_images_on_the_same_basis(
    given: tuple[Path, Path], tmp_path: Path, said: Said, kind: str
) -> None:
    run = trained(
        tmp_path / "run", given[0], space="filters", calibrate=kind, false_alarm_rate=0.05
    )
    new = tmp_path / "new"
    status, printed, error = said("learn", run, "--normal", given[1], "--out", new)
    assert status == 0, error
    assert "100 good images" in error + printed and "learnt anew" not in error + printed
    kept, after, before = load_maps(new / MAPS).seen, restore(new), restore(run)
    card, old = read_card(new), read_card(run)
    assert card.calibration is not None and old.calibration is not None
    assert len(kept.records) == 120 and card.training.images == 120
    assert card.parent == old.digest and card.training.size_sensitivity is None
    rows = {row["path"]: row for row in read_listing(new / "images.csv")}
    learnt = [rows[str(r.path)]["set"] in ("fit", "validation") for r in kept.records]
    groups = [r.group for r in kept.records]
    wanted = fitted(kept.maps[torch.tensor(learnt)], list(np.array(groups)[learnt]))
    unit = float(card.calibration.threshold - card.calibration.median)
    to_heatmap = after.graph.to_heatmap
    model = after.graph.model
    assert isinstance(model, LinearAutoencoder)
    found, right = (scores(one, kept.maps, to_heatmap) for one in (model, wanted))
    assert np.abs(found - right).max() < 1e-5 * unit
    assert after.graph.space.whitening is not None and before.graph.space.whitening is not None
    for name, weights in before.graph.space.whitening.state_dict().items():
        assert torch.equal(weights, after.graph.space.whitening.state_dict()[name])
    if kind == "cross":
        fold = folds(groups)
        left_out = np.zeros(len(groups), np.float32)
        for k in range(fold.max() + 1):
            use = (fold != k) & np.array(learnt)
            without = fitted(kept.maps[torch.from_numpy(use)], list(np.array(groups)[use]))
            left_out[fold == k] = scores(
                without, kept.maps[torch.from_numpy(fold == k)], to_heatmap
            )
        assert card.calibration.kind == "cross" and card.calibration.n == 120
        difference = np.abs(np.sort(left_out) - card.calibration.scores)
        assert difference.max() < 1e-5 * unit
    else:
        calibrating = sorted(path for path, row in rows.items() if row["set"] == "calibration")
        assert len(calibrating) > old.calibration.n
        assert {row["path"] for row in read_listing(run / "images.csv")} & set(calibrating)
        results = Scorer(new, device="cpu").score(calibrating)
        by_file = np.sort(np.array([r.score for r in results], np.float32))
        assert np.array_equal(by_file, card.calibration.scores)


def test_images_of_another_kind_are_learnt_by_a_new_training(
    given: tuple[Path, Path], tmp_path: Path, said: Said
) -> None:
    from data.synthetic import write_dataset

    run = trained(tmp_path / "run", given[0], space="filters", false_alarm_rate=0.05)
    write_dataset(tmp_path / "other", kind="fabric", train=12, good=0, per_defect=0, size=SIZE)
    good = tmp_path / "other" / "train" / "good"
    status, printed, error = said("learn", run, "--normal", good, "--out", tmp_path / "new")
    assert status == 0, error
    assert "of 12 new images lie outside of it" in printed + error
    assert read_card(tmp_path / "new").training.size_sensitivity is not None
