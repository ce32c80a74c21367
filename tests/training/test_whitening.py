"""Whitened maps have unit variance, whatever the batches they were seen in."""

import pytest
import torch

from anomaly.errors import TrainingError
from training.whitening import Whitening


def test_whitened_channels_have_unit_variance_and_no_correlation() -> None:
    mixed = torch.randn(20, 4, 6, 6, generator=torch.Generator().manual_seed(1))
    mixed[:, 1] += 3 * mixed[:, 0] + 5
    whitening = Whitening(4, 4)
    whitening.fit(mixed.split(7))
    vectors = whitening(mixed).permute(1, 0, 2, 3).flatten(1)
    assert torch.allclose(vectors.mean(1), torch.zeros(4), atol=1e-4)
    assert torch.allclose(torch.cov(vectors), torch.eye(4), atol=1e-2)


def test_without_rotation_each_channel_is_scaled_by_itself() -> None:
    maps = (
        torch.randn(20, 3, 6, 6, generator=torch.Generator().manual_seed(1))
        * torch.tensor([1.0, 5.0, 0.1])[:, None, None]
    )
    whitening = Whitening(3, 3, rotate=False)
    whitening.fit(maps.split(7))
    expected = (maps - maps.mean((0, 2, 3))[:, None, None]) / maps.std((0, 2, 3))[:, None, None]
    torch.testing.assert_close(whitening(maps), expected, rtol=2e-3, atol=2e-3)


def test_whitening_does_not_depend_on_the_batches() -> None:
    maps = torch.randn(10, 3, 4, 4, generator=torch.Generator().manual_seed(2))
    one, other = Whitening(3, 3), Whitening(3, 3)
    one.fit([maps])
    other.fit(maps.split(3))
    assert torch.allclose(one.matrix, other.matrix, atol=1e-5)


def test_maps_without_variance_are_a_clear_error() -> None:
    with pytest.raises(TrainingError, match="all training images look the same"):
        Whitening(3, 3).fit([torch.ones(5, 3, 4, 4)])
