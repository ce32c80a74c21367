"""Defects that hide among the good images come out first, and the list is one that --exclude takes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from anomaly.dataset import read_dataset
from anomaly.images import DecodeRule
from data.made_up import make
from training.data import see
from training.preprocess import Preprocess
from training.scores import Heat
from training.spaces import FilterSpace, PixelSpace, make_space
from training.suspects import SUSPECTS, cross_fitted_scores, highest, write_suspects
from training.train import TrainOptions, find_images, train

HIDDEN = 5


@pytest.fixture(scope="module")
def contaminated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder of 95 good discs and 5 with a large defect, all said to be good."""
    folder = tmp_path_factory.mktemp("contaminated")
    for seed in range(100):
        pixels = make("disc", seed, 64)[0].copy()
        if seed < HIDDEN:
            pixels[8 * seed : 8 * seed + 20, 20:40] = np.random.default_rng(seed).integers(0, 256, (20, 20, 3))
        Image.fromarray(pixels).save(folder / f"{seed:03}.png")
    return folder


@pytest.mark.parametrize("space", [FilterSpace(64), PixelSpace(64)], ids=["filters", "pixels"])
def test_hidden_defects_come_first(space: torch.nn.Module, contaminated: Path) -> None:
    before = {name: value.clone() for name, value in space.state_dict().items()}
    seen = see(read_dataset(contaminated), DecodeRule(), Preprocess(64), space.eval(), "cpu", lambda: None)
    scores = cross_fitted_scores(space, Heat(), seen.maps, [record.group for record in seen.records])
    assert sorted(highest(scores)) == list(range(HIDDEN))
    assert all(torch.equal(value, before[name]) for name, value in space.state_dict().items())


def test_an_image_is_scored_by_models_that_did_not_see_its_group() -> None:
    """Copies of one strange image in one group do not vouch for each other, as they do when each is its own group."""
    maps = torch.randn(40, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    maps[:8] = maps[0] * 3
    together, alone = (
        cross_fitted_scores(make_space("pixels", 8), Heat(), maps, groups)[:8].mean()
        for groups in (["strange"] * 8 + [str(i) for i in range(32)], [str(i) for i in range(40)])
    )
    assert together > alone


@pytest.mark.parametrize(("count", "listed"), [(6, 5), (100, 5), (101, 6), (1000, 50)])
def test_a_twentieth_is_listed_and_five_at_least(count: int, listed: int) -> None:
    assert highest(np.arange(count, dtype=np.float32)) == list(range(count - 1, count - 1 - listed, -1))


def test_names_are_written_as_they_are(tmp_path: Path) -> None:
    write_suspects(tmp_path, ["good/b.png", "good/caf\udce9.png"])
    assert (tmp_path / SUSPECTS).read_bytes() == b"good/b.png\ngood/caf\xe9.png\n"


def test_train_lists_them_and_takes_the_list(contaminated: Path, tmp_path: Path) -> None:
    said: list[str] = []
    run = tmp_path / "run"
    train(TrainOptions(images=contaminated, out=run, space="filters", size=64, epochs=1), said.append)
    listed = (run / SUSPECTS).read_text(encoding="utf-8").splitlines()
    assert sorted(listed) == [f"{seed:03}.png" for seed in range(HIDDEN)]
    assert said[-2].startswith(f"look at these first: {' '.join(listed)}   (the most unusual of the good images; all 5 in ")
    assert said[-1].endswith(f"anomaly train {contaminated} --exclude {run / SUSPECTS} --out NEW")
    page = (run / "report.html").read_text(encoding="utf-8")
    assert all(name in page for name in listed)
    records, _ = find_images(TrainOptions(images=contaminated, out=tmp_path / "new", exclude=run / SUSPECTS))
    assert [record.path.name for record in records] == [f"{seed:03}.png" for seed in range(HIDDEN, 100)]
