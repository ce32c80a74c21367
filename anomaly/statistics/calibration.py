"""Scores of normal images -> p-values, a threshold, and how far its false-alarm rate can be
trusted.

Split conformal calibration (Laxhammar & Falkman 2010; Bates, Candes, Lei, Romano and Sesia, Annals
of Statistics 2023): if a new normal image is exchangeable with the n calibration images, the k-th
largest of their scores is exceeded with probability at most k / (n + 1), whatever the scores are
distributed like. Over the draw of the calibration images the long-run rate follows Beta(k, n +
1 - k) (with ties it is lower), and the number flagged among m new normal images the beta-binomial
of the same parameters.

Cross-calibration (Vovk, "Cross-conformal predictors", Annals of Mathematics and Artificial
Intelligence 2015): each of the n images is scored by a model that was fitted without its fold, and
the detector is fitted to all of them. The rate k / (n + 1) is then an estimate. What is proven
(Barber, Candes, Ramdas and Tibshirani, "Predictive inference with the jackknife+", Annals of
Statistics 2021, CV+) compares a new image with each calibration score under the model of that
score's fold, and allows twice the rate and, with few folds, a few per cent more; of one model
fitted to all images nothing is proven.

Everywhere: higher score = more anomalous; ranks are integers; a score that is not a number is never
good.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from anomaly.errors import CalibrationError
from anomaly.statistics.intervals import (
    beta_binomial_limit,
    clopper_pearson,
    rate_of,
    upper_bound_of,
)
from anomaly.statistics.review_threshold import (
    ReviewThreshold,
    asked_in,
    at_rate,
    at_score,
    lowest_rate,
)

DEFAULT_RATE = 0.01  # the target rate of who asks for no rate: 1 false alarm in 100 good images
LARGEST_RATE = 0.5
FOLDS = 5  # of cross-calibration: each is left out in turn
Kind = Literal["split", "cross"]
KINDS: tuple[Kind, ...] = ("split", "cross")


@dataclass(frozen=True, eq=False)
class Calibration:
    """The scores of n normal images and the rank k that sets the threshold.

    ``scores``: float32 (n,), finite, ascending, one for each group. ``k``: 1 to n. ``target_rate``:
    the false-alarm rate that was asked for, None where the default was taken. The rate never
    exceeds it; without a target rate, and with too few images for the default, k is 1. ``kind``:
    ``split``, nothing was fitted or chosen on these images, and the rate is guaranteed; or
    ``cross``, each was scored by a model that was fitted without it, and the rate is estimated.
    ``review_rate`` or ``review_score``: what was asked for as the second threshold, ``review``.
    Raises CalibrationError where that does not hold.
    """

    scores: NDArray[np.float32]
    k: int
    target_rate: float | None = None
    kind: Kind = "split"
    review_rate: float | None = None
    review_score: float | None = None

    def __post_init__(self) -> None:
        scores = np.sort(_finite(self.scores))
        scores.flags.writeable = False
        object.__setattr__(self, "scores", scores)
        highest = (
            max(1, rank(DEFAULT_RATE, self.n))
            if self.target_rate is None
            else rank(self.target_rate, self.n)
        )
        if not 1 <= self.k <= highest:
            raise CalibrationError(
                f"rank k = {self.k} of {self.n} calibration scores does not keep the false-alarm "
                f"rate of {100 * (self.target_rate or DEFAULT_RATE):.6g} %: expected 1 to "
                f"{highest}; calibrate again"
            )
        if self.review_score is not None:  # as a card holds it
            object.__setattr__(self, "review_score", float(as_float32(self.review_score)))
        _ = self.review  # or an error

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Calibration):
            return NotImplemented
        mine, others = (
            (c.k, c.target_rate, c.kind, c.review_rate, c.review_score) for c in (self, other)
        )
        return mine == others and np.array_equal(self.scores, other.scores)

    @property
    def n(self) -> int:
        """Number of calibration scores: of groups, not of images."""
        return len(self.scores)

    @property
    def threshold(self) -> np.float32:
        """The k-th largest calibration score; what is above is flagged."""
        return np.float32(self.scores[self.n - self.k])

    @property
    def rate(self) -> float:
        """k / (n + 1): the probability that a new normal image is flagged is at most this;
        guaranteed of ``kind`` split, estimated of cross.
        """
        return rate_of(self.k, self.n)

    @property
    def is_guaranteed(self) -> bool:
        """Whether rate and upper bound are guaranteed, not estimated."""
        return self.kind == "split"

    @property
    def upper_bound(self) -> float:
        """With 95 % confidence the long-run false-alarm rate of this one detector is at most this;
        of ``kind`` cross an estimate.
        """
        return upper_bound_of(self.k, self.n)

    @cached_property  # each image's box asks for it
    def median(self) -> np.float32:
        """m of the card: the median calibration score, a typical good image."""
        middle = self.scores[(self.n - 1) // 2 : self.n // 2 + 1]
        return np.float32(np.mean(middle, dtype=np.float64))

    @cached_property
    def review(self) -> ReviewThreshold | None:
        """The second threshold, above which a person looks; None where there is one only."""
        if self.review_score is not None:
            return at_score(self.scores, self.k, self.review_score)
        if self.review_rate is None:
            return None
        k = rank(self.review_rate, self.n)
        return at_rate(self.scores, self.k, k, self.review_rate, self.is_guaranteed)

    @property
    def review_threshold(self) -> np.float32:
        """The score above which an image needs a person, or is flagged: without a second threshold
        the threshold.
        """
        return self.threshold if self.review is None else self.review.threshold

    @property
    def too_few(self) -> bool:
        """Whether no rate was asked for and there are too few scores for the default one."""
        return self.target_rate is None and rank(DEFAULT_RATE, self.n) == 0

    def p_value(self, scores: ArrayLike) -> NDArray[np.float64]:
        """(1 + number of calibration scores >= score) / (n + 1), float64 shaped like ``scores``; of
        NaN 1 / (n + 1).
        """
        # NaN sorts above every number
        below = np.searchsorted(self.scores, as_float32(scores), side="left")
        return np.asarray((1 + self.n - below) / (self.n + 1), dtype=np.float64)

    def is_anomaly(self, scores: ArrayLike) -> NDArray[np.bool_]:
        """not (score <= threshold), bool shaped like ``scores``: exactly where the p-value is at
        most the rate.
        """
        return np.asarray(~(as_float32(scores) <= self.threshold))

    def is_review(self, scores: ArrayLike) -> NDArray[np.bool_]:
        """Whether a person has to look: above the review threshold and not flagged, bool shaped
        like ``scores``.
        """
        found = as_float32(scores)
        return np.asarray((found > self.review_threshold) & (found <= self.threshold))

    def expected(self, images: int) -> float:
        """Number of ``images`` new normal images that are flagged on average, at most."""
        return images * self.rate

    def ordinary_up_to(self, images: int, level: float = 0.95) -> int:
        """The beta-binomial limit: at most so many of ``images`` normal ones are flagged with
        probability ``level``.
        """
        return beta_binomial_limit(images, self.k, self.n + 1 - self.k, level)

    def with_scores(self, scores: ArrayLike) -> Calibration:
        """The calibration at the same rank by other values (n,) of the same images, such as the
        largest of each one's heatmap.
        """
        return Calibration(as_float32(scores), self.k, self.target_rate, self.kind)

    def to_json(self) -> dict[str, Any]:
        """The card's calibration: float32 numbers as Python floats, which round trip exactly."""
        return {
            "n": self.n,
            "k": self.k,
            "target_rate": self.target_rate,
            "kind": self.kind,
            **named_rate(self.rate, self.kind),
            "upper_bound": self.upper_bound,
            "threshold": float(self.threshold),
            "m": float(self.median),
            "review": None if self.review is None else self.review.to_json(),
            "scores": [float(score) for score in self.scores],
        }

    @classmethod
    def from_json(cls, card: Mapping[str, Any]) -> Calibration:
        """The calibration that ``to_json`` wrote; what it derives has to agree with the card."""
        if not isinstance(card, Mapping):
            raise CalibrationError(
                f"the card's calibration is {type(card).__name__}, expected an object: the file is "
                "damaged"
            )
        scores, k, target_rate = card.get("scores"), card.get("k"), card.get("target_rate")
        if not isinstance(scores, list) or not all(_is_float32(score) for score in scores):
            raise CalibrationError(
                "the card's calibration scores are not a list of float32 numbers: the file is "
                "damaged"
            )
        if (
            not isinstance(k, int)
            or isinstance(k, bool)
            or not (target_rate is None or _is_float32(target_rate))
        ):
            raise CalibrationError(
                f"the card says k = {k!r}, target rate = {target_rate!r}; expected an integer and "
                "a rate: export it again"
            )
        rate = None if target_rate is None else float(target_rate)
        found = cls(as_float32(scores), k, rate, _kind(card.get("kind")), *asked_in(card))
        right = rank(DEFAULT_RATE if found.target_rate is None else found.target_rate, found.n)
        if k != max(1, right):
            raise CalibrationError(
                f"rank k = {k} of {found.n} calibration scores found, {right} by the target rate "
                f"of {100 * (found.target_rate or DEFAULT_RATE):.6g} % expected: the file is "
                "damaged"
            )
        for name, value in found.to_json().items():
            if name in card and not _agrees(name, card[name], value):
                raise CalibrationError(
                    f"the card's calibration {name} is not what its sorted scores give: the file "
                    "is damaged"
                )
        return found


