"""`anomaly gallery`: every kind of generative model trained on one set of images within a budget of
time, on one page.

A model here is fitted, scored and shown by torch; nothing is exported. A detector of one of them is
what `anomaly train --model NAME --space pixels` makes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from anomaly.errors import TrainingError
from anomaly.files.progress import Progress, duration
from anomaly.imaging.captions import repeated
from anomaly.imaging.defect_masks import read_defect_mask
from anomaly.imaging.overlay import overlay
from anomaly.imaging.region import hottest_region
from anomaly.inputs.dataset import Record, labelled_test, read_dataset
from anomaly.reporting.guarantee import place_text
from anomaly.reporting.model_gallery import Exhibit, ModelGallery, sheet, write_model_gallery
from anomaly.reporting.page import Term, templates
from anomaly.statistics.calibration import Calibration, calibrate
from anomaly.statistics.groups import one_per_group
from anomaly.statistics.resampling import NORMAL
from training.checkpoint import load_checkpoint
from training.defect_sizes import meets
from training.fit import enough_epochs, fit, optimisers, train_epoch
from training.gallery_pictures import curves, drawn, panels_of, pictures, seen
from training.models import MODELS
from training.options import FitOptions, TrainOptions
from training.pixels import to_unit
from training.protocols import Model
from training.reading import read, represent, split
from training.scores import Heatmap, ImageScore, image_scores
from training.stages import Split
from training.tensors import extract, one_thread_each
from training.trained import build_model

# The dense ones by --models.
ONE_OF_EACH_FAMILY = (
    "linear",
    "hmm",
    "autoencoder",
    "vae",
    "gan",
    "pixelcnn",
    "boltzmann",
    "flow",
    "diffusion",
)
PAGE = "gallery.html"
IMAGES_SHOWN = 3  # good ones, and as many defective ones
TRIAL_IMAGES = 64  # by which the time of an epoch is found
OVERHEAD = 1.15  # of an epoch, by the time of its steps: the held-out loss, the checkpoint


@dataclass(frozen=True)
class GalleryOptions:
    """What was asked for; ``minutes``: of all trainings together, once the images are read."""

    images: Path
    out: Path
    models: tuple[str, ...] = ONE_OF_EACH_FAMILY
    minutes: float = 5.0
    size: int = 32
    seed: int = 0
    good: tuple[str, ...] = ()
    command: str = ""


@dataclass(frozen=True)
class Images:
    """One set of images as pixels, uint8 (n, C, s, s): to fit, to validate, to calibrate, and
    ``judged``, with their ``labels``; without labelled images the calibration images are judged.
    ``masks``: where their defects are, None where it is not known; ``unread``: a line for each
    image that could not be read.
    """

    divided: Split
    fit: Tensor
    validation: Tensor
    calibration: Tensor
    judged: Tensor
    labels: list[str]
    masks: list[Path | None]
    unread: list[str]

    @property
    def shown(self) -> list[int]:
        """Numbers of the judged images that are on the page: good ones, then defects, at even
        distances.
        """
        good = [n for n, label in enumerate(self.labels) if label == NORMAL]
        bad = [n for n, label in enumerate(self.labels) if label != NORMAL]
        return [*spread(good, IMAGES_SHOWN), *spread(bad, IMAGES_SHOWN)]


def spread(items: Sequence[int], count: int) -> list[int]:
    """Returns ``count`` of the items at even distances, or all where there are fewer."""
    places = np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int)
    return [items[place] for place in places.tolist()]


def gallery(options: GalleryOptions, say: Callable[[str], None]) -> Path:
    """Trains the models that are not trained yet, writes the page and returns its path.

    The same command resumes where an earlier one stopped. Raises DatasetError, CalibrationError,
    TrainingError, and RuntimeMissing without Jinja2.
    """
    check(options)
    with one_thread_each():
        images = read_images(options, say)
        exhibits, left = [], 60 * options.minutes
        names = sorted(options.models, key=lambda name: not MODELS[name].closed_form)
        for number, name in enumerate(names):
            began = time.monotonic()
            share = max(left, 0.0) / (len(names) - number)
            say(f"gallery {number + 1} of {len(names)}: {name}, at most {duration(share)}")
            try:
                model, history, warnings = fitted(name, images, options, share, say)
            except KeyboardInterrupt:
                raise KeyboardInterrupt(
                    f"stopped; finished epochs are kept in {options.out}: run the same command "
                    "again to go on"
                ) from None
            left -= time.monotonic() - began
            exhibits.append(exhibit(name, model, images, history, warnings))
    order = {name: number for number, name in enumerate(options.models)}
    exhibits.sort(key=lambda one: order[one.name])
    page = options.out / PAGE
    write_model_gallery(page, page_of(options, images, exhibits))
    return page


def check(options: GalleryOptions) -> None:
    """Raises RuntimeMissing without Jinja2, and TrainingError where a model is unknown, or
    ``options.out`` is a file.
    """
    templates()
    unknown = [name for name in options.models if name not in MODELS]
    if unknown:
        raise TrainingError(f"--models {unknown[0]} found, some of {', '.join(MODELS)} expected")
    if options.out.exists() and not options.out.is_dir():
        raise TrainingError(f"--out {options.out}: a file found, a folder expected: choose another")


def read_images(options: GalleryOptions, say: Callable[[str], None]) -> Images:
    """Returns the images, each read once."""
    asked = TrainOptions(
        images=options.images,
        out=options.out,
        model="autoencoder",
        space="pixels",
        size=options.size,
        seed=options.seed,
        calibrate="split",
        good=options.good,
        command=options.command,
    )
    divided = split(represent(read(asked, say)))
    seen, sets = divided.seen, divided.sets
    channels = 1 if all(grey for _, _, _, grey in seen.facts) else 3
    learnt, held_out, calibrating = (
        seen.subset(some).maps[:, :channels]
        for some in (sets.fit, sets.validation, sets.calibration)
    )
    records = labelled(options, divided)
    if not records:
        count = len(calibrating)
        labels, none = [NORMAL] * count, list[Path | None]([None] * count)
        return Images(divided, learnt, held_out, calibrating, calibrating, labels, none, [])
    with Progress(len(records), "looking at labelled images") as progress:
        found = extract(
            records,
            divided.rule,
            divided.prepare,
            divided.space,
            "cpu",
            lambda: progress.advance(1),
        )
    labels = [record.label or NORMAL for record in found.records]
    judged, masks = found.maps[:, :channels], [record.mask for record in found.records]
    return Images(divided, learnt, held_out, calibrating, judged, labels, masks, found.left_out)


def labelled(options: GalleryOptions, divided: Split) -> list[Record]:
    """Returns the labelled images that are not among those for training."""
    training = {record.path for record in divided.records}
    records = labelled_test(read_dataset(options.images, good=options.good))
    return [record for record in records if record.path not in training]


def fitted(
    name: str, images: Images, options: GalleryOptions, seconds: float, say: Callable[[str], None]
) -> tuple[Model, list[dict[str, Any]], list[str]]:
    """Returns a model that was fitted within about so many seconds, its history and warnings."""
    chosen = replace(images.divided.job.options, model=name, score=MODELS[name].score, error=None)
    model = build_model(chosen, images.fit)
    folder = options.out / name
    checkpoint = folder / "checkpoint.safetensors"
    fit_options = FitOptions(seed=options.seed)
    if not model.closed_form:
        epochs = epochs_before(checkpoint)
        if epochs is None:
            trial = build_model(chosen, images.fit)
            epochs = affordable(trial, images.fit, fit_options, seconds, checkpoint)
        fit_options = replace(fit_options, epochs=epochs)
    resume = checkpoint.exists()
    history = fit(model, images.fit, images.validation, fit_options, checkpoint, resume, say)
    model.finish(images.fit)
    warnings = model.warnings(images.fit)
    full = enough_epochs(len(images.fit), fit_options.batch_size)
    if fit_options.epochs is not None and fit_options.epochs < full:
        warnings.append(
            f"there was time for {fit_options.epochs} of the {full} epochs that anomaly train "
            "makes: allow more with --minutes"
        )
    return model.eval(), history, warnings


def epochs_before(checkpoint: Path) -> int | None:
    """Returns the number of epochs that an earlier call chose, None where there is none."""
    if not checkpoint.exists():
        return None
    found = json.loads(load_checkpoint(checkpoint)[1].get("identity", "{}")).get("epochs")
    return found if isinstance(found, int) else None


def affordable(
    model: Model, maps: Tensor, options: FitOptions, seconds: float, checkpoint: Path
) -> int:
    """Returns for how many epochs there is time, by a trial of a few steps: from 1 to as many as
    `anomaly train` makes.
    """
    players, some = optimisers(model, options), maps[:TRIAL_IMAGES]
    model.train()
    for _ in range(2):  # the first is slower
        began = time.monotonic()
        train_epoch(model, some, players, options, 1, checkpoint, lambda images: None)
        taken = time.monotonic() - began
    epoch = OVERHEAD * taken * len(maps) / len(some)
    return max(1, min(enough_epochs(len(maps), options.batch_size), int(seconds / epoch)))


@torch.inference_mode()
def judge(model: Model, maps: Tensor, score: str) -> tuple[npt.NDArray[np.float32], Tensor]:
    """Returns scores (n,) and heatmaps (n, h, w) of uint8 images (n, C, h, w), higher = more
    anomalous. ``score`` is a name of `training.scores.image_scores`.
    """
    to_heatmap, scores, heatmaps = Heatmap(), [], []
    for some in maps.split(64):
        x = to_unit(some)
        heatmaps.append(to_heatmap(model(x)[0]))
        scores.append(
            to_heatmap.pool(heatmaps[-1]) if score == "hottest" else image_scores(model, x)[score]
        )
    return torch.cat(scores).numpy(), torch.cat(heatmaps)


@torch.inference_mode()
def exhibit(
    name: str,
    model: Model,
    images: Images,
    history: list[dict[str, Any]],
    warnings: list[str],
) -> Exhibit:
    """Returns a fitted model's figures and pictures."""
    score = MODELS[name].score
    good, good_heatmaps = judge(model, images.calibration, score)
    threshold = calibrated(images, good)
    scores, heatmaps = judge(model, images.judged, score)
    flagged = threshold.is_anomaly(scores)
    bad = np.array([label != NORMAL for label in images.labels])
    x = to_unit(images.judged[images.shown])
    colours = calibrated(images, good_heatmaps.amax((1, 2)).numpy())
    expected = model(x)[1]
    laid = overlays(x, heatmaps[images.shown], colours)
    seconds = sum(row["seconds"] for row in history)
    panels = [
        curves(history, model.loss_name),
        seen(x, expected, heatmaps[images.shown], laid),
        *([drawn(model)] if model.can_sample else []),
        *panels_of(model, x, to_unit(images.judged), images.labels),
    ]
    return Exhibit(
        name,
        seconds,
        auroc(scores, bad),
        (int(flagged[bad].sum()), int(bad.sum())),
        (int(flagged[~bad].sum()), int((~bad).sum())),
        boxes_met(heatmaps, flagged, images.masks, float(colours.median)),
        facts_of(model, score, threshold, history, seconds),
        panels,
        sheet(laid, len(laid), f"heatmaps of {name}"),
        warnings,
    )


