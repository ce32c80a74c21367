"""Arithmetic on what inspectors say: precision, recall, a threshold tried out, agreement.

Verdicts on flagged images are selected by their score. They show how many of the flagged images are defects
(precision); what was missed (recall) only an audit sample can show: images drawn by lot, within strata of the score.
Each answer counts for as many images of its stratum as it stands for (inverse sampling probability; Horvitz and
Thompson 1952). Precision is shown from 20 answers on, recall once its interval would span at most half of the scale if
no answer of the audit sample were "anomalous": neither rule looks at the answers that it lets through.

States of an image: ``open``, ``anomalous``, ``normal``, ``unsure``, ``disagreement``; here also ``skip`` for an open
one that was looked at and put aside. Unsure, disagreed and skipped images count as not answered.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from anomaly.errors import AnomalyError, RuntimeMissing
from anomaly.reporting.wording import PREVIEW, one_in, percent
from anomaly.statistics.calibration import Calibration, Rate, beta_quantile, clopper_pearson

VERDICTS = ("anomalous", "normal", "unsure", "skip")  # what an inspector can say
STATES = ("open", "anomalous", "normal", "unsure", "disagreement")  # what the verdicts on an image come to
MIN_ANSWERS = 20  # answers that a precision or a kappa rests on
SHARES = (1 / 64, 1 / 16, 1 / 4, 1)  # of the images that passed, from the highest score down: where strata end


def resolve(verdicts: Iterable[str]) -> str:
    """Returns the state that the current verdicts of all inspectors come to: the majority of anomalous and normal."""
    counts = Counter(verdicts)
    if counts["anomalous"] != counts["normal"]:
        return max("anomalous", "normal", key=counts.__getitem__)
    if counts["anomalous"]:
        return "disagreement"
    return "unsure" if counts["unsure"] else "open"


# ---- the audit sample ----


@dataclass(frozen=True)
class Stratum:
    """A range of scores of one run. Number 0 holds the flagged images, 1 those next to the threshold, and so on.

    ``images`` of the run lie in it, ``drawn`` of them are in the audit sample, and ``judged`` of those were answered.
    """

    number: int
    low: float | None
    high: float | None
    images: int
    drawn: int
    judged: int = 0


@dataclass(frozen=True, eq=False)
class Draw:
    """An audit sample of n images, each array (n,); ``lot`` is uniform in [0, 1), the lowest lots are drawn.

    The core holds each image, flagged or not, with the same probability: of it, and only of it, the normal images are
    a random sample of all normal ones and may set a threshold.
    """

    lot: NDArray[np.float64]
    stratum: NDArray[np.int64]
    drawn: NDArray[np.bool_]
    core: NDArray[np.bool_]
    strata: list[Stratum]


def draw(scores: ArrayLike, flagged: ArrayLike, images: int, seed: int = 0) -> Draw:
    """Returns an audit sample of about ``images`` of the judged images with ``scores`` (n,) and ``flagged``, bool (n,).

    Half of it is drawn from all images alike (the core), half from the strata in equal shares, so that more come
    from near the threshold, where missed defects are. An image is drawn when its lot is below its stratum's probability:
    a larger sample with the same seed holds the smaller one. Given how many were drawn of a stratum, any set of so
    many is as likely as another.
    """
    values, is_flagged = np.asarray(scores, dtype=np.float64), np.asarray(flagged, dtype=bool)
    if images < 1 or not len(values):
        raise AnomalyError(f"an audit sample of {images} from {len(values)} judged images: expected 1 or more of each")
    stratum = _strata(values, is_flagged)
    sizes = np.bincount(stratum)
    everywhere = images / 2 / len(values) if images < len(values) else 1.0
    passed = sizes[1:].astype(np.float64)
    chance = everywhere + images / 2 / max(1, len(passed)) / np.maximum(passed, 1)
    lot = np.random.default_rng(seed).random(len(values))
    core = lot < everywhere
    drawn = np.where(is_flagged, core, lot < np.concatenate([[0.0], chance])[stratum])
    return Draw(lot, stratum, drawn, core, [_stratum(s, values, stratum, drawn) for s in range(len(sizes)) if sizes[s]])


def _strata(scores: NDArray[np.float64], flagged: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Numbers of strata: 0 where flagged, then by rank from the highest score; equal scores stay together."""
    passed = np.sort(scores[~flagged])[::-1]
    if not len(passed):
        return np.zeros(len(scores), dtype=np.int64)
    ends = np.unique([passed[math.ceil(share * len(passed)) - 1] for share in SHARES])  # lowest scores of each
    return np.where(flagged, 0, len(ends) - np.searchsorted(ends, scores, side="right") + 1).astype(np.int64)


