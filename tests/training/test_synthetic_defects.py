"""Synthetic defects on normal images."""

from __future__ import annotations

import math

import numpy as np
import pytest

from data.synthetic import make
from training.defect_shapes import main_direction, seamless, warped
from training.foreground import foreground
from training.guard import accepted_copies
from training.synthetic_defects import DEFECTS, add_defect, kinds_for, outline

NORMAL, DONOR = (make("casting", seed, 160)[0][:120] for seed in (1, 2))
SCREW = make("screw", 3, 200)[0]
PART = foreground(SCREW)


def difference(made: np.ndarray, normal: np.ndarray) -> np.ndarray:
    return np.abs(made.astype(int) - normal).max(2)


@pytest.mark.parametrize("kind", kinds_for(None))
def test_a_defect_changes_its_mask_and_nothing_else(kind: str) -> None:
    seen = 0
    for seed in range(20):
        made, mask = add_defect(NORMAL, DONOR, kind, np.random.default_rng(seed))
        assert (made.shape, made.dtype, mask.shape) == (NORMAL.shape, np.uint8, NORMAL.shape[:2])
        change = difference(made, NORMAL)
        assert (change[~mask] <= 1).all() and (change[mask] > 1).all()
        rows, columns = np.nonzero(mask)
        assert max(np.ptp(rows), np.ptp(columns)) < 0.6 * 120
        seen += change.max() >= 6
    assert seen >= 17  # one that lies in a flat place, or blurs one, may not show


@pytest.mark.parametrize("kind", DEFECTS)
def test_on_a_part_defects_lie_on_it_or_at_its_outline(kind: str) -> None:
    assert PART is not None and kind in kinds_for(PART)
    near = outline(PART)
    for seed in range(10):
        made, mask = add_defect(SCREW, SCREW, kind, np.random.default_rng(seed), part=PART)
        assert mask.any()
        assert (difference(made, SCREW)[~mask] <= 1).all()
        if kind in kinds_for(None):
            assert not mask[~PART].any()
        else:
            y, x = (c.mean() for c in np.nonzero(mask))
            rows, columns = np.nonzero(near)
            assert np.hypot(rows - y, columns - x).min() < 0.2 * math.sqrt(PART.sum())


def test_a_piece_that_is_missing_shows_the_background_and_extra_material_the_part() -> None:
    disc = np.full((100, 140, 3), 200, np.uint8)
    y, x = np.mgrid[:100, :140]
    part = np.hypot(y - 50, x - 70) < 30
    disc[part] = 60
    for seed in range(10):
        for kind, on, level in (("missing", part, 200), ("extra", ~part, 60)):
            made, mask = add_defect(disc, disc, kind, np.random.default_rng(seed), 8, part)
            assert mask.any() and not mask[~on].any()
            assert np.abs(np.median(made[mask]) - level) < 40


@pytest.mark.parametrize("part", [None, np.ones(NORMAL.shape[:2], bool)])
def test_without_an_outline_there_is_nothing_to_bend_or_to_break_off(
    part: np.ndarray | None,
) -> None:
    assert set(DEFECTS) - set(kinds_for(part)) == {"missing", "extra", "bent"}
    for kind in ("bent", "gap"):
        with pytest.raises(
            ValueError, match=rf"^kind '{kind}' found, one of stain, pit, .* moved ex"
        ):
            add_defect(NORMAL, DONOR, kind, np.random.default_rng(0), part=part)


@pytest.mark.parametrize("kind", DEFECTS)
def test_the_same_seed_makes_the_same_defect(kind: str) -> None:
    first, again, other = (
        add_defect(SCREW, SCREW, kind, np.random.default_rng(seed), part=PART)[0]
        for seed in (5, 5, 6)
    )
    assert (first == again).all() and (first != other).any()


@pytest.mark.parametrize("kind", DEFECTS)
def test_grey_stays_grey(kind: str) -> None:
    grey = np.repeat(SCREW[..., 1:2], 3, 2)
    made, _ = add_defect(grey, NORMAL, kind, np.random.default_rng(3), part=PART)
    assert (made != grey).any() and (made[..., :1] == made).all()
    if kind in kinds_for(None):
        made, _ = add_defect(grey, NORMAL, kind, np.random.default_rng(3))
        assert (made[..., :1] == made).all()


