"""Makes small synthetic images with known defects and masks: for tests, pictures, a first try.

    python -m data.synthetic FOLDER --kind disc

Five kinds: a turned disc with bolt holes, a woven fabric, a solar cell by electroluminescence, a
milled face on a casting, a screw at any angle and anywhere in the picture. Normal images differ as
photographs of good parts do: position, turn, light, texture, noise. The same seed with and without
a defect gives the same part, changed at the defect only.
"""

from __future__ import annotations

import argparse
import zlib
from pathlib import Path

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from data.drawing import Flaw, Plane, grid
from data.flaws import FLAWS
from data.kinds import KINDS
from data.screw import DAMAGES, screw

DEFECTS = {
    "disc": ("scratch", "crack", "chip", "missing", "stain", "dent"),
    "fabric": ("hole", "stain", "thread", "snag"),
    "cell": ("crack", "dead", "finger", "spot"),
    "casting": ("scratch", "crack", "pores", "stain", "dent"),
    "screw": tuple(DAMAGES),
}


def make(
    kind: str, seed: int, size: int = 128, defect: str | None = None, still: bool = False
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Returns the picture (size, size, 3) and the mask (size, size) of its defect, all False
    without one.

    Any size from 32 on; below there is no room for the defects. ``still``: the same screw with the
    same defect, but in the middle of the picture and level.
    """
    if kind not in DEFECTS:
        raise ValueError(f"kind {kind!r} found, one of {', '.join(DEFECTS)} expected")
    if defect is not None and defect not in DEFECTS[kind]:
        raise ValueError(
            f"defect {defect!r} found, one of {', '.join(DEFECTS[kind])} expected for kind {kind!r}"
        )
    if still and kind != "screw":
        raise ValueError(f"kind {kind!r} found, screw expected: the other kinds lie still")
    scene, camera, shape = (
        np.random.default_rng([zlib.crc32(kind.encode()), seed, i]) for i in range(3)
    )
    flaw = None if defect is None else Flaw(defect, shape)
    part = screw(scene, size, flaw, still=True) if still else KINDS[kind](scene, size, flaw)
    colour, changed = part.colour, part.changed
    if flaw is not None and flaw.name in FLAWS:
        colour, changed = FLAWS[flaw.name](part, flaw.rng)
    return photograph(colour, camera), changed > 0.3


def photograph(colour: Plane, rng: Generator) -> NDArray[np.uint8]:
    """Returns the picture that a camera takes: exposure, vignette, a soft lens, noise."""
    x, y = grid(colour.shape[-1])
    falloff = (
        rng.normal(1.0, 0.025)
        - 0.09 * (x * x + y * y)
        + rng.normal(0, 0.012) * x
        + rng.normal(0, 0.012) * y
    )
    exposed = np.clip(colour * (255 * falloff), 0, 255).astype(np.uint8)
    lens = ImageFilter.BoxBlur(0.0045 * len(x))
    soft = np.stack(
        [np.asarray(Image.fromarray(channel).filter(lens), np.float32) for channel in exposed]
    )
    grain = rng.standard_normal(x.shape, np.float32) * (0.9 + 0.12 * np.sqrt(soft[1]))
    return np.ascontiguousarray(
        np.clip(soft + (grain + 0.5), 0, 255).astype(np.uint8).transpose(1, 2, 0)
    )


# ---- a data set ----


def write_dataset(
    folder: Path,
    kind: str = "disc",
    train: int = 200,
    good: int = 50,
    per_defect: int = 10,
    size: int = 128,
    seed: int = 0,
    still: bool = False,
) -> None:
    """Writes PNG files in the layout of MVTec AD: train/good, test/good, test/<defect>,
    ground_truth/<defect>; ``still`` as for ``make``.
    """
    seeds = iter(range(seed * 1_000_000, (seed + 1) * 1_000_000))  # no part is made twice
    for split, count in (("train", train), ("test", good)):
        for i in range(count):
            _save(
                folder / split / "good" / f"{i:04}.png",
                make(kind, next(seeds), size, still=still)[0],
            )
    for defect in DEFECTS[kind]:
        for i in range(per_defect):
            pixels, mask = make(kind, next(seeds), size, defect, still)
            _save(folder / "test" / defect / f"{i:04}.png", pixels)
            _save(folder / "ground_truth" / defect / f"{i:04}_mask.png", mask * np.uint8(255))


def _save(path: Path, pixels: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, compress_level=1)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m data.synthetic", description=__doc__.splitlines()[0]
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kind", choices=DEFECTS, default="disc")
    parser.add_argument(
        "--train", type=int, default=200, help="normal images to train on (default 200)"
    )
    parser.add_argument(
        "--good", type=int, default=50, help="normal images to test on (default 50)"
    )
    parser.add_argument(
        "--per-defect", type=int, default=10, help="images of each defect (default 10)"
    )
    parser.add_argument("--size", type=int, default=128, help="width and height (default 128)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--still", action="store_true", help="the screws all lie the same way")
    write_dataset(**vars(parser.parse_args()))


if __name__ == "__main__":
    main()
