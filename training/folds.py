"""Folds for cross-validation, by group."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

FOLDS = 5  # of a set, each left out in turn


def folds(groups: Sequence[str]) -> npt.NDArray[np.int64]:
    """Returns the fold of each image, int64 (n,) from 0 to 4, to leave one after the other out:
    whole groups, seed 0.
    """
    names = sorted(set(groups))
    order = np.random.default_rng(0).permutation(len(names))
    fold = {name: int(order[i]) % min(FOLDS, len(names)) for i, name in enumerate(names)}
    return np.array([fold[group] for group in groups])
