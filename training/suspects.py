"""Which good images may not be good? Each is judged by models that have not seen it.

A model learns the defects that hide among its good images, and then finds them good. So the linear
Gaussian, which is fitted in closed form, is fitted five times, each time without a fifth of the
images, and judges those (cross-fitting). Other photographs of one part may be seen: they say what
this part looks like. But a defect that was photographed several times would vouch for itself, so
images of small groups are judged a second time, without their whole group, and the higher of the
two counts. What comes out highest is for a person to look at: some good images are always first,
and a threshold set without them would guarantee what it cannot keep.
"""

from __future__ import annotations

import math
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from anomaly.errors import TrainingError
from anomaly.files.atomic import write_atomically
from anomaly.imaging.overlay import shrink
from anomaly.inputs.dataset import Record
from anomaly.reporting.lines import lines_of
from anomaly.reporting.report import GalleryItem
from anomaly.scorer import Scorer
from training.folds import folds
from training.models.gaussian import KnownMaps, inner_products
from training.pixels import to_unit
from training.protocols import Space
from training.scores import Heatmap, averaged
from training.sets import Sets, name_of

SUSPECTS = "suspects.txt"  # in a run folder: the paths of the suspects, as --exclude takes them
# images of a group at most that are defective or not as one: a part, not a lot
MAX_GROUP_IMAGES = 10
MAX_MODEL_IMAGES = 1250  # images that the models learn from: all others are judged only
LISTED, FEWEST = 0.05, 5  # share and least number of the images that are listed
# Robust standard deviations from which on no model learns from an image; how often they are looked
# for
OUTLIER_DISTANCE_MADS, ROUNDS = 7.0, 3
# of the mean heatmap value that a place has usually at least: where nothing ever varies there is
# none
MIN_LOCATION_SCALE = 0.1
AT_MOST = 0.1  # share of the fit set that is not learnt from: more are no exception

USED = {
    "fit": "the model learnt from it",
    "outliers": "too far from all others for the model to learn from it",
    "validation": "choices were made on it, and the default model learnt from it",
    "calibration": "it helps to set the threshold",
}

CALIBRATES = "; like all of them it helps to set the threshold"

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Suspect:
    """A good image to look at. ``times``: its score in units of the median one; ``heatmap``:
    float32 (h, w) in that unit.
    """

    record: Record
    times: float
    heatmap: Floats


def find_suspects(
    records: Sequence[Record], maps: Tensor, space: Space | None, to_heatmap: Heatmap
) -> list[Suspect]:
    """Returns the most unusual 5 % of the images (at least 5), the most unusual first.

    ``maps``: their raw maps (n, C, h, w), or uint8 pixels; ``space``: whitened already; None: so
    are the maps. Empty where most images are copies of one, so that models of a part of them have
    nothing to learn.
    """
    try:
        scores, heatmaps = cross_fitted(
            CrossFit(maps, space, to_heatmap), [record.group for record in records]
        )
    except TrainingError:
        return []
    count = max(FEWEST, math.ceil(LISTED * len(records)))
    order = np.argsort(-scores, kind="stable")[:count]
    return [Suspect(records[i], float(scores[i]), heatmaps[i]) for i in order]


def cross_fitted(images: CrossFit, groups: Sequence[str]) -> tuple[Floats, Floats]:
    """Returns scores (n,) and heatmaps (n, h, w): without the image, or if that is higher without
    its small group.
    """
    scores, heatmaps = images.by_folds([str(i) for i in range(len(groups))])
    size = Counter(groups)
    several = np.array([1 < size[group] <= MAX_GROUP_IMAGES for group in groups])
    if several.any():
        scores_of_groups, heatmaps_of_groups = images.by_folds(groups)
        higher = several & (scores_of_groups > scores)
        scores[higher], heatmaps[higher] = scores_of_groups[higher], heatmaps_of_groups[higher]
    return scores, heatmaps