def _stratum(number: int, scores: NDArray[np.float64], stratum: NDArray[np.int64], drawn: NDArray[np.bool_]) -> Stratum:
    inside = stratum == number
    low, high = float(scores[inside].min()), float(scores[inside].max())
    return Stratum(number, low, high, int(inside.sum()), int((inside & drawn).sum()))


@dataclass(frozen=True, eq=False)
class Sample:
    """The flagged images of a run and its audit sample, each array (n,), with the state of each image.

    ``lot`` is NaN where a flagged image was not drawn. ``threshold`` is None where the detector only ranks.
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
        """Which answers may count: anomalous or normal, and drawn before the first of its stratum not yet looked at.

        Inspectors see the sample in the order of the lots, so that each beginning of it is a random sample too. What
        somebody judged out of turn, say because it looked odd, counts when its turn has come.
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
    """Returns which rows of the sample may set a threshold: normal ones of the core, up to the first not yet looked at.

    The core was drawn without regard to the score, so its flagged images belong to it: without them every new threshold
    would be set by the images below the old one, and the false-alarm rate would rise with each (1 % becomes 2 %).
    Verdicts on other flagged images never get in: they would push it the other way, until the detector is blind.
    """
    rows = np.flatnonzero(sample.core)
    waiting = sample.lot[rows][sample.states[rows] == "open"]
    before = sample.lot[rows] < (waiting.min() if len(waiting) else np.inf)
    return np.asarray(rows[before & (sample.states[rows] == "normal")])


# ---- precision, recall ----


@dataclass(frozen=True)
class Figure:
    """A share with its 95 % interval, or None with the reason in ``note`` where too little is known.

    ``n``: answers that it rests on; ``needed``: how many more until a figure can be shown, as things stand.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int
    needed: int = 0
    method: str = ""
    note: str = ""

    def text(self) -> str:
        """The figure in words, counts with it."""
        verdicts = f"{self.n:,} verdict{'' if self.n == 1 else 's'}"
        if self.value is None or self.low is None or self.high is None:
            more = f" {self.needed:,} more verdict{'' if self.needed == 1 else 's'} needed." if self.needed else ""
            return f"unknown ({verdicts}):{more} {self.note}".rstrip(" :")
        note = f". {self.note}" if self.note else ""
        between = f"{percent(self.low).removesuffix(' %')} to {percent(self.high)}"
        return f"{percent(self.value)} (95 %: {between}; {verdicts}){note}"


def precision(sample: Sample) -> Figure:
    """Returns which share of the flagged images are anomalous, by the verdicts on them."""
    return (
        Figure(None, None, None, 0, note=NO_THRESHOLD) if sample.threshold is None else precision_at(sample, sample.threshold)
    )


def recall(sample: Sample) -> Figure:
    """Returns which share of the run's anomalous images was flagged, by flagged images and audit sample together."""
    return Figure(None, None, None, 0, note=NO_THRESHOLD) if sample.threshold is None else recall_at(sample, sample.threshold)


