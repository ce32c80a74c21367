"""The gallery: every model on one set, within a budget, on one page that stands alone."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from anomaly.commands.main import main
from anomaly.errors import TrainingError
from anomaly.reporting.model_gallery import FAMILIES, TREE
from training.gallery import (
    PAGE,
    GalleryOptions,
    affordable,
    boxes_met,
    epochs_before,
    gallery,
    spread,
)
from training.gallery_pictures import (
    complete,
    curve_charts,
    most_likely_paths,
    rows_of,
)
from training.models import MODELS
from training.models.boltzmann import BoltzmannMachine
from training.models.pixelcnn import PixelCNN
from training.options import FitOptions

MODELS_SHOWN = ("boltzmann", "linear")  # which train in a second

pytestmark = pytest.mark.usefixtures("one_thread")


def write_images(folder: Path, count: int, seed: int, bright: int = 0) -> None:
    """Writes grey crosses of 28 x 28, each somewhere else, with a bright square of so many
    pixels."""
    random = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    for number in range(count):
        image = random.integers(0, 40, (28, 28)).astype(np.uint8)
        y, x = random.integers(8, 20, 2)
        image[y - 1 : y + 2] += 120
        image[:, x - 1 : x + 2] += 90
        image[2 : 2 + bright, 2 : 2 + bright] = 255
        Image.fromarray(image).save(folder / f"{number}.png")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("crosses")
    write_images(folder / "train" / "good", 60, 0)
    write_images(folder / "test" / "good", 8, 1)
    write_images(folder / "test" / "spot", 8, 2, bright=6)
    return folder


@pytest.fixture(scope="module")
def written(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("gallery")
    options = GalleryOptions(images, out, MODELS_SHOWN, minutes=0.05)
    assert gallery(options, lambda line: None) == out / PAGE
    return out


def test_the_page_shows_every_model_and_needs_nothing_else(written: Path) -> None:
    page = (written / PAGE).read_text()
    for name in MODELS_SHOWN:
        assert page.count(f'<section id="{name}"') == 1
    assert "<script" not in page and "http://" not in page and "https://" not in page
    sources = re.findall(r'src="(.{11})', page)
    assert len(sources) >= 9 and set(sources) == {"data:image/"}
    for heading in ("Latent plane", "From one image to another", "Filters", "Samples"):
        assert f"<h3>{heading}</h3>" in page
    assert "From the left: good, good, good, spot, spot, spot." in page
    # bright squares in a corner that was always dark
    assert re.search(r'#linear">linear</a></th><td>[^<]*</td><td>[^<]*</td><td>1.000</td>'
                     r"<td>8 of 8 \(100 %\)</td>", page)  # fmt: skip


def test_the_same_command_goes_on_where_it_was(images: Path, written: Path) -> None:
    history = (written / "boltzmann" / "train.jsonl").read_text()
    epochs = epochs_before(written / "boltzmann" / "checkpoint.safetensors")
    assert epochs == len(history.splitlines())
    page = (written / PAGE).read_text()
    # the budget of an earlier call holds: no epoch is made again, and none is added
    gallery(GalleryOptions(images, written, ("boltzmann",), minutes=60), lambda line: None)
    assert (written / "boltzmann" / "train.jsonl").read_text() == history
    (own,) = re.findall(r'<section id="boltzmann".*?</section>', page, re.S)
    assert own in (written / PAGE).read_text()


def test_without_labelled_images_nothing_is_said_of_defects(images: Path, tmp_path: Path) -> None:
    options = GalleryOptions(images / "train" / "good", tmp_path / "out", ("linear",), minutes=0.1)
    page = gallery(options, lambda line: None).read_text()
    assert "From the left: good, good, good." in page
    assert "no defective images were given" in page
    assert "not trained here" in page  # the other branches of the tree


def test_a_model_that_is_not_there_is_refused(images: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="--models vea found, some of linear, "):
        gallery(GalleryOptions(images, tmp_path / "out", ("vea",)), lambda line: None)
    assert not (tmp_path / "out").exists()


def test_a_file_in_the_place_of_the_folder_is_refused(images: Path, tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    with pytest.raises(TrainingError, match="a file found, a folder expected"):
        gallery(GalleryOptions(images, tmp_path / "out"), lambda line: None)


def test_an_interruption_says_how_to_go_on_with_the_gallery(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt("run the same command with --resume to go on")

    monkeypatch.setattr("training.gallery.fitted", interrupted)
    with pytest.raises(KeyboardInterrupt, match="run the same command again to go on"):
        gallery(GalleryOptions(images, tmp_path / "out", ("linear",)), lambda line: None)


def test_the_command_says_what_it_wrote(
    images: Path, written: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["gallery", str(images), "--out", str(written), "--models", "linear"]
    assert main(asked) == 0
    assert capsys.readouterr().out.split() == ["written", str(written / PAGE), "1", "model"]
    assert main(["gallery", str(images / "none"), "--out", str(written / "other")]) == 1
    assert "no such folder" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main([*asked, "--minutes", "0"])


def test_every_model_has_a_family_in_the_tree() -> None:
    assert set(FAMILIES) == set(MODELS)
    assert {family.density for family in FAMILIES.values()} <= {
        density for _, _, densities in TREE for density in densities
    }


def test_the_time_allows_from_one_epoch_to_as_many_as_training_makes(tmp_path: Path) -> None:
    maps = torch.rand(64, 1, 8, 8)
    for seconds, expected in ((0.0, 1), (1e6, 300)):
        model = BoltzmannMachine(1, 8, 8, pixels=True)
        assert affordable(model, maps, FitOptions(), seconds, tmp_path / "c") == expected


def test_boxes_of_heatmaps_with_a_mask_are_counted(tmp_path: Path) -> None:
    where = np.zeros((16, 16), np.uint8)
    where[4:8, 4:8] = 255
    Image.fromarray(where).save(tmp_path / "mask.png")
    heatmaps = torch.zeros(4, 8, 8)
    heatmaps[:, 7, 7] = 1.0  # beside it
    heatmaps[0] = heatmaps[0].roll((3, 3), (0, 1))  # on it
    masks = [tmp_path / "mask.png", tmp_path / "mask.png", None, tmp_path / "mask.png"]
    assert boxes_met(heatmaps, np.array([True, True, True, False]), masks, 0.0) == (1, 2)


@torch.inference_mode()
def test_completions_keep_what_is_given_and_draw_the_rest() -> None:
    torch.manual_seed(0)
    model, images = PixelCNN(1, 6, 6, pixels=True).eval(), torch.rand(2, 1, 6, 6)
    found = complete(model, torch.cat([images, images]), 3)
    torch.testing.assert_close(found[:2, :, :3], images[:, :, :3], rtol=0, atol=1e-6)
    assert not torch.equal(found[:2, :, 3:], found[2:, :, 3:])  # two draws of the same image
    levels = found[:, :, 3:] * 255
    torch.testing.assert_close(levels, levels.round(), rtol=0, atol=1e-3)


def test_most_likely_paths_are_those_of_enumeration() -> None:
    random = torch.Generator().manual_seed(0)
    joint = torch.randn(2, 3, 4, 3, generator=random)
    start, transition = torch.rand(3, generator=random), torch.rand(3, 3, generator=random)
    start, transition = start / start.sum(), transition / transition.sum(1, keepdim=True)
    found = most_likely_paths(joint, start, transition)
    for image, row in itertools.product(range(2), range(3)):
        line = joint[image, row]

        def likelihood(path: tuple[int, ...], line: torch.Tensor = line) -> float:
            steps = sum(float(transition[a, b].log()) for a, b in itertools.pairwise(path))
            seen = sum(float(line[place, state]) for place, state in enumerate(path))
            return float(start[path[0]].log()) + steps + seen

        best = max(itertools.product(range(3), repeat=4), key=likelihood)
        assert found[image, row].tolist() == list(best)


def test_many_kinds_of_defects_are_shown_together() -> None:
    labels = ["b", "good", "a", "c", "good", "d", "c"]
    assert rows_of(labels) == {"good": [1, 4], "c": [3, 6], "a": [2], "others": [0, 5]}
    assert rows_of(labels[:4]) == {"good": [1], "a": [2], "b": [0], "c": [3]}


def test_a_label_that_is_called_others_loses_no_image() -> None:
    labels = ["good", "others", "others", "a", "b", "c"]
    assert rows_of(labels) == {"good": [0], "a": [3], "b": [4], "others": [5, 1, 2]}
    assert rows_of(labels[:4]) == {"good": [0], "a": [3], "others": [1, 2]}


def test_each_player_and_the_terms_have_curves_of_their_own() -> None:
    row = {
        "loss": {"one": 1.0, "two": 2.0},
        "held_out": {"one": 1.5, "two": 2.5},
        "terms": {"one: residual": 0.5, "two: penalty": 0.25},
    }
    charts = curve_charts([row, row], "loss")
    assert [[name for name, _ in chart.keys] for chart in charts] == [
        ["one: loss", "one: held-out loss"],
        ["two: loss", "two: held-out loss"],
        ["one: residual", "two: penalty"],
    ]
    assert curve_charts([row], "loss") == []


def test_spread() -> None:
    assert spread(list(range(11)), 3) == [0, 5, 10]
    assert spread([7], 3) == [7] and spread([], 3) == []
