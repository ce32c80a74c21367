"""Defects that hide among the good images come out first, and the list is one that
--exclude takes.
"""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from anomaly.detector.file import read_card
from anomaly.imaging.decode import DecodeRule
from anomaly.inputs.dataset import Record, read_dataset
from anomaly.statistics.calibration import FOLDS
from data.synthetic import make
from training.folds import folds
from training.models import MODELS
from training.options import TrainOptions
from training.pipeline import train
from training.preprocess import Preprocess
from training.scores import Heatmap
from training.sets import Sets, find_images
from training.spaces import FilterSpace, PixelSpace, make_space
from training.suspects import (
    SUSPECTS,
    CrossFit,
    Suspect,
    cross_fitted,
    find_suspects,
    outliers,
    suspects_text,
    write_suspects,
)
from training.tensors import extract

HIDDEN = 5


@pytest.fixture(scope="module")
def contaminated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder of 95 good discs and 5 with a large defect, all said to be good."""
    folder = tmp_path_factory.mktemp("mixed")
    for seed in range(100):
        pixels = make("disc", seed, 64)[0].copy()
        if seed < HIDDEN:
            pixels[8 * seed : 8 * seed + 20, 20:40] = np.random.default_rng(seed).integers(
                0, 256, (20, 20, 3)
            )
        Image.fromarray(pixels).save(folder / f"{seed:03}.png")
    return folder


def made_maps(count: int) -> torch.Tensor:
    """Returns maps that are mostly alike, so that a model of them knows what they share."""
    random = torch.Generator().manual_seed(0)
    common = torch.randn(3, 4, 8, 8, generator=random)
    weights = torch.randn(count, 3, generator=random)
    return torch.einsum("nk,kchw->nchw", weights, common) + 0.3 * torch.randn(
        count, 4, 8, 8, generator=random
    )


class Unwhitened(PixelSpace):
    """Maps of four channels as they are."""

    def __init__(self) -> None:
        super().__init__(8)
        self.channels, self.whitening = 4, torch.nn.Identity()


def records_of(groups: list[str]) -> list[Record]:
    return [
        Record(Path(f"{i:03}.png"), None, "good", group, None) for i, group in enumerate(groups)
    ]


@pytest.mark.parametrize(
    "space", [FilterSpace((64, 64)), PixelSpace((64, 64))], ids=["filters", "pixels"]
)
def test_hidden_defects_come_first(space: torch.nn.Module, contaminated: Path) -> None:
    seen = extract(
        read_dataset(contaminated), DecodeRule(), Preprocess(64), space.eval(), "cpu", lambda: None
    )
    if space.whitening is not None:
        space.whitening.fit(seen.maps.split(64))
    suspects = find_suspects(seen.records, seen.maps, space, Heatmap())
    assert sorted(suspect.record.path.name for suspect in suspects) == [
        f"{seed:03}.png" for seed in range(HIDDEN)
    ]
    assert suspects[0].times >= suspects[-1].times > 1.5
    assert all(
        suspect.heatmap.max() >= suspect.times > suspect.heatmap.mean() for suspect in suspects
    )


def test_each_image_is_judged_by_the_model_of_the_other_parts() -> None:
    maps = made_maps(40)
    scores, heatmaps = CrossFit(maps, Unwhitened(), Heatmap()).by_folds([str(i) for i in range(40)])
    part = folds([str(i) for i in range(40)])
    errors = torch.zeros(40, 8, 8)
    for k in range(FOLDS):
        model = MODELS["linear"](4, 8, 8, pixels=False)
        model.fit_maps(maps[part != k])
        errors[part == k] = model(maps[part == k])[0]
    # where no cell is made coarse, the heatmap is the error averaged over 3 x 3
    usual = Heatmap()(errors).mean(0)
    squares = Heatmap()((errors / usual).square())
    pooled = Heatmap().pool(squares).sqrt()
    np.testing.assert_allclose(scores, pooled / pooled.median(), rtol=1e-4)
    np.testing.assert_allclose(heatmaps, squares.sqrt() / pooled.median(), rtol=1e-3, atol=1e-5)


def test_what_is_high_in_all_images_does_not_drown_what_is_high_in_one() -> None:
    maps = made_maps(60)
    # the edge of a part, say
    maps[:, :, 0] += 10 * torch.randn(60, 4, 8, generator=torch.Generator().manual_seed(1))
    maps[7, :, 4:6, 4:6] += 5
    scores, heatmaps = CrossFit(maps, Unwhitened(), Heatmap()).by_folds([str(i) for i in range(60)])
    assert scores.argmax() == 7 and heatmaps[7].argmax() // 8 in (4, 5)


def test_photographs_of_one_defect_do_not_vouch_for_each_other_where_their_group_is_told() -> None:
    maps = made_maps(60)
    maps[:4] += 3 * torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    alone, _ = cross_fitted(CrossFit(maps, Unwhitened(), Heatmap()), [str(i) for i in range(60)])
    told, _ = cross_fitted(
        CrossFit(maps, Unwhitened(), Heatmap()), ["defect"] * 4 + [str(i) for i in range(56)]
    )
    assert told[:4].min() > 1.5 * alone[:4].max()
    assert (told >= alone - 1e-6).all()


def test_a_lot_is_not_suspected_as_a_whole() -> None:
    maps = made_maps(60)
    maps[:20] += 3 * torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    images = CrossFit(maps, Unwhitened(), Heatmap())
    single, _ = images.by_folds([str(i) for i in range(60)])
    lots, _ = cross_fitted(images, ["a"] * 20 + ["b"] * 20 + ["c"] * 20)
    assert (lots == single).all()


def test_no_model_learns_from_outliers() -> None:
    maps = made_maps(100)
    maps[3] += 2 * torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(1))
    # four that vouch for each other
    maps[5:9] += 2 * torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    found = set(np.flatnonzero(outliers(maps, Unwhitened(), Heatmap())))
    assert {3, 5, 6, 7, 8} <= found and len(found) <= 6
    assert outliers(made_maps(100), Unwhitened(), Heatmap()).sum() <= 1


def test_a_tenth_at_most_is_an_outlier_and_nothing_of_copies() -> None:
    maps = made_maps(100)
    maps[:30] += 3 * torch.randn(30, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    assert outliers(maps, Unwhitened(), Heatmap()).sum() <= 10
    assert not outliers(maps[:1].repeat(20, 1, 1, 1), Unwhitened(), Heatmap()).any()
    copies = torch.cat([maps[:1].repeat(15, 1, 1, 1), maps[30:45]])
    assert not outliers(copies, Unwhitened(), Heatmap())[:15].any()


@pytest.mark.parametrize(("count", "listed"), [(6, 5), (100, 5), (101, 6), (200, 10)])
def test_a_twentieth_is_listed_and_five_at_least(count: int, listed: int) -> None:
    suspects = find_suspects(
        records_of([str(i) for i in range(count)]), made_maps(count), Unwhitened(), Heatmap()
    )
    assert len(suspects) == listed
    assert [suspect.times for suspect in suspects] == sorted(
        (suspect.times for suspect in suspects), reverse=True
    )


def test_nothing_is_suspected_where_all_others_are_copies_of_one_image() -> None:
    maps = torch.zeros(10, 3, 8, 8, dtype=torch.uint8)
    maps[0] = 200
    assert (
        find_suspects(
            records_of([str(i) for i in range(10)]), maps, make_space("pixels", 32), Heatmap()
        )
        == []
    )
    assert suspects_text([], 10, Sets([], [], []), Path("in"), Path("out")) == []


def test_what_is_written_and_said(tmp_path: Path) -> None:
    inside = [
        Record(tmp_path / "good" / name, None, "good", name, None)
        for name in ("b.png", "caf\udce9.png")
    ]
    outside = Record(Path("/elsewhere/good/b.png"), None, "good", "c", None)
    suspects = [
        Suspect(record, 3.14 - i, np.zeros((2, 2), np.float32))
        for i, record in enumerate([*inside, outside])
    ]
    write_suspects(tmp_path, suspects, tmp_path)
    assert (
        tmp_path / SUSPECTS
    ).read_bytes() == b"good/b.png\ngood/caf\xe9.png\n/elsewhere/good/b.png\n"
    sets = Sets([outside], [], [inside[0]], [inside[1]])
    lines = suspects_text(suspects, 1000, sets, tmp_path, Path("run"))
    assert lines[:2] == [
        (
            "suspects                3 of 1,000 good images are the most unusual to models that "
            "have not seen them, the first 3:"
        ),
        (
            "                            3.1 times a typical one   good/b.png   (it helps to set "
            "the threshold)"
        ),
    ]
    assert lines[2].endswith("(too far from all others for the model to learn from it)")
    assert lines[3].endswith("1.1 times a typical one   /elsewhere/good/b.png")
    assert lines[-1].endswith(
        f"run/suspects.txt, then anomaly train {tmp_path} --exclude run/suspects.txt --out NEW"
    )


def test_train_lists_them_and_takes_the_list(contaminated: Path, tmp_path: Path) -> None:
    said: list[str] = []
    run = tmp_path / "run"
    options = TrainOptions(images=contaminated, out=run, space="pixels", size=64, calibrate="split")
    train(options, said.append)
    listed = (run / SUSPECTS).read_text(encoding="utf-8").splitlines()
    assert sorted(listed) == [f"{seed:03}.png" for seed in range(HIDDEN)]
    assert [
        line.split()[-1] for line in said if "times a typical" in line and "threshold" not in line
    ]
    assert all(any(name in line for line in said) for name in listed)
    page = (run / "report.html").read_text(encoding="utf-8")
    assert all(name in page for name in listed) and page.count(">Suspects<") == 1
    used = {
        Path(row["path"]).name: row["set"]
        for row in csv.DictReader((run / "images.csv").read_text(encoding="utf-8").splitlines())
    }
    assert Counter(used.values()) == read_card(run).training.sets
    assert {used[name] for name in listed} - {"validation", "calibration"} == {"outliers"}
    assert "too far from all others" in page and "too far from all others" in "".join(said)
    records, _ = find_images(
        TrainOptions(images=contaminated, out=tmp_path / "new", exclude=run / SUSPECTS)
    )
    assert [record.path.name for record in records] == [
        f"{seed:03}.png" for seed in range(HIDDEN, 100)
    ]
