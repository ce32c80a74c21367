"""One score for each group, or for each unit."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from anomaly.errors import CalibrationError
from anomaly.statistics.calibration import as_float32


def one_per_group(
    scores: ArrayLike, groups: Sequence[str], seed: int, members: Sequence[str] | None = None
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """One score of each group and its index in ``scores``, in the order of the groups' names.

    The draw depends on the seed, the group's name and its members only: neither on the order of the
    inputs nor on other groups. ``members`` are names within the group (paths); without them its
    scores take that place.
    """
    values = as_float32(scores)
    if not len(values) == len(groups) == len(groups if members is None else members):
        raise CalibrationError(
            f"{len(values)} scores for {len(groups)} groups: expected one group (and one name) for "
            "each score"
        )
    inside: dict[str, list[tuple[str, bool, float, int]]] = {}
    for index, (group, value) in enumerate(zip(groups, values.tolist(), strict=True)):
        name = "" if members is None else members[index]
        inside.setdefault(group, []).append((name, math.isnan(value), value, index))
    chosen = [
        sorted(inside[group])[_draw(seed, group, len(inside[group]))][-1]
        for group in sorted(inside)
    ]
    indices = np.array(chosen, dtype=np.int64)
    return values[indices], indices


def worst_per_unit(
    scores: ArrayLike, units: Sequence[str]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The highest score of each unit's views and its index in ``scores``, in the order of the
    units' names.

    A view without a score (NaN) is the worst there is. The maximum is exchangeable between units as
    their views are.
    """
    values = as_float32(scores)
    worst: dict[str, int] = {}
    for index, unit in enumerate(units):
        best = worst.setdefault(unit, index)
        if not values[index] <= values[best] and not math.isnan(values[best]):
            worst[unit] = index
    indices = np.array([worst[unit] for unit in sorted(worst)], dtype=np.int64)
    return values[indices], indices


def _draw(seed: int, group: str, count: int) -> int:
    digest = hashlib.sha256(f"{seed}\n{group}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest, "big") % count