def outliers(maps: Tensor, space: Space | None, to_heatmap: Heatmap) -> npt.NDArray[np.bool_]:
    """Returns which images of the fit set are so unlike all others that a model had better not
    learn from them, bool (n,).

    Their cross-fitted scores are more than seven robust standard deviations (1.4826 times the
    median distance from the median) above the median; a tenth of all at most. Looked for three
    times at most, each time by models without those that were found before, since hidden defects
    vouch for each other. By the heatmap as it is: with multiples of the usual one, which the list
    goes by, more of the rare good images would be left out too (see docs/benchmarks.md).
    """
    found = np.zeros(len(maps), dtype=bool)
    try:
        images = CrossFit(maps, space, to_heatmap)
        for _ in range(ROUNDS):
            errors = images.errors([str(i) for i in range(len(maps))], found)
            scores = to_heatmap.pool(
                torch.cat([to_heatmap(batch) for batch in errors.split(64)])
            ).numpy()
            above = scores - np.median(scores[~found])
            limit = OUTLIER_DISTANCE_MADS * 1.4826 * np.median(np.abs(above[~found]))
            if limit == 0:  # half of them are copies of one
                return np.zeros(len(maps), dtype=bool)
            before, found = found, above > max(limit, np.quantile(above, 1 - AT_MOST))
            if (found == before).all():
                break
    except TrainingError:  # too few, or copies of one
        return np.zeros(len(maps), dtype=bool)
    return found


class CrossFit:
    """Maps and their inner products, of which every fit without a part of the images takes what it
    needs.
    """

    @torch.inference_mode()
    def __init__(self, maps: Tensor, space: Space | None, to_heatmap: Heatmap) -> None:
        """``space``: whitened already; None: so are the maps."""
        self.maps, self.space, self.to_heatmap = maps, space, to_heatmap
        self.known = np.sort(np.random.default_rng(0).permutation(len(maps))[:MAX_MODEL_IMAGES])
        self.learnt = torch.cat([self.ready(batch) for batch in maps[self.known].split(64)])
        self.products = self.products_of(maps)
        coverage = to_heatmap.coverage
        self.inspected = 1.0 if coverage is None else float(coverage.mean())

    @torch.inference_mode()
    def products_of(self, maps: Tensor) -> Tensor:
        """Returns the inner products of raw maps (n, C, h, w) with those that are learnt from,
        float64 (n, known).
        """
        rows, several = self.learnt.flatten(1), maps.split(MAX_MODEL_IMAGES)
        return torch.cat([inner_products(rows, self.ready(some).flatten(1)) for some in several])

    def ready(self, batch: Tensor) -> Tensor:
        """Returns raw maps as the model takes them."""
        if self.space is None:
            return batch
        if self.space.whitening is None:
            return to_unit(batch[:, : self.space.channels])
        return self.space.whitening(batch)

    @torch.inference_mode()
    def by_folds(self, groups: Sequence[str]) -> tuple[Floats, Floats]:
        """Returns scores (n,) and heatmaps (n, h, w) by models that have not seen an image's group;
        the median score is 1.

        A value is a multiple of what is usual at its place: what is high in all images, an edge
        say, would hide what is high in one. The score is the root of the mean square of the hottest
        places, so few very high ones count for more than many warm ones.
        """
        errors = self.errors(groups)
        usual = averaged(errors.mean(0, keepdim=True))
        usual = usual.clamp(min=max(MIN_LOCATION_SCALE * float(usual.mean()), 1e-12))
        heatmaps = torch.cat(
            [self.to_heatmap((batch / usual).square()) for batch in errors.split(64)]
        )
        scores = self.to_heatmap.pool(heatmaps).sqrt()
        typical = scores.median().clamp(min=1e-12)
        return (scores / typical).numpy(), (heatmaps.sqrt() / typical).numpy()

    @torch.inference_mode()
    def errors(self, groups: Sequence[str], unseen: npt.NDArray[np.bool_] | None = None) -> Tensor:
        """Returns maps of errors (n, H, W) by models that have seen neither an image's group nor
        ``unseen``, bool (n,).
        """
        fold = folds(groups)
        never = np.zeros(len(fold), dtype=bool) if unseen is None else unseen
        errors = []
        for k in range(fold.max() + 1):
            left = fold == k
            errors.append(self.errors_without(left | never, self.maps[left], self.products[left]))
        return torch.cat(errors)[np.argsort(np.argsort(fold, kind="stable"))]

    def errors_without(
        self, left_out: npt.NDArray[np.bool_], maps: Tensor, products: Tensor
    ) -> Tensor:
        """Returns the errors of raw maps, (m, H, W), by the linear Gaussian of the images that are
        not left out, bool (n,). ``products``: as ``products_of`` the maps.
        """
        kept = torch.from_numpy(~left_out[self.known])
        among = self.products[self.known][kept][:, kept]
        known = KnownMaps.of(self.learnt[kept], among, self.inspected)
        several = zip(maps.split(64), products[:, kept].split(64), strict=True)
        return torch.cat([known.errors(self.ready(some), of) for some, of in several])


