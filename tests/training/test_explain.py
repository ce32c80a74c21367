"""The small decoder that draws what a model of filters or features expected to see."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from anomaly import Scorer
from data.synthetic import make
from training.explain import PictureDecoder, fit_decoder
from training.preprocess import Preprocess
from training.sets import PICTURE
from training.tensors import small


class Perfect(nn.Module):
    """A model that reconstructs every map as it is."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return (x * 0).mean(1), x


def maps_and_pictures(count: int) -> tuple[Tensor, Tensor]:
    """Returns maps (n, 4, 6, 6) and pictures that are made of their first three channels, uint8 (n,
    3, 96, 96).
    """
    maps = torch.randn(count, 4, 6, 6, generator=torch.Generator().manual_seed(3))
    large = nn.functional.interpolate(
        maps[:, :3], (PICTURE, PICTURE), mode="bilinear", align_corners=False
    )
    return maps, (torch.sigmoid(large) * 255).round().byte()


def test_the_decoder_learns_what_the_maps_tell() -> None:
    maps, pictures = maps_and_pictures(48)
    decoder = fit_decoder(Perfect(), maps[:32], pictures[:32], "cpu")
    assert not decoder.training
    with torch.inference_mode():
        drawn = decoder(maps[32:])
    target = pictures[32:].float() / 255
    assert drawn.shape == target.shape and 0 <= float(drawn.min()) <= float(drawn.max()) <= 1
    mean = pictures[:32].float().mean(0) / 255
    # of maps and pictures that it was not fitted on
    assert float(((drawn - target) ** 2).mean()) < 0.1 * float(((mean - target) ** 2).mean())


def test_what_the_maps_do_not_tell_comes_out_as_the_mean() -> None:
    maps, pictures = maps_and_pictures(8)
    decoder = fit_decoder(Perfect(), maps * 0, pictures, "cpu")
    with torch.inference_mode():
        drawn = decoder(maps[:1] * 0)[0]
    assert float((drawn - pictures.float().mean(0) / 255).abs().max()) < 1e-6


@pytest.mark.parametrize(("channels", "grid"), [(26, 4), (96, 12), (26, 48)])
def test_every_grid_gives_the_same_size_of_picture(channels: int, grid: int) -> None:
    decoder = PictureDecoder(channels, grid, grid).eval()
    assert decoder(torch.zeros(2, channels, grid, grid)).shape == (2, 3, PICTURE, PICTURE)


def test_the_picture_of_a_finished_run_is_that_of_a_good_part(run: Path) -> None:
    scorer, prepare = Scorer(run, device="cpu"), Preprocess(64)
    good, foreign = make("disc", 5_000, 64)[0], make("fabric", 5_000, 64)[0]
    drawn = scorer.explain(good)
    assert drawn is not None

    def distance(picture: np.ndarray) -> float:
        seen = (
            small(prepare(torch.from_numpy(picture)[None]), PICTURE)[0].permute(1, 2, 0).numpy()
            * 255
        )
        return float(np.abs(seen - drawn).mean())

    assert distance(good) < 20 < distance(foreign)
