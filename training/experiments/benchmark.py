"""The benchmark: trains with the default command on every real set, evaluates, judges the
guarantees together.

    python -m training.experiments.benchmark DATASETS --out bench
        (resumable; a finished case is not done again)
    python -m training.experiments.benchmark DATASETS --out bench-vae --model vae \\
        --space filters --seeds 0 1 2
    python -m training.experiments.benchmark DATASETS --out bench-padim --model padim \\
        --space features    (or memory-bank: baselines)
    python -m training.experiments.benchmark --out bench-mvtec --mvtec MVTEC_AD --visa VISA \\
        --btad BTAD --ad2 MVTEC_AD_2    (the sets as they are published: data/industrial.py)

Nothing is chosen on test images: each case is trained once by `anomaly train` with the same
options, and its last epoch is reported. DATASETS holds magnetic_tile, piped and casting as
data/README.md describes them; the solar cells come from their package. Beside the mean of a set
stand published figures.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from anomaly.detector.file import read_card
from anomaly.quality.evaluate import evaluate_labelled
from anomaly.scorer import Scorer
from anomaly.statistics.intervals import joint_limits
from training.describe import versions
from training.experiments.anchors import beside_anchors
from training.experiments.baselines import BASELINES
from training.models import MODELS
from training.options import TrainOptions
from training.pipeline import train

# by their options
INDUSTRIAL = {"mvtec": "MVTec AD", "visa": "VisA", "btad": "BTAD", "ad2": "MVTec AD 2"}
PAPERS = ("PA_FVN01_TL", "PA_FVN02_RL", "PA_BTN01_RL", "PA_BRG03_TL")


@dataclass(frozen=True)
class Case:
    """One training: its name, the images, and whether related images are known to be related
    (groups).
    """

    name: str
    images: Path
    seed: int
    # its false-alarm count is judged: test images are exchangeable with the calibration images
    guaranteed: bool


def cases(datasets: Path, out: Path, seeds: Sequence[int]) -> list[Case]:
    """Returns every case of the benchmark that this machine has images for."""
    found = []
    tiles = datasets / "magnetic_tile"
    if tiles.is_dir():
        found += [
            Case(f"tiles grouped {k}", tiles / f"grouped_split_{k}.csv", 0, True) for k in range(3)
        ]
        found.append(Case("tiles published", tiles, 0, False))
    for seed in seeds:
        found.append(
            Case(f"solar cells {seed}", solar_cells(out / f"solar-cells-{seed}", seed), seed, True)
        )
    if (datasets / "casting").is_dir():
        found += [Case(f"castings {seed}", datasets / "casting", seed, True) for seed in seeds]
    found += [
        Case(f"piped {paper}", datasets / "piped" / paper, 0, True)
        for paper in PAPERS
        if (datasets / "piped").is_dir()
    ]
    return found


def industrial_cases(folders: dict[str, Path | None], out: Path) -> list[Case]:
    """Returns a case for each category of the sets that are there; ``folders``: by their names in
    data.industrial.

    Their counts of false alarms are not judged: nobody says that the good images of training and
    test were drawn as one.
    """
    from data.industrial import write_manifests

    found = []
    for name, folder in folders.items():
        manifests = {} if folder is None else write_manifests(name, folder, out / name)
        found += [
            Case(f"{name} {category}", manifest, 0, False)
            for category, manifest in manifests.items()
        ]
    return found


def solar_cells(folder: Path, seed: int) -> Path:
    """Returns the manifest of the solar cells for a draw of good cells into train and test."""
    from data.elpv import write_manifest

    folder.mkdir(parents=True, exist_ok=True)
    return write_manifest(folder, seed)


def run_case(case: Case, folder: Path, options: dict[str, Any]) -> dict[str, Any]:
    """Returns the figures of one case, from a training that is made only if it is not there."""
    result = folder / "result.json"
    if result.exists():
        return dict(json.loads(result.read_text()))
    start = time.perf_counter()
    if not (folder / "detector.onnx").exists():
        train(
            TrainOptions(images=case.images, out=folder, seed=case.seed, resume=True, **options),
            lambda line: print(f"  {line}"),
        )
    trained = time.perf_counter() - start
    judged = evaluate_labelled(
        Scorer(folder, device="cpu"), case.images, report=folder / "evaluation.html"
    )
    calibration = judged.scorer.card.calibration
    row = {
        "case": case.name,
        "guaranteed": case.guaranteed,
        **judged.evaluation.to_json(),
        "n_calibration": calibration.n if calibration else None,
        "k": calibration.k if calibration else None,
        "seconds_to_train": round(trained, 1),
        "ms_an_image": round(judged.milliseconds, 1),
        "warned": bool(read_card(folder).training.warnings),
    }
    result.write_text(json.dumps(row, indent=2))
    return row


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Returns the figures as a Markdown table, a row for each case."""
    lines = [
        "| case | AUROC (95 %) | average precision | pixel AUROC / AUPRO | good flagged (limit) | "
        "rate | defects flagged | warned |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        a, p, f, r = (
            row[key] for key in ("image_auroc", "average_precision", "false_alarms", "recall")
        )
        pixels = (
            "-" if row["pixel_auroc"] is None else f"{row['pixel_auroc']:.3f} / {row['aupro']:.3f}"
        )
        estimated = f["guaranteed_rate"] is None
        rate = f"{100 * (f['guaranteed_rate'] or f['estimated_rate']):.2g} %"
        rate += " estimated" if estimated else ""
        lines.append(
            f"| {row['case']} | {a['value']:.3f} ({a['low']:.3f} to {a['high']:.3f}) | "
            f"{p['value']:.3f} | {pixels} | {f['flagged']} of {f['n']} ({f['ordinary_up_to']}) | "
            f"{rate} | {r['flagged']} of {r['n']} | "
            f"{'yes' if row['warned'] else 'no'} |"
        )
    return "\n".join(lines)