def write_suspects(run: Path, suspects: Sequence[Suspect], images: Path) -> None:
    """Writes the paths to RUN/suspects.txt, a line each, as ``--exclude`` takes them."""
    lines = "".join(f"{name_to_exclude(suspect.record, images)}\n" for suspect in suspects)
    write_atomically(run / SUSPECTS, lines.encode("utf-8", "surrogateescape"))


def name_to_exclude(record: Record, images: Path) -> str:
    """Returns the name by which no other image is meant: relative to the folder that was given,
    else the whole path.
    """
    root = images if images.is_dir() else images.parent
    return name_of(record, images) if record.path.is_relative_to(root) else str(record.path)


def suspects_text(
    suspects: Sequence[Suspect], of: int, sets: Sets, images: Path, run: Path
) -> list[str]:
    """Says which images to look at, and what to do where they are not good; lines."""
    if not suspects:
        return []
    first = suspects[:FEWEST]
    lines = [
        (
            f"{len(suspects)} of {of:,} good images are the most unusual to models that have not "
            f"seen them, the first {len(first)}:"
        )
    ]
    for suspect in first:
        used = use(suspect, sets)
        said = f"   ({USED[used]})" if used in ("calibration", "outliers") else ""
        lines.append(
            f"    {suspect.times:.1f} times a typical one   "
            f"{name_to_exclude(suspect.record, images)}{said}"
        )
    again = shlex.join(
        ["anomaly", "train", str(images), "--exclude", str(run / SUSPECTS), "--out", "NEW"]
    )
    lines.append(
        f"some good images are always first: look at {run / 'report.html'}, delete the lines of "
        "the good ones from"
    )
    lines.append(f"{run / SUSPECTS}, then {again}")
    return lines_of(("" if i else "suspects", line) for i, line in enumerate(lines))


def use(suspect: Suspect, sets: Sets) -> str:
    """Returns the name of the set that a suspect is in."""
    return next(name for name, records in sets.by_name().items() if suspect.record in records)


def picture(suspect: Suspect, sets: Sets, scorer: Scorer) -> GalleryItem:
    """Returns what a report shows of a suspect: where the models that have not seen it found it
    unusual.
    """
    decoded = scorer.decode(suspect.record.path)
    return GalleryItem(
        path=str(Path(*suspect.record.path.parts[-3:])),
        caption=f"{suspect.times:.1f} times as unusual as a typical good image; "
        f"{USED[use(suspect, sets)]}{CALIBRATES if sets.cross else ''}",
        original=shrink(decoded.pixels),
        expected=scorer.explain(decoded),
        heatmap=suspect.heatmap,
        median=1.0,
        threshold=2.0,
    )
