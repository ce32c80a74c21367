"""The Gaussian of whole maps whose heat is compared with what is usual at the place and in the image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from training.models.autoencoder import LinearAutoencoder
from training.models.gaussian import BY_IMAGE, BY_PLACE, CONTRAST, LEAST, Gaussian, usual_heat
from training.scores import Heat

SHAPE = (6, 10, 10)
NOISY = (slice(None), slice(None), slice(2, 6), slice(2, 6))  # where good images differ more than the model can learn


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


def fitted(kind: type[LinearAutoencoder], maps: Tensor) -> LinearAutoencoder:
    model = kind(*SHAPE, pixels=False)
    if isinstance(model, Gaussian):
        model.groups = names(len(maps))
    model.fit_maps(maps)
    return model.eval()


@torch.inference_mode()
def auroc(model: LinearAutoencoder, normal: Tensor, anomalous: Tensor) -> float:
    heat = Heat()
    scores = [heat.pool(heat(model(maps)[0])).numpy() for maps in (normal, anomalous)]
    return float(roc_auc_score(np.repeat((0, 1), [len(s) for s in scores]), np.concatenate(scores)))


def test_a_defect_is_not_drowned_by_a_place_that_is_always_hot() -> None:
    train, normal = good(60, 1), good(60, 2)
    plain, gaussian = (auroc(fitted(kind, train), normal, with_spots(good(60, 3))) for kind in (LinearAutoencoder, Gaussian))
    assert gaussian > plain + 0.1


def test_usual_heat_is_that_of_images_not_seen() -> None:
    """Twins of one group would vouch for each other: left out together they do not."""
    singles = good(30, 4)
    twins = singles.repeat(2, 1, 1, 1)
    apart = usual_heat(twins, names(30) * 2)
    torch.testing.assert_close(apart, usual_heat(singles, names(30)), rtol=0.05, atol=0.02)
    assert float((usual_heat(twins, names(60)) - apart).abs().max()) > 0.1
    assert apart[3, 3] > 1.5 * apart[8, 8] and float(apart.mean()) == pytest.approx(1.0, abs=0.05)


def test_heat_is_that_of_the_linear_model_by_place_and_image() -> None:
    train, maps = good(40, 5), good(7, 6)
    plain, model = fitted(LinearAutoencoder, train), fitted(Gaussian, train)
    with torch.inference_mode():
        heat, (found, expected) = plain(maps)[0] / model.typical**BY_PLACE, model(maps)
        of_image = heat.log().mean((1, 2), keepdim=True).exp()
        torch.testing.assert_close(found, (heat / of_image**BY_IMAGE) ** CONTRAST, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(expected, plain(maps)[1])


def test_an_image_that_is_hotter_everywhere_scores_higher() -> None:
    model = fitted(Gaussian, good(40, 7))
    with torch.inference_mode():
        mean = model.mean.reshape(SHAPE)
        low, high = (model(mean + scale * (good(5, 8) - mean))[0] for scale in (1.0, 1.5))
    assert bool((high > low).all())


def test_without_groups_or_enough_images_no_place_is_usual() -> None:
    without = Gaussian(*SHAPE, pixels=False)
    without.fit_maps(good(20, 9))
    assert bool((without.typical == 1).all())
    assert bool((usual_heat(good(2, 9), names(2)) == 1).all())
    copies = good(1, 9).repeat(20, 1, 1, 1)
    copies[0] += 1.0  # of the nineteen others that are left when this one is judged none differs
    assert bool((usual_heat(copies, names(20)) == 1).all())


def test_places_that_never_vary_keep_a_least_usual_heat() -> None:
    maps = good(30, 10)
    maps[:, :, :, 7:] = 0.0  # as where a mask leaves out
    typical = usual_heat(maps, names(30))
    assert float(typical.min()) == pytest.approx(LEAST) and bool(typical.isfinite().all())


def test_of_many_images_a_subset_is_judged_and_always_the_same() -> None:
    maps = good(900, 11)[:, :2]
    assert torch.equal(usual_heat(maps, names(900)), usual_heat(maps, names(900)))


def test_pixels_may_be_bytes() -> None:
    maps = torch.randint(0, 256, (12, *SHAPE), dtype=torch.uint8, generator=torch.Generator().manual_seed(12))
    torch.testing.assert_close(usual_heat(maps, names(12)), usual_heat(maps.float() / 255, names(12)), rtol=1e-4, atol=1e-5)