NO_THRESHOLD = "This detector only ranks: choose a threshold first."
NO_AUDIT = "Verdicts on flagged images cannot show what was missed: draw an audit sample."
NOTHING_FOUND = "No defect has been found above this threshold yet."
GO_ON = "Go on with the audit sample."
EXACT = "exact (Clopper-Pearson)"
WEIGHTED = "weighted by inverse sampling probability; gamma interval (Fay and Feuer 1997)"


def precision_at(sample: Sample, threshold: float) -> Figure:
    """Returns which share of the images above ``threshold`` are anomalous.

    At or above the run's own threshold from the verdicts on flagged images, with the exact interval; below it with the
    audit sample, weighted.
    """
    if sample.threshold is not None and threshold >= sample.threshold:
        return _precision_of_flagged(sample, threshold)
    if problem := _not_yet(sample):
        return problem
    n = int(np.count_nonzero(sample.usable & _above(sample.scores, threshold)))
    if n < MIN_ANSWERS:
        return Figure(None, None, None, n, MIN_ANSWERS - n, WEIGHTED, GO_ON)
    hits, others = (_count(sample, verdict, threshold, above=True) for verdict in ("anomalous", "normal"))
    return Figure(*_ratio(hits, others), n, 0, WEIGHTED)


def recall_at(sample: Sample, threshold: float) -> Figure:
    """Returns which share of the anomalous images of the run lies above ``threshold``.

    It takes a verdict on every flagged image and an audit sample; else ``value`` is None and ``note`` says what to do.
    """
    if problem := _not_yet(sample):
        return problem
    n = int(sample.usable.sum())
    found, missed = (_count(sample, "anomalous", threshold, above=above) for above in (True, False))
    most = found.total(0.95)[0]
    if not most:
        return Figure(None, None, None, n, 0, WEIGHTED, NOTHING_FOUND)
    none_missed = replace(missed, hits=np.zeros_like(missed.hits))
    effort = _smallest(lambda sixteenths: none_missed.after(sixteenths / 16).total(0.95)[2] <= most)
    needed = int((none_missed.after(effort / 16).answered - missed.answered).sum())
    if needed:
        in_hand = int((missed.drawn - missed.answered).sum())
        go_on = f"Draw {needed - in_hand:,} more images for the audit sample." if needed > in_hand else GO_ON
        return Figure(None, None, None, n, needed, WEIGHTED, go_on)
    return Figure(*_ratio(found, missed), n, 0, WEIGHTED)


def _above(scores: NDArray[np.float32], threshold: float) -> NDArray[np.bool_]:
    return np.asarray(~(scores <= np.float32(threshold)))


def _not_yet(sample: Sample) -> Figure | None:
    """What is missing before anything can be said of the whole run."""
    n = int(sample.usable.sum())
    if sample.waiting:
        are = "is" if sample.waiting == 1 else "are"
        note = f"{sample.waiting:,} of the flagged images {are} still to be judged."
        return Figure(None, None, None, n, sample.waiting, WEIGHTED, note)
    if not any(stratum.drawn for stratum in sample.strata if stratum.number):
        return Figure(None, None, None, n, 0, WEIGHTED, NO_AUDIT)
    return None


def _precision_of_flagged(sample: Sample, threshold: float) -> Figure:
    flagged = (sample.stratum == 0) & _above(sample.scores, threshold)
    n = int(np.count_nonzero(flagged & sample.usable))
    hits = int(np.count_nonzero(flagged & (sample.states == "anomalous")))
    if n < MIN_ANSWERS:
        return Figure(None, None, None, n, MIN_ANSWERS - n, EXACT, "Too few flagged images have been judged.")
    waiting = int(np.count_nonzero(flagged & (sample.states == "open")))
    more = f"{waiting:,} more are not judged yet; the highest scores come first, so of all of them it is likely less."
    return Figure(hits / n, *clopper_pearson(hits, n), n, 0, EXACT, more if waiting else "")


