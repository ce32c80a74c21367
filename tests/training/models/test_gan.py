"""What is special about the GAN: whose loss is whose, what the discriminators learn, and mode
collapse that is said.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.support.onnx_session import to_session
from tests.training.models.test_models import normal_maps
from training.fit import fit
from training.models.gan import DIVERGENCE, PENALTY, RECONSTRUCTION, FeatureGAN, PixelGAN, make_gan
from training.models.vae import divergence
from training.options import FitOptions


@pytest.fixture(scope="module")
def images() -> Tensor:
    return normal_maps("pixels", 64, 1)


@pytest.fixture(scope="module")
def trained(images: Tensor, tmp_path_factory: pytest.TempPathFactory) -> PixelGAN:
    torch.manual_seed(0)
    model = make_gan(3, 32, 32, pixels=True)
    options = FitOptions(epochs=15, batch_size=8, learning_rate=3e-3, warm_up=5)
    fit(
        model,
        images,
        images[:8],
        options,
        tmp_path_factory.mktemp("gan") / "c.safetensors",
        say=lambda line: None,
    )
    model.finish(images)
    return model


def test_pixels_are_drawn_and_features_are_spoilt() -> None:
    assert isinstance(make_gan(1, 28, 28, pixels=True), PixelGAN)
    assert isinstance(make_gan(26, 12, 12, pixels=False), FeatureGAN)


def test_the_losses_are_the_cross_entropies_of_the_paper(images: Tensor) -> None:
    """Goodfellow et al., equation 1 for the discriminator; for the generator the one that does not
    saturate.
    """
    torch.manual_seed(0)
    model, x, noise = PixelGAN(3, 32, 32), images[:5], torch.randn(5, 20)
    drawn = model.sample(noise[:, :10])
    real, made_up = torch.sigmoid(model.discriminator(x)), torch.sigmoid(model.discriminator(drawn))
    gradients = torch.stack(
        [torch.func.grad(lambda image: model.discriminator(image[None])[0])(image) for image in x]
    )
    penalty = PENALTY / 2 * gradients.square().sum((1, 2, 3))
    torch.testing.assert_close(
        model.loss(x, noise, "discriminator"), -real.log() - (1 - made_up).log() + penalty
    )
    mean, log_sigma = model.posterior(x)
    y = model.sample(mean + log_sigma.exp() * noise[:, 10:])
    own = RECONSTRUCTION * (x - y).square().mean((1, 2, 3)) + DIVERGENCE * divergence(
        mean, log_sigma
    )
    torch.testing.assert_close(model.loss(x, noise, "generator"), -made_up.log() + own)


@pytest.mark.parametrize("pixels", [True, False])
def test_the_discriminators_loss_moves_no_generator(pixels: bool) -> None:
    model, x = make_gan(3, 16, 16, pixels=pixels), torch.rand(2, 3, 16, 16)
    model.loss(x, torch.randn(2, model.noise_size()), "discriminator").sum().backward()
    assert all(parameter.grad is None for parameter in model.players()["generator"])


@torch.no_grad()
def test_the_held_out_loss_is_that_of_training(images: Tensor) -> None:
    """Also where nothing is recorded for gradients: the penalty needs one all the same."""
    torch.manual_seed(0)
    model, noise = PixelGAN(3, 32, 32), torch.randn(5, 20)
    with torch.enable_grad():
        expected = model.loss(images[:5], noise, "discriminator")
    torch.testing.assert_close(model.loss(images[:5], noise, "discriminator"), expected.detach())
    assert not model.loss(images[:5], noise, "discriminator").requires_grad


def test_players_take_turns_and_both_learn(trained: PixelGAN, images: Tensor) -> None:
    """The discriminator is neither beaten nor sure: it tells drawn from real better than a coin,
    not always.
    """
    with torch.inference_mode():
        drawn = trained.sample(torch.randn(64, 10, generator=torch.Generator().manual_seed(1)))
        right = (
            (trained.discriminator(images)[:, None] > trained.discriminator(drawn)).float().mean()
        )
    assert 0.3 < float(right) < 1.0


def test_normal_images_have_a_mean_heatmap_of_two(trained: PixelGAN, images: Tensor) -> None:
    """Each of the two residuals is in units of its mean over normal images; uint8 stands
    for 0..1.
    """
    with torch.inference_mode():
        assert float(trained(images)[0].mean()) == pytest.approx(2.0, rel=1e-4)
    scales = trained.scales.clone()
    trained.finish((images * 255).round().byte())
    torch.testing.assert_close(trained.scales, scales, rtol=0.02, atol=0.0)
    trained.finish(images)


def test_statistics_are_those_of_onnx(trained: PixelGAN, images: Tensor) -> None:
    class Statistics(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = trained

        def forward(self, x: Tensor) -> tuple[Tensor, ...]:
            return tuple(self.model.statistics(x).values())

    session = to_session(Statistics(), images)
    with torch.inference_mode():
        expected = trained.statistics(images[:7])
    assert list(expected) == ["discriminator", "features", "residual"]
    for ours, theirs in zip(
        expected.values(), session.run(None, {"x": images[:7].numpy()}), strict=True
    ):
        np.testing.assert_allclose(theirs, ours, rtol=1e-3, atol=1e-5)


# --- mode collapse --------------------------------------------------------------------------------
def test_a_generator_that_learned_is_not_warned_of(trained: PixelGAN, images: Tensor) -> None:
    assert trained.warnings(images) == []


def test_a_generator_that_collapsed_in_training_is_warned_of(
    images: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a latent may say nothing of its image, the best that the generator can draw is the mean
    image, every time.
    """
    monkeypatch.setattr("training.models.gan.DIVERGENCE", 1e3)
    monkeypatch.setattr("training.models.gan.RECONSTRUCTION", 1e4)
    torch.manual_seed(0)
    model = PixelGAN(3, 32, 32)
    untrained = model.diversity(images)
    options = FitOptions(epochs=15, batch_size=8, learning_rate=3e-3, warm_up=5)
    fit(model, images, images[:8], options, tmp_path / "c.safetensors", say=lambda line: None)
    assert model.diversity(images) < 0.5 * untrained
    (line,) = model.warnings((images * 255).byte())
    assert line.startswith("mode collapse: what the generator draws varies ")


