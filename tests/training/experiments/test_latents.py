from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anomaly.errors import DatasetError, TrainingError
from anomaly.inputs.dataset import read_dataset
from training.experiments.latents import accuracies, check_encoder, draw, latents, main, scaled
from training.models.pixelcnn import PixelCNN


def test_latents_are_those_of_the_encoder(run: Path, pixel_run: Path, parts: Path) -> None:
    records = read_dataset(parts / "test" / "good")[:5]
    x, kept = latents(pixel_run, records)
    assert (x.shape, x.dtype, kept) == ((5, 64), np.float32, records)
    again, _ = latents(pixel_run, records[::-1])
    np.testing.assert_allclose(again[::-1], x, atol=1e-5)
    assert latents(run, records)[0].shape[0] == 5


def test_a_model_without_an_encoder_is_refused() -> None:
    with pytest.raises(
        TrainingError, match=r"^PixelCNN has no encoder; train one that has, such as --model vae$"
    ):
        check_encoder(PixelCNN(1, 8, 8, pixels=True))


@given(st.integers(0, 99), st.integers(3, 40))
def test_labels_are_drawn_evenly(seed: int, count: int) -> None:
    labels = np.array([0] * 50 + [1] * 20 + [2] * 30)
    index = draw(labels, count, seed)
    assert len(set(index.tolist())) == count
    drawn = np.bincount(labels[index], minlength=3)
    assert drawn.max() - drawn.min() <= 1


def test_fewer_labels_than_classes_are_refused() -> None:
    with pytest.raises(
        DatasetError, match="2 labels asked for, at least one for each of 3 classes expected"
    ):
        draw(np.array([0, 1, 2, 2]), 2, 0)
    with pytest.raises(
        DatasetError, match="4 labels asked for, fewer than the 4 labelled images expected"
    ):
        accuracies(np.zeros((4, 2), np.float32), np.array([0, 1, 2, 2]), 4, [0])


def test_scaling_keeps_the_weak_directions_weak() -> None:
    x = np.array([[0.0, 0.0], [200.0, 2.0]], np.float32)
    np.testing.assert_allclose(
        scaled(x, x), [[-np.sqrt(2), -np.sqrt(2) / 100], [np.sqrt(2), np.sqrt(2) / 100]], rtol=1e-3
    )


def test_the_command_prints_an_accuracy(
    run: Path, parts: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["latents", str(run), str(parts), "--labels", "20"])
    main()
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("   20 labels   accuracy 0.")
