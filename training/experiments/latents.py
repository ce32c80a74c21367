"""The encoder without its decoder: a run's frozen latents, and a linear classifier on them from a
few labels.

    python -m training.experiments.latents RUN LABELLED --labels 100
        (LABELLED: a train/test folder or a manifest with labels)

What a model learnt of normal images without labels is the start of a supervised model where a few
labels arrive later.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from anomaly.detector.file import read_card
from anomaly.errors import AnomalyError, DatasetError, TrainingError
from anomaly.imaging.decode import Decoded
from anomaly.inputs.dataset import Record, read_dataset
from training.pixels import to_unit
from training.protocols import Model
from training.restore import restore
from training.sets import decode_all

# Inverse regularisation of the classifier: labels are few and latents many; chosen on training
# images
INVERSE_REGULARISATION = 0.1


def latents(run: Path, records: Sequence[Record]) -> tuple[npt.NDArray[np.float32], list[Record]]:
    """Returns the latents (n, k) that a finished run's encoder gives to images, and the records
    that could be read.
    """
    graph, rule, found, kept = restore(run).graph, read_card(run).decode, [], []
    check_encoder(graph.model)
    with torch.inference_mode():
        for record, image in decode_all(records, rule, graph.prepare.size):
            if isinstance(image, Decoded):
                found.append(
                    encode(
                        graph.model,
                        graph.space(graph.prepare(torch.from_numpy(image.pixels)[None])),
                    )
                )
                kept.append(record)
    if not found:
        raise DatasetError(f"none of {len(records)} images could be read")
    return torch.cat(found).numpy(), kept


def check_encoder(model: Model) -> None:
    """Raises TrainingError where a model has no encoder."""
    if not model.can_encode:
        raise TrainingError(
            f"{type(model).__name__} has no encoder; train one that has, such as --model vae"
        )


@torch.inference_mode()
def encode(model: Model, maps: Tensor, batch: int = 500) -> Tensor:
    """Returns the latents (n, k) of maps (n, C, h, w); uint8 maps stand for 0..1."""
    return torch.cat([model.encode(to_unit(subset)) for subset in maps.split(batch)])


def scaled(x: npt.NDArray[np.float32], like: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Returns latents (n, k) centred and divided by one number, both from the latents ``like``,
    which need no labels.

    One number for all: a scale for each would blow up the weak directions, which hold noise.
    """
    mean = like.mean(0)
    return (x - mean) / (np.sqrt(((like - mean) ** 2).mean()) + 1e-12)


def linear_classifier(
    x: npt.NDArray[np.float32], labels: npt.NDArray[np.generic]
) -> LogisticRegression:
    """Returns a logistic regression fitted on scaled latents (n, k) and their labels (n,)."""
    return LogisticRegression(C=INVERSE_REGULARISATION, max_iter=2000).fit(x, labels)


def draw(labels: npt.NDArray[np.generic], count: int, seed: int) -> npt.NDArray[np.intp]:
    """Returns the indices of ``count`` examples, as many of each class as can be (at least one)."""
    order = np.random.default_rng(seed).permutation(len(labels))
    classes = np.unique(labels)
    if count < len(classes):
        raise DatasetError(
            f"{count} labels asked for, at least one for each of {len(classes)} classes expected"
        )
    ranks = np.empty(len(labels), int)  # which one of its class an example is, in the drawn order
    for name in classes:
        members = order[labels[order] == name]
        ranks[members] = np.arange(len(members))
    return order[np.argsort(ranks[order], kind="stable")][:count]


def main() -> None:
    """Prints how well a few labels separate the classes of a labelled set, from the
    run's latents.
    """
    parser = argparse.ArgumentParser(description="a linear classifier on a run's frozen latents")
    parser.add_argument("run", type=Path)
    parser.add_argument("labelled", type=Path)
    parser.add_argument("--labels", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    given = parser.parse_args()
    try:
        report(given.run, given.labelled, given.labels, given.seeds)
    except AnomalyError as error:
        sys.exit(f"training.experiments.latents: {error}")


def report(run: Path, labelled: Path, counts: Sequence[int], seeds: Sequence[int]) -> None:
    """Prints the accuracy for each number of labels."""
    x, records = latents(
        run, [r for r in read_dataset(labelled, plain=None) if r.label is not None]
    )
    labels = np.array([r.label for r in records])
    for count in counts:
        found = accuracies(x, labels, count, seeds)
        print(
            f"{count:5} labels   accuracy {np.mean(found):.3f} ({min(found):.3f} to "
            f"{max(found):.3f})"
        )


def accuracies(
    x: npt.NDArray[np.float32], labels: npt.NDArray[np.generic], count: int, seeds: Sequence[int]
) -> list[float]:
    """Returns the accuracy, for each seed, on the rest of a labelled set of a classifier that saw
    ``count`` labels of it.
    """
    if count >= len(labels):
        raise DatasetError(
            f"{count} labels asked for, fewer than the {len(labels)} labelled images expected"
        )
    x, found = scaled(x, x), []
    for seed in seeds:
        index = draw(labels, count, seed)
        rest = np.setdiff1d(np.arange(len(x)), index)
        found.append(float(linear_classifier(x[index], labels[index]).score(x[rest], labels[rest])))
    return found


if __name__ == "__main__":
    main()
