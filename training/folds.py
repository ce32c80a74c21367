"""Folds for cross-validation, by group; subsets; and images that differ in nothing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from anomaly.errors import TrainingError
from anomaly.statistics.calibration import FOLDS


def folds(groups: Sequence[str], count: int = FOLDS) -> npt.NDArray[np.int64]:
    """Returns the fold of each image, int64 (n,) from 0 to ``count`` - 1 at most, to leave one
    after the other out: whole groups, seed 0.
    """
    names = sorted(set(groups))
    order = np.random.default_rng(0).permutation(len(names))
    fold = {name: int(order[i]) % min(count, len(names)) for i, name in enumerate(names)}
    return np.array([fold[group] for group in groups])


def seeded_subset(count: int, most: int) -> Tensor:
    """Returns the sorted indices of a random subset of ``count`` maps, ``most`` or all of them;
    always the same.
    """
    return torch.randperm(count, generator=torch.Generator().manual_seed(0))[:most].sort().values


def all_alike(images: str) -> TrainingError:
    """Returns the error for images of which a model can learn nothing."""
    return TrainingError(
        f"{images} look the same to the model, photographs of different good parts expected: check "
        "that the folder does not hold copies of one image"
    )
