from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from sklearn.neighbors import KernelDensity
from torch import Tensor

from anomaly.errors import TrainingError
from training.area_opening import area_opening
from training.models.vae import VAE
from training.scores import (
    ERRORS,
    DensityOfStates,
    Heatmap,
    gradient_similarity_error,
    image_scores,
    pool,
    score_names,
    squared_error,
    ssim_error,
)

seeds = st.integers(0, 2**32 - 1)


def pictures(seed: int, shape: tuple[int, ...] = (2, 3, 24, 20)) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    return torch.rand(shape, generator=random), torch.rand(shape, generator=random)


def test_squared_error_is_the_mean_over_channels() -> None:
    x = torch.tensor([[[[0.0, 1.0]], [[2.0, 3.0]]]])  # (1, 2, 1, 2)
    y = torch.tensor([[[[0.0, 0.0]], [[4.0, 3.0]]]])
    assert squared_error(x, y).tolist() == [[[2.0, 0.5]]]


def test_ssim_error_is_that_of_wang_by_scipy() -> None:
    x, y = pictures(0, (1, 1, 24, 20))
    a, b = x[0, 0].double().numpy(), y[0, 0].double().numpy()

    def window(image: np.ndarray) -> np.ndarray:
        return ndimage.gaussian_filter(image, 1.5, mode="nearest", radius=5)

    mu_a, mu_b = window(a), window(b)
    var_a, var_b, cov = (
        window(a * a) - mu_a**2,
        window(b * b) - mu_b**2,
        window(a * b) - mu_a * mu_b,
    )
    ssim = (
        (2 * mu_a * mu_b + 1e-4)
        * (2 * cov + 9e-4)
        / ((mu_a**2 + mu_b**2 + 1e-4) * (var_a + var_b + 9e-4))
    )
    np.testing.assert_allclose(ssim_error(x, y)[0], 1 - ssim, atol=1e-5)


def test_gradient_error_of_one_scale_is_that_of_xue_by_scipy() -> None:
    x, y = pictures(1, (1, 3, 24, 20))

    def magnitude(image: Tensor) -> np.ndarray:
        grey = image[0].mean(0).double().numpy()
        return np.sqrt(
            sum((ndimage.prewitt(grey, axis, mode="nearest") / 3) ** 2 for axis in (0, 1)) + 1e-6
        )

    a, b, c = magnitude(x), magnitude(y), 170 / 255**2
    expected = 1 - (2 * a * b + c) / (a**2 + b**2 + c)
    np.testing.assert_allclose(gradient_similarity_error(x, y, scales=1)[0], expected, atol=1e-5)


def test_gradient_error_sees_structure_and_not_brightness() -> None:
    x, _ = pictures(2)
    assert float(gradient_similarity_error(x, x * 0.5 + 0.3).max()) > 0.01  # contrast is structure
    assert float(gradient_similarity_error(x, x + 0.1).max()) < 1e-5


@pytest.mark.parametrize("error", ERRORS.values())
@given(seed=seeds)
@settings(max_examples=20, deadline=None)
def test_errors_are_symmetric_zero_for_equal_and_of_the_images_size(error, seed: int) -> None:
    x, y = pictures(seed)
    assert error(x, y).shape == (2, 24, 20)
    assert float(error(x, x).abs().max()) < 1e-5
    torch.testing.assert_close(error(x, y), error(y, x), atol=1e-5, rtol=0)
    assert float(error(x, y).min()) > -1e-5


@pytest.mark.parametrize("error", ERRORS.values())
def test_errors_have_a_finite_slope_even_where_images_are_flat_or_equal(error) -> None:
    y = torch.full((1, 3, 16, 16), 0.5, requires_grad=True)
    error(torch.full((1, 3, 16, 16), 0.5), y).sum().backward()
    assert y.grad is not None and bool(y.grad.isfinite().all())


def test_pool_is_the_mean_of_the_hottest_share() -> None:
    heatmap = torch.arange(40.0).reshape(2, 4, 5)
    assert pool(heatmap, 0.1).tolist() == [18.5, 38.5]
    assert pool(heatmap, 0.001).tolist() == [19.0, 39.0]
    assert pool(heatmap, 1.0).tolist() == [9.5, 29.5]


@given(seed=seeds, share=st.floats(0.01, 1.0))
@settings(max_examples=50, deadline=None)
def test_a_hotter_heatmap_never_scores_lower(seed: int, share: float) -> None:
    heatmap, more = pictures(seed, (3, 7, 9))
    assert bool((pool(heatmap + more, share) >= pool(heatmap, share)).all())


