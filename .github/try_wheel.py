"""Trains, saves and scores with an installed wheel, on images that it makes itself:
python -I .github/try_wheel.py NEW_FOLDER

Exits with an error where the detector cannot tell a part with a missing hole from good ones.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from anomaly import Detector, Scorer


def part(seed: int, hole: bool = True) -> np.ndarray:
    """Returns a photograph of a plate with a hole."""
    rng = np.random.default_rng(seed)
    picture = Image.new("L", (64, 64), 150)
    draw = ImageDraw.Draw(picture)
    x, y = 32 + rng.normal(0, 0.7, 2)
    draw.rectangle((x - 24, y - 24, x + 24, y + 24), fill=205)
    if hole:
        draw.ellipse((x - 8, y - 8, x + 8, y + 8), fill=60)
    noisy = np.asarray(picture) + rng.normal(rng.normal(0, 3), 4, (64, 64))
    return np.clip(noisy, 0, 255).astype(np.uint8)


def main(folder: Path) -> None:
    good = [part(seed) for seed in range(60)]
    Detector.train(good, out=folder / "run", seed=0, size=64)
    images = folder / "images"
    images.mkdir()
    for number in range(10):
        Image.fromarray(part(1000 + number, hole=number % 2 == 0)).save(images / f"{number}.png")
    results = Scorer(folder / "run", verify=True).score(sorted(images.iterdir()))
    found = [result.result != "not flagged" for result in results]
    print("flagged or not judged:", found)
    if found[1::2] != [True] * 5 or sum(found[::2]) > 1:
        raise SystemExit("good parts and parts without a hole are not told apart")


if __name__ == "__main__":
    # the pools of processes that training starts import this file
    main(Path(sys.argv[1]))
