"""Solar cells by electroluminescence: writes a manifest of the images in package elpv-dataset.

    pip install elpv-dataset==1.0.0.post1
    python -m data.elpv FOLDER

The images stay where the package has them.
"""

from __future__ import annotations

import argparse
import random
import sys
from importlib.util import find_spec
from pathlib import Path

from anomaly.errors import AnomalyError, DatasetError
from anomaly.files.csv_cells import csv_text

ATTRIBUTION = (
    "Solar cell images: Buerhop-Lutz et al., A Benchmark for Visual Identification of Defective "
    "Solar Cells in Electroluminescence Imagery, EU PVSEC 2018 (elpv-dataset, ZAE Bayern)."
)
LICENCE = "CC BY-NC-SA 4.0, non-commercial: do not ship this detector."

# by the probability of a defect
LABELS = {0.0: "good", 1 / 3: "weak", 2 / 3: "likely", 1.0: "defective"}
TEST_SHARE = 0.2


def write_manifest(folder: Path, seed: int = 0) -> Path:
    """Writes FOLDER/elpv.csv (path, split, label, group, type, probability) and returns its path.

    A seeded fifth of the good images is for testing, the others for training; all defective ones
    are for testing. The package does not tell which cells come from one module, so each image is
    its own group.
    """
    rows = _rows(_installed())
    good = [path for path, probability, _ in rows if probability == 0.0]
    tested = set(random.Random(seed).sample(good, round(TEST_SHARE * len(good))))
    folder.mkdir(parents=True, exist_ok=True)
    manifest = folder / "elpv.csv"
    lines = [("path", "split", "label", "group", "type", "probability")]
    for path, probability, cell in rows:
        split = "train" if probability == 0.0 and path not in tested else "test"
        lines.append((str(path), split, _label(probability), path.stem, cell, f"{probability:.3f}"))
    manifest.write_text(csv_text(lines), encoding="utf-8", newline="")
    return manifest


def _installed() -> Path:
    spec = find_spec("elpv_dataset")
    if spec is None or spec.origin is None:
        raise DatasetError(
            "the solar cell images are not installed: pip install elpv-dataset==1.0.0.post1"
        )
    return Path(spec.origin).parent / "data"


def _rows(images: Path) -> list[tuple[Path, float, str]]:
    """Returns path, probability of a defect, and mono or poly of every cell."""
    lines = (images / "labels.csv").read_text(encoding="utf-8").splitlines()
    return [
        (images / name, float(probability), cell)
        for name, probability, cell in map(str.split, lines)
    ]


def _label(probability: float) -> str:
    return LABELS[min(LABELS, key=lambda known: abs(known - probability))]


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m data.elpv", description=__doc__.splitlines()[0]
    )
    parser.add_argument("folder", type=Path, help="where elpv.csv is written")
    parser.add_argument(
        "--seed", type=int, default=0, help="of the draw of good test images (default 0)"
    )
    options = parser.parse_args()
    try:
        print(f"{write_manifest(options.folder, options.seed)}\n{ATTRIBUTION}\n{LICENCE}")
    except AnomalyError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
