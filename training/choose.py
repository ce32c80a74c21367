"""The choice of how images are looked at, made for each set without real defects: candidates are
ranked by how well they tell synthetic defects in good images that a model has not seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from anomaly.detector.session import available_cores
from anomaly.errors import TrainingError
from anomaly.imaging.decode import Decoded, DecodeRule
from anomaly.imaging.mask import Mask
from anomaly.inputs.dataset import Record
from training.folds import folds, seeded_subset
from training.foreground import foreground
from training.models.autoencoder import location_scale_of, shrinkage
from training.pose import Pose
from training.posing import fit_pose
from training.preprocess import Preprocess, stretched
from training.protocols import Space
from training.recipes import FRAMES, Recipe, shape_of
from training.scores import Heatmap
from training.sets import decode_all
from training.spaces import Shape
from training.stages import Job
from training.suspects import CrossFit
from training.synthetic_defects import add_defect, kinds_for
from training.tensors import one_thread_each

Pixels = npt.NDArray[np.uint8]  # (H, W, 3)
Floats = npt.NDArray[np.float32]

MOST_IMAGES = 200  # good images that a choice looks at
DEFECTS_PER_KIND = 12
LONGEST_SIDE = 800  # pixels of a picture that defects are made in; a larger one is made smaller
POSE_SIDE = 256  # pixels a side, about, of the pictures that a pose is found in
FINE_SIZES = {"fast": 256, "default": 384, "best": 512}  # pixels a side, about, of a fine frame
CLEARLY_WORSE = 2.0  # standard errors of a difference
# of AUROC, that another recipe has to bring; fitted to three sets: see docs/benchmarks.md
GAIN_OVER_DEFAULT = 0.04
MOST_TRIED = 7  # candidates: one for each frame, and three more of whole images
TRIES = 20  # to make a defect that a mask does not hide


@dataclass(frozen=True)
class Sample:
    """Good images, and copies of them with a synthetic defect.

    ``groups``: of the good ones; ``kinds``, ``sources``: of the defects, and the index of the good
    image that each was made in.
    """

    good: list[Pixels]
    groups: list[str]
    bad: list[Pixels]
    kinds: list[str]
    sources: npt.NDArray[np.intp]

    @property
    def sides(self) -> Shape:
        """Height and width of the median image."""
        height, width = np.median([picture.shape[:2] for picture in self.good], 0).tolist()
        return round(height), round(width)

    @property
    def aspect(self) -> float:
        """Width : height of the median image."""
        return float(np.median([picture.shape[1] / picture.shape[0] for picture in self.good]))


@dataclass(frozen=True)
class Candidate:
    """A recipe, with the pose that its frame needs (None: of whole images)."""

    recipe: Recipe
    pose: Pose | None = None


def draw_good(records: Sequence[Record], rule: DecodeRule) -> Sample:
    """Returns up to 200 of the good images, and no defects."""
    chosen = [records[i] for i in seeded_subset(len(records), MOST_IMAGES).tolist()]
    read = list(pictures_of(chosen, rule))
    groups = [record.group for record, _ in read]
    return Sample([picture for _, picture in read], groups, [], [], np.zeros(0, np.intp))


def draw_sample(
    records: Sequence[Record], rule: DecodeRule, seed: int, mask: Mask | None = None
) -> Sample:
    """Returns up to 200 of the good images, and twelve synthetic defects of each kind."""
    sample = draw_good(records, rule)
    good = sample.good
    parts = [foreground(picture) for picture in good]
    if any(part is None for part in parts):  # then what was found in some may be no part
        parts = [None] * len(parts)
    rng = np.random.default_rng(seed)
    kinds = [kind for kind in kinds_for(parts[0]) for _ in range(DEFECTS_PER_KIND)]
    bad, sources = [], []
    for kind in kinds:
        source, donor = (int(rng.integers(len(good))) for _ in range(2))
        bad.append(make_defect(good[source], good[donor], kind, rng, parts[source], mask))
        sources.append(source)
    return replace(sample, bad=bad, kinds=kinds, sources=np.array(sources))


def pictures_of(records: Sequence[Record], rule: DecodeRule) -> Iterator[tuple[Record, Pixels]]:
    """Yields the images that can be read, at most LONGEST_SIDE pixels a side."""
    for record, image in decode_all(records, rule, LONGEST_SIDE):
        if isinstance(image, Decoded):
            yield record, shrunk(image.pixels)


def shrunk(pixels: Pixels) -> Pixels:
    """Returns pixels (H, W, 3) with a longer side of at most LONGEST_SIDE."""
    height, width = pixels.shape[:2]
    scale = LONGEST_SIDE / max(height, width)
    if scale >= 1:
        return pixels
    prepare = Preprocess(round(height * scale), width=round(width * scale))
    small = prepare(torch.from_numpy(pixels)[None])[0]
    return np.ascontiguousarray((small * 255).round().byte().permute(1, 2, 0).numpy())


def make_defect(
    picture: Pixels,
    donor: Pixels,
    kind: str,
    rng: np.random.Generator,
    part: npt.NDArray[np.bool_] | None,
    mask: Mask | None,
) -> Pixels:
    """Returns a picture with a defect of which something is inspected; the rest is taken away."""
    if mask is None:
        return add_defect(picture, donor, kind, rng, part=part)[0]
    inside = stretched(torch.from_numpy(mask), *picture.shape[:2]).numpy()
    for _ in range(TRIES):
        made, changed = add_defect(picture, donor, kind, rng, part=part)
        if (changed & inside).any():
            break
    return np.where(inside[..., None], made, picture)


def poses_of(sample: Sample, frames: Sequence[str]) -> dict[str, Pose]:
    """Returns the pose of the parts for each frame that the images have one in."""
    height, width = shape_of(sample.aspect, POSE_SIDE)
    prepare = Preprocess(height, width=width)
    pictures = torch.cat([prepare(torch.from_numpy(pixels)[None]) for pixels in sample.good])
    found = {frame: fit_pose(pictures, frame) for frame in frames}
    return {frame: pose for frame, pose in found.items() if pose is not None}


def framed(recipe: Recipe, pose: Pose, size: int, sides: Shape) -> Candidate:
    """Returns the recipe for a frame of about ``size`` x ``size`` pixels in all around the part.

    ``sides``: of the median image, which is not enlarged before the part is cut out.
    """
    height, width = pose.extent.tolist()
    shape = shape_of(width / height, size)
    scale = min(shape[1] / width, shape[0] / height)  # all of the part is in the frame
    scale = min(scale, max(sides) / max(pose.picture))
    picture = (round(scale * pose.picture[0]), round(scale * pose.picture[1]))
    made = replace(recipe, frame=pose.frame, shape=shape, picture=picture)
    return Candidate(made, pose.scaled(picture, shape))


def prepare_of(recipe: Recipe, mask: Mask | None) -> Preprocess:
    """Returns what brings images to the size that a recipe takes them at."""
    inside = None if mask is None else torch.from_numpy(mask)
    return Preprocess(recipe.picture[0], mask=inside, width=recipe.picture[1])


@torch.inference_mode()
def raw_maps(
    candidate: Candidate, space: Space, pictures: Sequence[Pixels], mask: Mask | None = None
) -> Tensor:
    """Returns the maps before whitening, float32 (n, C, h, w), of pictures (H, W, 3)."""
    prepare = prepare_of(candidate.recipe, mask)

    def one(pixels: Pixels) -> Tensor:
        with torch.inference_mode():  # a thread has a mode of its own
            x = prepare(torch.from_numpy(pixels)[None])
            return space.raw(x if candidate.pose is None else candidate.pose(x)[0])[0]

    with one_thread_each(), ThreadPoolExecutor(available_cores()) as pool:
        return torch.stack(list(pool.map(one, pictures)))


@dataclass(frozen=True)
class Judged:
    """A candidate, and how well it tells each synthetic defect, 0 to 1: see ``told``."""

    candidate: Candidate
    told: Floats


@torch.inference_mode()
def judge(
    candidate: Candidate, sample: Sample, images: int, mask: Mask | None = None
) -> tuple[Floats, Floats]:
    """Returns the scores of the good images, (m,), and by how much each defect raises that of the
    image it was made in, (n,), by linear models that have not seen the image.

    ``images``: how many the final model will learn from.
    """
    space = candidate.recipe.make_space().eval()
    raw = raw_maps(candidate, space, sample.good, mask)
    assert space.whitening is not None
    space.whitening.fit(raw.split(64))
    to_heatmap = Heatmap(prepare_of(candidate.recipe, mask).coverage(*space.grid))
    cross = CrossFit(raw, space, to_heatmap)
    bad_raw = raw_maps(candidate, space, sample.bad, mask)
    errors = unseen_errors(cross, bad_raw, sample)
    scale = location_scale_of(errors[0].sum(0)) ** shrinkage(images)  # as the model will have it
    good, bad = (to_heatmap.pool(to_heatmap(some / scale)).numpy() for some in errors)
    return good, bad - good[sample.sources]


def unseen_errors(cross: CrossFit, bad: Tensor, sample: Sample) -> tuple[Tensor, Tensor]:
    """Returns the maps of errors of the good images and of raw maps ``bad`` of those with a defect,
    (n, h, w), by models without the fold of each.
    """
    fold = folds(sample.groups)
    of = fold[sample.sources]
    products = cross.products_of(bad)
    good, with_defect = (
        torch.zeros(len(maps), *cross.learnt.shape[2:]) for maps in (cross.maps, bad)
    )
    for k in range(fold.max() + 1):
        left, made = fold == k, of == k
        good[left] = cross.errors_without(left, cross.maps[left], cross.products[left])
        if made.any():
            with_defect[made] = cross.errors_without(left, bad[made], products[made])
    return good, with_defect


def told(good: Floats, gains: Floats) -> Floats:
    """Returns for each of n defects, by its gain (n,), the share of all pairs of good images, by
    their scores (m,), of which the first one with the gain scores higher than the second one
    without: (n,), 0 to 1, ties count half.

    The mean is an AUROC. That a defect was made in an image that scores high or low by itself does
    not count, so that candidates differ by what they see of the defects alone.
    """
    ordered = np.sort(good)
    with_defect = good + gains[:, None]
    below, at_most = (ordered.searchsorted(with_defect, side) for side in ("left", "right"))
    found: Floats = ((below + at_most) / (2 * len(good))).mean(1).astype(np.float32)
    return found


def mean_by_kind(values: Floats, kinds: Sequence[str]) -> tuple[float, float]:
    """Returns the mean over the kinds of defects of the mean value of each, and the standard error;
    ``values``: one for each defect, (n,).
    """
    names = np.array(kinds)
    rows = [values[names == kind] for kind in dict.fromkeys(kinds)]
    variance = sum(float(row.var(ddof=1)) / len(row) for row in rows)
    return float(np.mean([row.mean() for row in rows])), float(np.sqrt(variance)) / len(rows)


def simplest_of(judged: Sequence[Judged], kinds: Sequence[str]) -> Judged:
    """Returns the first candidate that is not clearly worse than the best one, by the standard
    error of their difference over the same defects.

    The rule of one standard error (Breiman et al., "Classification and regression trees", 1984,
    section 3.4.3), with two: candidates come in the order in which they are preferred.
    """
    best = max(judged, key=lambda one: mean_by_kind(one.told, kinds)[0])
    for one in judged:
        worse, error = mean_by_kind(best.told - one.told, kinds)
        if worse <= CLEARLY_WORSE * error:
            return one
    return best


def frames_for(job: Job, sample: Sample, frame: str) -> list[Candidate]:
    """Returns one recipe for each frame that the images can be looked at in, or for ``frame``
    alone: with fine cells, features of the backbone as it is, which tell most.
    """
    fine = FINE_SIZES[job.options.quality]
    shape = shape_of(sample.aspect, fine)
    space = "filters" if job.recipe.space == "filters" else "features"
    view = Recipe(space, shape, shape, fine=True, normalised=space == "filters")
    whole = [Candidate(view)] if frame in ("auto", "whole") else []
    wanted = FRAMES[1:] if frame == "auto" else (frame,)
    poses = {} if job.mask is not None or frame == "whole" else poses_of(sample, wanted)
    if not whole and not poses:
        raise no_part(frame)
    return whole + [framed(view, pose, fine, sample.sides) for pose in poses.values()]


def views_for(job: Job, sample: Sample, best: Candidate) -> list[Candidate]:
    """Returns the recipes in the frame of a candidate, the preferred one first: of whole images in
    the space of the default recipe, then itself, and features with coarse cells; in a frame of the
    part, which features as they are tell best, itself first.
    """
    has_backbone = job.recipe.space != "filters"
    if not has_backbone:
        return [best]
    usual = replace(best.recipe, space=job.recipe.space, normalised=True)
    if best.recipe.frame != "whole":
        return [best, replace(best, recipe=usual)]
    shape = shape_of(sample.aspect, job.size)
    coarse = Candidate(Recipe("features", shape, shape, normalised=False))
    return [replace(best, recipe=usual), best, coarse]


def candidate_in(frame: str, job: Job, sample: Sample) -> Candidate:
    """Returns the recipe of a job in a frame around the part."""
    poses = poses_of(sample, (frame,))
    if not poses:
        raise no_part(frame)
    return framed(job.recipe, poses[frame], job.size, sample.sides)


def no_part(frame: str) -> TrainingError:
    """Returns the error for images in which no frame is found."""
    return TrainingError(
        f"--frame {frame} found, but the images show no {'long ' if frame == 'axis' else ''}part "
        "before a plain background: leave --frame out, or --frame whole"
    )


def best_of(
    job: Job, sample: Sample, images: int, seen: Callable[[], object]
) -> tuple[Candidate, dict[str, float]]:
    """Returns the candidate that tells synthetic defects best, and the figure of each that was
    tried, 0 to 1: first the frame is chosen, then the space. The default recipe is kept unless
    another one is better by more than 0.04.

    ``images``: how many the final model will learn from. ``seen`` is called after each candidate.
    """
    found: dict[str, Judged] = {}

    def simplest(candidates: Iterable[Candidate]) -> Judged:
        judged = []
        for candidate in candidates:
            name = str(candidate.recipe)
            if name not in found:
                good, gains = judge(candidate, sample, images, job.mask)
                found[name] = Judged(candidate, told(good, gains))
                seen()
            judged.append(found[name])
        return simplest_of(judged, sample.kinds)

    best = simplest(frames_for(job, sample, job.asked.frame)).candidate
    best = simplest(views_for(job, sample, best)).candidate
    if job.asked.frame in ("auto", "whole"):
        simplest([Candidate(job.recipe)])
    figures = {name: mean_by_kind(one.told, sample.kinds)[0] for name, one in found.items()}
    usual = str(job.recipe)
    if usual in figures and figures[str(best.recipe)] <= figures[usual] + GAIN_OVER_DEFAULT:
        best = found[usual].candidate
    return best, figures
