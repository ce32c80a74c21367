"""What an encoder is worth by itself: fitted without labels, then a linear classifier on its
latents from a few labels.

    python -m training.experiments.few_labels FOLDER --model vae --space pixels
        (FOLDER: the idx files of Fashion-MNIST)

Beside it the same classifier on raw pixels, from the same labels. Accuracy on the test set, last
epoch, three draws of labels.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from data.idx import read_subset
from training.experiments.latents import check_encoder, draw, encode, linear_classifier, scaled
from training.experiments.one_class import to_maps
from training.fit import fit
from training.models import MODELS
from training.options import FitOptions

HELD_OUT = 1000  # images that validate the fit


def main() -> None:
    """Fits the model without labels, then prints a line for each number of labels."""
    parser = argparse.ArgumentParser(
        description="a linear classifier on latents against one on raw pixels"
    )
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
    given = parser.parse_args()
    images, classes = read_subset(given.folder, "train")
    judged, truth = read_subset(given.folder, "test")
    images = images[: given.images]
    maps, tested = to_maps(
        given.space,
        given.size,
        *(torch.from_numpy(subset.copy())[:, None] for subset in (images, judged)),
    )
    x, y = latents_of(maps, tested, given)
    for count in given.labels:
        pixels, latents = (
            [
                accuracy(scaled(a, a), classes[: len(a)], scaled(b, a), truth, count, seed)
                for seed in given.seeds
            ]
            for a, b in ((flat(images), flat(judged)), (x, y))
        )
        print(
            f"{count:5} labels: raw pixels {in_words(pixels)}; latents of {given.model} on "
            f"{given.space} {in_words(latents)}"
        )


def latents_of(
    maps: Tensor, tested: Tensor, given: argparse.Namespace
) -> tuple[npt.NDArray[np.float32], ...]:
    """Returns the latents of both sets of maps, from a model that was fitted on the first without
    labels.
    """
    torch.manual_seed(0)
    _, channels, height, width = maps.shape
    model = MODELS[given.model](channels, height, width, pixels=given.space == "pixels")
    check_encoder(model)
    with tempfile.TemporaryDirectory() as scratch:
        options = FitOptions(epochs=given.epochs, batch_size=64)
        fit(model, maps[HELD_OUT:], maps[:HELD_OUT], options, Path(scratch) / "c.safetensors")
    return tuple(encode(model, subset).numpy() for subset in (maps, tested))


def flat(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    return images.reshape(len(images), -1).astype(np.float32) / np.float32(255)


def accuracy(
    x: npt.NDArray[np.float32],
    labels: npt.NDArray[np.uint8],
    judged: npt.NDArray[np.float32],
    truth: npt.NDArray[np.uint8],
    count: int,
    seed: int,
) -> float:
    """Returns the share of ``judged`` that a classifier names rightly which saw ``count`` of the
    labels.
    """
    index = draw(labels, count, seed)
    return float(linear_classifier(x[index], labels[index]).score(judged, truth))


def in_words(found: list[float]) -> str:
    return f"{np.mean(found):.3f} ({min(found):.3f} to {max(found):.3f})"


if __name__ == "__main__":
    main()