@dataclass(frozen=True)
class Rate:
    """``flagged`` of ``n`` with the exact 95 % interval from ``low`` to ``high``, as fractions."""

    flagged: int
    n: int
    low: float
    high: float

    @classmethod
    def of(cls, flagged: int, n: int) -> Rate:
        """The rate with its Clopper-Pearson interval; the n must be independent (one a group)."""
        return cls(flagged, n, *clopper_pearson(flagged, n))

    @property
    def value(self) -> float:
        return self.flagged / self.n

    def to_json(self) -> dict[str, float | int]:
        return {
            "value": self.value,
            "low": self.low,
            "high": self.high,
            "flagged": self.flagged,
            "n": self.n,
        }


def calibrate(
    scores: ArrayLike, target_rate: float | None = None, kind: Kind = "split"
) -> Calibration:
    """The calibration of normal images' ``scores`` (n,), one for each group, for a false-alarm rate
    of ``target_rate``; ``kind``: as in Calibration.

    Without one the rate is 1 %, or the lowest that n scores allow. A target rate that they
    cannot keep, one outside (0, 0.5], and scores that are missing or not finite raise
    CalibrationError.
    """
    found = np.sort(_finite(scores))
    if target_rate is None:
        return Calibration(found, max(1, rank(DEFAULT_RATE, len(found))), kind=kind)
    k = rank(target_rate, len(found))
    if k == 0:
        can = "can guarantee" if kind == "split" else "allow by estimate"
        raise CalibrationError(
            f"{len(found):,} good images set the threshold and {can} 1 false alarm in "
            f"{len(found) + 1:,}, not {100 * target_rate:.6g} %, which needs "
            f"{needed(target_rate):,}: add images, or --false-alarm-rate "
            f"{lowest_target_rate(len(found))}"
        )
    return Calibration(found, k, float(target_rate), kind)