def overlays(x: Tensor, heatmaps: Tensor, colours: Calibration) -> list[npt.NDArray[np.uint8]]:
    """Returns pictures of maps (k, C, h, w) with their heatmaps (k, h, w) laid over them."""
    low, high = float(colours.median), float(colours.threshold)
    return [
        overlay(repeated(picture, 4), heatmap, low, high)
        for picture, heatmap in zip(pictures(x), heatmaps.numpy(), strict=True)
    ]


def boxes_met(
    heatmaps: Tensor,
    flagged: npt.NDArray[np.bool_],
    masks: Sequence[Path | None],
    typical: float,
) -> tuple[int, int]:
    """Returns how many boxes of flagged images meet the defect that a mask shows, and how many such
    images have a mask; ``typical``: what is hottest in a good image.
    """
    met = []
    for heatmap, is_flagged, path in zip(heatmaps.numpy(), flagged, masks, strict=True):
        if is_flagged and path is not None:
            where = read_defect_mask(path)
            box, _ = hottest_region(heatmap, where.shape[1], where.shape[0], typical)
            met.append(meets(box, where))
    return sum(met), len(met)


def calibrated(images: Images, scores: npt.NDArray[np.float32]) -> Calibration:
    """Returns the calibration by scores of the calibration images, one of each group."""
    records = images.divided.seen.subset(images.divided.sets.calibration).records
    groups, paths = [r.group for r in records], [str(r.path) for r in records]
    return calibrate(one_per_group(scores, groups, 0, paths)[0])


