"""One contract over all models: what every model owes to fit, to export and to the detector."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from torch import Tensor, nn

from anomaly.errors import TrainingError
from anomaly.imaging.colours import heatmap_scale
from anomaly.imaging.region import hottest_region
from anomaly.statistics.calibration import calibrate
from tests.support.onnx_session import to_session
from training.fit import fit
from training.models import MODELS
from training.models.autoencoder import (
    ConvolutionalAutoencoder,
    DenseAutoencoder,
    LinearAutoencoder,
)
from training.models.gaussian import components, inner_products, spectrum
from training.models.vae import VAE, divergence
from training.options import FitOptions
from training.scores import ERRORS, Heatmap, pool, scores_of

SHAPES = {"pixels": (3, 32, 32), "maps": (12, 16, 16)}
OPTIONS = FitOptions(epochs=15, batch_size=8, learning_rate=3e-3, warm_up=5)


pytestmark = pytest.mark.usefixtures("one_thread")


def normal_maps(space: str, count: int, seed: int) -> Tensor:
    """Mixtures of six fixed smooth patterns and a little noise, in 0..1 for pixels."""
    channels, height, width = SHAPES[space]
    patterns = torch.randn(6, channels, 4, 4, generator=torch.Generator().manual_seed(99))
    patterns = nn.functional.interpolate(patterns, (height, width), mode="bilinear")
    random = torch.Generator().manual_seed(seed)
    maps = torch.einsum("nk,kchw->nchw", torch.randn(count, 6, generator=random), patterns) / 6**0.5
    maps = maps + 0.1 * torch.randn(maps.shape, generator=random)
    return torch.sigmoid(maps) if space == "pixels" else maps


def anomalous_maps(space: str, count: int, seed: int) -> Tensor:
    """The same with a checkered patch somewhere, of the range that normal maps have."""
    maps, random = normal_maps(space, count, seed), np.random.default_rng(seed)
    # squares of two pixels: what alternates from pixel to pixel has no Prewitt gradient
    line = torch.arange(6) // 2
    checks = 2.0 * ((line[:, None] + line) % 2) - 1
    for image in maps:
        y, x = (int(random.integers(0, side - 6)) for side in image.shape[1:])
        image[:, y : y + 6, x : x + 6] = 0.5 + 0.4 * checks if space == "pixels" else 2.0 * checks
    return maps


def new(name: str, space: str) -> nn.Module:
    torch.manual_seed(0)
    return MODELS[name](*SHAPES[space], pixels=space == "pixels")


@dataclass(frozen=True)
class Fitted:
    name: str
    space: str
    model: nn.Module
    history: list[dict]
    normal: Tensor
    anomalous: Tensor


@pytest.fixture(
    scope="module", params=[(name, space) for name in MODELS for space in SHAPES], ids="-".join
)
def fitted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    name, space = request.param
    model = new(name, space)
    checkpoint = tmp_path_factory.mktemp(name) / "checkpoint.safetensors"
    history = fit(
        model,
        normal_maps(space, 64, 1),
        normal_maps(space, 16, 2),
        OPTIONS,
        checkpoint,
        say=lambda line: None,
    )
    model.finish(normal_maps(space, 64, 1))
    return Fitted(
        name, space, model, history, normal_maps(space, 20, 3), anomalous_maps(space, 20, 4)
    )


@torch.inference_mode()
def scores(model: nn.Module, maps: Tensor) -> Tensor:
    return pool(model(maps)[0])


def test_held_out_loss_falls(fitted: Fitted) -> None:
    if fitted.model.closed_form:
        other, shape = new(fitted.name, fitted.space), fitted.normal.shape[1:]
        other.fit_maps(torch.rand(64, *shape, generator=torch.Generator().manual_seed(5)))
        loss, worse = (
            float(m.loss(fitted.normal, torch.zeros(20, 0), "model").mean())
            for m in (fitted.model, other.eval())
        )
        assert loss < worse - 0.2 * abs(worse)
        return
    # a discriminator's loss rises as its opponent learns
    player = "generator" if fitted.name == "gan" else "model"
    first, last = (fitted.history[i]["held_out"][player] for i in (0, -1))
    assert last < first - 0.2 * abs(first)


def test_anomalous_maps_outscore_normal_ones(fitted: Fitted) -> None:
    normal, anomalous = scores(fitted.model, fitted.normal), scores(fitted.model, fitted.anomalous)
    assert float((anomalous[:, None] > normal).float().mean()) > 0.95


def test_heatmap_and_reconstruction_have_the_shapes_and_range_they_should(fitted: Fitted) -> None:
    with torch.inference_mode():
        heatmap, reconstruction = fitted.model(fitted.normal)
    assert heatmap.shape == (20, *SHAPES[fitted.space][1:])
    assert reconstruction.shape == fitted.normal.shape
    assert heatmap.dtype == reconstruction.dtype == torch.float32
    if fitted.space == "pixels":
        assert 0.0 <= float(reconstruction.min()) <= float(reconstruction.max()) <= 1.0


def test_the_anomaly_is_where_the_heatmap_is_hottest(fitted: Fitted) -> None:
    maps = fitted.normal.clone()
    maps[:, :, 2:8, 3:9] = 1.0 if fitted.space == "pixels" else 3.0
    with torch.inference_mode():
        change = fitted.model(maps)[0] - fitted.model(fitted.normal)[0]
    inside = change[:, 2:8, 3:9].mean((1, 2))
    assert bool((inside > change[:, 8:].mean((1, 2))).all())


@torch.inference_mode()
def test_batch_and_single_agree(fitted: Fitted) -> None:
    together = fitted.model(fitted.anomalous)[0]
    alone = torch.cat([fitted.model(image[None])[0] for image in fitted.anomalous])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5 * float(together.abs().max()))


def test_loss_is_per_sample_and_reaches_every_parameter(fitted: Fitted) -> None:
    noise = torch.randn(4, fitted.model.noise_size(), generator=torch.Generator().manual_seed(0))
    for player, parameters in fitted.model.players().items():
        loss = fitted.model.loss(fitted.normal[:4], noise, player)
        assert loss.shape == (4,)
        alone = torch.cat(
            [
                fitted.model.loss(fitted.normal[i : i + 1], noise[i : i + 1], player)
                for i in range(4)
            ]
        )
        torch.testing.assert_close(loss, alone, rtol=1e-4, atol=1e-5)
        gradients = torch.autograd.grad(loss.sum(), parameters)
        assert all(float(gradient.abs().max()) > 0 for gradient in gradients)


def test_players_share_no_parameter_and_leave_none_out(fitted: Fitted) -> None:
    played = [id(p) for parameters in fitted.model.players().values() for p in parameters]
    assert sorted(played) == sorted(id(p) for p in fitted.model.parameters())


def test_no_layer_mixes_the_images_of_a_batch(fitted: Fitted) -> None:
    assert not any(
        isinstance(module, nn.modules.batchnorm._BatchNorm) for module in fitted.model.modules()
    )


@torch.inference_mode()
def test_loss_under_bf16_autocast_is_about_the_same(fitted: Fitted) -> None:
    """As on a GPU: convolutions in bf16, errors and likelihoods in float32."""
    noise = torch.zeros(20, fitted.model.noise_size())
    for player in fitted.model.players():
        expected = fitted.model.loss(fitted.normal, noise, player)
        with torch.autocast("cpu", torch.bfloat16):
            loss = fitted.model.loss(fitted.normal, noise, player)
        assert loss.dtype == torch.float32
        torch.testing.assert_close(loss, expected, rtol=0.05, atol=0.02)


def test_onnx_agrees_with_torch_at_batch_1_2_and_7(fitted: Fitted) -> None:
    session = to_session(fitted.model, fitted.normal)
    for count in (1, 2, 7):
        maps = fitted.anomalous[:count]
        with torch.inference_mode():
            expected = fitted.model(maps)
        for ours, theirs in zip(expected, session.run(None, {"x": maps.numpy()}), strict=True):
            np.testing.assert_allclose(theirs, ours, rtol=1e-3, atol=1e-4 * float(ours.abs().max()))


def test_state_makes_a_new_model_the_same(fitted: Fitted) -> None:
    torch.manual_seed(1)
    other = MODELS[fitted.name](*SHAPES[fitted.space], pixels=fitted.space == "pixels")
    other.load_state_dict(fitted.model.state_dict())
    assert torch.equal(
        scores(other.eval(), fitted.anomalous), scores(fitted.model, fitted.anomalous)
    )


def test_the_seed_repeats_the_fit(fitted: Fitted, tmp_path: Path) -> None:
    maps, held_out = normal_maps(fitted.space, 16, 1), normal_maps(fitted.space, 4, 2)
    runs = []
    for run in "ab":
        model = new(fitted.name, fitted.space)
        fit(
            model,
            maps,
            held_out,
            FitOptions(epochs=1, seed=5),
            tmp_path / run / "c.safetensors",
            say=lambda line: None,
        )
        runs.append(scores(model, held_out))
    assert torch.equal(*runs)


def test_samples_have_the_shape_of_maps(fitted: Fitted) -> None:
    if not fitted.model.can_sample:
        pytest.skip("this model draws no samples")
    drawn = fitted.model.sample(torch.randn(3, fitted.model.sample_size()))
    assert drawn.shape == (3, *SHAPES[fitted.space])


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("height, width", [(4, 4), (12, 12), (13, 13), (8, 20)])
def test_maps_of_any_size_pass(name: str, height: int, width: int) -> None:
    model, maps = MODELS[name](5, height, width, pixels=False), torch.randn(4, 5, height, width)
    if model.closed_form:
        model.fit_maps(maps)
    assert [part.shape for part in model(maps)] == [(4, height, width), (4, 5, height, width)]


def test_under_every_score_good_images_stay_calm_and_the_box_meets_the_defect(
    fitted: Fitted,
) -> None:
    good, spoilt = normal_maps(fitted.space, 60, 5), normal_maps(fitted.space, 30, 6)
    spoilt[:, :, 8:14, 4:10] = 1.0 if fitted.space == "pixels" else 3.0
    with torch.inference_mode():
        heatmaps = [Heatmap()(fitted.model(x)[0]).numpy() for x in (good, spoilt)]
    side = heatmaps[0].shape[1]
    of_good, of_spoilt = (scores_of(fitted.model, x) for x in (good, spoilt))
    for name in of_good:
        calibration = calibrate(of_good[name][:40].numpy(), 0.05)
        own = calibration.with_scores(heatmaps[0][:40].max((1, 2)))
        by = calibration if name == "hottest" else own
        median, threshold = float(by.median), float(by.threshold)
        calm = heatmaps[0][40:][~calibration.is_anomaly(of_good[name][40:].numpy())]
        outlined = [(heatmap_scale(heatmap, median, threshold) >= 1).mean() for heatmap in calm]
        assert np.mean(outlined) < 0.02, name
        flagged = heatmaps[1][calibration.is_anomaly(of_spoilt[name].numpy())]
        boxes = [hottest_region(heatmap, side, side, median)[0] for heatmap in flagged]
        met = [x < 10 and x + w > 4 and y < 14 and y + h > 8 for x, y, w, h in boxes]
        assert not met or np.mean(met) >= 0.9, name


@pytest.mark.parametrize("name", MODELS)
def test_pixels_of_the_size_of_digits_pass(name: str) -> None:
    model, maps = MODELS[name](1, 28, 28, pixels=True), torch.rand(8, 1, 28, 28)
    if model.closed_form:
        model.fit_maps(maps)
    assert [part.shape for part in model(maps)] == [(8, 28, 28), (8, 1, 28, 28)]


# --- what is special about one of them ------------------------------------------------------------
def test_linear_autoencoder_is_scikit_learns_pca() -> None:
    maps, model = normal_maps("maps", 40, 5), new("linear", "maps")
    model.fit_maps(maps)
    pca = PCA(n_components=len(model.components), svd_solver="full").fit(
        maps.flatten(1).double().numpy()
    )
    np.testing.assert_allclose(
        model.variances.numpy(), pca.explained_variance_ * 39 / 40, rtol=1e-4
    )
    others = normal_maps("maps", 10, 6)
    code = pca.transform(others.flatten(1).double().numpy())
    # a component has no sign
    np.testing.assert_allclose(model.encode(others).abs().numpy(), np.abs(code), atol=1e-3)
    shrunk = code * (model.variances / (model.variances + model.ridge)).double().numpy()
    np.testing.assert_allclose(
        model(others)[1], pca.inverse_transform(shrunk).reshape(others.shape), atol=1e-5
    )


def test_linear_heatmap_sums_to_numpys_mahalanobis_distance() -> None:
    maps, others = (
        normal_maps("maps", 40, 5)[:, :2, :4, :4],
        normal_maps("maps", 10, 6)[:, :2, :4, :4],
    )
    model = LinearAutoencoder(2, 4, 4, pixels=False)
    model.fit_maps(maps)
    rows = maps.flatten(1).double().numpy()
    values, vectors = np.linalg.eigh(np.cov(rows.T, bias=True))
    values[: -len(model.components)] = 0.0  # what the code leaves out has the ridge alone
    covariance = vectors @ np.diag(values + 2.0 * rows.var(0).mean()) @ vectors.T
    deviations = others.flatten(1).double().numpy() - rows.mean(0)
    expected = np.einsum("ni,ij,nj->n", deviations, np.linalg.inv(covariance), deviations)
    # a location is the mean of 2 channels
    np.testing.assert_allclose(2 * model(others)[0].sum((1, 2)), expected, rtol=1e-4)


def test_linear_samples_vary_as_the_components_do() -> None:
    model = new("linear", "maps")
    model.fit_maps(normal_maps("maps", 40, 5))
    noise = torch.randn(4000, model.sample_size(), generator=torch.Generator().manual_seed(0))
    np.testing.assert_allclose(model.encode(model.sample(noise)).var(0), model.variances, rtol=0.15)


def test_linear_autoencoder_takes_uint8_as_0_to_1() -> None:
    maps, models = (
        torch.randint(0, 256, (9, 12, 16, 16), dtype=torch.uint8),
        [new("linear", "maps") for _ in range(2)],
    )
    models[0].fit_maps(maps)
    models[1].fit_maps(maps.float() / 255)
    assert torch.equal(models[0].mean, models[1].mean)


def test_linear_autoencoder_drops_directions_that_are_rounding_noise() -> None:
    # rank 2 after centring, and 13 eigenvalues of rounding noise
    rows = torch.randn(3, 500).repeat(5, 1)
    found = components(rows, spectrum(rows, inner_products(rows)))
    assert len(found) == 2
    torch.testing.assert_close(found @ found.T, torch.eye(2, dtype=torch.float64))


def test_linear_autoencoder_of_many_maps_takes_a_subset_that_is_always_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("training.models.autoencoder.MAX_MAPS", 10)
    maps = normal_maps("maps", 40, 7)
    models = [new("linear", "maps") for _ in range(2)]
    for model in models:
        model.fit_maps(maps)
    assert torch.equal(models[0].mean, models[1].mean)
    assert not torch.equal(models[0].mean, maps[:10].flatten(1).mean(0))
    assert len(models[0].components) <= 9


@pytest.mark.parametrize(
    "image", [torch.zeros(1, 12, 16, 16), torch.ones(1, 12, 16, 16), normal_maps("maps", 1, 0)]
)
def test_linear_autoencoder_refuses_identical_maps(image: Tensor) -> None:
    with pytest.raises(TrainingError, match="all 5 images to fit look the same"):
        new("linear", "maps").fit_maps(image.repeat(5, 1, 1, 1))


@pytest.mark.parametrize("model", [ConvolutionalAutoencoder, DenseAutoencoder])
@pytest.mark.parametrize("error", ERRORS)
def test_autoencoders_score_pixels_by_the_error_that_was_chosen(
    model: Callable[..., nn.Module], error: str
) -> None:
    fitted, x = model(3, 32, 32, pixels=True, error=error), normal_maps("pixels", 4, 8)
    heatmap, y = fitted(x)
    assert torch.equal(heatmap, ERRORS[error](x, y))
    assert repr(fitted).startswith(f"{model.__name__}(") and f"error={error}" in fitted.extra_repr()


def test_vae_heatmap_sums_to_the_negative_bound_at_the_posterior_mean() -> None:
    torch.manual_seed(0)
    model, x = VAE(12, 16, 16, pixels=False), normal_maps("maps", 5, 9)
    heatmap, _ = model(x)
    upper_bound = model.loss(x, torch.zeros(5, model.noise_size()), "model") * x[0].numel()
    torch.testing.assert_close(heatmap.sum((1, 2)), upper_bound, rtol=1e-5, atol=1e-3)


def test_vae_terms_are_those_of_torchs_distributions() -> None:
    torch.manual_seed(0)
    model, x = VAE(12, 16, 16, pixels=False), normal_maps("maps", 5, 10)
    y = torch.randn(x.shape)
    sigma = model.density.log_sigma().detach().exp().expand(x.shape)
    expected = torch.distributions.Normal(y, sigma).log_prob(x).sum(1)
    torch.testing.assert_close(model.density.log_likelihood(x, y), expected, rtol=1e-4, atol=1e-4)
    mean, log_sigma = torch.randn(5, 8), torch.randn(5, 8)
    posterior, prior = (
        torch.distributions.Normal(mean, log_sigma.exp()),
        torch.distributions.Normal(0.0, 1.0),
    )
    expected = torch.distributions.kl_divergence(posterior, prior).sum(1)
    torch.testing.assert_close(divergence(mean, log_sigma), expected, rtol=1e-4, atol=1e-4)


def test_vae_learns_the_noise_that_there_is(tmp_path: Path) -> None:
    model, random = new("vae", "maps"), torch.Generator().manual_seed(0)
    maps = 0.5 * torch.randn(400, *SHAPES["maps"], generator=random)
    fit(
        model,
        maps,
        maps[:8],
        FitOptions(epochs=4, batch_size=8, learning_rate=5e-3),
        tmp_path / "c.safetensors",
    )
    assert model.density.log_sigma().mean().exp().item() == pytest.approx(0.5, abs=0.03)