def named_rate(rate: float, kind: Kind) -> dict[str, float | None]:
    """A rate by what it is, as JSON has it: ``guaranteed_rate`` of the kind split,
    ``estimated_rate`` of cross, the other one null.
    """
    return {
        "guaranteed_rate": rate if kind == "split" else None,
        "estimated_rate": rate if kind == "cross" else None,
    }


def rate_word(of: Calibration | Kind) -> str:
    """What a rate is: guaranteed, or by cross-calibration estimated."""
    kind = of.kind if isinstance(of, Calibration) else of
    return "guaranteed" if kind == "split" else "estimated"


def rank(target_rate: float, n: int) -> int:
    """k = floor(target rate * (n + 1)) of the decimal that was written: 0.29 of 100 is 29, although
    0.29 * 100 < 29.
    """
    return math.floor(exact_rate(target_rate) * (n + 1))


def needed(target_rate: float) -> int:
    """How many calibration scores (groups) a target rate needs: the smallest n with k >= 1."""
    return math.ceil(1 / exact_rate(target_rate)) - 1


def lowest_target_rate(n: int) -> float:
    """The lowest rate to ask of n calibration scores, rounded up to one digit so that they can keep
    it.
    """
    return lowest_rate(1, n)


def exact_rate(target_rate: float) -> Fraction:
    """The rate as the decimal fraction that was written; CalibrationError outside (0, 0.5]."""
    if not 0 < target_rate <= LARGEST_RATE:
        raise CalibrationError(
            f"a false-alarm rate of {target_rate} was asked for: expected above 0 and at most "
            f"{LARGEST_RATE} (0.01 is 1 in 100 good images)"
        )
    return Fraction(str(float(target_rate)))


def as_float32(scores: ArrayLike) -> NDArray[np.float32]:
    """Returns scores as float32, -0.0 as 0.0, whose order a sort leaves to the processor."""
    if isinstance(
        scores, np.float32
    ):  # one score of an image: what follows takes ten times as long
        return np.asarray(scores + np.float32(0))
    with np.errstate(over="ignore"):  # what is too large for float32 is infinite, and found so
        return np.asarray(scores).astype(np.float32) + np.float32(0)


def _kind(kind: object) -> Kind:
    for known in KINDS:
        if kind == known:
            return known
    raise CalibrationError(
        f"the card's calibration is of kind {str(kind)[:20]!r}, {' or '.join(KINDS)} expected: the "
        "file is damaged"
    )


def _finite(scores: ArrayLike) -> NDArray[np.float32]:
    found = as_float32(scores)
    if found.ndim != 1 or len(found) == 0:
        raise CalibrationError(
            f"calibration scores of shape {found.shape}: expected one score for each good image, "
            "at least 1"
        )
    wrong = np.flatnonzero(~np.isfinite(found))
    if len(wrong):
        raise CalibrationError(
            f"{len(wrong)} of {len(found)} calibration scores are not finite float32 numbers (the "
            f"first, number {wrong[0] + 1}, is {found[wrong[0]]}): the model cannot score these "
            "good images; look at them"
        )
    return found


def _is_float32(value: object) -> bool:
    # false for NaN
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 2.0**128


def _agrees(name: str, found: object, right: object) -> bool:
    if isinstance(found, Mapping) and isinstance(right, Mapping):
        return all(key in found and _agrees(key, found[key], said) for key, said in right.items())
    # worked out, not copied: another machine's may differ in its last digits
    if name == "upper_bound":
        return _is_float32(found) and math.isclose(found, right, rel_tol=1e-6)  # type: ignore[arg-type]
    return type(found) is not bool and found == right