def auroc(scores: npt.NDArray[np.float32], bad: npt.NDArray[np.bool_]) -> float | None:
    if not bad.any() or bad.all():
        return None
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(bad, scores))


def facts_of(
    model: Model,
    score: str,
    threshold: Calibration,
    history: list[dict[str, Any]],
    seconds: float,
) -> list[Term]:
    numbers = sum(parameter.numel() for parameter in model.parameters())
    epochs = f"{len(history)} epoch{'s' * (len(history) > 1)}"
    fitted_by = "closed form" if model.closed_form else epochs
    learnt = "" if not numbers else f", {numbers:,} trained parameters"
    return [
        ("training", f"{duration(seconds)}, {fitted_by}{learnt}"),
        ("score", ImageScore(score).in_words()),
        ("threshold", f"{float(threshold.threshold):.4g}. {place_text(threshold)}"),
    ]


def page_of(options: GalleryOptions, images: Images, exhibits: list[Exhibit]) -> ModelGallery:
    sets, labels = images.divided.sets, images.labels
    bad = sum(label != NORMAL for label in labels)
    judged = (
        f"{len(labels) - bad:,} good and {bad:,} defective images, none of which was trained on"
        if bad
        else "no defective images were given: AUROC and defects found are unknown, and the good "
        "images shown set the threshold"
    )
    facts: list[Term] = [
        ("good images", f"{len(sets.fit):,} to fit, {len(sets.validation):,} to validate, "
                        f"{len(sets.calibration):,} to set the threshold"),
        ("judged", judged),
        ("pixels", f"{options.size} x {options.size}, for every model"),
        ("time", f"about {options.minutes:g} minutes for all trainings, on one thread"),
        ("command", options.command),
    ]  # fmt: skip
    shown = to_unit(images.judged[images.shown])
    shown_labels = ", ".join(labels[number] for number in images.shown)
    return ModelGallery(
        f"Generative models of {options.images.resolve().name}",
        facts,
        sheet([repeated(picture, 4) for picture in pictures(shown)], len(shown), "images"),
        f"From the left: {shown_labels}.",
        exhibits,
        [f"not judged: {line}" for line in images.unread],
    )
