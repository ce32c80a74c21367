"""An encoder that goes on learning from a few labels, with a linear classifier on its latents."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.experiments.latents import encode, linear_classifier
from training.pixels import to_unit
from training.protocols import Model

# Chosen on training images of MNIST, two draws of 100 labels (few_labels --development)
STEPS, BATCH_SIZE = 300, 50
LEARNING_RATE = 3e-3
SHIFT = 2  # pixels at most, by which images are moved while they are learnt from


class Classifier(nn.Module):
    """Maps (N, C, h, w) -> logits (N, classes): an encoder, then one linear layer on its latents,
    centred and divided by one number.
    """

    def __init__(self, model: Model, maps: Tensor, classes: int) -> None:
        """``model`` is copied; ``maps``, which need no labels, set centre and scale."""
        super().__init__()
        self.model = copy.deepcopy(model)
        latents = encode(model, maps)
        self.mean = latents.mean(0)
        self.scale = ((latents - self.mean) ** 2).mean().sqrt() + 1e-12
        self.last = nn.Linear(latents.shape[1], classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.last(self.latents(x))
        return logits

    def latents(self, x: Tensor) -> Tensor:
        return (self.model.encode(to_unit(x)) - self.mean) / self.scale


def fine_tuned(
    model: Model, maps: Tensor, labelled: Tensor, labels: npt.NDArray[np.uint8], seed: int
) -> Classifier:
    """Returns a classifier whose encoder went on learning from the labelled maps (n, C, h, w).

    The linear layer starts as the logistic regression on the frozen latents, so that its first
    gradients do not destroy what the encoder knows (Kumar et al., "Fine-tuning can distort
    pretrained features and underperform out-of-distribution", ICLR 2022). Pixels are moved a little
    at random. Classes that have no label are never named.
    """
    random = torch.Generator().manual_seed(seed)
    classifier = Classifier(model, maps, int(labels.max()) + 1)
    start_linear(classifier, labelled, labels)
    optimiser = torch.optim.AdamW(classifier.parameters(), LEARNING_RATE)
    truth = torch.from_numpy(labels.astype(np.int64))
    for step in range(STEPS):
        optimiser.param_groups[0]["lr"] = (
            LEARNING_RATE * 0.5 * (1 + math.cos(math.pi * step / STEPS))
        )
        index = torch.randint(len(labelled), (BATCH_SIZE,), generator=random)
        x = labelled[index]
        x = moved(x, random) if model.pixels else x
        optimiser.zero_grad()
        F.cross_entropy(classifier(x), truth[index]).backward()
        optimiser.step()
    return classifier.eval()


@torch.no_grad()
def start_linear(classifier: Classifier, labelled: Tensor, labels: npt.NDArray[np.uint8]) -> None:
    """Sets the last layer to the logistic regression on the latents of labelled maps."""
    found = linear_classifier(classifier.latents(labelled).numpy(), labels)
    weight, bias = found.coef_, found.intercept_
    if len(found.classes_) == 2:  # one row, of the second class against the first
        weight, bias = np.vstack([0 * weight, weight]), np.append(0 * bias, bias)
    index = torch.from_numpy(found.classes_.astype(np.int64))
    classifier.last.weight.zero_()
    classifier.last.bias.fill_(-1e3)
    classifier.last.weight[index] = torch.from_numpy(weight).float()
    classifier.last.bias[index] = torch.from_numpy(bias).float()


def moved(x: Tensor, random: torch.Generator) -> Tensor:
    """Returns images (N, C, h, w), each moved by up to two pixels; what comes in repeats the
    border.
    """
    height, width = x.shape[2:]
    by = torch.randint(2 * SHIFT + 1, (len(x), 2), generator=random) - SHIFT
    rows = (torch.arange(height) + by[:, :1]).clamp(0, height - 1)
    columns = (torch.arange(width) + by[:, 1:]).clamp(0, width - 1)
    number = torch.arange(len(x))[:, None, None]
    return x[number, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


@torch.inference_mode()
def accuracy(
    classifier: Callable[[Tensor], Tensor], maps: Tensor, truth: npt.NDArray[np.uint8]
) -> float:
    """Returns the share of the maps whose class is named rightly."""
    named = torch.cat([classifier(some).argmax(1) for some in maps.split(500)])
    return float((named.numpy() == truth).mean())