def by_class(rows: Sequence[dict[str, Any]]) -> str:
    """Returns a line for each family of cases: the mean AUROC, its spread, and the mean of each
    class.
    """
    families: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        families.setdefault(row["case"].rsplit(" ", 1)[0], []).append(row)
    lines = []
    for family, members in families.items():
        values = [row["image_auroc"]["value"] for row in members]
        classes = sorted({name for row in members for name in row["per_class"]})
        each = []
        for name in classes:
            found = [
                row["per_class"][name]["image_auroc"]["value"]
                for row in members
                if name in row["per_class"]
            ]
            each.append(f"{name} {np.mean(found):.3f}")
        spread = f" +- {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
        lines.append(
            f"{family}: mean of {len(values)} {np.mean(values):.3f}{spread}; {', '.join(each)}"
        )
    return "\n".join(lines)


def broken_guarantees(rows: Sequence[dict[str, Any]]) -> str:
    """Returns whether the counts of flagged good test images keep their limits, all together at
    95 % (Bonferroni).
    """
    judged = [row for row in rows if row["guaranteed"]]
    if not judged:
        return "guarantees: of no case known to have test images like its calibration images"
    limits = joint_limits(
        [(row["n_calibration"], row["k"], row["false_alarms"]["n"]) for row in judged]
    )
    counts = [row["false_alarms"]["flagged"] for row in judged]
    over = [
        f"{row['case']} ({c}, limit {x})"
        for row, c, x in zip(judged, counts, limits, strict=True)
        if c > x
    ]
    said = "all keep their rate" if not over else f"broken by {', '.join(over)}"
    return f"rates, {len(judged)} counts together at 95 %: {said}; counts (limits): " + ", ".join(
        f"{c} ({x})" for c, x in zip(counts, limits, strict=True)
    )


def arguments() -> argparse.Namespace:
    """Returns what the benchmark was asked for."""
    parser = argparse.ArgumentParser(description="train and evaluate on every real set")
    parser.add_argument("datasets", type=Path, nargs="?")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[0, 1, 2], help="draws of the solar cells"
    )
    for option, name in INDUSTRIAL.items():
        parser.add_argument(f"--{option}", type=Path, metavar="DIR", help=f"folder of {name}")
    parser.add_argument("--only", default="", help="cases whose name holds this text")
    parser.add_argument("--model", default="auto")
    parser.add_argument("--space", default="auto")
    parser.add_argument("--quality", default="default")
    parser.add_argument("--backbone")
    parser.add_argument("--stages", type=lambda names: tuple(names.split(",")))
    parser.add_argument("--size", type=int)
    parser.add_argument("--epochs", type=int)
    return parser.parse_args()


def main() -> None:
    """Runs the benchmark and prints its tables."""
    given = arguments()
    MODELS.update(BASELINES)
    options = {
        name: getattr(given, name)
        for name in ("model", "space", "quality", "backbone", "stages", "size", "epochs")
    }
    rows = []
    folders = {name: getattr(given, option) for option, name in INDUSTRIAL.items()}
    own = [] if given.datasets is None else cases(given.datasets, given.out, given.seeds)
    for case in [*own, *industrial_cases(folders, given.out)]:
        if given.only in case.name:
            print(case.name, file=sys.stderr)
            rows.append(run_case(case, given.out / case.name.replace(" ", "-"), options))
    print(f"{time.strftime('%Y-%m-%d')}, {platform.machine()}, {versions()}, options {options}\n")
    print(table(rows), by_class(rows), broken_guarantees(rows), sep="\n\n")
    print(f"\n{beside_anchors(rows)}")


if __name__ == "__main__":
    main()
