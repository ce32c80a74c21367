"""The one resize: it agrees with Pillow's, and its portable form with it."""

import numpy as np
import pytest
import torch
from PIL import Image

from training.preprocess import Preprocess, triangle_weights

SIZES = [(1, 1), (17, 301), (64, 64), (300, 300), (403, 229), (63, 1000)]


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * width).integers(
        0, 256, (height, width, 3), dtype=np.uint8
    )


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_it_agrees_with_pillow_to_one_grey_level(height: int, width: int) -> None:
    image = noise(height, width)
    expected = np.asarray(
        Image.fromarray(image).resize((64, 64), Image.Resampling.BILINEAR), np.float32
    )
    found = Preprocess(64)(torch.from_numpy(image)[None])[0].permute(1, 2, 0).numpy() * 255
    assert np.abs(found - expected).max() <= 1.0


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_the_portable_form_is_the_same_filter(height: int, width: int) -> None:
    image = torch.from_numpy(noise(height, width))[None]
    difference = (Preprocess(64)(image) - Preprocess(64, "portable")(image)).abs().max()
    assert difference <= 1e-4


def test_weights_keep_a_constant_and_are_the_identity_at_the_same_size() -> None:
    like = torch.zeros(1)
    assert torch.allclose(triangle_weights(301, 64, like).sum(1), torch.ones(64))
    assert torch.allclose(triangle_weights(64, 64, like), torch.eye(64), atol=1e-5)


def test_an_image_alone_and_in_a_batch_are_the_same() -> None:
    images = torch.from_numpy(np.stack([noise(50, 70), noise(50, 70)[::-1]]))
    prepare = Preprocess(32)
    assert torch.equal(prepare(images)[1:], prepare(images[1:]))


def test_an_unknown_target_is_refused() -> None:
    with pytest.raises(ValueError, match="target 'openvino' found"):
        Preprocess(32, "openvino")