def test_defects_are_small_and_large_by_the_side_of_the_part() -> None:
    flat = np.full((400, 600, 3), 128, np.uint8)
    part = np.zeros((400, 600), bool)
    part[100:300, 200:400] = True
    for where, side in ((None, 400), (part, 200)):
        sizes = np.sqrt(
            [
                add_defect(flat, flat, "stain", np.random.default_rng(seed), part=where)[1].sum()
                for seed in range(60)
            ]
        )
        assert sizes.min() < 0.02 * side and 0.12 * side < sizes.max() < 0.3 * side
        assert np.median(sizes) < 0.08 * side


@pytest.mark.parametrize("radius", [3, 10, 40])
def test_a_radius_that_is_asked_for(radius: int) -> None:
    areas = [
        add_defect(NORMAL, DONOR, "stain", np.random.default_rng(seed), radius)[1].sum()
        for seed in range(20)
    ]
    assert 0.4 * radius < np.sqrt(np.median(areas) / np.pi) < 1.5 * radius


def test_strength_goes_with_the_noise_of_the_place() -> None:
    changes = []
    for noise in (1, 12):
        rng = np.random.default_rng(0)
        picture = np.clip(128 + rng.normal(0, noise, (120, 120, 1)) + np.zeros(3), 0, 255)
        normal = picture.astype(np.uint8)
        changes.append(
            np.mean(
                [
                    difference(add_defect(normal, normal, "stain", rng, radius=12)[0], normal).max()
                    for _ in range(20)
                ]
            )
        )
    assert 6 <= changes[0] < 20 and changes[1] > 1.8 * changes[0]


def test_a_blended_patch_keeps_the_border_of_the_target_and_the_gradients_of_the_source() -> None:
    rng = np.random.default_rng(0)
    source, target = (rng.uniform(0, 255, (9, 13, 3)).astype(np.float32) for _ in range(2))
    made = seamless(source, target)
    for edge in (np.s_[0], np.s_[-1], np.s_[:, 0], np.s_[:, -1]):
        np.testing.assert_array_equal(made[edge], target[edge])

    def laplacian(a: np.ndarray) -> np.ndarray:
        return 4 * a[1:-1, 1:-1] - a[:-2, 1:-1] - a[2:, 1:-1] - a[1:-1, :-2] - a[1:-1, 2:]

    np.testing.assert_allclose(laplacian(made), laplacian(source), atol=0.01)


@pytest.mark.parametrize("degrees", [0, 25, 90, 140])
def test_the_main_direction_is_that_of_stripes(degrees: int) -> None:
    y, x = np.mgrid[:40, :40]
    angle = math.radians(degrees)
    stripes = 128 + 40 * np.sin(0.9 * (y * math.cos(angle) - x * math.sin(angle)))
    assert math.cos(2 * (main_direction(stripes.astype(np.float32)) - angle)) > 0.99


def test_a_warped_picture_shows_what_lies_beside() -> None:
    picture = np.random.default_rng(0).uniform(0, 255, (12, 15, 3)).astype(np.float32)
    down, right = np.full((12, 15), 2, np.float32), np.full((12, 15), -3.5, np.float32)
    made = warped(picture, down, right)
    expected = (picture[2:, :-4] + picture[2:, 1:-3]) / 2
    np.testing.assert_allclose(made[:-2, 4:], expected, rtol=1e-4)


@pytest.mark.parametrize("shape", [(1, 60, 3), (60, 1, 3), (2, 2, 3)])
def test_pictures_of_one_row_take_defects(shape: tuple[int, int, int]) -> None:
    picture = np.random.default_rng(0).integers(80, 160, shape).astype(np.uint8)
    for seed in range(30):
        for copy in accepted_copies(picture, seed, lossless=True):
            assert copy.shape == shape and copy.dtype == np.uint8