def test_two_modes_are_a_collapse_however_far_apart(images: Tensor) -> None:
    class TwoModes(nn.Module):
        def forward(self, code: Tensor) -> Tensor:
            return (20.0 * code[:, 0].sign())[:, None, None, None].expand(-1, 3, 32, 32)

    model = PixelGAN(3, 32, 32)
    model.generator = TwoModes()
    assert model.diversity(images) < 0.01
    assert model.warnings(images)


# --- features -------------------------------------------------------------------------------------
def test_the_feature_discriminator_becomes_the_density_ratio(tmp_path: Path) -> None:
    """Goodfellow et al., proposition 1: log D / (1 - D) = log p(x) - log q(x); here p = N(0, 1),
    q = N(0, 2).
    """
    torch.manual_seed(0)
    model, maps = (
        make_gan(4, 12, 12, pixels=False),
        torch.randn(256, 4, 12, 12, generator=torch.Generator().manual_seed(1)),
    )
    fit(
        model,
        maps,
        maps[:8],
        FitOptions(epochs=8, batch_size=16),
        tmp_path / "c.safetensors",
        say=lambda line: None,
    )
    x = torch.randn(20, 4, 12, 12, generator=torch.Generator().manual_seed(2))
    expected = 2 * math.log(2) - x.square().sum(1) / 4
    with torch.inference_mode():
        found = -model(x)[0]
    assert float((found - expected).abs().mean()) < 0.15
    assert float(torch.corrcoef(torch.stack([found.flatten(), expected.flatten()]))[0, 1]) > 0.97


def test_a_location_of_features_is_judged_by_itself() -> None:
    torch.manual_seed(0)
    model, x = FeatureGAN(6, 8, 8), torch.randn(1, 6, 8, 8, requires_grad=True)
    model(x)[0][0, 3, 5].backward()
    seen = x.grad.abs().sum(1)[0] > 0
    assert seen.nonzero().tolist() == [[3, 5]]


def test_the_restorer_takes_noise_out(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, maps = FeatureGAN(12, 16, 16), normal_maps("maps", 128, 1)
    fit(
        model,
        maps,
        maps[:8],
        FitOptions(epochs=12, batch_size=8),
        tmp_path / "c.safetensors",
        say=lambda line: None,
    )
    x, noise = (
        normal_maps("maps", 20, 3),
        torch.randn(20, 12, 16, 16, generator=torch.Generator().manual_seed(3)),
    )
    with torch.inference_mode():
        restored = model.reconstruct(x + noise)
    assert float((restored - x).square().mean()) < 0.3 * float(noise.square().mean())


def test_dropout_leaves_channels_out_of_training_steps_alone() -> None:
    torch.manual_seed(0)
    model, x = PixelGAN(1, 16, 16, dropout=0.5).train(), torch.rand(64, 1, 16, 16)
    plain = PixelGAN(1, 16, 16)
    plain.load_state_dict(model.state_dict())
    noise = torch.randn(64, model.noise_size())
    real, drawn = model.kept(noise)
    assert set(real.unique().tolist()) == {0.0, 2.0}
    assert float(torch.cat([real, drawn]).mean()) == pytest.approx(1.0, abs=0.1)
    for player in model.players():
        dropped = model.loss(x, noise, player)
        torch.testing.assert_close(dropped, model.loss(x, noise, player))  # by the noise alone
        assert not torch.allclose(dropped, plain.loss(x, noise, player))
        with torch.no_grad():  # held out
            torch.testing.assert_close(
                model.loss(x, noise, player), plain.loss(x, noise, player).detach()
            )
    torch.testing.assert_close(model.eval()(x), plain(x))


def test_the_terms_sum_to_the_losses() -> None:
    model, x = PixelGAN(1, 16, 16), torch.rand(4, 1, 16, 16)
    noise = torch.randn(4, model.noise_size())
    terms = model.terms(x, noise)
    for player in model.players():
        own = [value for name, value in terms.items() if name.startswith(player)]
        assert len(own) > 1
        torch.testing.assert_close(torch.stack(own).sum(0), model.loss(x, noise, player))
