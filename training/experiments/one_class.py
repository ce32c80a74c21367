"""The one-class benchmark of MNIST and Fashion-MNIST: fit on one class, tell the others by the
score; ten times.

    python -m training.experiments.one_class FOLDER --out bench/mnist --model vae --seeds 0 1 2
        (resumable)
    python -m training.experiments.one_class FASHION --against MNIST --out bench/against --model vae
        (fit on all classes of one set)

FOLDER holds the idx files (data/README.md). Each class's training images are divided into 85 % to
fit and 15 % to validate by the seed; the figure is the AUROC over the whole test set, at the last
epoch. Every score that the model has is given, but only the one of ``--score`` counts: it was
chosen before. ``--development`` judges on held-out training images of the class against training
images of the others instead: choices are made there. ``--against`` tells the test images of another
set, by a model of 10,000 training images of all classes: the test in which raw likelihoods fail.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor
from torch.nn import functional as F

from anomaly.files.atomic import write_atomically
from data.idx import read_subset
from training.fit import fit
from training.models import MODELS
from training.options import FitOptions
from training.pixels import to_unit
from training.protocols import Model
from training.scores import TYPICALITY, DensityOfStates, scores_of, states
from training.spaces import make_space

CLASSES = 10
ALL_CLASSES = -1  # in place of a class
IMAGES = 10_000  # training images that a model of all classes sees
# training images of the other classes that a development run judges
DEVELOPMENT_OTHER_IMAGES = 4000


@dataclass(frozen=True)
class Case:
    """One fit: what a finished case's file is found by."""

    model: str
    space: str
    size: int  # pixels a side of the prepared image; in pixel space the images stay as they are
    one: int  # the class that is normal, or ALL
    seed: int
    epochs: int | None
    batch_size: int
    development: bool

    @property
    def name(self) -> str:
        kind = "development" if self.development else "test"
        epochs = "" if self.epochs is None else f"-{self.epochs}-epochs"
        size = "" if self.space == "pixels" else f"-{self.size}"
        return f"{self.model}-{self.space}{size}{epochs}-{kind}-{self.one}-{self.seed}"


def run(case: Case, folder: Path, out: Path, against: Path | None = None) -> dict[str, Any]:
    """Returns the case's AUROC by every score, from its file in ``out`` where it is finished
    already.
    """
    path = out / f"{case.name}.json"
    if path.is_file():
        return json.loads(path.read_text())
    began = time.monotonic()
    fit_on, validation, judged, anomalous = (
        divide(case, folder) if against is None else divide_sets(case, folder, against)
    )
    maps, held_out, judged = to_maps(case.space, case.size, fit_on, validation, judged)
    torch.manual_seed(case.seed)
    _, channels, height, width = maps.shape
    model = MODELS[case.model](channels, height, width, pixels=case.space == "pixels")
    options = FitOptions(epochs=case.epochs, batch_size=case.batch_size, seed=case.seed)
    with tempfile.TemporaryDirectory() as scratch:
        history = fit(
            model, maps, held_out, options, Path(scratch) / "c.safetensors", say=lambda line: None
        )
    model.finish(maps)
    fitted = time.monotonic()
    scores = scores_of_model(model, held_out, judged)
    result = {
        **asdict(case),
        "auroc": {name: float(roc_auc_score(anomalous, values)) for name, values in scores.items()},
        "held_out": history[-1]["held_out"],
        "seconds": round(fitted - began, 1),
        "ms_an_image": round(1000 * (time.monotonic() - fitted) / len(judged), 3),
    }
    write_atomically(path, json.dumps(result).encode())
    return result


def divide(case: Case, folder: Path) -> tuple[Tensor, Tensor, Tensor, npt.NDArray[np.bool_]]:
    """Returns images to fit, to validate and to judge, uint8 (n, 1, 28, 28), and which of the last
    are anomalous.
    """
    images, classes = read_subset(folder, "train")
    random = np.random.default_rng(case.seed)
    own = random.permutation(np.flatnonzero(classes == case.one))
    held = own[: round(0.15 * len(own))]
    # what the validation set is used for (a density of states) and what is judged must differ
    if case.development:
        held, normal = held[::2], held[1::2]
        others = random.permutation(np.flatnonzero(classes != case.one))[:DEVELOPMENT_OTHER_IMAGES]
        judged, anomalous = (
            images[np.concatenate([normal, others])],
            np.arange(len(normal) + len(others)) >= len(normal),
        )
    else:
        judged, of = read_subset(folder, "test")
        anomalous = of != case.one
    fit_on = own[round(0.15 * len(own)) :]
    return one_channel(images[fit_on]), one_channel(images[held]), one_channel(judged), anomalous


