"""What is learnt from known defects: evidence that raises the score of what looks like one, and the
names of their types.

The generative model stays as it is, and its score too: evidence only adds to it, above what half
of the way to the highest good images is, so that kinds of defects that nobody has shown are found
as before. Trained on labels alone, a classifier goes blind to these (Ding et al., "Catching both
gray and black swans", CVPR 2022).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from anomaly.errors import TrainingError
from training.folds import folds

SHARPNESS = 8  # power of the heatmap by which places are weighted
MAX_SDS = 6.0  # standard deviations of good images that a number of a descriptor can reach
STRENGTH = 0.01  # inverse of the penalty on the weights of evidence
STRENGTH_OF_TYPES = 0.1
HIGH = 0.99  # quantile of good images that is one unit of score and of evidence
FROM = 0.5  # units of evidence that add nothing yet
FEWEST_IMAGES = 5  # of defects to learn from, and of a type that gets a name
UNKNOWN_SHARE = 0.1  # of known defects, held out, whose type is called unknown
Floats = npt.NDArray[np.float64]


def descriptor(deviation: Tensor, heatmap: Tensor, inside: Tensor | None = None) -> Tensor:
    """Returns what describes an image's deviation from good ones, (N, 4 C).

    ``deviation``: (N, C, h, w), whitened, about 0 and 1 for good images; ``heatmap``: (N, h, w);
    ``inside``: the weight of each place, (h, w) or (N, h, w). Means and logarithms of mean squares
    of each channel: at the hottest places, and over all of them. Places are weighted by a power of
    the heatmap, which unlike a set of hottest ones changes steadily with it.
    """
    flat = deviation.flatten(2)
    places = torch.ones_like(heatmap) if inside is None else inside.expand_as(heatmap)
    inspected = heatmap.clamp(min=0) * (places > 0)
    hottest = (inspected / inspected.amax((1, 2), keepdim=True).clamp(min=1e-6)) ** SHARPNESS
    parts = []
    for weight in (hottest, places):
        share = weight.flatten(1) / weight.sum((1, 2)).clamp(min=1e-6)[:, None]
        parts += [
            (flat @ share[:, :, None])[:, :, 0],
            torch.log((flat.square() @ share[:, :, None])[:, :, 0] + 0.1),
        ]
    return torch.cat(parts, 1)


class KnownDefects(nn.Module):
    """Descriptors (N, d) -> what resemblance to known defects adds to the score, (N,), at least 0,
    and the score of each named type, (N, T), from 0 to 1, by itself: they do not sum to 1.
    """

    mean: Tensor
    sd: Tensor
    weight: Tensor
    bias: Tensor
    type_weight: Tensor
    type_bias: Tensor

    def __init__(self, numbers: int, types: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(numbers))
        self.register_buffer("sd", torch.ones(numbers))
        self.register_buffer("weight", torch.zeros(numbers))
        self.register_buffer("bias", torch.zeros(()))
        self.register_buffer("type_weight", torch.zeros(types, numbers))
        self.register_buffer("type_bias", torch.zeros(types))

    @property
    def types(self) -> int:
        """How many types have a name."""
        return len(self.type_bias)

    def forward(self, described: Tensor) -> tuple[Tensor, Tensor]:
        x = standardised(described, self.mean, self.sd)
        types = torch.sigmoid(x @ self.type_weight.T + self.type_bias)
        return torch.relu(x @ self.weight + self.bias), types


def standardised(described: Tensor, mean: Tensor, sd: Tensor) -> Tensor:
    """Returns descriptors in standard deviations of good images, none beyond MAX_SDS."""
    return ((described - mean) / sd).clamp(-MAX_SDS, MAX_SDS)


@dataclass(frozen=True)
class Good:
    """Good images as models see them that have not learnt from them: descriptors (n, d), scores
    (n,), higher = more anomalous, and the fold of each.
    """

    described: Floats
    scores: Floats
    fold: npt.NDArray[np.int64]

    def subset(self, chosen: npt.NDArray[np.bool_]) -> Good:
        return Good(self.described[chosen], self.scores[chosen], self.fold[chosen])


@dataclass(frozen=True)
class Defects:
    """Known defects as a model of good images sees them: descriptors (m, d), scores (m,), and the
    type and group of each; ``named``: the types with a name.
    """

    described: Floats
    scores: Floats
    types: Sequence[str]
    groups: Sequence[str]

    @property
    def named(self) -> list[str]:
        counts = Counter(self.types)
        return sorted(name for name, count in counts.items() if count >= FEWEST_IMAGES)

    def subset(self, chosen: npt.NDArray[np.bool_]) -> Defects:
        types, groups = (
            [name for name, taken in zip(names, chosen, strict=True) if taken]
            for names in (self.types, self.groups)
        )
        return Defects(self.described[chosen], self.scores[chosen], types, groups)


def fit_known(good: Good, defects: Defects) -> KnownDefects:
    """Returns what tells known defects from good images.

    Evidence is a logistic regression, in units of good images that it has not learnt from: 0 at
    their median, 1 at their 99 % quantile; above one half it adds to the score, as many units of
    score (also from median to 99 % quantile). Each named type has a regression of its own, so that
    a defect may be like none of them.
    """
    mean, sd = good.described.mean(0), good.described.std(0) + 1e-6
    a, b = (_standard(x, mean, sd) for x in (good.described, defects.described))
    unseen = np.zeros(len(a))
    for fold in np.unique(good.fold):
        left = good.fold == fold
        weight, bias = _evidence(a[~left], b)
        unseen[left] = a[left] @ weight + bias
    weight, bias = _evidence(a, b)
    middle, unit = span(unseen)
    scale = span(good.scores)[1] / unit
    known = KnownDefects(len(mean), len(defects.named))
    known.mean.copy_(torch.from_numpy(mean))
    known.sd.copy_(torch.from_numpy(sd))
    known.weight.copy_(torch.from_numpy(weight * scale))
    known.bias.fill_((bias - middle - FROM * unit) * scale)
    if defects.named:
        type_weight, type_bias = _types(a, b, defects.types, defects.named)
        known.type_weight.copy_(torch.from_numpy(type_weight))
        known.type_bias.copy_(torch.from_numpy(type_bias))
    return known


def span(values: Floats) -> tuple[float, float]:
    """Returns the median of values of good images, and how far their 99 % quantile lies above."""
    middle = float(np.median(values))
    unit = float(np.quantile(values, HIGH)) - middle
    if not unit > 0:
        raise TrainingError(
            "good images all look alike to the model: known defects need a scale to be learnt on; "
            "add good images of different parts, or leave out --defects"
        )
    return middle, unit


@torch.inference_mode()
def judged_by(known: KnownDefects, described: Floats) -> tuple[Floats, Floats]:
    """Returns evidence (n,) and type scores (n, T) of descriptors."""
    evidence, types = known(torch.from_numpy(described).float())
    return evidence.double().numpy(), types.double().numpy()


@dataclass(frozen=True)
class HeldOut:
    """Known defects as detectors judge them that have not learnt from these: scores (m,), and below
    which type score a type is called unknown (None where none has a name).
    """

    scores: Floats
    unknown_below: float | None


def held_out(good: Good, defects: Defects) -> HeldOut:
    """Returns known defects judged by what is learnt from four fifths of them, by group."""
    scores, best = defects.scores.copy(), np.full(len(defects.scores), np.nan)
    fold = folds(defects.groups)
    for k in np.unique(fold):
        left = fold == k
        if left.all():
            continue
        fitted = fit_known(good, defects.subset(~left))
        evidence, types = judged_by(fitted, defects.described[left])
        scores[left] += evidence
        if types.shape[1]:
            best[left] = types.max(1)
    of_named = np.isin(defects.types, defects.named) & ~np.isnan(best)
    below = float(np.quantile(best[of_named], UNKNOWN_SHARE)) if of_named.any() else None
    return HeldOut(scores, below)


def _standard(described: Floats, mean: Floats, sd: Floats) -> Floats:
    clipped: Floats = np.clip((described - mean) / sd, -MAX_SDS, MAX_SDS)
    return clipped


def _evidence(good: Floats, defects: Floats) -> tuple[Floats, float]:
    """Returns weights (d,) and bias that tell defects from good images."""
    labels = np.arange(len(good) + len(defects)) >= len(good)
    return _regression(np.concatenate([good, defects]), labels, STRENGTH)


def _types(
    good: Floats, defects: Floats, types: Sequence[str], named: Sequence[str]
) -> tuple[Floats, Floats]:
    """Returns weights (T, d) and biases (T,) that tell each named type from the other defects and
    from good images, which count alike.
    """
    rows, found = np.concatenate([defects, good]), []
    for name in named:
        own = np.array([*(kind == name for kind in types), *[False] * len(good)])
        others = ~own & (np.arange(len(rows)) < len(defects))
        weight = np.zeros(len(rows))
        shares = ((own, 1.0), (others, 0.5), (~own & ~others, 0.5 if others.any() else 1.0))
        for chosen, share in shares:
            weight[chosen] = share * len(defects) / 2 / max(1, chosen.sum())
        found.append(_regression(rows, own, STRENGTH_OF_TYPES, weight))
    weights, biases = zip(*found, strict=True)
    return np.stack(weights), np.array(biases)


def _regression(
    rows: Floats, labels: npt.NDArray[np.bool_], strength: float, weight: Floats | None = None
) -> tuple[Floats, float]:
    """Returns weights (d,) and bias of a logistic regression; without ``weight`` both classes count
    alike.
    """
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    balanced = "balanced" if weight is None else None
    model = LogisticRegression(C=strength, class_weight=balanced, max_iter=1000)
    with threadpool_limits(1):  # small products: threads would wait for each other
        model.fit(rows, labels, weight)
    return model.coef_[0], float(model.intercept_[0])