@dataclass(frozen=True, eq=False)
class _Count:
    """How many images of the run have a property: by stratum, float64 (strata,), ``images`` in all, how many of them
    ``drawn``, ``answered``, and ``hits`` that have it; ``reaches``: whether an image of the stratum can have it at all.
    """

    images: NDArray[np.float64]
    drawn: NDArray[np.float64]
    answered: NDArray[np.float64]
    hits: NDArray[np.float64]
    reaches: NDArray[np.bool_]

    @property
    def sampled(self) -> bool:
        return bool((self.reaches & (self.answered < self.images)).any())

    def total(self, level: float) -> tuple[float, float, float]:
        """The estimate with its interval: weighted hits, as a weighted sum of Poisson counts (Fay and Feuer 1997).

        Conservative, and valid at 0 hits. Strata that are answered whole are known exactly; of one without any answer
        every image may have the property.
        """
        seen = self.answered > 0
        weights = np.divide(self.images, self.answered, out=np.zeros_like(self.images), where=seen)
        parts = self.reaches & seen & (self.answered < self.images)
        known = float(self.hits[seen & ~parts].sum())
        y, v = float((weights * self.hits)[parts].sum()), float((weights**2 * self.hits)[parts].sum())
        low, high = _gamma_interval(y, v, float(weights[parts].max(initial=0.0)), level)
        fewest = float(self.hits[parts].sum())
        most = float((self.images - self.answered + self.hits)[parts].sum())
        blind = float(self.images[self.reaches & ~seen].sum())
        return known + y, known + max(low, fewest), known + min(high, most) + blind

    def after(self, effort: float) -> _Count:
        """What it would be with ``effort`` times the drawn images answered (1: all of them), hits in proportion."""
        answered = np.minimum(self.images, np.maximum(self.answered, np.ceil(effort * np.maximum(self.drawn, 1))))
        hits = self.hits * answered / np.maximum(self.answered, 1)
        return replace(self, answered=answered, hits=hits)


def _gamma_interval(y: float, v: float, widest: float, level: float) -> tuple[float, float]:
    if widest == 0:
        return 0.0, 0.0
    quantile = _import("scipy.special", "SciPy").gammaincinv
    tail = (1 - level) / 2
    low = v / y * float(quantile(y * y / v, tail)) if y > 0 else 0.0
    y, v = y + widest, v + widest**2
    return low, v / y * float(quantile(y * y / v, 1 - tail))


def _count(sample: Sample, verdict: str, threshold: float, *, above: bool) -> _Count:
    """How many images above (or not above) the threshold have this verdict."""
    usable, side = sample.usable, _above(sample.scores, threshold) == above
    edges = np.array([s.high if above else s.low for s in sample.strata], dtype=np.float32)

    def by_stratum(rows: NDArray[np.bool_]) -> NDArray[np.float64]:
        counts = [np.count_nonzero(rows & (sample.stratum == s.number)) for s in sample.strata]
        return np.array(counts, dtype=np.float64)

    return _Count(
        images=np.array([s.images for s in sample.strata], dtype=np.float64),
        drawn=np.array([s.drawn if s.number else s.images for s in sample.strata], dtype=np.float64),
        answered=by_stratum(usable),
        hits=by_stratum(usable & side & (sample.states == verdict)),
        reaches=_above(edges, threshold) == above,
    )


def _ratio(hits: _Count, others: _Count) -> tuple[float, float, float]:
    """hits / (hits + others) with the interval from those of both (Bonferroni, where both are uncertain)."""
    level = 0.975 if hits.sampled and others.sampled else 0.95
    (a, a_low, a_high), (b, b_low, b_high) = hits.total(level), others.total(level)
    low, high = (x / (x + y) if x + y else end for x, y, end in ((a_low, b_high, 0.0), (a_high, b_low, 1.0)))
    return a / (a + b), low, high


