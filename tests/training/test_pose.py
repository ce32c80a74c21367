"""A part is found wherever it lies and however it is turned, and looked at in its own frame."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from training.pose import Pose, heatmap_of, sample
from training.posing import fit_pose

SIDE = 160


def picture(turn: float, x: float, y: float, long: float = 45.0, short: float = 14.0) -> Tensor:
    """A bar with a thick end and a dark hole in it, turned by ``turn`` about its place, before a
    background that is darker to one side, (3, SIDE, SIDE).
    """
    rows, columns = np.mgrid[:SIDE, :SIDE]
    dx, dy = columns - x, rows - y
    u = math.cos(turn) * dx + math.sin(turn) * dy
    v = math.cos(turn) * dy - math.sin(turn) * dx
    reach = np.where(u > 0.5 * long, 1.6 * short, short)
    part = (abs(u) < long) & (abs(v) < reach)
    hole = (u + 0.4 * long) ** 2 + (v - 0.3 * short) ** 2 < (0.3 * short) ** 2
    noise = np.random.default_rng(int(100 * (turn + x + y))).normal(0, 0.01, (SIDE, SIDE))
    ground = 0.7 - 0.1 * columns / SIDE
    grey = np.where(part, np.where(hole, 0.05, 0.35), ground) + noise
    return torch.from_numpy(grey.astype(np.float32)).clamp(0, 1).expand(3, -1, -1)


def thrown(count: int, seed: int, **shape: float) -> tuple[Tensor, np.ndarray]:
    """Pictures of a part at any angle and place, and the angles."""
    rng = np.random.default_rng(seed)
    turns, places = rng.uniform(0, 2 * math.pi, count), rng.uniform(65, 95, (count, 2))
    pictures = [
        picture(turn, x, y, **shape) for turn, (x, y) in zip(turns, places.tolist(), strict=True)
    ]
    return torch.stack(pictures), turns


@pytest.mark.parametrize(("frame", "short"), [("axis", 14.0), ("match", 14.0), ("match", 32.0)])
def test_parts_at_any_angle_look_the_same_in_their_own_frame(frame: str, short: float) -> None:
    pictures, _ = thrown(30, 0, short=short)
    pose = fit_pose(pictures, frame)
    assert pose is not None
    new, turns = thrown(20, 1, short=short)
    frames, place = pose(new)
    assert frames.shape == (20, 3, *pose.shape)
    found = torch.atan2(place[:, 3], place[:, 2]).numpy()
    off = (found - turns + math.pi) % (2 * math.pi) - math.pi
    middle = np.angle(np.exp(1j * off).mean())  # the same for all: the template has any direction
    assert np.abs((off - middle + math.pi) % (2 * math.pi) - math.pi).max() < math.radians(3)
    assert frames.std(0).mean() < 0.5 * new.std(0).mean()


def test_a_part_is_in_its_frame_and_the_frame_is_not_much_larger() -> None:
    pictures, _ = thrown(30, 2)
    pose = fit_pose(pictures, "axis")
    assert pose is not None
    height, width = pose.extent.tolist()
    assert 90 <= width <= 106 and 45 <= height <= 57  # the part: 90 x 44.8
    frames, _ = pose(pictures)
    edge = torch.cat([frames[:, 0, 0], frames[:, 0, -1]], 1)
    assert (edge > 0.5).float().mean() > 0.95  # background


def test_a_frame_around_the_part_keeps_its_angle() -> None:
    pictures = torch.stack([picture(0.5, x, y) for x, y in ((60, 70), (80, 90), (95, 65))])
    pose = fit_pose(pictures, "part")
    assert pose is not None
    place = pose.place(pictures)
    assert torch.equal(place[:, 2:], torch.tensor([[1.0, 0.0]]).expand(3, 2))
    moved = place[:, :2] - place[:1, :2]
    torch.testing.assert_close(
        moved, torch.tensor([[0.0, 0.0], [20.0, 20.0], [35.0, -5.0]]), atol=0.7, rtol=0
    )


def test_there_is_no_pose_without_a_part() -> None:
    rng = np.random.default_rng(0)
    texture = torch.from_numpy(rng.uniform(0, 1, (10, 3, SIDE, SIDE)).astype(np.float32))
    plain = 0.5 + 0.01 * texture
    for pictures in (texture, plain, torch.full((4, 3, SIDE, SIDE), 0.5)):
        assert all(fit_pose(pictures, frame) is None for frame in ("part", "axis", "match"))
    squares, _ = thrown(20, 3, long=30.0, short=22.0)
    assert fit_pose(squares, "axis") is None  # no axis
    assert fit_pose(squares, "match") is not None


def test_an_empty_picture_has_some_place_too() -> None:
    pictures, _ = thrown(20, 4)
    for frame in ("part", "axis", "match"):
        pose = fit_pose(pictures, frame)
        assert pose is not None
        frames, place = pose(torch.full((2, 3, SIDE, SIDE), 0.6))
        assert torch.isfinite(frames).all() and torch.isfinite(place).all()


@pytest.mark.parametrize("frame", ["axis", "match"])
def test_what_is_high_in_the_frame_is_high_at_its_place_in_the_picture(frame: str) -> None:
    pictures, _ = thrown(20, 5)
    fitted = fit_pose(pictures, frame)
    assert fitted is not None
    shape = tuple(2 * round(side) for side in fitted.extent.tolist())
    pose = fitted.scaled((2 * SIDE, 2 * SIDE), shape)
    fitted = fitted.scaled((SIDE, SIDE), (shape[0] // 2, shape[1] // 2))
    large = torch.nn.functional.interpolate(pictures, scale_factor=2, mode="bilinear")
    frames, place = pose(large)
    small, _ = fitted(pictures)
    double = torch.nn.functional.avg_pool2d(frames, 2)
    assert (double - small).abs().mean() < 0.02  # the same view, at twice the scale
    dark = 1 - torch.nn.functional.avg_pool2d(frames.mean(1, keepdim=True), 8)[:, 0]
    back = pose.back(dark, place)
    assert back.shape == (20, *heatmap_of(pose.picture)) == (20, 40, 40)
    expected = 1 - torch.nn.functional.avg_pool2d(large.mean(1, keepdim=True), 8)[:, 0]
    seen = back > dark.amin((1, 2), keepdim=True) + 1e-6
    assert (back - expected)[seen].abs().mean() < 0.05
    outside = back[:, 0, 0] - dark.amin((1, 2))
    assert outside.abs().max() == 0


def test_samples_between_pixels_are_bilinear_and_the_edge_is_repeated() -> None:
    x = torch.arange(12.0).reshape(1, 1, 3, 4)
    points = torch.tensor([[[[0.0, 0.0], [1.5, 1.0], [3.0, 2.0], [9.0, -5.0]]]])
    torch.testing.assert_close(sample(x, points)[0, 0, 0], torch.tensor([0.0, 5.5, 11.0, 3.0]))


def test_a_pose_is_restored_from_its_state() -> None:
    pictures, _ = thrown(20, 6)
    pose = fit_pose(pictures, "axis")
    assert pose is not None
    again = Pose("axis", pose.picture, pose.shape)
    again.load_state_dict(pose.state_dict())
    for one, other in zip(pose(pictures), again(pictures), strict=True):
        assert torch.equal(one, other)
