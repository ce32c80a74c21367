"""Which training images may not be good? Each is scored by a model that has seen neither it nor its group.

A model learns defects that hide among its good images, and then finds them good. So the linear model, which fits in
seconds, is fitted five times, each time without a fifth of the groups, and scores those (cross-fitting); and once more
without the tenth that came out highest, because defects of one kind vouch for each other. What is highest then is to be
looked at by a person: leaving out good images because their scores are high would make the promise false.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from anomaly.detector import write_atomically
from training.guard import parts_of
from training.models import MODELS
from training.scores import Heat

SUSPECTS = "suspects.txt"  # in a run folder: the paths to look at first, as --exclude takes them
DOUBTED = 0.1  # share of the images that the second round does not learn from
LISTED = 0.05  # share of the images that is listed
FEWEST = 5


def cross_fitted_scores(space: nn.Module, heat: Heat, maps: Tensor, groups: Sequence[str]) -> npt.NDArray[np.float32]:
    """Returns the score of each image's raw maps (n, C, h, w) by a linear model without its group; higher = more unusual.

    The models' scores have no common unit, so each is divided by the median of those it was fitted on.
    """
    scores = one_round(space, heat, maps, groups, np.ones(len(maps), bool))
    return one_round(space, heat, maps, groups, scores < np.quantile(scores, 1 - DOUBTED))


def one_round(
    space: nn.Module, heat: Heat, maps: Tensor, groups: Sequence[str], trusted: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float32]:
    """Returns the score of each image by a model of the ``trusted`` images, bool (n,), of other groups."""
    part, scores = parts_of(groups), np.zeros(len(maps), np.float32)
    for k in range(part.max() + 1):
        out = part == k
        seen, others = torch.from_numpy(~out & trusted), torch.from_numpy(out)
        scores[out] = scores_of_others(copy.deepcopy(space).cpu(), heat, maps[seen], maps[others])
    return scores


@torch.inference_mode()
def scores_of_others(space: nn.Module, heat: Heat, seen: Tensor, others: Tensor) -> npt.NDArray[np.float32]:
    """Returns the scores of ``others`` by a linear model of ``seen``, both raw maps, in units of the median of ``seen``."""
    if space.whitening is not None:
        space.whitening.fit(seen.split(64))
        seen, others = (torch.cat([space.whitening(part) for part in each.split(64)]) for each in (seen, others))
    _, channels, height, width = seen.shape
    model = MODELS["linear"](channels, height, width, pixels=space.whitening is None).eval()
    model.fit_maps(seen)
    own, held = (hottest(model, heat, each) for each in (seen, others))
    return held / max(float(np.median(np.abs(own))), 1e-12)


def hottest(model: nn.Module, heat: Heat, maps: Tensor) -> npt.NDArray[np.float32]:
    """Returns the mean of the hottest 5 % of each map's heatmap, float32 (n,)."""
    found = []
    for part in maps.split(64):
        x = part.float() / 255 if part.dtype == torch.uint8 else part
        found.append(heat.pool(heat(model(x)[0])))
    return torch.cat(found).numpy()


def highest(scores: npt.NDArray[np.float32]) -> list[int]:
    """Returns the indices of the highest 5 % of the scores and at least five, the highest first."""
    count = max(FEWEST, math.ceil(LISTED * len(scores)))
    return [int(i) for i in np.argsort(-scores, kind="stable")[:count]]


def write_suspects(run: Path, names: Sequence[str]) -> None:
    """Writes the names a line each, the most unusual first."""
    write_atomically(run / SUSPECTS, "".join(f"{name}\n" for name in names).encode("utf-8", "surrogateescape"))
