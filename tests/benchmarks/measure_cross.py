"""How many new good images does a threshold set by cross-calibration flag?

    python -m tests.benchmarks.measure_cross --draws 200 --threads 1

Good images are random maps: Gaussian with a few smooth components, a contrast of its own for each
image (log-normal), and where there are several to a group half of the variance in common. Each draw
makes a new set, cross-calibrates on it and counts the flagged among 200 new images of other groups.
The count over all draws stays below the 99 % limit of what the nominal rate allows: exact under
exchangeable scores (beta-binomial in each draw), by simulation.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from anomaly.imaging.decode import DecodeRule
from anomaly.inputs.dataset import Record
from anomaly.statistics.calibration import Calibration, calibrate
from anomaly.statistics.check import decide
from training.cross import fit_without, out_of_fold
from training.detector import calibrate_on
from training.options import TrainOptions
from training.preprocess import Preprocess
from training.recipes import square
from training.scores import Heatmap
from training.sets import Sets
from training.stages import Job, Split
from training.tensors import Extracted
from training.whitening import Whitening

NEW = 200  # new images of each draw
CHANNELS, GRID, COMPONENTS = 6, 6, 8
CASES = ((20, 1), (50, 1), (130, 1), (300, 1), (50, 3), (130, 3))  # groups, images of each


class MapSpace(nn.Module):
    """A space of maps that are there already."""

    channels, grid = CHANNELS, GRID

    def __init__(self) -> None:
        super().__init__()
        self.whitening = Whitening(CHANNELS, CHANNELS)
        self.early_shape: None = None

    def with_early(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.raw(x), x

    def raw(self, x: Tensor) -> Tensor:
        return x

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.whitening(x)
        return found


@dataclass(frozen=True)
class Drawn:
    """One draw: the calibration by all groups, and the scores of new images by the detector that is
    fitted to all of them.
    """

    calibration: Calibration
    new: np.ndarray

    @property
    def flagged(self) -> int:
        return int(self.calibration.is_anomaly(self.new).sum())

    def at(self, target_rate: float | None) -> Drawn:
        """Returns the same with the threshold of another rate."""
        return replace(self, calibration=calibrate(self.calibration.scores, target_rate, "cross"))


def draw_maps(groups: int, each: int, rng: np.random.Generator) -> Tensor:
    """Returns maps of good images, float32 (groups * each, C, h, w), those of a group side by
    side.
    """
    world = np.random.default_rng(1)  # what a part looks like is the same in every draw
    shape = (CHANNELS, GRID, GRID)
    smooth = np.cumsum(np.cumsum(world.normal(size=(COMPONENTS, *shape)), -1), -2) / GRID
    mean = world.normal(size=shape)
    count = groups * each
    codes, noise = rng.normal(size=(count, COMPONENTS)), rng.normal(size=(count, *shape))
    if each > 1:
        of = np.repeat(np.arange(groups), each)
        codes = (codes + rng.normal(size=(groups, COMPONENTS))[of]) / np.sqrt(2)
        noise = (noise + rng.normal(size=(groups, *shape))[of]) / np.sqrt(2)
    contrast = np.exp(0.2 * rng.normal(size=(count, 1, 1, 1)))
    maps = mean + contrast * (np.einsum("nk,kchw->nchw", codes, smooth) + noise)
    return torch.from_numpy(maps.astype(np.float32))


def split_of(maps: Tensor, groups: Sequence[str]) -> Split:
    """Returns the stage of a training that has these raw maps."""
    records = [Record(Path(f"{i:05}.png"), None, "good", g, None) for i, g in enumerate(groups)]
    options = TrainOptions(Path(), Path(), model="linear", space="features", size=32)
    job = Job(
        options, options, 32, "hottest", "cpu", None, lambda line: None, square("features", 32)
    )
    pictures = torch.zeros(len(records), 3, 1, 1, dtype=torch.uint8)
    thumbs = np.zeros((len(records), 1, 1), np.float32)
    facts = [(32, 32, 8, False)] * len(records)
    seen = Extracted(records, maps, pictures, thumbs, facts, [], [""] * len(records))
    sets = Sets(records, [], [], cross=True)
    return Split(job, DecodeRule(), Preprocess(32, "ort"), MapSpace(), seen, records, sets, [])


def draw(groups: int, each: int, seed: int) -> Drawn:
    """Returns one draw of so many groups of ``each`` images."""
    rng = np.random.default_rng((groups, each, seed))
    good, new = draw_maps(groups, each, rng), draw_maps(NEW, each, rng)[::each]
    names = [f"group {i // each:04}" for i in range(len(good))]
    split, to_heatmap = split_of(good, names), Heatmap()
    unseen = out_of_fold(split, split.records, to_heatmap)
    options = TrainOptions(Path(), Path(), seed=seed)
    calibration, *_ = calibrate_on(unseen.records, unseen.scores, options, split.groups, "cross")
    both = split_of(torch.cat([good, new]), [*names, *(f"new {i:04}" for i in range(NEW))])
    kept, left = both.records[: len(good)], both.records[len(good) :]
    _, found = fit_without(both, to_heatmap, kept, left)
    return Drawn(calibration, found[:, 0])


def limit(calibration: Calibration, draws: int, level: float = 0.99) -> int:
    """Returns the count of flagged new images over all draws that is not exceeded with probability
    ``level`` where scores are exchangeable.
    """
    rng = np.random.default_rng(0)
    k, n = calibration.k, calibration.n
    rates = rng.beta(k, n + 1 - k, size=(5000, draws))
    return int(np.quantile(rng.binomial(NEW, rates).sum(1), level))


def row_of(drawn: Sequence[Drawn]) -> tuple[int, int]:
    """Returns how many new images were flagged over all draws, and the 99 % limit of that."""
    return sum(one.flagged for one in drawn), limit(drawn[0].calibration, len(drawn))


def main() -> None:
    """Runs all cases and prints a table."""
    parser = argparse.ArgumentParser(description="realised false alarms of cross-calibration")
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    print(
        "| groups | images of each | rate asked for | estimated | realised | flagged (99 % limit) "
        "| median p of new images | a check says keep |\n|---|---|---|---|---|---|---|---|"
    )
    for groups, each in CASES:
        first = [draw(groups, each, seed) for seed in range(given.draws)]
        for target_rate in (None, 0.1):
            drawn = [one.at(target_rate) for one in first]
            flagged, up_to = row_of(drawn)
            p = np.median([np.median(one.calibration.p_value(one.new)) for one in drawn])
            kept = np.mean([decide(one.calibration, one.new, 0).advice == "keep" for one in drawn])
            asked = "default" if target_rate is None else f"{100 * target_rate:g} %"
            print(
                f"| {groups} | {each} | {asked} | {100 * drawn[0].calibration.rate:.3g} % | "
                f"{100 * flagged / (NEW * len(drawn)):.3g} % | {flagged} ({up_to}) | {p:.3f} | "
                f"{100 * kept:.0f} % |",
                flush=True,
            )


if __name__ == "__main__":
    main()
