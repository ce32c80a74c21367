"""Synthetic defects on normal images."""

from __future__ import annotations

import numpy as np
import pytest

from data.synthetic import make
from training.synthetic_defects import DEFECTS, add_defect

NORMAL, DONOR = (make("casting", seed, 128)[0] for seed in (1, 2))


@pytest.mark.parametrize("kind", DEFECTS)
def test_a_defect_changes_its_mask_and_nothing_else(kind: str) -> None:
    seen = 0
    for seed in range(20):
        made, mask = add_defect(NORMAL, DONOR, kind, np.random.default_rng(seed))
        assert (made.shape, made.dtype, mask.shape) == (NORMAL.shape, np.uint8, NORMAL.shape[:2])
        difference = np.abs(made.astype(int) - NORMAL).max(2)
        assert (difference[~mask] <= 1).all() and (difference[mask] > 1).all()
        assert mask.mean() < 0.4
        seen += mask.any()
    assert seen >= 17  # one that lies in a flat place, or blurs one, may not show


@pytest.mark.parametrize("kind", DEFECTS)
def test_the_same_seed_makes_the_same_defect(kind: str) -> None:
    first, again, other = (
        add_defect(NORMAL, DONOR, kind, np.random.default_rng(seed))[0] for seed in (5, 5, 6)
    )
    assert (first == again).all() and (first != other).any()


@pytest.mark.parametrize("kind", DEFECTS)
def test_grey_stays_grey(kind: str) -> None:
    grey, donor = (np.repeat(image[..., 1:2], 3, 2) for image in (NORMAL, DONOR))
    made, _ = add_defect(grey, donor, kind, np.random.default_rng(3))
    assert (made[..., :1] == made).all()


def test_defects_are_small_and_large() -> None:
    shares = [
        add_defect(NORMAL, DONOR, "stain", np.random.default_rng(seed))[1].mean()
        for seed in range(60)
    ]
    assert min(shares) < 0.002 and max(shares) > 0.03
