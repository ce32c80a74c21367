"""A run folder -> the torch modules that it was made of."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from anomaly import Scorer
from anomaly.detector.file import find_detector, read_card
from anomaly.errors import DatasetError, TrainingError
from data.synthetic import make
from tests.detector.test_file import changed
from tests.training.test_export import with_numbers
from training.checkpoint import load_checkpoint, save_checkpoint
from training.export import check_parity
from training.pipeline import TrainOptions, train
from training.restore import restore, sample, verify_images


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder of 16 discs of different sizes and a file that is no image."""
    folder = tmp_path_factory.mktemp("photos")
    for seed in range(16):
        Image.fromarray(make("disc", 300 + seed, 64 + 5 * seed)[0]).save(folder / f"{seed:02}.png")
    (folder / "99.png").write_text("notes")
    return folder


@pytest.mark.parametrize("name", ["run", "pixel_run", "grey_run"])
def test_the_restored_graph_is_the_one_in_the_file(
    name: str, request: pytest.FixtureRequest
) -> None:
    run = request.getfixturevalue(name)
    card, restored = read_card(run), restore(run)
    images = [make("disc", seed, 90)[0] for seed in range(3)]
    unit = 1e3 * card.golden["tolerance"]
    assert check_parity(restored.graph, find_detector(run).read_bytes(), images, unit) <= 1e-3
    assert not restored.graph.training
    assert (restored.decoder is None) == (card.space == "pixels")
    assert {key: restored.facts[key] for key in ("model", "space", "size", "seed", "target")} == {
        "model": card.model,
        "space": card.space,
        "size": card.size,
        "seed": card.training.seed,
        "target": card.training.target,
    }


def test_a_detector_file_in_its_run_folder_will_do(run: Path) -> None:
    assert restore(run / "detector.onnx").facts == restore(run).facts


def test_the_restored_decoder_draws_like_explain(run: Path) -> None:
    restored, image = restore(run), make("disc", 7, 80)[0]
    with torch.inference_mode():
        maps = restored.graph.space(restored.graph.prepare(torch.from_numpy(image)[None]))
        drawn = restored.decoder(restored.graph.model(maps)[1])
    expected = Scorer(run, device="cpu").explain(image)
    assert np.abs(drawn[0].permute(1, 2, 0).numpy() * 255 - expected).max() <= 1.01


# --- verify ---------------------------------------------------------------------------------------
def test_verify_compares_on_all_the_images_that_can_be_read(run: Path, photos: Path) -> None:
    said = verify_images(run, photos, read_card(run))
    pattern = (
        r"torch against ONNX      16 of your images: scores agree to \d\.\de-\d\d of \(threshold - "
        r"typical\); at most 1e-3 allowed"
    )
    assert re.fullmatch(pattern, said)


def test_verify_finds_a_file_that_is_not_what_was_trained(
    run: Path, photos: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)

    def tamper(model: object) -> None:
        model.ParseFromString(with_numbers(model, lambda x: x * np.float32(1.05)))  # type: ignore[attr-defined]

    changed(run, copy / "detector.onnx", tamper)
    with pytest.raises(TrainingError, match="torch and ONNX Runtime differ by"):
        verify_images(copy, photos, read_card(copy))


def test_verify_looks_behind_the_first_seven_images(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(9):
        Image.fromarray(make("disc", i, 64)[0]).save(folder / f"{i}.png")
    card, graph = read_card(run), restore(run).graph
    images = [np.asarray(Image.open(folder / f"{i}.png")) for i in range(9)]
    unit = 1e3 * card.golden["tolerance"]
    worst = max(
        check_parity(graph, find_detector(run).read_bytes(), images[i : i + 7], unit)
        for i in (0, 7)
    )
    assert f"scores agree to {worst:.1e}" in verify_images(run, folder, card)


def test_verify_needs_an_image(run: Path, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("notes")
    with pytest.raises(
        DatasetError,
        match=r"no image that can be read found, a folder or manifest of images expected",
    ):
        verify_images(run, tmp_path, read_card(run))


# --- sample ---------------------------------------------------------------------------------------
def test_samples_are_new_images_and_depend_on_the_seed(pixel_run: Path) -> None:
    pictures = sample(pixel_run, 5, 0)
    assert (pictures.shape, pictures.dtype) == ((5, 64, 64, 3), np.uint8)
    np.testing.assert_array_equal(sample(pixel_run, 5, 0), pictures)
    assert not np.array_equal(sample(pixel_run, 5, 1), pictures)
    assert np.abs(sample(pixel_run, 2, 0).astype(int) - pictures[:2]).max() <= 1


def test_a_model_that_cannot_draw_says_so(parts: Path, tmp_path: Path) -> None:
    options = TrainOptions(
        images=parts,
        out=tmp_path / "dense",
        model="dense-autoencoder",
        space="pixels",
        size=32,
        epochs=1,
    )
    train(options, say=lambda line: None)
    what = "the model dense-autoencoder cannot draw new images; train a generative one: --model vae"
    with pytest.raises(TrainingError, match=f"^{what}$"):
        sample(tmp_path / "dense", 4, 0)


def test_the_linear_model_draws_whole_parts_from_filters(run: Path) -> None:
    pictures = sample(run, 4, 0)
    assert pictures.shape == (4, 96, 96, 3)
    assert (pictures[0] != pictures[1]).any()
    assert np.abs(pictures.mean() - np.mean([make("disc", seed, 96)[0] for seed in range(8)])) < 25


# --- what is missing ------------------------------------------------------------------------------
def test_a_detector_alone_cannot_be_restored(run: Path, tmp_path: Path) -> None:
    shutil.copy(run / "detector.onnx", tmp_path)
    with pytest.raises(
        TrainingError,
        match=r"checkpoint\.safetensors: no checkpoint found; this needs the run folder",
    ):
        restore(tmp_path)


def test_an_unfinished_run_says_how_to_go_on(run: Path, tmp_path: Path) -> None:
    tensors, facts = load_checkpoint(run / "checkpoint.safetensors")
    save_checkpoint(
        tmp_path / "checkpoint.safetensors",
        tensors,
        {key: facts[key] for key in facts if key != "run"},
    )
    with pytest.raises(
        TrainingError, match=r"training has not finished; run anomaly train with --resume first"
    ):
        restore(tmp_path)
