"""Finished runs that several tests share: trained once a session on synthetic parts, each in a few
seconds.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

SIZE = 64
Said = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="session")
def parts(session_folder: Path) -> Path:
    """Returns a folder of synthetic discs in the train/test layout, with masks."""
    from data.synthetic import write_dataset

    folder = session_folder / "parts"
    write_dataset(folder, kind="disc", train=120, good=30, per_defect=4, size=SIZE)
    return folder


@pytest.fixture(scope="session")
def run(session_folder: Path, parts: Path) -> Path:
    """Returns a run of the linear autoencoder on filters, with its explain.onnx."""
    return trained(session_folder / "run", parts, space="filters")


@pytest.fixture(scope="session")
def known(session_folder: Path) -> Path:
    """Returns a folder of known defects of discs with masks: 9 with a missing hole, two of them the
    same pixels, 8 with a stain, 3 with a dent, too few for a name.
    """
    from data.synthetic import make

    folder = session_folder / "known"
    for kind, count in (("missing", 8), ("stain", 8), ("dent", 3)):
        for part, suffix in (("test", ""), ("ground_truth", "_mask")):
            (folder / part / kind).mkdir(parents=True)
            for i in range(count):
                found = make("disc", 9000 + i, SIZE, kind)
                picture = Image.fromarray(found[1] * np.uint8(255) if suffix else found[0])
                picture.save(folder / part / kind / f"{i:02}{suffix}.png")
    shutil.copy(folder / "test" / "missing" / "00.png", folder / "test" / "missing" / "08.png")
    return folder


@pytest.fixture(scope="session")
def known_run(session_folder: Path, parts: Path, known: Path) -> Path:
    """Returns a run that has learnt from known defects, which were found without a detector."""
    options = {"space": "filters", "defects": known, "independent_defects": True}
    return trained(session_folder / "known-run", parts, **options)


@pytest.fixture(scope="session")
def rank_only(session_folder: Path, run: Path) -> Path:
    """Returns the run's detector without a threshold."""
    from anomaly.detector.calibration_nodes import set_calibration
    from tests.detector.test_file import changed, edit_card

    def strip(model: onnx.ModelProto) -> None:
        set_calibration(model, None)
        edit_card(model, calibration=None)

    return changed(run, session_folder / "rank-only.onnx", strip)


@pytest.fixture(scope="session")
def pixel_run(session_folder: Path, parts: Path) -> Path:
    """Returns a run of a VAE on pixels, trained for two epochs."""
    return trained(session_folder / "pixel-run", parts, model="vae", space="pixels", epochs=2)


@pytest.fixture(scope="session")
def grey_parts(session_folder: Path) -> Path:
    """Returns a folder of 30 grey 12-bit photographs of solar cells in 16-bit files, and two files
    that are none.
    """
    from data.synthetic import make

    folder = session_folder / "grey-parts"
    folder.mkdir()
    for seed in range(30):
        grey = make("cell", seed, 48)[0][..., 0].astype(np.uint16)
        Image.fromarray(grey * 16 + seed % 16).save(folder / f"{seed:02}.png")
    (folder / "broken.png").write_bytes((folder / "00.png").read_bytes()[:300])
    (folder / "notes.png").write_text("the ones at night are dark")
    return folder


@pytest.fixture(scope="session")
def grey_run(session_folder: Path, grey_parts: Path) -> Path:
    """Returns a run of the linear autoencoder on pixels, of grey images of 12 bits."""
    return trained(session_folder / "grey-run", grey_parts, space="pixels")


@pytest.fixture(scope="session")
def digits(session_folder: Path) -> Path:
    """Returns a folder of idx files: 1,797 digits of 8 x 8 pixels, the last 597 to test."""
    from sklearn.datasets import load_digits

    folder = session_folder / "digits"
    folder.mkdir()
    images, classes = load_digits(return_X_y=True)
    images = np.round(images * 255 / 16).astype(np.uint8).reshape(-1, 8, 8)
    for stem, part in (("train", slice(0, 1200)), ("t10k", slice(1200, None))):
        for kind, array in (
            ("images-idx3", images[part]),
            ("labels-idx1", classes[part].astype(np.uint8)),
        ):
            header = bytes((0, 0, 8, array.ndim)) + b"".join(
                n.to_bytes(4, "big") for n in array.shape
            )
            (folder / f"{stem}-{kind}-ubyte").write_bytes(header + array.tobytes())
    return folder


@pytest.fixture(scope="session")
def odd_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns 60 good discs in pairs of one group, and one pair more whose disc misses a hole."""
    from data.synthetic import write_dataset

    folder = tmp_path_factory.mktemp("images")
    write_dataset(folder, kind="disc", train=60, good=0, per_defect=2, size=64)
    good = folder / "train" / "good"
    for number, path in enumerate(sorted((folder / "test" / "missing").iterdir())[:2]):
        shutil.copy(path, good / f"006{number}.png")
    for number, path in enumerate(sorted(good.iterdir())):
        path.rename(good / f"part{number // 2:02}_{number % 2}.png")
    return good


@pytest.fixture(scope="session")
def odd(odd_images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a run whose calibration set holds the pair of defects, by the first seed that draws
    it there.
    """
    from anomaly.commands.main import main
    from anomaly.quality.marks import training_images

    folder = tmp_path_factory.mktemp("odd")
    for seed in range(12):
        out = folder / f"run{seed}"
        given = [
            "train",
            odd_images,
            "--out",
            out,
            "--space",
            "filters",
            "--size",
            64,
            "--seed",
            seed,
            "--group-by",
            r"(part\d+)_",
            "--calibrate",
            "split",
            "--no-expected-picture",
        ]
        assert main([str(part) for part in given]) == 0
        if {row["set"] for row in training_images(out) if "part30_" in row["path"]} == {
            "calibration"
        }:
            return out
    pytest.fail("none of twelve seeds draws the defects into the calibration set")


@pytest.fixture
def run_of_its_own(odd: Path, tmp_path: Path) -> Path:
    shutil.copytree(odd, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Said:
    from anomaly.commands.main import main

    def command(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        status = main([str(argument) for argument in arguments])
        return status, *capsys.readouterr()

    return command


def trained(out: Path, images: Path, **options: object) -> Path:
    """Trains into ``out`` and returns it; a part of the images is set aside for the threshold."""
    from training.pipeline import TrainOptions, train

    given = {"images": images, "out": out, "size": SIZE, "calibrate": "split", **options}
    train(TrainOptions(**given), say=lambda line: None)
    return out
