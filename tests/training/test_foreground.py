"""Where the part is, on a plain background."""

from __future__ import annotations

import numpy as np
import pytest

from data.synthetic import make
from training.foreground import foreground


def overlap(found: np.ndarray, expected: np.ndarray) -> float:
    return float((found & expected).sum() / (found | expected).sum())


@pytest.mark.parametrize(("height", "width"), [(90, 120), (300, 200), (700, 1100)])
@pytest.mark.parametrize("dark", [True, False])
def test_a_part_on_shaded_noisy_ground_is_found_with_its_highlights(
    height: int, width: int, dark: bool
) -> None:
    rng = np.random.default_rng(0)
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    part = (np.abs(y) < 0.6) & (np.abs(x - 0.1) < 0.4)
    ground = 130 + 15 * x - 20 * (x * x + y * y)
    picture = np.where(part, 60 if dark else 200, ground)
    picture[(np.hypot(x - 0.1, y) < 0.15)] = 125  # a hole that looks like the ground
    noisy = picture[..., None] + rng.normal(0, 3, (height, width, 3))
    found = foreground(np.clip(noisy, 0, 255).astype(np.uint8))
    assert found is not None and found.shape == (height, width)
    assert overlap(found, part) > 0.95


def test_screws_are_found_wherever_they_lie() -> None:
    for seed in range(8):
        pixels = make("screw", seed, 200)[0]
        found = foreground(pixels)
        assert found is not None and 0.03 < found.mean() < 0.12
        again = foreground(pixels)
        np.testing.assert_array_equal(found, again)


@pytest.mark.parametrize("kind", ["fabric", "cell"])
def test_a_surface_that_fills_the_picture_is_no_part(kind: str) -> None:
    assert all(foreground(make(kind, seed, 128)[0]) is None for seed in range(5))


def test_nothing_on_the_ground_or_dirt_alone_is_no_part() -> None:
    rng = np.random.default_rng(1)
    empty = np.clip(140 + rng.normal(0, 4, (150, 150, 3)), 0, 255).astype(np.uint8)
    assert foreground(empty) is None
    dirty = empty.copy()
    dirty[70:76, 30:36] = 20
    assert foreground(dirty) is None
    assert foreground(np.full((40, 40, 3), 7, np.uint8)) is None


def test_a_texture_is_no_part() -> None:
    rng = np.random.default_rng(2)
    coarse = np.kron(rng.uniform(60, 200, (20, 20, 1)), np.ones((8, 8, 3)))
    assert foreground(coarse.astype(np.uint8)) is None
