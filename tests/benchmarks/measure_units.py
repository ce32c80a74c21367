"""How many good units of several views are flagged: the magnetic tiles, whose exposures are the
views of a unit.

    python -m tests.benchmarks.measure_units DATASETS --out FOLDER [--rate 0.1]
        (from the repository's root; a trained split is kept)

On each grouped split: train on filters, set the threshold once by unit and once by image (one of
each tile), score the good test images with both, and count the units of which a view was flagged.
"""

from __future__ import annotations

import argparse
import re
from collections import defaultdict
from pathlib import Path

from anomaly.commands.arguments import rate
from anomaly.files.table import read_table
from anomaly.inputs.dataset import read_dataset
from anomaly.quality.recalibrate import Asked, GoodImages, recalibrate_on
from anomaly.reporting.scoring import summary_text, units_rows
from anomaly.scorer import Scorer
from anomaly.scoring.batch import RunOptions, score_table
from training.options import TrainOptions
from training.pipeline import train

PATTERN = r"tile(\d+)_"


def link(manifest: Path, folder: Path) -> None:
    """Makes folders train and test of links to the good tiles, whose names begin with the tile's
    own.
    """
    for record in read_dataset(manifest):
        if record.label == "good":
            place = folder / str(record.split) / f"{record.group}_{record.path.name}"
            place.parent.mkdir(parents=True, exist_ok=True)
            if not place.exists():
                place.symlink_to(record.path.resolve())


def measure(folder: Path, target_rate: float | None) -> None:
    """Prints what a split's detector flags with a threshold for units and with one for images."""
    if not (folder / "run" / "detector.onnx").exists():
        train(
            TrainOptions(folder / "train", folder / "run", space="filters", group_by=PATTERN), print
        )
    for name, group_by, by_unit in (("part", None, PATTERN), ("image", PATTERN, None)):
        detector, table = folder / f"{name}.onnx", folder / f"{name}.csv"
        detector.unlink(missing_ok=True)
        recalibrate_on(
            folder / "run",
            GoodImages(folder / "train", group_by=group_by, by_unit=by_unit),
            out=detector,
            asked=Asked(target_rate),
        )
        summary = score_table(
            Scorer(detector, threads=1),
            sorted((folder / "test").iterdir()),
            table,
            options=RunOptions(force=True),
        )
        parts = defaultdict(list)
        for row in read_table(table):
            found = re.search(PATTERN, row.path)
            parts[found and found[1]].append(row.is_anomaly)
        print(
            f"threshold per {name}: {sum(True in views for views in parts.values())} of "
            f"{len(parts)} parts have a flagged view"
        )
        print(
            "\n".join(f"{label:<24}{text}" for label, text in units_rows(summary.units))
            if summary.units
            else summary_text(summary)
        )


def main() -> None:
    """Measures the three grouped splits."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("datasets", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--rate",
        type=rate,
        help="target rate (default: 1 %%, or the lowest that the parts can guarantee)",
    )
    options = parser.parse_args()
    for k in range(3):
        folder = options.out / f"split{k}"
        link(options.datasets / "magnetic_tile" / f"grouped_split_{k}.csv", folder)
        print(f"--- {folder}")
        measure(folder, options.rate)


if __name__ == "__main__":
    main()
