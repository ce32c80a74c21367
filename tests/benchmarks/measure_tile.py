"""Measures what `anomaly train --tile` finds in large images that the untiled detector misses.

python -m tests.benchmarks.measure_tile FOLDER [--tile 512] [--train 60] [--good 60] [--each 12]
[--diameter 12] [-- OPTION ...]

Makes sheets of 4000 x 3000 pixels in FOLDER (those that are there stay), trains without and with
tiles at a rate of 5 %, and prints for both how many of the small defects and of fresh good sheets
are flagged, seconds (of the processors, which other work changes less, in brackets) and peak
memory. Options behind ``--`` go to both trainings. What was trained is not trained again.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from PIL import Image

from data.sheet import SMALL_DEFECTS, sheet

ANOMALY = [sys.executable, "-m", "anomaly"]
SCORED = 20  # good sheets by which time and memory of scoring are measured


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    sizes = {
        "tile": 512,
        "train": 60,
        "good": 60,
        "each": 12,
        "diameter": 12,
        "width": 4000,
        "height": 3000,
    }
    for name, default in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("options", nargs="*")
    options = parser.parse_args()
    images = options.folder / "sheets"
    make_sheets(images, options)
    print(
        "| detector | training | defects flagged | by kind | good flagged (limit) | AUROC | "
        "scoring, an image |"
    )
    for tile in (None, options.tile):
        print(row(options.folder, images, tile, options.options), flush=True)


def make_sheets(images: Path, options: argparse.Namespace) -> None:
    """Writes the sheets that are not there yet, as JPEG of quality 92; no seed is used twice."""
    wanted = [("train/good", None, number) for number in range(options.train)]
    wanted += [("test/good", None, 10_000 + number) for number in range(options.good)]
    for place, kind in enumerate(SMALL_DEFECTS):
        wanted += [
            (f"test/{kind}", kind, 20_000 + 1000 * place + number) for number in range(options.each)
        ]
    size = (options.width, options.height, options.diameter)
    with ProcessPoolExecutor(2) as pool:
        made = [
            pool.submit(make_sheet, images / split / f"{seed}.jpg", seed, kind, *size)
            for split, kind, seed in wanted
        ]
        for one in made:
            one.result()


def make_sheet(
    path: Path, seed: int, kind: str | None, width: int, height: int, diameter: int
) -> None:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(sheet(seed, width, height, kind, diameter)[0]).save(path, quality=92)


def row(folder: Path, images: Path, tile: int | None, options: list[str]) -> str:
    """Returns a line of the table: of a detector with tiles of ``tile`` pixels, or without any."""
    name = "-".join(
        ["whole" if tile is None else f"tile-{tile}", *(option.strip("-") for option in options)]
    )
    run, noted = folder / name, folder / f"{name}.json"
    if not noted.exists():
        tiles = [] if tile is None else ["--tile", str(tile)]
        trained = measured(
            [
                *ANOMALY,
                "train",
                str(images),
                "--out",
                str(run),
                "--false-alarm-rate",
                "0.05",
                *tiles,
                *options,
            ]
        )
        noted.write_text(json.dumps(trained))
    (seconds, work, memory), judged = (
        json.loads(noted.read_text()),
        folder / f"{name}-evaluation.json",
    )
    measured([*ANOMALY, "evaluate", str(run), str(images), "--json", str(judged)])
    found = json.loads(judged.read_text())
    some = sorted((images / "test/good").glob("*.jpg"))[:SCORED]
    table = ["--out", str(folder / "scores.csv"), "--force"]
    scoring, used, peak = measured([*ANOMALY, "score", str(run), *map(str, some), *table])
    recall, alarms = found["recall"], found["false_alarms"]
    kinds = ", ".join(
        f"{kind} {of['recall']['flagged']} of {of['recall']['n']}"
        for kind, of in found["per_class"].items()
    )
    flagged = (
        f"{recall['flagged']} of {recall['n']} | {kinds} | {alarms['flagged']} of "
        f"{found['n_normal']} ({alarms['threshold']})"
    )
    auroc = found["image_auroc"]["value"]
    training = f"{seconds:.0f} s ({work:.0f} s), {memory:.0f} MB"
    each = f"{scoring / len(some):.2f} s ({used / len(some):.2f} s), {peak:.0f} MB"
    return f"| {name} | {training} | {flagged} | {auroc:.3f} | {each} |"


def measured(command: list[str]) -> tuple[float, float, float]:
    """Runs a command and returns its seconds, those of the processors, and the most memory that it
    held, in MB.
    """
    began = time.monotonic()
    process = subprocess.Popen(command, stdout=sys.stderr)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(command)}: exit status {process.returncode}")
    return time.monotonic() - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


if __name__ == "__main__":
    main()