# --- image scores ---------------------------------------------------------------------------------
@given(seeds, st.integers(1, 3))
def test_density_of_states_is_scikit_learns_kernel_density(seed: int, statistics: int) -> None:
    random = np.random.default_rng(seed)
    states = random.normal(1e4, 3.0, (40, statistics)).astype(np.float32)
    judged = random.normal(1e4, 6.0, (9, statistics)).astype(np.float32)
    density = DensityOfStates.of(torch.from_numpy(states))
    expected = np.zeros(9)  # in nats
    for column, width in enumerate(density.bandwidth.tolist()):
        kernels = KernelDensity(bandwidth=width, rtol=1e-8).fit(states[:, [column]].astype(float))
        expected -= kernels.score_samples(judged[:, [column]].astype(float)) + np.log(
            width * np.sqrt(2 * np.pi)
        )
    np.testing.assert_allclose(
        density(torch.from_numpy(judged)).expm1(), expected, rtol=2e-3, atol=2e-3
    )


def test_density_of_states_finds_too_low_as_rare_as_too_high() -> None:
    states = torch.randn(500, 1, generator=torch.Generator().manual_seed(0))
    low, typical, high = DensityOfStates.of(states)(torch.tensor([[-9.0], [0.0], [9.0]])).tolist()
    assert min(low, high) > typical + 2


def test_density_of_states_bears_a_statistic_that_never_varies() -> None:
    states = torch.stack([torch.ones(50), torch.arange(50.0)], 1)
    assert DensityOfStates.of(states)(states).isfinite().all()
    assert DensityOfStates.of(torch.zeros(50, 2))(torch.zeros(3, 2)).isfinite().all()


def test_density_of_states_needs_two_images() -> None:
    with pytest.raises(TrainingError, match="1 validation image found, at least 2 expected"):
        DensityOfStates.of(torch.zeros(1, 3))


def test_the_scores_of_a_vae_are_named_and_make_sense() -> None:
    torch.manual_seed(0)
    model, x = (
        VAE(1, 32, 32, pixels=True).eval(),
        torch.rand(5, 1, 32, 32, generator=torch.Generator().manual_seed(1)),
    )
    with torch.inference_mode():
        scores = image_scores(model, x)
    names = ["hottest", "mean", "kl", "reconstruction", "iwae", "complexity", "corrected"]
    assert list(scores) == names
    assert score_names(model, x.shape[1:]) == [*names, "typicality"]
    assert bool((scores["hottest"] >= scores["mean"]).all()), (
        "the hottest part is hotter than the whole"
    )
    # Jensen's inequality (Burda et al., theorem 1): with the same draws the bound of many is never
    # looser than that of one.
    assert bool((scores["iwae"] <= scores["reconstruction"] + scores["kl"] + 0.02).all())
    assert image_scores(VAE(4, 8, 8, pixels=False).eval(), torch.zeros(2, 4, 8, 8)).keys() == set(
        names
    ) - {
        "complexity",
        "corrected",
    }


# --- areas ----------------------------------------------------------------------------------------
@given(st.integers(0, 2**20), st.integers(1, 12), st.integers(4, 9), st.integers(3, 9))
def test_area_opening_is_the_highest_level_of_a_bar_or_block_of_that_area(
    seed: int, cells: int, height: int, width: int
) -> None:
    heatmap = np.random.default_rng(seed).integers(0, 9, (height, width)).astype(np.float32)
    expected = np.full_like(heatmap, -1)
    for a in range(1, height + 1):
        for b in range(1, width + 1):
            for y in range(height - a + 1):
                for x in range(width - b + 1):
                    here = (slice(y, y + a), slice(x, x + b))
                    if a * b >= cells:
                        expected[here] = np.maximum(expected[here], heatmap[here].min())
    assert (area_opening(torch.from_numpy(heatmap)[None], cells)[0].numpy() == expected).all()


@given(st.integers(0, 2**20), st.integers(2, 20))
def test_opening_is_idempotent_never_above_and_keeps_the_order(seed: int, cells: int) -> None:
    random = torch.Generator().manual_seed(seed)
    heatmap, more = torch.randn(2, 8, 8, generator=random), torch.rand(2, 8, 8, generator=random)
    once = area_opening(heatmap, cells)
    assert torch.equal(area_opening(once, cells), once)
    assert bool((once <= heatmap).all()) and bool(
        (area_opening(heatmap + more, cells) >= once).all()
    )


def test_what_is_high_in_too_few_cells_does_not_count_and_what_is_in_enough_does() -> None:
    heatmap, small, large = Heatmap(cells=9), torch.zeros(1, 32, 32), torch.zeros(1, 32, 32)
    small[0, 4:6, 4:8] = 5.0
    large[0, 20, 3:12] = 5.0  # a scratch
    assert float(heatmap(small).max()) == 0.0
    assert torch.equal(heatmap(large), Heatmap()(large))


def test_a_mask_takes_part_in_the_opening_and_the_mean() -> None:
    coverage = torch.zeros(16, 16)
    coverage[:8] = 1.0
    heatmap, error = Heatmap(coverage, cells=4), torch.ones(1, 16, 16)
    error[0, 7:9, 3:5] = 9.0  # half of it outside: two cells are left
    error[0, 9:] = 99.0
    assert torch.equal(heatmap(error), torch.ones(1, 16, 16))
    assert heatmap.pool(heatmap(error)).tolist() == [1.0]
    assert heatmap.mean(error).item() == pytest.approx(1 + 2 * 8 / 128)
