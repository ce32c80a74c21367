"""Where the parts of training images lie -> the frame that they can be looked at in."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from training.foreground import otsu
from training.pose import ANGLES, Pose, border, moments

# of the picture: what is smaller is noise, what is larger is no part before a background
SMALLEST_PART, LARGEST_PART = 0.02, 0.8
MAX_EDGE = 0.25  # share of the border that a part may touch
LEAST_CONTRAST = 0.03  # of a part: less is a shading of the background
LEAST_ELONGATION = 1.25  # ratio of the standard deviations along and across, to have an axis
BEYOND, EDGE = 2.0, 0.05  # how far beyond those learnt from a part may be, and at the border
MARGIN = 1.06  # of the frame around the largest part
ROUNDS = 5  # in which the template follows the images and they follow it
EXTENT = 0.995  # quantile of a part's pixels that the frame holds
LARGE = 0.95  # quantile of the parts that it holds


@torch.inference_mode()
def fit_pose(pictures: Tensor, frame: str) -> Pose | None:
    """Returns the pose of the parts in pictures (n, 3, H, W) in 0..1, None where they have none.

    Its frame holds all but the largest parts; how many pixels it has is still open.
    """
    height, width = pictures.shape[2:]
    pose = Pose(frame, (height, width), (height, width))
    small = pose.small(pictures)
    for _ in range(2):  # the contrast says what of the border is background, and this the contrast
        contrast = float(np.median([otsu(each) for each in pose.difference(small).numpy()]))
        pose.contrast.fill_(contrast)
    weight = pose.foreground(small)
    solid = weight > 0.5
    shares, edges = weight.mean((1, 2)), border(weight).mean(1)
    share, edge = float(shares.median()), float(edges.median())
    if contrast < LEAST_CONTRAST or not SMALLEST_PART < share < LARGEST_PART or not solid.any():
        return None
    if edge > min(MAX_EDGE, share / 2):  # a texture is at the edge as it is elsewhere
        return None
    long, short = deviations(moments(weight)[1])
    if frame == "axis" and float((long / short).quantile(1 - LARGE)) < LEAST_ELONGATION:
        return None
    pose.bounds.copy_(
        torch.stack([shares.min() / BEYOND, shares.max() * BEYOND, edges.max() * BEYOND + EDGE])
    )
    pose.radius.fill_(2.0 * pose.factor * float(long.median()))
    if frame != "part":
        fit_template(pose, pictures)
    set_frame(pose, solid, pose.place(pictures))
    return pose


def deviations(second: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the standard deviations along and across the axis, each (n,), from second moments."""
    xx, xy, yy = second.unbind(1)
    root = torch.sqrt((xx - yy) ** 2 + 4 * xy**2)
    return torch.sqrt((xx + yy + root) / 2), torch.sqrt(((xx + yy - root) / 2).clamp(min=1e-6))


def fit_template(pose: Pose, pictures: Tensor) -> None:
    """Sets the template to the mean of the parts, each turned to where it agrees best with it; the
    first one is the part that is most like the mean.
    """
    small, place = pose.small(pictures), pose.place(pictures)
    if pose.frame == "axis":
        ends = pose.along(small, place)  # by one of the two directions of each
        pose.template.copy_(
            torch.linalg.svd(ends, full_matrices=False)[2][0].view_as(pose.template)
        )
        return
    around = pose.around(small, place[:, :2]).view(len(small), *pose.template.shape)
    first = int((around.flatten(1) @ around.flatten(1).mean(0)).argmax())
    pose.template.copy_(around[first])
    for _ in range(ROUNDS):
        pose.template.copy_(turned_back(around, pose.place(pictures)).mean(0))


def turned_back(around: Tensor, place: Tensor) -> Tensor:
    """Returns polar maps (n, r, k) turned back by the angles of their places, (n, r, k)."""
    shift = torch.atan2(place[:, 3], place[:, 2]) * (ANGLES / (2 * math.pi))
    come = torch.arange(ANGLES)[None] + shift[:, None]  # where each angle of the result comes from
    low = come.floor()
    share = (come - low)[:, None]
    index = low.long()[:, None].expand(-1, around.shape[1], -1)
    before, after = (around.gather(2, (index + step) % ANGLES) for step in (0, 1))
    return (1 - share) * before + share * after


def set_frame(pose: Pose, solid: Tensor, place: Tensor) -> None:
    """Sets the frame's middle and extent to what holds the parts, in pixels of the picture."""
    ends = []
    for part, (x, y, cos, sin) in zip(solid, place.tolist(), strict=True):
        rows, columns = part.nonzero().T.float()
        if len(rows):
            dx = (columns + 0.5) * pose.factor - 0.5 - x
            dy = (rows + 0.5) * pose.factor - 0.5 - y
            across = torch.stack([cos * dx + sin * dy, cos * dy - sin * dx])
            quantiles = torch.tensor([1 - EXTENT, EXTENT])
            ends.append(torch.quantile(across, quantiles, dim=1))
    first, last = torch.stack(ends, 1)  # of each part (n, 2): u, v
    first = first.quantile(1 - LARGE, 0) - pose.factor
    last = last.quantile(LARGE, 0) + pose.factor
    pose.middle.copy_((first + last) / 2)
    pose.extent.copy_(MARGIN * (last - first).flip(0))
