from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from training.fit import fit
from training.models.pixelcnn import (
    COMPONENTS,
    SHRINKAGE,
    DiscretisedLogistics,
    Gaussians,
    PixelCNN,
)
from training.options import FitOptions

SHAPES = {"pixels": (3, 9, 7), "maps": (4, 9, 7)}


def new(space: str) -> PixelCNN:
    torch.manual_seed(0)
    return PixelCNN(*SHAPES[space], pixels=space == "pixels")


def maps(space: str, count: int = 2) -> Tensor:
    return torch.rand(count, *SHAPES[space], generator=torch.Generator().manual_seed(1))


def parameters(density: nn.Module, spread: float = 1.0) -> Tensor:
    random = torch.Generator().manual_seed(2)
    return spread * torch.randn(1, density.parameters_wanted, 1, 1, generator=random)


@pytest.mark.parametrize("space", SHAPES)
def test_a_location_depends_on_all_those_before_it_and_on_no_other(space: str) -> None:
    model, x = new(space), maps(space, 1)
    nn.init.normal_(model.position)
    # (h, w, 1, C, h, w)
    slope = torch.autograd.functional.jacobian(lambda x: model.conditionals(x)[0].sum(0), x)
    # (location, location it may depend on)
    depends = slope.abs().sum((2, 3)).flatten(0, 1).flatten(1) > 0
    allowed = torch.ones(63, 63, dtype=torch.bool).tril(-1)
    assert torch.equal(depends, allowed)


@pytest.mark.parametrize("space", SHAPES)
def test_the_loss_is_the_heatmaps_mean_for_a_number_of_the_map(space: str) -> None:
    model, x = new(space), maps(space)
    expected = model(x)[0].sum((1, 2)) / x[0].numel()
    torch.testing.assert_close(model.loss(x, torch.zeros(2, 0), "model"), expected)


@pytest.mark.parametrize("spread", [0.3, 3.0, 12.0])
def test_the_probabilities_of_all_colours_sum_to_one(spread: float) -> None:
    """Two channels, so that all 65,536 colours can be asked; a wide spread has needles beside
    plains among its components.
    """
    density = DiscretisedLogistics(2)
    levels = torch.arange(256.0) / 255
    colours = density.prepare(torch.cartesian_prod(levels, levels)[:, :, None, None])
    logs = density.log_likelihood(
        colours, parameters(density, spread).expand(len(colours), -1, -1, -1)
    )
    assert float(logs.double().exp().sum()) == pytest.approx(1.0, abs=2e-4)


def test_a_level_has_the_logistics_mass_between_its_borders() -> None:
    density = DiscretisedLogistics(1)
    given = parameters(density)
    weights, means, scales, _ = (piece.double().flatten(1) for piece in density.split(given))
    borders = (torch.arange(1.0, 256.0).double()[:, None] - 0.5) / 127.5 - 1  # (255, 1)
    below = torch.sigmoid((borders - means) / scales.exp())
    ends = torch.cat([torch.zeros(1, COMPONENTS), below, torch.ones(1, COMPONENTS)])
    expected = ((ends[1:] - ends[:-1]) * weights.exp()).sum(1).log()
    x = density.prepare(torch.arange(256.0).reshape(-1, 1, 1, 1) / 255)
    torch.testing.assert_close(
        density.log_likelihood(x, given)[:, 0, 0].double(), expected, rtol=1e-3, atol=1e-3
    )


def test_the_last_place_of_a_pixel_moves_the_likelihood_by_as_little() -> None:
    model, x = new("pixels"), (maps("pixels") * 255).floor() / 255 + 0.5 / 255  # between two levels
    torch.testing.assert_close(model(x + 1e-6)[0], model(x - 1e-6)[0], rtol=0, atol=1e-2)


def test_far_away_pixels_and_features_are_unlikely_and_finite() -> None:
    logistics, gaussians = DiscretisedLogistics(1), Gaussians(4)
    needles = torch.zeros(1, logistics.parameters_wanted, 1, 1)
    needles[:, 2 :: sum(logistics.sizes)] = -50.0  # all scales as small as they may be
    between = logistics.log_likelihood(torch.full((1, 1, 1, 1), 0.25), needles)
    assert -1000 < float(between) < -50
    far = gaussians.log_likelihood(torch.full((1, 4, 1, 1), 1e4), parameters(gaussians))
    assert math.isfinite(float(far)) and float(far) < -1e5


def test_gaussians_are_torchs() -> None:
    density = Gaussians(4)
    given, x = (
        parameters(density),
        torch.randn(6, 4, 1, 1, generator=torch.Generator().manual_seed(3)),
    )
    mean, log_sigma = density.split(given)
    expected = torch.distributions.Normal(mean, log_sigma.exp()).log_prob(x).sum(1)
    torch.testing.assert_close(density.log_likelihood(x, given), expected)