def divide_sets(
    case: Case, folder: Path, against: Path
) -> tuple[Tensor, Tensor, Tensor, npt.NDArray[np.bool_]]:
    """Returns what ``divide`` does, of all classes of one set, and to judge the test images of both
    sets.
    """
    images, _ = read_subset(folder, "train")
    images = images[np.random.default_rng(case.seed).permutation(len(images))[:IMAGES]]
    normal, anomalous = (read_subset(subset, "test")[0] for subset in (folder, against))
    held = round(0.15 * len(images))
    judged = np.concatenate([normal, anomalous])
    of_other = np.arange(len(judged)) >= len(normal)
    return one_channel(images[held:]), one_channel(images[:held]), one_channel(judged), of_other


def one_channel(images: npt.NDArray[np.uint8]) -> Tensor:
    """Returns images (n, h, w) as maps of one channel."""
    return torch.from_numpy(images.copy())[:, None]


@torch.inference_mode()
def to_maps(space_name: str, size: int, *subsets: Tensor) -> list[Tensor]:
    """Returns the space's maps of each subset, uint8 (n, 1, h, w); whitened by the first, which is
    the one to fit.
    """
    if space_name == "pixels":
        return list(subsets)
    space = make_space(space_name, size)

    def raw(images: Tensor) -> Tensor:
        x = F.interpolate(to_unit(images), (size, size), mode="bilinear", antialias=True)
        return space.raw(x.expand(-1, 3, -1, -1))

    maps = [torch.cat([raw(batch) for batch in subset.split(250)]) for subset in subsets]
    whitening = space.whitening
    if whitening is None:
        return maps
    whitening.fit(maps[0].split(1000))
    return [torch.cat([whitening(batch) for batch in subset.split(1000)]) for subset in maps]


@torch.inference_mode()
def scores_of_model(model: Model, validation: Tensor, judged: Tensor) -> dict[str, np.ndarray]:
    """Returns the scores of the images to judge, by name; the validation images set the density of
    states.
    """
    density = DensityOfStates.of(states(scores_of(model, validation)))
    scores = scores_of(model, judged)
    scores[TYPICALITY] = torch.cat([density(subset) for subset in states(scores).split(250)])
    return {name: values.numpy() for name, values in scores.items()}


def table(results: list[dict[str, Any]], score: str) -> str:
    """Returns a line for each score: the mean over classes (the spread of seeds), then
    the classes.
    """
    names = list(results[0]["auroc"])
    order = ([score] if score in names else []) + [name for name in names if name != score]
    classes, seeds = (sorted({r[key] for r in results}) for key in ("one", "seed"))
    lines = []
    for name in order:
        by_class = [np.mean([r["auroc"][name] for r in results if r["one"] == c]) for c in classes]
        by_seed = [np.mean([r["auroc"][name] for r in results if r["seed"] == s]) for s in seeds]
        spread = f" +- {np.std(by_seed, ddof=1):.4f}" if len(seeds) > 1 else ""
        each = " ".join(f"{c}: {value:.3f}" for c, value in zip(classes, by_class, strict=True))
        lines.append(f"{name:16} {np.mean(by_class):.4f}{spread}   {each}")
    seconds, ms = (np.mean([r[key] for r in results]) for key in ("seconds", "ms_an_image"))
    return "\n".join(
        [
            *lines,
            f"{len(classes)} classes, seeds {seeds}: {seconds:.0f} s a fit, {ms:.2f} ms an image",
        ]
    )


def main() -> None:
    """Runs the cases that are not finished and prints the table."""
    parser = argparse.ArgumentParser(
        description="the one-class benchmark of MNIST and Fashion-MNIST"
    )
    parser.add_argument("folder", type=Path, help="of the idx files")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", choices=MODELS, default="linear")
    parser.add_argument("--space", choices=("pixels", "filters", "features"), default="pixels")
    parser.add_argument(
        "--size", type=int, default=64, help="of the image in filter and feature space (64)"
    )
    parser.add_argument("--score", help="the score that counts; default: the model's own")
    parser.add_argument(
        "--against", type=Path, metavar="FOLDER", help="of another set, which is to be told"
    )
    parser.add_argument("--classes", type=int, nargs="+", default=list(range(CLASSES)))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--development", action="store_true")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    case = Case(
        given.model,
        given.space,
        given.size,
        0,
        0,
        given.epochs,
        given.batch_size,
        given.development,
    )
    results = []
    for seed in given.seeds:
        for one in given.classes if given.against is None else [ALL_CLASSES]:
            results.append(
                run(replace(case, one=one, seed=seed), given.folder, given.out, given.against)
            )
            print(f"{given.model} class {one} seed {seed}", file=sys.stderr)
    print(table(results, given.score or MODELS[given.model].score))


if __name__ == "__main__":
    main()