def _smallest(enough: Callable[[int], bool]) -> int:
    """Returns the smallest whole number from 0 up that is ``enough``, which must hold from there on."""
    low, high = -1, 1
    while not enough(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


# ---- a threshold tried out ----


@dataclass(frozen=True)
class Preview:
    """What a threshold would do: images of the run that it flags, and what can be said of it.

    ``k`` of ``n`` calibration scores set it; ``guaranteed_rate`` and ``upper_bound`` as in Calibration, or None. Where it is
    not the detector's own threshold the guarantee is a preview, since it was chosen after seeing results.
    """

    threshold: float
    flagged: int
    images: int
    k: int | None
    n: int | None
    guaranteed_rate: float | None
    upper_bound: float | None
    own: bool
    precision: Figure
    recall: Figure

    def text(self) -> str:
        """The preview in words, a fact a line."""
        lines = [("images flagged", f"{self.flagged:,} of {self.images:,}")]
        if self.guaranteed_rate is not None and self.upper_bound is not None:
            most = f"95 % confident: at most {percent(self.upper_bound)} in the long run"
            lines.append(
                ("good images flagged", f"about {one_in(self.guaranteed_rate)} ({percent(self.guaranteed_rate)}); {most}")
            )
        lines += [("of these, defects", self.precision.text()), ("of all defects", self.recall.text())]
        text = "\n".join(f"{label:<24}{line}" for label, line in lines)
        return text if self.own else f"{text}\n{PREVIEW}"


def preview(sample: Sample, scores: ArrayLike, calibration: Calibration | None, threshold: float) -> Preview:
    """Returns what ``threshold`` would do in a run with ``scores`` (n,), of images that were judged."""
    values = np.asarray(scores, dtype=np.float32)
    k = n = guaranteed_rate = upper_bound = None
    if calibration is not None:
        n = calibration.n
        k = 1 + int(np.count_nonzero(_above(calibration.scores, threshold)))
        guaranteed_rate, upper_bound = k / (n + 1), beta_quantile(0.95, k, n + 1 - k) if k <= n else 1.0
    return Preview(
        threshold=threshold,
        flagged=int(np.count_nonzero(_above(values, threshold))),
        images=len(values),
        k=k,
        n=n,
        guaranteed_rate=guaranteed_rate,
        upper_bound=upper_bound,
        own=calibration is not None and np.float32(threshold) == calibration.threshold,
        precision=precision_at(sample, threshold),
        recall=recall_at(sample, threshold),
    )


class Band(NamedTuple):
    """Two thresholds: images at or below the lower pass, those above the upper are flagged, a person looks at the rest."""

    passed: int
    looked_at: int
    flagged: int


def band(scores: ArrayLike, low: float, high: float) -> Band:
    """Returns how many of ``scores`` (n,) fall on each side of the thresholds ``low`` and ``high``."""
    if not low <= high:
        raise AnomalyError(f"thresholds {low} and {high} found, the lower one first expected")
    values = np.asarray(scores, dtype=np.float32)
    above, flagged = int(_above(values, low).sum()), int(_above(values, high).sum())
    return Band(len(values) - above, above - flagged, flagged)


@dataclass(frozen=True, eq=False)
class Histograms:
    """``edges``: float64 (bins + 1,). ``counts``: int64 (bins,) of each set; the outer bins hold what lies beyond."""

    edges: NDArray[np.float64]
    counts: dict[str, NDArray[np.int64]]


def histograms(sets: Mapping[str, ArrayLike], bins: int = 60) -> Histograms:
    """Returns histograms of several sets of scores over the same bins, which span all but the last 0.1 % of each."""
    values = {name: np.asarray(scores, dtype=np.float64) for name, scores in sets.items()}
    ends = [np.quantile(scores, (0.001, 0.999)) for scores in values.values() if len(scores)] or [np.array([0.0, 1.0])]
    low, high = float(min(e[0] for e in ends)), float(max(e[1] for e in ends))
    edges = np.linspace(low, high if high > low else low + 1, bins + 1)
    counts = {name: np.histogram(np.clip(scores, low, edges[-1]), edges)[0] for name, scores in values.items()}
    return Histograms(edges, {name: found.astype(np.int64) for name, found in counts.items()})


# ---- people ----


class Act(NamedTuple):
    """A verdict that was given. ``current``: not undone, and the last one of this inspector on this image."""

    inspector: str
    finding: int
    verdict: str
    undone: bool
    current: bool
    seconds: float | None


@dataclass(frozen=True)
class Inspector:
    """What one inspector has done: images by current verdict, verdicts taken back, and the time that one takes.

    ``known``: hidden images of which the truth is known, how many were judged right (unsure is not), of how many.
    """

    name: str
    anomalous: int
    normal: int
    unsure: int
    skipped: int
    undone: int
    median_seconds: float | None
    known: Rate | None

    @property
    def judged(self) -> int:
        return self.anomalous + self.normal + self.unsure


@dataclass(frozen=True)
class Agreement:
    """Two inspectors on the ``n`` images that both called anomalous or normal, ``same`` of them alike.

    ``kappa``: Cohen's, 1 for perfect agreement, 0 for what chance would give; None with fewer than 20 such images
    (``needed`` more) or where both gave one and the same verdict throughout.
    """

    a: str
    b: str
    n: int
    same: int
    kappa: float | None
    needed: int


@dataclass(frozen=True)
class Team:
    inspectors: list[Inspector]
    agreements: list[Agreement]
    disagreements: int
    unsure: int


def team(acts: Sequence[Act], truths: Mapping[int, str]) -> Team:
    """Returns who has done what and how far they agree. ``truths``: of the hidden known images, by finding."""
    names = sorted({act.inspector for act in acts})
    current = {name: {a.finding: a.verdict for a in acts if a.current and a.inspector == name} for name in names}
    images: dict[int, list[str]] = {}
    for verdicts in current.values():
        for finding, verdict in verdicts.items():
            images.setdefault(finding, []).append(verdict)
    states = Counter(resolve(verdicts) for verdicts in images.values())
    return Team(
        [_inspector(name, [a for a in acts if a.inspector == name], current[name], truths) for name in names],
        [agreement(a, b, current[a], current[b]) for a, b in combinations(names, 2)],
        states["disagreement"],
        states["unsure"],
    )


def _inspector(name: str, acts: Sequence[Act], current: Mapping[int, str], truths: Mapping[int, str]) -> Inspector:
    counts = Counter(current.values())
    seconds = [act.seconds for act in acts if act.seconds is not None]
    tested = [verdict == truths[finding] for finding, verdict in current.items() if finding in truths and verdict != "skip"]
    return Inspector(
        name=name,
        anomalous=counts["anomalous"],
        normal=counts["normal"],
        unsure=counts["unsure"],
        skipped=counts["skip"],
        undone=sum(act.undone for act in acts),
        median_seconds=statistics.median(seconds) if seconds else None,
        known=Rate.of(sum(tested), len(tested)) if tested else None,
    )


def agreement(a: str, b: str, verdicts_a: Mapping[int, str], verdicts_b: Mapping[int, str]) -> Agreement:
    """Returns how far two inspectors agree on the images, by finding, that both called anomalous or normal."""
    both = [
        (verdicts_a[finding], verdicts_b[finding])
        for finding in sorted(verdicts_a.keys() & verdicts_b.keys())
        if {verdicts_a[finding], verdicts_b[finding]} <= {"anomalous", "normal"}
    ]
    same = sum(one == other for one, other in both)
    needed = max(0, MIN_ANSWERS - len(both))
    kappa = None
    if not needed and len({verdict for pair in both for verdict in pair}) == 2:
        kappa = float(_import("sklearn.metrics", "scikit-learn").cohen_kappa_score(*zip(*both, strict=True)))
    return Agreement(a, b, len(both), same, kappa, needed)


def _import(module: str, package: str) -> Any:
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise RuntimeMissing.extra(package, "evaluate", "figures from verdicts") from error
