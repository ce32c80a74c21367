"""How many new good images the training range refuses, by the number of images it was learnt from.

    python -m tests.benchmarks.measure_guard_draws DATA... [--cache FOLDER] [--tests]

Of the good training images of each data set, groups are drawn, the guard is fitted to their images,
and those of the other groups are counted: as they are, changed in ways that the guard knows and in
ways that it does not, and with large defects that are drawn otherwise than those of its fit; beside
them the images of the other data sets (another product). With ``--tests`` it is fitted once, to
all good training images, and the test images are counted. Statistics are computed once an image
(and kept in FOLDER), so that a draw takes milliseconds. ``cell``, ``disc``, ``fabric`` and
``casting`` are synthetic images of that kind.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from anomaly.detector.session import available_cores
from anomaly.imaging.decode import DecodeRule, decode
from anomaly.inputs.dataset import Record, labelled_test, normal_training, read_dataset
from data.synthetic import DEFECTS, write_dataset
from training.changed_copies import CHANGES, Pixels
from training.guard import (
    MAX_GUARD_IMAGES,
    Statistics,
    accepted_copies,
    changed_copies,
    fit_guard,
    statistics_of,
)
from training.preprocess import Preprocess
from training.tensors import one_thread_each

Array = NDArray[np.float64]
SIZES = (20, 30, 50, 90, 130, 300)
DRAWS = 10  # and five times as many of a set of fewer than 60 groups
PREPARE, STATISTICS = Preprocess(256), Statistics()


# ---- what no guard was fitted to ----
def folded(pixels: Pixels) -> Pixels:
    """One half lies, mirrored and in shadow, on the other."""
    made = pixels.copy()
    long = made if len(made) >= made.shape[1] else made.transpose(1, 0, 2)  # a view
    half = len(long) // 2
    long[len(long) - half :] = np.rint(0.85 * long[:half][::-1])
    return made


def torn(pixels: Pixels) -> Pixels:
    """Below the diagonal is nothing but one grey."""
    made, (height, width) = pixels.copy(), pixels.shape[:2]
    y, x = np.mgrid[:height, :width]
    made[y * width > x * height] = np.median(pixels[0], 0).astype(np.uint8)
    return made


def stained(pixels: Pixels) -> Pixels:
    """Half of the image is darker by 40 %, with a soft edge."""
    height, width = pixels.shape[:2]
    y, x = np.mgrid[:height, :width]
    alpha = np.clip(4.7 - 10 * np.hypot(y / height - 0.5, x / width - 0.4), 0, 1)
    return np.asarray(np.rint(pixels * (1 - 0.4 * alpha[..., None])), np.uint8)


def patched(pixels: Pixels) -> Pixels:
    """Half of the image, in the middle, shows other places of it."""
    made, (height, width) = pixels.copy(), pixels.shape[:2]
    here = slice(height // 7, 6 * height // 7), slice(width // 7, 6 * width // 7)
    made[here] = np.roll(pixels[::-1, ::-1], (height // 3, width // 5), (0, 1))[here]
    return made


def noisy(pixels: Pixels) -> Pixels:
    noise = np.random.default_rng(0).normal(0, 8, pixels.shape)
    return np.clip(np.rint(pixels + noise), 0, 255).astype(np.uint8)


def coarser(pixels: Pixels) -> Pixels:
    """A camera of half the resolution took it."""
    image = Image.fromarray(pixels)
    small = image.resize([max(side // 2, 1) for side in image.size])
    return np.array(small.resize(image.size))


LARGE: dict[str, Callable[[Pixels], Pixels]] = {
    "fold": folded,
    "torn": torn,
    "stain": stained,
    "patch": patched,
}
CAMERAS: dict[str, Callable[[Pixels], Pixels]] = {"noisy": noisy, "coarser": coarser}
COLUMNS = ("good", "dark", "blur", "turned", "sharper", *CAMERAS, "product", *LARGE)


# ---- statistics ----
@dataclass(frozen=True)
class Seen:
    """Statistics of a data set: accepted, changed and other copies of the good training images
    (n, copies, D) and their groups, and those of good and defective test images (n, D).
    """

    accepted: Array
    changed: Array
    other: Array
    groups: NDArray[np.str_]
    good: Array
    defective: Array

    @classmethod
    def of(cls, records: Sequence[Record]) -> Seen:
        training, tests = normal_training(records), labelled_test(records)
        training = training[:: math.ceil(len(training) / MAX_GUARD_IMAGES)]
        lossless = not all(r.path.suffix.lower() in (".jpg", ".jpeg") for r in training)

        def copies(number: int, record: Record) -> list[Array]:
            pixels = decode(record.path, DecodeRule()).pixels
            sets = (
                accepted_copies(pixels, number, lossless),
                changed_copies(pixels),
                [change(pixels) for change in (*CAMERAS.values(), *LARGE.values())],
            )
            return [np.array([_statistics(each) for each in copies]) for copies in sets]

        def plain(record: Record) -> Array:
            return _statistics(decode(record.path, DecodeRule()).pixels)

        with one_thread_each(), ThreadPoolExecutor(available_cores()) as pool:
            found = list(pool.map(copies, range(len(training)), training))
            own = np.array(list(pool.map(plain, tests)))
        good = np.array([record.label == "good" for record in tests])
        accepted, changed, other = (np.array(part) for part in zip(*found, strict=True))
        groups = np.array([record.group for record in training])
        return cls(accepted, changed, other, groups, own[good], own[~good])


def _statistics(pixels: Pixels) -> Array:
    with torch.inference_mode():  # a thread has a mode of its own
        return statistics_of(STATISTICS, PREPARE, pixels)


def seen(data: str, cache: Path | None) -> Seen:
    """Returns the statistics of a data set, from the cache if they are there."""
    kept = None if cache is None else cache / f"{data.strip('/').replace('/', '_')}.npz"
    if kept is not None and kept.exists():
        with np.load(kept) as arrays:
            return Seen(**arrays)
    if data in DEFECTS:
        with TemporaryDirectory() as folder:
            write_dataset(Path(folder), data, train=300, good=100, per_defect=25)
            made = Seen.of(read_dataset(Path(folder)))
    else:
        made = Seen.of(read_dataset(Path(data)))
    if kept is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        np.savez(kept, **vars(made))
    return made


# ---- counts ----
def refuser(data: Seen, chosen: NDArray[np.int64]) -> Callable[[Array], float]:
    """Returns what gives the share of statistics (n, D) that the guard of these images refuses."""
    chosen = chosen[np.unique(np.linspace(0, len(chosen) - 1, MAX_GUARD_IMAGES).astype(int))]
    guard = fit_guard(
        data.accepted[chosen].transpose(1, 0, 2),
        data.changed[chosen].transpose(1, 0, 2),
        list(data.groups[chosen]),
    )

    def share(statistics: Array) -> float:
        with torch.inference_mode():
            judged = guard.judged(torch.from_numpy(statistics).float())
        return 1 - float(judged.double().mean())

    return share


def draw(data: Seen, product: Array, size: int, seed: int) -> list[float]:
    """Returns the shares refused, one for each of COLUMNS, of a guard of ``size`` random groups."""
    names = np.random.default_rng([seed, size]).permutation(np.unique(data.groups))
    inside = np.isin(data.groups, names[:size])
    share, out = refuser(data, np.flatnonzero(inside)), ~inside
    changed, other = data.changed[out], data.other[out]
    return [
        share(data.accepted[out, 0]),
        *(share(changed[:, i]) for i in range(len(CHANGES))),
        *(share(other[:, i]) for i in range(len(CAMERAS))),
        share(product),
        *(share(other[:, len(CAMERAS) + i]) for i in range(len(LARGE))),
    ]


def main(names: Sequence[str], cache: Path | None, tests: bool) -> None:
    sets = {name: seen(name, cache) for name in names}
    print("per cent refused" + " " * 12 + "".join(f"{column:>8}" for column in COLUMNS))
    found: dict[int, list[Array]] = {}
    for name, data in sets.items():
        groups = len(np.unique(data.groups))
        product = np.concatenate([sets[o].accepted[::8, 0] for o in names if unlike(o, name)])
        for size in (size for size in SIZES if size <= 0.8 * groups):
            draws = DRAWS * (5 if groups < 60 else 1)
            mean = np.mean([draw(data, product, size, seed) for seed in range(draws)], 0)
            found.setdefault(size, []).append(mean)
            print(line(f"{Path(name).name[-20:]:<22}{size:>4}", mean), flush=True)
    for size, means in sorted(found.items()):
        print(line(f"mean of {len(means):<14}{size:>4}", np.mean(means, 0)))
    for name, data in sets.items() if tests else ():
        share = refuser(data, np.arange(len(data.groups)))
        print(
            f"{Path(name).name:<22} "
            + ", ".join(
                f"{share(each) * len(each):.0f} of {len(each)} {kind}"
                for kind, each in (("good", data.good), ("defective", data.defective))
            )
            + " test images not judged"
        )


def unlike(other: str, name: str) -> bool:
    """Whether another data set is of another product: sets in one folder may be of one kind."""
    return other != name and (name in DEFECTS or Path(other).parent != Path(name).parent)


def line(what: str, shares: Array) -> str:
    return f"{what:<28}" + "".join(f"{100 * share:8.1f}" for share in shares)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="+", help="data set or manifest, or a synthetic kind")
    parser.add_argument("--cache", type=Path, help="folder to keep the statistics in")
    parser.add_argument("--tests", action="store_true", help="count test images too")
    options = parser.parse_args()
    main(options.data, options.cache, options.tests)
