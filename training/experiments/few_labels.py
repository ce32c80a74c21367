"""What an encoder is worth as the start of a classifier: fitted without labels, then given a few.

    python -m training.experiments.few_labels FOLDER --model dense-vae
        (FOLDER: the idx files of MNIST or Fashion-MNIST)

Four classifiers learn from the same labels: a linear one on raw pixels; the same on the frozen
latents; the encoder, fine-tuned with it; and, to tell what the fit without labels is worth, that
network from random weights, trained alike. Accuracy on the test set, last step, three draws of
labels. ``--development`` judges on training images that nothing was fitted on instead: choices are
made there.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from data.idx import read_subset
from training.experiments.fine_tuning import accuracy, fine_tuned
from training.experiments.latents import check_encoder, draw, encode, linear_classifier, scaled
from training.experiments.one_class import one_channel, to_maps
from training.fit import fit
from training.models import MODELS
from training.options import FitOptions
from training.protocols import Model

HELD_OUT = 1000  # images that validate the fit
DEVELOPMENT_IMAGES = 5000  # the last training images, which a development run judges


@dataclass(frozen=True)
class Task:
    """Maps (n, C, h, w) to learn from, of which labels are drawn, and maps to judge."""

    maps: Tensor
    classes: npt.NDArray[np.uint8]
    judged: Tensor
    truth: npt.NDArray[np.uint8]

    def linear(self, encode: Callable[[Tensor], Tensor]) -> Callable[[int, int], float]:
        """Returns the accuracy, by number of labels and seed, of a linear classifier on what
        ``encode`` makes of maps.
        """
        found = encode(self.maps).numpy()
        x, y = scaled(found, found), scaled(encode(self.judged).numpy(), found)

        def accuracy_of(count: int, seed: int) -> float:
            index = draw(self.classes, count, seed)
            classifier = linear_classifier(x[index], self.classes[index])
            return float(classifier.score(y, self.truth))

        return accuracy_of

    def tuned(self, model: Model) -> Callable[[int, int], float]:
        """Returns the same of the model's encoder, fine-tuned."""

        def accuracy_of(count: int, seed: int) -> float:
            index = draw(self.classes, count, seed)
            some = self.maps[torch.from_numpy(index)]
            classifier = fine_tuned(model, self.maps[:HELD_OUT], some, self.classes[index], seed)
            return accuracy(classifier, self.judged, self.truth)

        return accuracy_of


def main() -> None:
    """Fits the model without labels, then prints a line for each kind of classifier and number of
    labels.
    """
    parser = argparse.ArgumentParser(description="an encoder as the start of a classifier")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", choices=MODELS, default="vae")
    parser.add_argument("--space", choices=("pixels", "filters"), default="pixels")
    parser.add_argument("--size", type=int, default=64, help="of the image in filter space (64)")
    parser.add_argument(
        "--images",
        type=int,
        default=20_000,
        help="that the model is fitted on, without their labels",
    )
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--labels", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--development", action="store_true")
    given = parser.parse_args()
    for name, accuracy_of in classifiers(given).items():
        for count in given.labels:
            found = [accuracy_of(count, seed) for seed in given.seeds]
            print(f"{count:5} labels: {name} {in_words(found)}", flush=True)


def classifiers(given: argparse.Namespace) -> dict[str, Callable[[int, int], float]]:
    """Returns what each kind of classifier reaches, by number of labels and seed."""
    images, classes = read_subset(given.folder, "train")
    if given.development:
        judged, truth = images[-DEVELOPMENT_IMAGES:], classes[-DEVELOPMENT_IMAGES:]
    else:
        judged, truth = read_subset(given.folder, "test")
    pixels = one_channel(images[: given.images]), one_channel(judged)
    raw = Task(pixels[0], classes[: given.images], pixels[1], truth)
    maps, tested = to_maps(given.space, given.size, *pixels)
    task = Task(maps, raw.classes, tested, truth)
    torch.manual_seed(0)
    model, untrained = new_model(given, maps), new_model(given, maps)
    check_encoder(model)
    with tempfile.TemporaryDirectory() as scratch:
        options = FitOptions(epochs=given.epochs, batch_size=64)
        fit(model, maps[HELD_OUT:], maps[:HELD_OUT], options, Path(scratch) / "c.safetensors")
    found = {
        "raw pixels": raw.linear(lambda some: some.flatten(1) / 255),
        f"latents of {given.model} on {given.space}": task.linear(lambda some: encode(model, some)),
    }
    if not model.closed_form:  # which has nothing to tune
        found["fine-tuned"] = task.tuned(model)
        found["fine-tuned from random weights"] = task.tuned(untrained)
    return found


def new_model(given: argparse.Namespace, maps: Tensor) -> Model:
    _, channels, height, width = maps.shape
    return MODELS[given.model](channels, height, width, given.space == "pixels")


def in_words(found: list[float]) -> str:
    return f"{np.mean(found):.3f} ({min(found):.3f} to {max(found):.3f})"


if __name__ == "__main__":
    main()
