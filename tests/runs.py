"""Finished runs that several tests share: trained once a session on made-up parts, each in a few seconds."""

from __future__ import annotations

from pathlib import Path

import pytest

SIZE = 64


@pytest.fixture(scope="session")
def parts(session_folder: Path) -> Path:
    """Returns a folder of made-up discs in the train/test layout, with masks."""
    from data.made_up import write_dataset

    folder = session_folder / "parts"
    write_dataset(folder, kind="disc", train=120, good=30, per_defect=4, size=SIZE)
    return folder


@pytest.fixture(scope="session")
def run(session_folder: Path, parts: Path) -> Path:
    """Returns a run of the linear autoencoder on filters, with its explain.onnx."""
    return trained(session_folder / "run", parts, space="filters")


@pytest.fixture(scope="session")
def pixel_run(session_folder: Path, parts: Path) -> Path:
    """Returns a run of a VAE on pixels, trained for two epochs."""
    return trained(session_folder / "pixel-run", parts, model="vae", space="pixels", epochs=2)


def trained(out: Path, images: Path, **options: object) -> Path:
    """Trains into ``out`` and returns it."""
    from training.train import TrainOptions, train

    train(TrainOptions(images=images, out=out, size=SIZE, **options), say=lambda line: None)
    return out
