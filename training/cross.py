"""Cross-calibration: every good image trains and calibrates.

The good images are cut into five folds by group. Everything that is learnt from images (which are
outliers, the whitening of the space, the location scale, the model) is fitted five times, each
time without one fold, and scores the images of that fold, which it has not seen. These scores set
the threshold of a detector that is fitted to all images: cross-conformal p-values (Vovk, Annals of
Mathematics and Artificial Intelligence 2015). Its rate is an estimate: CV+ (Barber et al., Annals
of Statistics 2021) has a bound, twice the rate and a few per cent more, where a new image is
compared with each score under the model of that score's fold; one model fitted to all images has
none. It tends to flag less, since the models of the folds know fewer images and find new ones more
unusual (counted by ``python -m tests.benchmarks.measure_cross``). Two things are not repeated for
each fold: the choice of the recipe, and the joining of copies.

Folds cost no new look at the images: the raw maps of all of them are kept.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from anomaly.files.progress import Progress
from anomaly.inputs.dataset import Record
from training.export import DetectorGraph
from training.folds import folds
from training.known_defects import Defects, fit_known, judged_by
from training.labelled_maps import describe_maps
from training.learnt import leave_out_outliers
from training.pixels import to_unit
from training.scores import Heatmap, ImageScore
from training.sets import Sets
from training.stages import Calibrated, Fitted, Fold, Job, Split, Unseen
from training.trained import FittedMaps, fit_maps

Floats = npt.NDArray[np.float32]
Sharpen = Callable[[Tensor, Path], Tensor]  # a heatmap (1, h, w) and the image's path -> a fine one


def unchanged(heatmap: Tensor, path: Path) -> Tensor:
    """Returns the heatmap."""
    return heatmap


def sharpening(fitted: Fitted) -> Sharpen:
    """Returns what makes the heatmaps of calibrating images fine, if anything does."""
    fine, known = fitted.trained.fine, fitted.trained.distances
    if fine is None:
        return unchanged
    return lambda heatmap, path: fine.combined(heatmap, known[path][None])


def out_of_fold(
    split: Split,
    records: list[Record],
    to_heatmap: Heatmap,
    sharpen: Sharpen = unchanged,
    describe: bool = False,
) -> Unseen:
    """Returns good images judged by models that were fitted to the others of them without their
    fold.

    ``split``: its space as it was chosen. Folds keep groups whole, once copies are joined. Scores
    are those of the graph that would be exported, from the kept maps: in pixel space these are
    rounded to 8 bits. In a frame of the part the largest value is that of the frame's heatmap,
    which that of the picture, interpolated from it, never exceeds. ``sharpen`` makes it fine, and
    is not fitted again: it does not change scores. ``describe``: whether known defects are to be
    told from these images. Raises TrainingError where images without a fold cannot be learnt from.
    """
    fold = folds([split.groups[record.path] for record in records])
    scores: dict[Path, Floats] = {}
    described: dict[Path, npt.NDArray[np.float64]] = {}
    first: Fold | None = None
    count = int(fold.max()) + 1
    with Progress(count, "scoring each fifth by a model of the others") as progress:
        for k in range(count):
            left, kept = (
                [records[i] for i in np.flatnonzero(some)] for some in (fold == k, fold != k)
            )
            fitted, found = fit_without(split, to_heatmap, kept, left, sharpen)
            scores |= by_path(fitted.records, found)
            first = first or fitted
            if describe:
                unseen = split.seen.subset(left).maps
                rows, _ = describe_maps(fitted.space, fitted.model, to_heatmap, unseen)
                described |= by_path(fitted.records, rows)
            progress.advance(1)
    assert first is not None  # there are five groups at least
    of_all = [described[record.path] for record in records] if described else None
    return Unseen(
        records,
        np.stack([scores[record.path] for record in records]),
        fold,
        first,
        None if of_all is None else np.stack(of_all),
    )


def by_path(records: Sequence[Record], rows: npt.NDArray[Any]) -> dict[Path, npt.NDArray[Any]]:
    """Returns one row for each record, by its path."""
    return dict(zip((record.path for record in records), rows, strict=True))


def with_evidence(unseen: Unseen, defects: Defects) -> Unseen:
    """Returns the images with the scores that what is learnt from known defects raises, for each
    fold by what is learnt without its images.

    ``defects``: as the model of all images sees them, which will judge new images. As the model of
    a fold sees them they would share its traces with that fold's images, and raise these.
    """
    scores, first = unseen.scores.copy(), unseen.first
    for k in range(int(unseen.fold.max()) + 1):
        left = unseen.fold == k
        known = fit_known(unseen.good.subset(~left), defects)
        scores[left, 0] += judged_by(known, unseen.good.described[left])[0].astype(np.float32)
        first = replace(first, known=known) if k == 0 else first
    return replace(unseen, scores=scores, first=first)


def fit_without(
    split: Split,
    to_heatmap: Heatmap,
    kept: Sequence[Record],
    left: Sequence[Record],
    sharpen: Sharpen = unchanged,
) -> tuple[Fold, npt.NDArray[np.float32]]:
    """Returns what is fitted to the images ``kept``, and scores and largest heatmap values of those
    ``left``, (n, 2), in the order of its records.

    The split itself stays as it is: the space is copied.
    """
    job, seen = split.job, split.seen
    space = copy.deepcopy(split.space)
    learnt, _ = leave_out_outliers(
        seen.subset(kept), Sets([], [], []), space, to_heatmap, job.device
    )
    unseen = seen.subset(left)
    share = 1.0 if to_heatmap.coverage is None else float(to_heatmap.coverage.mean())
    groups = [record.group for record in learnt.records]
    with tempfile.TemporaryDirectory() as folder:  # for a checkpoint, which nobody needs
        quiet = replace(job, say=lambda line: None)
        maps = (learnt.maps, unseen.maps)
        fitted = fit_maps(quiet, space, maps, share, Path(folder), groups)
    scores = scores_of_unseen(fitted, unseen.records, job, to_heatmap, sharpen)
    to_heatmap.cpu()
    return Fold(space.cpu(), fitted.model.cpu().eval(), unseen.records), scores


@torch.inference_mode()
def scores_of_unseen(
    fitted: FittedMaps,
    records: Sequence[Record],
    job: Job,
    to_heatmap: Heatmap,
    sharpen: Sharpen,
) -> Floats:
    """Returns score and largest heatmap value of each image that a model did not learn from,
    float32 (n, 2), an image at a time as in the detector's file.
    """
    score, model = ImageScore(job.score), fitted.model
    found = []
    for record, x in zip(records, fitted.held_out, strict=True):
        maps = to_unit(x[None].to(job.device))
        heatmap = to_heatmap(model(maps)[0])
        largest = sharpen(heatmap.cpu(), record.path).max()
        found.append((float(score(model, maps, heatmap, to_heatmap)), float(largest)))
    return np.array(found, np.float32).reshape(-1, 2)


def graph_of(fold: Fold, calibrated: Calibrated) -> DetectorGraph:
    """Returns the detector as it is without one fold: what it flags among that fold's images it has
    not learnt from.
    """
    trained = calibrated.fitted.trained
    score = ImageScore(trained.score.name, trained.score.density, fold.known)
    parts = (trained.prepare, fold.space, fold.model, score, calibrated.guard)
    return DetectorGraph(*parts, trained.to_heatmap, trained.fine, trained.pose).eval()
