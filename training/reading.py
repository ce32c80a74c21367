"""Which images are learnt from: found, decoded once, split into three sets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from anomaly.errors import DatasetError, TrainingError
from anomaly.files.progress import Progress
from anomaly.imaging.listing import passed_text
from anomaly.imaging.mask import read_mask
from anomaly.inputs.dataset import Record
from anomaly.inputs.known_defects import read_defects
from anomaly.scoring.units import whole_units
from training.describe import warn_of_mask
from training.labelled_maps import find_defects
from training.models import MODELS
from training.options import TrainOptions, check_out, make_run, resolve
from training.own_backbone import OpenedBackbone, open_backbone
from training.preprocess import Preprocess
from training.processes import pick_device, rank
from training.recipes import square
from training.sets import (
    copies_text,
    depths_text,
    excluded_text,
    find_images,
    find_rule,
    join_copies,
    sets_of_copies,
)
from training.stages import Found, Job, Represented, Split
from training.tensors import Extracted, extract


def read(asked: TrainOptions, say: Callable[[str], None]) -> Found:
    """Returns the normal images that there are, and how they are decoded."""
    job = job_of(asked, say)
    passed = Counter[str]()
    records, sets = find_images(job.options, say if rank() == 0 else None, passed)
    if job.options.defects is not None:  # before hours of training, not after them
        find_defects(job.options, records)
    check_out(job.options)
    if job.options.defects is not None:
        read_defects(job.options.defects, job.options.group_by)  # refused now, not after the fit
    make_run(job.options.out)
    rule = find_rule(records, job.options.decode == "reduced", job.options.depth)
    return Found(job, records, sets.excluded, passed, rule)


def job_of(asked: TrainOptions, say: Callable[[str], None]) -> Job:
    """Returns what was asked for with every choice made but that between two spaces."""
    options = resolve(asked)
    own_score = "hottest" if options.tile else MODELS[options.model].score
    score = options.score or own_score
    device = pick_device(options.device)
    mask = None if options.mask is None else read_mask(options.mask)
    options = replace(options, score=score)
    backbone = None
    if options.backbone is not None:
        backbone = open_backbone(options.backbone, options.stages)
        options = replace(options, size=size_for(backbone, asked.size, options.size or 0))
    recipe = square(options.space, options.size or 0)
    return Job(asked, options, options.size or 0, score, device, mask, say, recipe, backbone)


def size_for(backbone: OpenedBackbone, asked: int | None, size: int) -> int:
    """Returns the size of the prepared images, a multiple of the patch of their backbone."""
    nearest = backbone.nearest(size)
    if asked is not None and nearest != asked:
        raise TrainingError(
            f"--size {asked} found, a multiple of {backbone.patch} expected, the patch of "
            f"{backbone.facts.name}: try --size {nearest}"
        )
    backbone.check(nearest)
    return nearest


def represent(found: Found) -> Represented:
    """Returns raw maps, small copies and digests of the images, each decoded once."""
    job, options = found.job, found.job.options
    mask = None if job.mask is None else torch.from_numpy(job.mask)
    prepare = Preprocess(job.size, options.target, mask).to(job.device)
    space = job.recipe.make_space(backbone=job.features).to(job.device).eval()
    with Progress(len(found.records), "looking at images", quiet=rank() > 0) as progress:
        seen = extract(
            found.records, found.rule, prepare, space, job.device, lambda: progress.advance(1)
        )
    if options.by_unit is not None:
        seen = only_whole_units(seen, found.records)
    check_depth(options.depth, seen)
    return Represented(found, prepare, space, seen)


def split(represented: Represented) -> Split:
    """Returns the three sets, drawn by group once copies of each other are in one; says what the
    user must know.

    Raises CalibrationError where a rate cannot be kept, before anything is fitted.
    """
    found, seen = represented.found, represented.seen
    job = found.job
    told = seen.records
    records, copies = join_copies(told, seen.thumbs, seen.digests, job.options)
    sets = sets_of_copies(told, records, copies, job.options)
    alike = copies_text(told, records, copies, job.options)
    if job.options.by_unit is None:
        seen = replace(seen, records=records)
    warnings = [
        *excluded_text(job.options, found.excluded),
        *warn(seen, alike),
        *([] if job.mask is None else warn_of_mask(job.mask, seen)),
    ]
    job.tell(warnings)
    job.tell([f"passed over: {passed_text(found.passed)}"] if found.passed else [])
    return Split(
        job, found.rule, represented.prepare, represented.space, seen, records, sets, warnings
    )


def only_whole_units(seen: Extracted, before: Sequence[Record]) -> Extracted:
    """Returns what was seen of the units that have lost no view; the other views of the rest join
    those left out.
    """
    kept = {record.path for record in whole_units(seen.records, before)}
    if not kept:
        raise DatasetError(
            "no unit found of which every view can be read, the first that cannot: "
            f"{seen.left_out[0]}"
        )
    others = [record.path for record in seen.records if record.path not in kept]
    lines = [f"{path}: another view of its unit could not be read" for path in others]
    whole = (
        seen.subset([record for record in seen.records if record.path in kept]) if others else seen
    )
    return replace(whole, left_out=[*seen.left_out, *lines])


def check_depth(depth: int | None, seen: Extracted) -> None:
    """Refuses a depth that the files do not have: pixels would be too dark, or cut off."""
    found = {bits for _, _, bits, _ in seen.facts}
    if depth is not None and found != {depth}:
        said = " and ".join(map(str, sorted(found)))
        raise DatasetError(
            f"--depth {depth} found, but images of {said} bits a channel: leave it out, or give "
            "their true depth"
        )


def warn(seen: Extracted, alike: str) -> list[str]:
    """Returns what the user must know of the images before they trust a guarantee, a line each."""
    lines = [f"left out: {line}" for line in seen.left_out[:10]]
    if len(seen.left_out) > 10:
        lines.append(f"left out: {len(seen.left_out) - 10} more")
    return [*lines, *depths_text(seen.facts), *([alike] if alike else [])]