@pytest.mark.parametrize("density", [DiscretisedLogistics(2), Gaussians(2)], ids=["pixels", "maps"])
def test_draws_have_the_density_they_are_drawn_from(density: nn.Module) -> None:
    """Their mean negative log-likelihood is the entropy, which another 20,000 draws, reweighted, or
    a grid would give.
    """
    given, count = parameters(density), 20_000
    noise = torch.randn(count, 3, 1, 1, generator=torch.Generator().manual_seed(4))
    drawn = density.draw(given.expand(count, -1, -1, -1), noise)
    if isinstance(density, DiscretisedLogistics):
        levels = torch.arange(256.0) / 255
        grid, cell = density.prepare(torch.cartesian_prod(levels, levels)[:, :, None, None]), 1.0
        assert torch.equal(density.prepare(density.restore(drawn)), drawn)  # on the levels
    else:
        line = torch.linspace(-12, 12, 400)
        grid, cell = (
            torch.cartesian_prod(line, line)[:, :, None, None],
            float(line[1] - line[0]) ** 2,
        )
    logs = density.log_likelihood(grid, given.expand(len(grid), -1, -1, -1)).flatten().double()
    mass = logs.exp() * cell
    points = grid[..., 0, 0].double()
    found = drawn[..., 0, 0].double()
    entropy = -float((mass * logs).sum())
    of_draws = -density.log_likelihood(drawn, given.expand(count, -1, -1, -1)).flatten().double()
    assert abs(float(of_draws.mean()) - entropy) < 5 * float(of_draws.std()) / count**0.5 + 0.01
    for statistic in (
        lambda x: x[:, 0],
        lambda x: x[:, 1],
        lambda x: x[:, 0] * x[:, 1],
        lambda x: (x[:, 1] > 0).double(),
    ):
        expected, values = float((mass * statistic(points)).sum()), statistic(found)
        assert abs(float(values.mean()) - expected) < 5 * float(values.std()) / count**0.5 + 0.005


@pytest.mark.parametrize("space", SHAPES)
def test_samples_come_from_the_conditionals_in_order_and_each_row_is_told(space: str) -> None:
    model, rows = new(space), []
    noise = torch.randn(3, model.sample_size(), generator=torch.Generator().manual_seed(5))
    x = model.sample(noise, advance=lambda: rows.append(1))
    assert x.shape == (3, *SHAPES[space]) and len(rows) == 9
    channels = SHAPES[space][0] + 1
    given = model.conditionals(model.density.prepare(x))
    noise = noise.reshape(3, channels, 9, 7)
    for row, column in ((0, 0), (0, 6), (4, 3), (8, 6)):
        here = (..., slice(row, row + 1), slice(column, column + 1))
        expected = model.density.restore(model.density.draw(given[here], noise[here]))
        torch.testing.assert_close(
            x[here], expected, rtol=1e-4, atol=0.51 / 255 if space == "pixels" else 1e-4
        )


@pytest.mark.parametrize("space", SHAPES)
def test_parts_are_as_far_as_their_mahalanobis_distance_says(space: str) -> None:
    model, x, others = new(space), maps(space, 40), maps(space, 50)[40:]
    model.finish(x)
    with torch.inference_mode():
        # 9 x 7 locations in parts of 2 x 1; the last row of parts has one row of locations.
        cells, judged = (
            [[row.mean(0) for row in heatmap.split(2)] for heatmap in model(piece)[0]]
            for piece in (x, others)
        )
    cells, judged = (
        np.stack([torch.cat(rows).double().numpy() for rows in piece]) for piece in (cells, judged)
    )
    covariance = np.cov(cells.T)
    covariance += SHRINKAGE * np.diag(covariance).mean() * np.eye(35)
    away = judged - cells.mean(0)
    expected = np.einsum("ni,ij,nj->n", away, np.linalg.inv(covariance), away) / 35
    np.testing.assert_allclose(model.statistics(others)["cells"].detach(), expected, rtol=1e-3)


def test_parts_find_what_is_too_easy_as_strange_as_what_is_too_hard() -> None:
    model, noise = new("pixels"), maps("pixels", 60)
    model.finish(noise[:40])
    with torch.inference_mode():
        normal, flat = (model.statistics(x)["cells"] for x in (noise[40:], noise[40:] * 0.05 + 0.5))
        assert float(model(noise[40:] * 0.05 + 0.5)[0].mean()) < float(model(noise[40:])[0].mean())
    assert float(flat.min()) > float(normal.max())


def test_it_learns_the_entropy_that_there_is(tmp_path: Path) -> None:
    """Stripes, black or white, on which the next pixel is certain: only a row's first pixel costs
    log 2 nats.
    """
    random = np.random.default_rng(0)
    levels = (
        torch.from_numpy(random.integers(0, 2, (256, 1, 8, 1)) * 255)
        .expand(-1, -1, -1, 8)
        .to(torch.uint8)
        .contiguous()
    )
    torch.manual_seed(0)
    model = PixelCNN(1, 8, 8, pixels=True)
    fit(
        model,
        levels,
        levels[:8],
        FitOptions(epochs=12, learning_rate=5e-3),
        tmp_path / "c.safetensors",
        say=lambda line: None,
    )
    with torch.inference_mode():
        heatmap = model(levels[:64].float() / 255)[0].mean(0)
    assert float(heatmap[:, 0].mean()) == pytest.approx(math.log(2), abs=0.1)
    assert float(heatmap[:, 1:].mean()) < 0.05
    assert float(heatmap.min()) > -1e-4  # a probability
