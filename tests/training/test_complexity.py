from __future__ import annotations

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import spearmanr
from torch import Tensor, nn
from torch.nn import functional as F

from data.synthetic import DEFECTS, make
from tests.support.onnx_session import to_session
from training.complexity import adaptive_length, complexity, log_gamma, predictions


def png_length(pixels: Tensor) -> int:
    buffer = io.BytesIO()
    picture = pixels[0] if len(pixels) == 1 else pixels.permute(1, 2, 0)
    Image.fromarray(picture.numpy()).save(buffer, "PNG", optimize=True)
    return buffer.tell()


def synthetic_parts(size: int) -> Tensor:
    """Photographs of good parts, uint8 (n, 3, size, size); not screws, which all cost the same."""
    kinds = [kind for kind in DEFECTS if kind != "screw"]
    pictures = [make(kind, seed, size)[0] for kind in kinds for seed in range(10)]
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)


def patterns(channels: int, size: int = 32) -> Tensor:
    """From flat to rough, from clean to noisy, from faint to full contrast, uint8 (n, C, size,
    size).
    """
    random, images = torch.Generator().manual_seed(1), []
    for number in range(100):
        coarse = torch.rand(1, channels, *2 * (2 ** (1 + number % 5),), generator=random)
        smooth = (
            F.interpolate(coarse, (size, size), mode="bilinear")[0]
            * 255
            * torch.rand(1, generator=random)
        )
        images.append(
            smooth + torch.randn(smooth.shape, generator=random) * (0, 1, 4, 16)[number // 5 % 4]
        )
    return torch.stack(images).round().clamp(0, 255).byte()


def silhouettes() -> Tensor:
    """Bright shapes on black, as in the sets of small grey images, uint8 (n, 1, 28, 28)."""
    random, line = torch.Generator().manual_seed(2), torch.linspace(-1, 1, 28)
    images = []
    for _ in range(100):
        x, y, a, b, grain = torch.rand(5, generator=random)
        inside = ((line - x + 0.5) / (0.2 + a)) ** 2 + (
            (line[:, None] - y + 0.5) / (0.2 + b)
        ) ** 2 < 1
        images.append(inside * (200 + 40 * grain * torch.randn(28, 28, generator=random)))
    return torch.stack(images)[:, None].round().clamp(0, 255).byte()


@pytest.mark.parametrize(
    "images",
    [synthetic_parts(64), patterns(1), patterns(3), silhouettes()],
    ids=["parts", "grey", "colour", "silhouettes"],
)
def test_complexity_ranks_images_as_the_length_of_their_png_does(images: Tensor) -> None:
    lengths = [png_length(image) for image in images]
    assert spearmanr(complexity(images.float() / 255), lengths).statistic > 0.95


def test_the_code_can_be_decoded() -> None:
    """Kraft's inequality over all images of two pixels: e to the minus length sums to 1 at the
    most, and not to nothing.
    """
    levels = torch.arange(256.0) / 255
    images = torch.cartesian_prod(levels, levels).reshape(-1, 1, 1, 2)
    total = float(torch.exp(-complexity(images).double()).sum())
    assert 0.1 < total <= 1.0


def test_adaptive_length_is_that_of_symbols_coded_one_by_one() -> None:
    symbols = torch.randint(0, 4, (60,), generator=torch.Generator().manual_seed(0)).tolist()
    counts, nats = [0.5] * 4, 0.0
    for symbol in symbols:
        nats -= math.log(counts[symbol] / sum(counts))
        counts[symbol] += 1
    seen = torch.tensor([symbols.count(symbol) for symbol in range(4)], dtype=torch.float32)
    assert float(adaptive_length(seen[None, None])) == pytest.approx(nats, rel=1e-5)


def test_log_gamma_is_torchs() -> None:
    x = torch.cat([torch.arange(1, 200) / 2, torch.tensor([1e3, 1e4, 5e4])]).double()
    torch.testing.assert_close(log_gamma(x), torch.lgamma(x), rtol=1e-6, atol=1e-4)


def test_predictions_are_those_of_png() -> None:
    image = torch.randint(0, 256, (3, 1, 6, 5), generator=torch.Generator().manual_seed(0))

    def paeth(a: int, b: int, c: int) -> int:  # RFC 2083, section 6.6
        p = a + b - c
        pa, pb, pc = abs(p - a), abs(p - b), abs(p - c)
        return a if pa <= pb and pa <= pc else b if pb <= pc else c

    found = torch.stack(predictions(image.float()))  # (5, N, C, H, W)
    for n, y, x in np.ndindex(3, 6, 5):
        a, b, c = (
            int(image[n, 0, y + dy, x + dx]) if min(y + dy, x + dx) >= 0 else 0
            for dy, dx in ((0, -1), (-1, 0), (-1, -1))
        )
        assert found[:, n, 0, y, x].tolist() == [0, a, b, (a + b) // 2, paeth(a, b, c)]


def test_noise_costs_its_eight_bits_and_a_flat_image_next_to_nothing() -> None:
    noise = (
        torch.randint(0, 256, (4, 1, 32, 32), generator=torch.Generator().manual_seed(0)).float()
        / 255
    )
    bits = complexity(noise) / math.log(2) / 1024
    assert bool(((bits > 8.0) & (bits < 8.6)).all())
    assert float(complexity(torch.full((1, 1, 32, 32), 0.5))) < 0.05 * 1024


def test_each_image_alone_costs_what_it_costs_in_a_batch_and_levels_are_rounded() -> None:
    images = patterns(3).float() / 255
    together = complexity(images)
    assert torch.equal(together, complexity(images))
    torch.testing.assert_close(
        together, torch.cat([complexity(image[None]) for image in images]), rtol=1e-6, atol=0.0
    )
    assert torch.equal(together, complexity(images + 0.4 / 255))


def test_onnx_agrees_with_torch_at_batch_1_and_7() -> None:
    class Graph(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return complexity(x)

    images = patterns(3).float() / 255
    session = to_session(Graph(), images)
    for count in (1, 7):
        (found,) = session.run(None, {"x": images[:count].numpy()})
        np.testing.assert_allclose(found, complexity(images[:count]), rtol=1e-5)
