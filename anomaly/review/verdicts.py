"""What verdicts come to, and the audit sample: how it is drawn, which of it may be used.

Verdicts on flagged images are selected by their score. They show how many of the flagged images are
defects (precision); what was missed (recall) only an audit sample can show: images drawn by lot,
within strata of the score. Each answer counts for as many images of its stratum as it stands for
(inverse sampling probability; Horvitz and Thompson 1952). Precision is shown from 20 answers on,
recall once its interval would span at most half of the scale if no answer of the audit sample were
"anomalous": neither rule looks at the answers that it lets through.

States of an image: ``open``, ``anomalous``, ``normal``, ``unsure``, ``disagreement``; here also
``skip`` for an open one that was looked at and put aside. Unsure, disagreed and skipped images
count as not answered.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from anomaly.errors import AnomalyError, RuntimeMissing

VERDICTS = ("anomalous", "normal", "unsure", "skip")  # what an inspector can say
# what the verdicts on an image come to
STATES = ("open", "anomalous", "normal", "unsure", "disagreement")
MIN_ANSWERS = 20  # answers that a precision or a kappa rests on
# of the images that passed, from the highest score down: where strata end
SHARES = (1 / 64, 1 / 16, 1 / 4, 1)


def resolve(verdicts: Iterable[str]) -> str:
    """Returns the state that the current verdicts of all inspectors come to: the majority of
    anomalous and normal.
    """
    counts = Counter(verdicts)
    if counts["anomalous"] != counts["normal"]:
        return max("anomalous", "normal", key=counts.__getitem__)
    if counts["anomalous"]:
        return "disagreement"
    return "unsure" if counts["unsure"] else "open"


# ---- the audit sample ----


@dataclass(frozen=True)
class Stratum:
    """A range of scores of one run. Number 0 holds the flagged images, 1 those next to the
    threshold, and so on.

    ``images`` of the run lie in it, ``drawn`` of them are in the audit sample, and ``judged`` of
    those were answered.
    """

    number: int
    low: float | None
    high: float | None
    images: int
    drawn: int
    judged: int = 0


@dataclass(frozen=True, eq=False)
class Draw:
    """An audit sample of n images, each array (n,); ``lot`` is uniform in [0, 1), the lowest lots
    are drawn.

    The core holds each image, flagged or not, with the same probability: of it, and only of it, the
    normal images are a random sample of all normal ones and may set a threshold.
    """

    lot: NDArray[np.float64]
    stratum: NDArray[np.int64]
    drawn: NDArray[np.bool_]
    core: NDArray[np.bool_]
    strata: list[Stratum]


def draw(scores: ArrayLike, flagged: ArrayLike, images: int, seed: int = 0) -> Draw:
    """Returns an audit sample of about ``images`` of the judged images with ``scores`` (n,) and
    ``flagged``, bool (n,).

    Half of it is drawn from all images alike (the core), half from the strata in equal shares, so
    that more come from near the threshold, where missed defects are. An image is drawn when its lot
    is below its stratum's probability: a larger sample with the same seed holds the smaller one.
    Given how many were drawn of a stratum, any set of so many is as likely as another.
    """
    values, is_flagged = np.asarray(scores, dtype=np.float64), np.asarray(flagged, dtype=bool)
    if images < 1 or not len(values):
        raise AnomalyError(
            f"an audit sample of {images} from {len(values)} judged images: expected 1 or more of "
            "each"
        )
    stratum = _strata(values, is_flagged)
    sizes = np.bincount(stratum)
    everywhere = images / 2 / len(values) if images < len(values) else 1.0
    passed = sizes[1:].astype(np.float64)
    chance = everywhere + images / 2 / max(1, len(passed)) / np.maximum(passed, 1)
    lot = np.random.default_rng(seed).random(len(values))
    core = lot < everywhere
    drawn = np.where(is_flagged, core, lot < np.concatenate([[0.0], chance])[stratum])
    return Draw(
        lot,
        stratum,
        drawn,
        core,
        [_stratum(s, values, stratum, drawn) for s in range(len(sizes)) if sizes[s]],
    )


def _strata(scores: NDArray[np.float64], flagged: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Numbers of strata: 0 where flagged, then by rank from the highest score; equal scores stay
    together.
    """
    passed = np.sort(scores[~flagged])[::-1]
    if not len(passed):
        return np.zeros(len(scores), dtype=np.int64)
    # lowest scores of each
    ends = np.unique([passed[math.ceil(share * len(passed)) - 1] for share in SHARES])
    return np.where(flagged, 0, len(ends) - np.searchsorted(ends, scores, side="right") + 1).astype(
        np.int64
    )


def _stratum(
    number: int, scores: NDArray[np.float64], stratum: NDArray[np.int64], drawn: NDArray[np.bool_]
) -> Stratum:
    inside = stratum == number
    low, high = float(scores[inside].min()), float(scores[inside].max())
    return Stratum(number, low, high, int(inside.sum()), int((inside & drawn).sum()))


@dataclass(frozen=True, eq=False)
class Sample:
    """The flagged images of a run and its audit sample, each array (n,), with the state of each
    image.

    ``lot`` is NaN where a flagged image was not drawn. ``threshold`` is None where the detector
    only ranks.
    """

    threshold: float | None
    strata: Sequence[Stratum]
    findings: NDArray[np.int64]
    scores: NDArray[np.float32]
    stratum: NDArray[np.int64]
    lot: NDArray[np.float64]
    core: NDArray[np.bool_]
    states: NDArray[np.str_]

    @property
    def usable(self) -> NDArray[np.bool_]:
        """Which answers may count: anomalous or normal, and drawn before the first of its stratum
        not yet looked at.

        Inspectors see the sample in the order of the lots, so that each beginning of it is a random
        sample too. What somebody judged out of turn, say because it looked odd, counts when its
        turn has come.
        """
        found = np.isin(self.states, ("anomalous", "normal"))
        for stratum in self.strata:
            if stratum.number:
                rows = np.flatnonzero(self.stratum == stratum.number)
                waiting = self.lot[rows][self.states[rows] == "open"]
                found[rows] &= self.lot[rows] < (waiting.min() if len(waiting) else np.inf)
        return found

    @property
    def waiting(self) -> int:
        """Number of flagged images that nobody has looked at yet."""
        return int(np.count_nonzero((self.stratum == 0) & (self.states == "open")))


def calibration_rows(sample: Sample) -> NDArray[np.int64]:
    """Returns which rows of the sample may set a threshold: normal ones of the core, up to the
    first not yet looked at.

    The core was drawn without regard to the score, so its flagged images belong to it: without them
    every new threshold would be set by the images below the old one, and the false-alarm rate would
    rise with each (1 % becomes 2 %). Verdicts on other flagged images never get in: they would push
    it the other way, until the detector is blind.
    """
    rows = np.flatnonzero(sample.core)
    waiting = sample.lot[rows][sample.states[rows] == "open"]
    before = sample.lot[rows] < (waiting.min() if len(waiting) else np.inf)
    return np.asarray(rows[before & (sample.states[rows] == "normal")])


NO_THRESHOLD = "This detector only ranks: choose a threshold first."
NO_AUDIT = "Verdicts on flagged images cannot show what was missed: draw an audit sample."


def flagged_at(scores: NDArray[np.float32], threshold: float) -> NDArray[np.bool_]:
    return np.asarray(~(scores <= np.float32(threshold)))


def import_extra(module: str, package: str) -> Any:
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise RuntimeMissing.extra(package, "evaluate", "figures from verdicts") from error
