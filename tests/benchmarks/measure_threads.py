"""Images per second in the training steps of the VAE, with one thread and with one for each core,
in turn.

    python -m tests.benchmarks.measure_threads --rounds 3

On a quiet machine it says what a further thread brings, beside other work what it costs.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor

from anomaly.detector.session import available_cores
from training.fit import optimisers, train_epoch
from training.models import MODELS
from training.options import FitOptions
from training.protocols import Model

SHAPES = ((1, 28), (1, 64), (3, 128))  # channels, pixels a side
IMAGES = 160  # of a round, in steps of 16


def main() -> None:
    parser = argparse.ArgumentParser(description="training with one thread and with several")
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    load, cores = os.getloadavg()[0], available_cores()
    print(f"{cores} cores, {load:.1f} processes on them, torch {torch.__version__}")
    for channels, size in SHAPES:
        model = MODELS["vae"](channels, size, size, pixels=True)
        maps = torch.rand(IMAGES, channels, size, size)
        found: dict[int, list[float]] = {1: [], cores: []}
        images_a_second(model, maps)  # the first is slower
        for _ in range(rounds):
            for threads, speeds in found.items():
                torch.set_num_threads(threads)
                speeds.append(images_a_second(model, maps))
        for threads, speeds in found.items():
            each = ", ".join(f"{speed:.0f}" for speed in speeds)
            print(f"{size} x {size}, {channels} channels, {threads} threads: {each} a second")


def images_a_second(model: Model, maps: Tensor) -> float:
    options = FitOptions()
    model.train()
    with tempfile.TemporaryDirectory() as scratch:
        began = time.monotonic()
        train_epoch(
            model, maps, optimisers(model, options), options, 1, Path(scratch), lambda images: None
        )
    return len(maps) / (time.monotonic() - began)


if __name__ == "__main__":
    main()
