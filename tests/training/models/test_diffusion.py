"""The diffusion model follows its theory where that has a closed form: for Gaussian data."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from training.fit import fit
from training.models.diffusion import Diffusion, angles, noised
from training.options import FitOptions

MEAN, SPREAD = 0.8, 0.5  # of the numbers of a Gaussian map


pytestmark = pytest.mark.usefixtures("one_thread")


class OfGaussian(nn.Module):
    """The velocity of independent N(MEAN, SPREAD^2) in closed form, times ``scale`` plus
    ``shift``.
    """

    def __init__(self, scale: float = 1.0, shift: float = 0.0) -> None:
        super().__init__()
        self.scale, self.shift = scale, shift

    def forward(self, x: Tensor, angle: Tensor) -> Tensor:
        angle = angle[:, :, None, None]
        noise = best_noise(x, angle)
        clean = (x - angle.sin() * noise) / angle.cos().clamp(min=1e-9)
        clean = torch.where(angle.cos() > 1e-6, clean, MEAN)
        return self.scale * (angle.cos() * noise - angle.sin() * clean) + self.shift


def best_noise(x: Tensor, angle: Tensor) -> Tensor:
    """Returns E[e | cos(a) x0 + sin(a) e = x] of x0 ~ N(MEAN, SPREAD^2)."""
    variance = angle.cos() ** 2 * SPREAD**2 + angle.sin() ** 2
    return angle.sin() * (x - angle.cos() * MEAN) / variance


def of_gaussian(scale: float = 1.0, shift: float = 0.0) -> Diffusion:
    model = Diffusion(2, 4, 4, pixels=False)
    model.network = OfGaussian(scale, shift)
    return model


def gaussian_maps(count: int, seed: int) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return MEAN + SPREAD * torch.randn(count, 2, 4, 4, generator=random)


def normal_numbers(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(9))


@pytest.mark.parametrize("angle", [0.0, 0.3, 0.8, 1.2, math.pi / 2])
def test_noised_maps_have_the_mean_and_variance_of_the_forward_process(angle: float) -> None:
    x = gaussian_maps(5000, 1)
    found = noised(x, angle, normal_numbers(5000, 2, 4, 4))
    assert float(found.mean()) == pytest.approx(math.cos(angle) * MEAN, abs=0.01)
    variance = math.cos(angle) ** 2 * SPREAD**2 + math.sin(angle) ** 2
    assert float(found.var()) == pytest.approx(variance, rel=0.02)


def test_noise_is_told_from_the_true_velocity() -> None:
    x, noise, angle = gaussian_maps(50, 1), normal_numbers(50, 2, 4, 4), torch.rand(50, 1) * 1.5
    a = angle[:, :, None, None]
    velocity = a.cos() * noise - a.sin() * x
    found = Diffusion(2, 4, 4, pixels=False).expected_noise(noised(x, a, noise), angle, velocity)
    torch.testing.assert_close(found, noise, rtol=0, atol=1e-5)


@torch.inference_mode()
def test_samples_of_gaussian_data_are_its_quantiles() -> None:
    """The way from noise to data without further noise carries each quantile to its own."""
    noise, errors = normal_numbers(200, 2, 4, 4), []
    for steps in (50, 200, 800):
        found = of_gaussian().denoised(noise, angles(1, steps))
        errors.append(float((found - (MEAN + SPREAD * noise)).abs().max()))
    assert errors[-1] < 0.01
    assert errors[1] == pytest.approx(errors[0] / 4, rel=0.2)  # of first order in the step
    assert errors[2] == pytest.approx(errors[1] / 4, rel=0.2)


@torch.inference_mode()
def test_the_way_up_is_the_inverse_of_the_way_down() -> None:
    model, x, way = of_gaussian(), gaussian_maps(50, 1), angles(0.9, 1000)
    up = model.denoised(x, way[::-1])
    variance = math.cos(way[0]) ** 2 * SPREAD**2 + math.sin(way[0]) ** 2
    expected = math.cos(way[0]) * MEAN + math.sqrt(variance) / SPREAD * (x - MEAN)
    torch.testing.assert_close(up, expected, rtol=0, atol=0.01)
    torch.testing.assert_close(model.denoised(up, way), x, rtol=0, atol=0.01)


@torch.inference_mode()
def test_loss_is_least_at_the_posterior_mean_of_the_velocity() -> None:
    model, x = of_gaussian(), gaussian_maps(20_000, 1)
    noise = normal_numbers(20_000, 33)
    a = math.pi / 2 * torch.special.ndtr(noise[:, 0]).double()
    # the velocity's variance given x_a
    least = float((SPREAD**2 / (a.cos() ** 2 * SPREAD**2 + a.sin() ** 2)).mean())
    assert float(model.loss(x, noise, "model").mean()) == pytest.approx(least, rel=0.01)
    for scale, shift in ((1.1, 0.0), (0.9, 0.0), (1.0, 0.1), (1.0, -0.1)):
        changed = of_gaussian(scale, shift)
        assert float(changed.loss(x, noise, "model").mean()) > least * 1.003


def test_a_fit_to_gaussian_data_finds_the_posterior_mean(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Diffusion(2, 4, 4, pixels=False)
    options = FitOptions(epochs=12, batch_size=32, learning_rate=3e-3)
    fit(model, gaussian_maps(500, 1), gaussian_maps(50, 2), options, tmp_path / "c.safetensors")
    others, noise = gaussian_maps(500, 3), normal_numbers(500, 2, 4, 4)
    with torch.inference_mode():
        for angle in (0.2, 0.6, 1.0, 1.4):
            x, a = noised(others, angle, noise), torch.full((1, 1), angle)
            found = model.expected_noise(x, a, model.network(x, a))
            best = best_noise(x, torch.tensor(angle))
            error = float(((found - best) ** 2).mean() / (best**2).mean())
            assert error < 0.1, f"{error:.3f} at {angle}"


@torch.inference_mode()
def test_same_image_same_score_whatever_the_batch_and_the_random_state() -> None:
    torch.manual_seed(0)
    model, x = Diffusion(1, 28, 28, pixels=True).eval(), torch.rand(3, 1, 28, 28)
    first = model(x)[0]
    torch.manual_seed(1)
    torch.testing.assert_close(model(x[1:2])[0], first[1:2], rtol=1e-4, atol=1e-6)


def test_a_way_ends_at_no_noise() -> None:
    assert angles(0.5, 2) == pytest.approx([math.pi / 4, math.pi / 8, 0.0])
