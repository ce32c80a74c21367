"""The location scale of a place, by which the linear autoencoder divides; the models themselves:
tests/training/models/test_models.py.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from training.models.autoencoder import (
    LOCATION_SCALE_PRIOR_MAPS,
    MIN_LOCATION_SCALE,
    LinearAutoencoder,
    location_scale,
)
from training.scores import Heatmap

SHAPE = (6, 10, 10)
# where good images differ more than the model can learn
NOISY = (slice(None), slice(None), slice(2, 6), slice(2, 6))


def good(count: int, seed: int, noise: float = 3.0) -> Tensor:
    """Returns maps of heavy-tailed noise with one noisy place."""
    random = torch.Generator().manual_seed(seed)
    maps = 0.3 * torch.randn(count, *SHAPE, generator=random)
    maps[NOISY] *= noise * torch.rand(count, 1, 1, 1, generator=random) ** 2 * 4
    return maps


def with_spots(maps: Tensor) -> Tensor:
    """Returns the same with a spot outside the noisy place."""
    spotted = maps.clone()
    spotted[:, :, 8, 8] += 1.0
    return spotted


def names(count: int) -> list[str]:
    return [str(i) for i in range(count)]


def fitted(maps: Tensor, groups: list[str] | None = None) -> LinearAutoencoder:
    model = LinearAutoencoder(*SHAPE, pixels=False)
    model.groups = groups
    model.fit_maps(maps)
    return model.eval()


@torch.inference_mode()
def auroc(model: LinearAutoencoder, normal: Tensor, anomalous: Tensor) -> float:
    to_heatmap = Heatmap()
    scores = [to_heatmap.pool(to_heatmap(model(maps)[0])).numpy() for maps in (normal, anomalous)]
    return float(roc_auc_score(np.repeat((0, 1), [len(s) for s in scores]), np.concatenate(scores)))


def test_a_defect_is_not_drowned_by_a_place_that_is_always_high() -> None:
    train, normal, spotted = good(60, 1), good(60, 2), with_spots(good(60, 3))
    plain, compared = (
        auroc(fitted(train, groups), normal, spotted) for groups in (None, names(60))
    )
    assert compared > plain + 0.05


def test_location_scale_is_that_of_images_not_seen() -> None:
    """Twins of one group would vouch for each other: left out together they do not."""
    singles = good(30, 4)
    twins = singles.repeat(2, 1, 1, 1)
    apart = location_scale(twins, names(30) * 2)
    torch.testing.assert_close(apart, location_scale(singles, names(30)), rtol=0.05, atol=0.02)
    assert float((location_scale(twins, names(60)) - apart).abs().max()) > 0.1
    assert apart[3, 3] > 1.5 * apart[8, 8]


def test_the_more_images_the_less_of_it_is_divided_out() -> None:
    for count in (20, 200):
        train, maps = good(count, 5), good(7, 6)
        plain, model = fitted(train), fitted(train, names(count))
        usual = location_scale(train, names(count)) ** (
            LOCATION_SCALE_PRIOR_MAPS / (count + LOCATION_SCALE_PRIOR_MAPS)
        )
        with torch.inference_mode():
            torch.testing.assert_close(model(maps)[0], plain(maps)[0] / usual)
            torch.testing.assert_close(model(maps)[1], plain(maps)[1])


def test_without_groups_or_enough_images_no_place_is_usual() -> None:
    assert bool((fitted(good(20, 9)).usual == 1).all())
    in_pixels = LinearAutoencoder(*SHAPE, pixels=True)
    in_pixels.groups = names(20)
    in_pixels.fit_maps(good(20, 9))
    assert bool((in_pixels.usual == 1).all())
    assert bool((location_scale(good(2, 9), names(2)) == 1).all())
    copies = good(1, 9).repeat(20, 1, 1, 1)
    copies[0] += 1.0  # of the nineteen others that are left when this one is judged none differs
    assert bool((location_scale(copies, names(20)) == 1).all())


def test_places_that_never_vary_keep_a_least_location_scale() -> None:
    maps = good(30, 10)
    maps[:, :, :, 7:] = 0.0  # as where a mask leaves out
    typical = location_scale(maps, names(30))
    assert float(typical.min()) == pytest.approx(MIN_LOCATION_SCALE) and bool(
        typical.isfinite().all()
    )


def test_of_many_images_a_subset_is_judged_and_always_the_same() -> None:
    maps = good(900, 11)[:, :2]
    assert torch.equal(location_scale(maps, names(900)), location_scale(maps, names(900)))


def test_pixels_may_be_bytes() -> None:
    maps = torch.randint(
        0, 256, (12, *SHAPE), dtype=torch.uint8, generator=torch.Generator().manual_seed(12)
    )
    torch.testing.assert_close(
        location_scale(maps, names(12)),
        location_scale(maps.float() / 255, names(12)),
        rtol=1e-4,
        atol=1e-5,
    )
