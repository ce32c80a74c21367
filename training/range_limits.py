"""Limits of the training range: how far from the good images an image may be that is judged.

Good images that are not judged cost a person's time, so their share is what the limits are set
for: 1 % is aimed at, so that it is at most 2 %, of 20 images as of 400. It is a share of all
checks together, because an image that fails one is not judged. Of few images the highest one says
too little (of 30 it is exceeded by 3 %), so that a tail is extrapolated: an exponential one above
the median, with the uncertainty of its mean.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

REFUSED_SHARE = 0.01  # of new good images
ACCEPTED_QUANTILE = 0.99  # of the copies to accept, that a limit is not below
# quantile of the changed copies, towards which a limit moves where they are far from the good ones
CHANGED_QUANTILE = 0.02
LEAST_NOTICED = 0.5  # of the copies of a change; a discriminant that notices fewer is not asked
NEVER = 1e6  # a limit that nothing exceeds


def limits_of(accepted: Array, changed: Array, groups: int) -> Array:
    """Returns the limit of each check: the end of what is accepted, and halfway from there to the
    changed copies beyond it.

    ``accepted`` (copies, n, checks) and ``changed`` (changes, n, checks): what the checks say of
    images left out, ``groups`` groups of them; the first check is the distance, each other one is
    for a change.

    The distance is for what nobody thought of, as each change has a check of its own: it goes
    halfway to the second farthest change. A check that does not tell its change is not asked:
    it would refuse good images and notice nothing.
    """
    good = accepted[0]
    centre = np.median(good, 0)
    spread = np.maximum(good - centre, 0).mean(0) + 1e-9
    limits: Array = centre + spread * tail_limit(((good - centre) / spread).max(1), groups)
    if len(accepted) > 1:
        limits = np.maximum(limits, np.quantile(accepted[1:], ACCEPTED_QUANTILE, axis=1).max(0))
    nearest = np.quantile(changed, CHANGED_QUANTILE, axis=1)  # (changes, checks)
    own = np.append(np.sort(nearest[:, 0])[-2:][0], np.diag(nearest[:, 1:]))
    for check in range(1, len(limits)):
        if (changed[check - 1, :, check] > limits[check]).mean() < LEAST_NOTICED:
            own[check] = 2 * NEVER
    return np.maximum(limits, (limits + own) / 2)


def tail_limit(values: Array, groups: int, share: float = REFUSED_SHARE) -> float:
    """Returns the limit that a new value exceeds with a probability of about ``share``.

    ``values`` (n,), higher = more unlike, of ``groups`` groups that differ from each other. Above
    their median m the tail is exponential, and its mean excess e known from k = groups / 2 values:
    then P(value > m + k e t) = 0.5 (1 + t)^-k (the predictive distribution of an exponential
    variable under Jeffreys' prior is Pareto's; Gelman et al., "Bayesian data analysis", 2013).
    Of values whose tail is lighter fewer exceed it.
    """
    middle, k = float(np.median(values)), max(groups // 2, 1)
    above = values[values > middle]
    excess = float((above - middle).mean()) if len(above) else 0.0
    return middle + k * excess * ((0.5 / share) ** (1 / k) - 1)
