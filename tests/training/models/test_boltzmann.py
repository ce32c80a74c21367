"""The restricted Boltzmann machine: free energy against all hidden states, draws against
probabilities, chains, samples.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from training.fit import fit
from training.models import boltzmann
from training.models.boltzmann import BoltzmannMachine
from training.options import FitOptions


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boltzmann, "HIDDEN", 6)


def machine(pixels: bool, size: int = 2) -> BoltzmannMachine:
    """A machine with random weights, in float64."""
    torch.manual_seed(0)
    model = BoltzmannMachine(2, size, size, pixels).double()
    for parameter in model.parameters():
        nn.init.normal_(
            parameter, std=0.05 if parameter.ndim == 1 or parameter.shape[1] == 1 else 0.7
        )
    return model


def maps_of(pixels: bool, count: int, seed: int, size: int = 2) -> Tensor:
    x = torch.randn(
        count, 2, size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    return torch.sigmoid(x) if pixels else x


def energy(model: BoltzmannMachine, v: Tensor, h: Tensor) -> Tensor:
    """E(v, h), (N,), written out."""
    b = 10 * model.visible_bias
    joined = torch.einsum(
        "nj,ji,ni->n", h - 0.5, model.weight, v if model.pixels else v / model.sigma()
    )
    own = -(v @ b) if model.pixels else (((v - b) / model.sigma()) ** 2).sum(1) / 2
    return own - h @ model.hidden_bias - joined


@pytest.mark.parametrize("pixels", [True, False])
def test_free_energy_is_that_of_all_hidden_states(small: None, pixels: bool) -> None:
    model, v = machine(pixels), maps_of(pixels, 5, 0).flatten(1)
    states = torch.tensor(list(itertools.product([0.0, 1.0], repeat=6)), dtype=torch.float64)
    energies = torch.stack([energy(model, v, h.expand(5, 6)) for h in states])  # (64, 5)
    torch.testing.assert_close(model.free_energy(v), -torch.logsumexp(-energies, 0))
    # And p(h | v) is what those energies make of it.
    weights = torch.softmax(-energies, 0)
    torch.testing.assert_close(torch.sigmoid(model.hidden_input(v)), weights.T @ states)


@pytest.mark.parametrize("pixels", [True, False])
def test_visible_units_are_drawn_from_their_energies(small: None, pixels: bool) -> None:
    model = machine(pixels)
    h = (torch.rand(1, 6, generator=torch.Generator().manual_seed(1)) > 0.5).double()
    if pixels:  # p(v_i = 1 | h), from the energies of the two
        v = torch.zeros(8, 8, dtype=torch.float64)
        gap = energy(model, v, h.expand(8, 6)) - energy(model, v + torch.eye(8), h.expand(8, 6))
        torch.testing.assert_close(model.mean_visible(h)[0], torch.sigmoid(gap))
    else:  # the energy is lowest at the mean, and grows by 1/2 within a sigma
        mean, sigma = model.mean_visible(h).detach().requires_grad_(), model.sigma()
        (slope,) = torch.autograd.grad(energy(model, mean, h).sum(), mean)
        torch.testing.assert_close(slope, torch.zeros_like(slope))
        away = mean + torch.diag(sigma)
        torch.testing.assert_close(
            energy(model, away, h.expand(8, 6)) - energy(model, mean, h),
            torch.full((8,), 0.5).double(),
        )
        noise = torch.randn(
            20_000, 8, generator=torch.Generator().manual_seed(2), dtype=torch.float64
        )
        torch.testing.assert_close(model.draw_visible(h, noise).std(0), sigma, rtol=0.03, atol=0)


def test_hidden_units_are_drawn_as_often_as_they_are_probable(small: None) -> None:
    model, v = machine(True), maps_of(True, 1, 3).flatten(1)
    noise = torch.randn(20_000, 6, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    drawn = model.draw_hidden(v, noise).mean(0)
    torch.testing.assert_close(drawn, torch.sigmoid(model.hidden_input(v))[0], rtol=0, atol=0.015)


@pytest.mark.parametrize("pixels", [True, False])
def test_the_heatmap_is_the_slope_of_the_free_energy(small: None, pixels: bool) -> None:
    """Of pixels: less their entropy, since they are probabilities."""
    model, x = machine(pixels), maps_of(pixels, 3, 5).requires_grad_()
    value = model.free_energy(x.flatten(1)).sum()
    if pixels:
        value = value + (x * x.log() + (1 - x) * (1 - x).log()).sum()
    (slope,) = torch.autograd.grad(value, x)
    scale = 1.0 if pixels else model.sigma().reshape(x.shape[1:])
    torch.testing.assert_close(model(x)[0], ((slope * scale) ** 2).mean(1))


@pytest.mark.parametrize("pixels", [True, False])
def test_the_gradient_is_the_contrastive_divergence(small: None, pixels: bool) -> None:
    model, x = machine(pixels).eval(), maps_of(pixels, 4, 6)
    noise = torch.randn(
        4, model.noise_size(), generator=torch.Generator().manual_seed(7), dtype=torch.float64
    )
    (moves,) = torch.autograd.grad(model.loss(x, noise, "model").sum(), model.weight)
    to_data = noise.chunk(2, 1)[0]
    v = x.flatten(1)
    h = model.draw_hidden(v, to_data[:, :6])
    near = (model.mean_visible(h) if pixels else model.draw_visible(h, to_data[:, 6:])).detach()

    # <(h - 1/2) v>, the textbook's positive or negative phase
    def correlations(v: Tensor) -> Tensor:
        return (torch.sigmoid(model.hidden_input(v)) - 0.5).T @ (v if pixels else v / model.sigma())

    torch.testing.assert_close(moves, (correlations(near) - correlations(v)).detach() / 8)


def test_only_a_step_of_training_moves_the_chains() -> None:
    model, x = BoltzmannMachine(1, 4, 4, pixels=True), torch.rand(8, 1, 4, 4)
    noise = torch.randn(8, model.noise_size())
    before = model.chains.clone()
    with torch.no_grad():
        model.train().loss(x, noise, "model")
    model.eval().loss(x, noise, "model")
    assert torch.equal(model.chains, before)
    model.train().loss(x, noise, "model")
    assert not torch.equal(model.chains[:8], before[:8])
    assert torch.equal(model.chains[8:], before[8:])
    assert set(model.chains.unique().tolist()) == {0.0, 1.0}


def test_more_images_than_chains_pass() -> None:
    model, x = BoltzmannMachine(1, 4, 4, pixels=True).train(), torch.rand(150, 1, 4, 4)
    assert model.loss(x, torch.randn(150, model.noise_size()), "model").shape == (150,)


def test_a_resumed_run_ends_like_an_undisturbed_one(tmp_path: Path) -> None:
    """The chains are part of it: without them in the checkpoint the second half would begin with
    others.
    """
    maps = torch.rand(24, 1, 8, 8, generator=torch.Generator().manual_seed(8))
    whole, halves = [], []
    for models, folder in ((whole, "whole"), (halves, "halves")):
        torch.manual_seed(0)
        models.append(BoltzmannMachine(1, 8, 8, pixels=True))
        path = tmp_path / folder / "c.safetensors"
        options = FitOptions(epochs=4, batch_size=8)
        if folder == "whole":
            fit(models[0], maps, maps[:4], options, path, say=lambda line: None)
            continue
        stop_after(models[0], 2 * 3)
        with pytest.raises(KeyboardInterrupt, match="epoch 2 is kept"):
            fit(models[0], maps, maps[:4], options, path, say=lambda line: None)
        torch.manual_seed(1)
        models.append(BoltzmannMachine(1, 8, 8, pixels=True))
        fit(models[1], maps, maps[:4], options, path, resume=True, say=lambda line: None)
    for name, value in whole[0].state_dict().items():
        assert torch.equal(value, halves[1].state_dict()[name]), name


def stop_after(model: BoltzmannMachine, steps: int) -> None:
    """Lets the training be interrupted in the step after so many."""
    loss, taken = model.loss, itertools.count()

    def interrupted(x: Tensor, noise: Tensor, player: str) -> Tensor:
        if torch.is_grad_enabled() and next(taken) == steps:
            raise KeyboardInterrupt
        return loss(x, noise, player)

    model.loss = interrupted


def test_samples_are_those_of_their_noise_and_of_the_two_kinds_of_image_there_are(
    tmp_path: Path,
) -> None:
    """Bars on the left or bars on the right: a sample is one of the two, and both are drawn."""
    torch.manual_seed(0)
    left = torch.zeros(1, 6, 6)
    left[:, :, :3] = 1.0
    maps = torch.stack([left if i % 2 else 1 - left for i in range(64)]) * 0.9 + 0.05
    model = BoltzmannMachine(1, 6, 6, pixels=True)
    options = FitOptions(epochs=60, batch_size=16, learning_rate=3e-3)
    fit(model, maps, maps[:8], options, tmp_path / "c.safetensors", say=lambda line: None)
    noise = torch.randn(40, model.sample_size(), generator=torch.Generator().manual_seed(0))
    drawn = model.sample(noise).detach()
    torch.testing.assert_close(drawn[:1], model.sample(noise[:1]))
    of_left, of_right = ((drawn - kind).abs().mean((1, 2, 3)) for kind in maps[:2].flip(0))
    # a chain may be on its way from one to the other
    assert int((torch.minimum(of_left, of_right) < 0.1).sum()) >= 38
    assert 5 <= int((of_left < of_right).sum()) <= 35


def test_gibbs_steps_come_to_the_distribution_that_the_energies_say(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Six visible and four hidden units: all 64 visible states are asked for their free energy."""
    monkeypatch.setattr(boltzmann, "HIDDEN", 4)
    torch.manual_seed(3)
    model = BoltzmannMachine(1, 2, 3, pixels=True)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.05 if parameter is model.visible_bias else 1.5)
    states = torch.tensor(list(itertools.product([0.0, 1.0], repeat=6)))
    with torch.no_grad():
        p = torch.softmax(-model.free_energy(states), 0)
        noise = torch.randn(3000, 2, generator=torch.Generator().manual_seed(0))
        h = model.gibbs(noise, 30)
        v = model.draw_visible(h, torch.randn(3000, 6, generator=torch.Generator().manual_seed(1)))
        drawn = model.sample(noise[:500]).flatten(1)
    # two standard errors of 3,000 draws are 0.018
    torch.testing.assert_close(v.mean(0), p @ states, rtol=0, atol=0.03)
    exact = torch.einsum("n,ni,nj->ij", p, states, states)
    torch.testing.assert_close(v.T @ v / 3000, exact, rtol=0, atol=0.03)
    torch.testing.assert_close(drawn.mean(0), p @ states, rtol=0, atol=0.06)
    assert float(((p @ states)[:, None] * (p @ states) - exact).abs().max()) > 0.1  # not by chance
