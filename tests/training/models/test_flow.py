"""The flow is a bijection with an exact density; what it learns is what there is."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from training.fit import fit
from training.models.flow import (
    LOCATION_RATE_FACTOR,
    NOISE,
    TEMPERATURE,
    Flow,
    checkerboard,
    halves,
)
from training.options import FitOptions

# Pixels of odd sides too: the subnetworks take them two by two.
SHAPES = [(3, 4, 4, True), (1, 5, 7, True), (4, 4, 4, False), (5, 3, 4, False)]


pytestmark = pytest.mark.usefixtures("one_thread")


def any_flow(*shape: int) -> Flow:
    """Returns a flow of random weights, float64: as it is built it would be the identity."""
    torch.manual_seed(0)
    model = Flow(*shape[:3], pixels=bool(shape[3])).double()
    # those of the subnetworks' convolutions, and the faster ones
    for name, parameter in model.named_parameters():
        torch.nn.init.normal_(
            parameter,
            std=0.2 if "subnetwork" in name and "place" not in name else 0.2 / LOCATION_RATE_FACTOR,
        )
    return model


@pytest.mark.parametrize("shape", SHAPES)
@torch.no_grad()
def test_decode_is_the_inverse_of_encode(shape: tuple[int, ...]) -> None:
    model, x = any_flow(*shape), torch.rand(3, *shape[:3], dtype=torch.float64)
    z, _ = model.encode_map(x)
    assert float((z - x).abs().max()) > 0.1
    torch.testing.assert_close(model.decode(z), x, rtol=0, atol=1e-9)


@pytest.mark.parametrize("shape", SHAPES)
def test_log_determinant_is_that_of_autograds_jacobian(shape: tuple[int, ...]) -> None:
    model, x = any_flow(*shape), torch.rand(1, *shape[:3], dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda image: model.encode_map(image)[0], x)
    expected = torch.linalg.slogdet(jacobian.reshape(x.numel(), x.numel())).logabsdet
    torch.testing.assert_close(model.encode_map(x)[1], expected[None])


@pytest.mark.parametrize("shape", [(2, 1, 1, False), (1, 1, 2, True)])
@torch.no_grad()
def test_density_of_two_numbers_integrates_to_one(shape: tuple[int, ...]) -> None:
    model, line = any_flow(*shape), torch.arange(-20, 20, 0.2, dtype=torch.float64)
    grid = torch.cartesian_prod(line, line).reshape(-1, *shape[:3])
    density = torch.cat(
        [(-2 * model.negative_log_likelihood(part)).exp() for part in grid.split(20000)]
    )
    assert float(density.sum()) * 0.2**2 == pytest.approx(1.0, abs=1e-3)


@torch.no_grad()
def test_heatmap_is_the_likelihood_without_its_volume() -> None:
    model, x = any_flow(4, 4, 4, False), torch.randn(3, 4, 4, 4, dtype=torch.float64)
    volume = model.encode_map(x)[1] / x[0].numel()
    statistics, heatmap = model.statistics(x), model(x)[0]
    torch.testing.assert_close(
        statistics["likelihood"], heatmap.mean((1, 2)) + 0.5 * math.log(2 * math.pi) - volume
    )


@torch.no_grad()
def test_samples_have_the_latents_that_they_were_drawn_from() -> None:
    model, noise = any_flow(4, 4, 4, False), torch.randn(3, 64, dtype=torch.float64)
    torch.testing.assert_close(
        model.encode_map(model.sample(noise))[0].flatten(1), TEMPERATURE * noise
    )


@pytest.mark.parametrize(
    "masks", [[halves(5, k) for k in range(4)], [checkerboard(5, 7, 4), 1 - checkerboard(5, 7, 4)]]
)
def test_two_couplings_together_change_every_number(masks: list[Tensor]) -> None:
    for kept, changed in zip(masks[::2], masks[1::2], strict=True):
        assert torch.equal(kept + changed, torch.ones_like(kept))
        assert 0 < float(kept.mean()) < 1


def correlated(count: int, seed: int) -> Tensor:
    """Returns maps of two channels of which each tells 0.9 of the other, (n, 2, 4, 4)."""
    x = torch.randn(count, 2, 4, 4, generator=torch.Generator().manual_seed(seed))
    return torch.stack([x[:, 0], 0.9 * x[:, 0] + math.sqrt(1 - 0.9**2) * x[:, 1]], 1)


def test_likelihood_comes_to_the_entropy_that_there_is(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Flow(2, 4, 4, pixels=False)
    options = FitOptions(epochs=8, batch_size=32, learning_rate=5e-3)
    history = fit(
        model, correlated(1000, 0), correlated(200, 1), options, tmp_path / "c.safetensors"
    )
    covariance = torch.tensor([[1.0, 0.9], [0.9, 1.0]]) + NOISE**2 * torch.eye(2)
    entropy = 0.5 * math.log(2 * math.pi * math.e) + 0.25 * float(covariance.logdet())
    assert entropy - 0.02 < history[-1]["held_out"]["model"] < entropy + 0.05
