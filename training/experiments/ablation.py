"""What each choice brings, on synthetic defects, by which choices are made; and on real ones, for
reporting only.

    python -m training.experiments.ablation DATASETS --out ablation
        (resumable; a finished case is not done again)

For each real set the models are fitted on two thirds of the good training images. The other third
(by group) is judged with and without synthetic defects: 30 of each kind. The AUROC of these, mean
over the kinds, ranks the recipes of a set; its rank correlation with the AUROC on the set's real
defects says how far it may be trusted.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score
from torch import Tensor

from anomaly.inputs.dataset import Record, labelled_test, normal_training, read_dataset
from anomaly.statistics.resampling import NORMAL
from training.choose import auroc_by_kind, heatmaps_of, make_defects, prepared, raw_maps, whiten
from training.experiments.baselines import BASELINES
from training.experiments.benchmark import Case, cases
from training.models import MODELS
from training.preprocess import Preprocess
from training.scores import pool
from training.sets import find_rule
from training.spaces import FEATURE_STAGES, BothSpace, make_space

DEFECTS_PER_KIND = 30  # synthetic defects of a kind
HELD_OUT = 90  # images that they are made on, at most


@dataclass(frozen=True)
class Recipe:
    """One way to train: what is compared."""

    model: str
    space: str
    share: float = 0.05  # of the heatmap that makes the score
    size: int = 256

    @property
    def name(self) -> str:
        share = "" if self.share == 0.05 else f", hottest {100 * self.share:g} %"
        return f"{self.model}, {self.space}{share}" + (
            "" if self.size == 256 else f", {self.size} pixels"
        )


RECIPES = (
    Recipe("linear", "both"),
    Recipe("linear", "all"),
    Recipe("linear", "both", size=192),
    Recipe("linear", "both", size=160),
    Recipe("linear", "features"),
    Recipe("linear", "filters"),
    Recipe("linear", "both", 0.02),
    Recipe("linear", "both", 0.1),
    Recipe("padim", "features"),
    Recipe("memory-bank", "features"),
)


def run_case(case: Case, recipes: Sequence[Recipe]) -> dict[str, dict[str, float]]:
    """Returns the AUROC on synthetic and on real defects of each recipe, by its name."""
    records = read_dataset(case.images)
    fit_on, held_out = thirds(normal_training(records))
    test = labelled_test(records)
    rule, real = find_rule(fit_on), np.array([record.label != NORMAL for record in test])
    found: dict[str, dict[str, float]] = {}
    for size in sorted({recipe.size for recipe in recipes}, reverse=True):
        prepare, space = Preprocess(size, "ort"), BothSpace(size, tuple(FEATURE_STAGES)).eval()
        seen, good, tested = (
            prepared(subset, rule, prepare) for subset in (fit_on, held_out[:HELD_OUT], test)
        )
        made, kinds = make_defects(good, DEFECTS_PER_KIND, seed=0)
        raw = [raw_maps(space, subset) for subset in (seen, good, made, tested)]
        channels, groups = channels_of(space), [record.group for record in fit_on]
        of_size = [recipe for recipe in recipes if recipe.size == size]
        for model, name in {(recipe.model, recipe.space): None for recipe in of_size}:
            whitened = whiten(make_space(name, size), [subset[:, channels[name]] for subset in raw])
            heatmaps = heatmaps_of(model, *whitened, groups=groups)
            for recipe in of_size:
                if (recipe.model, recipe.space) == (model, name):
                    found[recipe.name] = figures(recipe, heatmaps, kinds, real)
    return found


def channels_of(space: BothSpace) -> dict[str, npt.NDArray[np.intp]]:
    """Returns which channels of the space ``all`` each of the spaces has."""
    sizes = space.whitening.sizes
    lite0, lite2, filters = np.split(np.arange(sum(sizes)), np.cumsum(sizes[:2]))
    return {
        "features": lite0,
        "filters": filters,
        "both": np.r_[lite0, filters],
        "all": np.r_[lite0, lite2, filters],
    }


def figures(
    recipe: Recipe, heatmaps: Sequence[Tensor], kinds: Sequence[str], real: npt.NDArray[np.bool_]
) -> dict[str, float]:
    """Returns the AUROC on synthetic and on real defects, from heatmaps of good images, of images
    with synthetic defects and of the test images.
    """
    normal, anomalous, scores = (pool(heatmap, recipe.share).numpy() for heatmap in heatmaps)
    return {
        "synthetic": auroc_by_kind(normal, anomalous, kinds),
        "real": float(roc_auc_score(real, scores)),
    }


def thirds(records: Sequence[Record]) -> tuple[list[Record], list[Record]]:
    """Returns two thirds of the groups to fit on, and the other third."""
    groups = sorted({record.group for record in records})
    held_out = {
        groups[i]
        for i in np.random.default_rng(0).permutation(len(groups))[: max(1, len(groups) // 3)]
    }
    return [r for r in records if r.group not in held_out], [
        r for r in records if r.group in held_out
    ]


def table(results: dict[str, dict[str, dict[str, float]]]) -> str:
    """Returns the mean over the families of sets for each recipe, and how the two figures go
    together within a set.
    """
    lines = [
        "| recipe | synthetic defects | real defects | " + " | ".join(families(results)) + " |"
    ]
    lines.append("|---" * (3 + len(families(results))) + "|")
    for recipe in next(iter(results.values())):
        each = {
            family: [
                np.mean([results[case][recipe][kind] for case in members])
                for kind in ("synthetic", "real")
            ]
            for family, members in families(results).items()
        }
        made, real = np.mean(list(each.values()), 0)
        lines.append(
            f"| {recipe} | {made:.3f} | {real:.3f} | "
            + " | ".join(f"{m:.3f} / {r:.3f}" for m, r in each.values())
            + " |"
        )
    ranks = {
        case: spearmanr(*zip(*((f["synthetic"], f["real"]) for f in found.values()), strict=True))[
            0
        ]
        for case, found in results.items()
    }
    lines.append(
        "\nrank correlation of the two within a set: "
        + ", ".join(f"{case} {rank:.2f}" for case, rank in ranks.items())
    )
    lines.append(f"mean {np.mean(list(ranks.values())):.2f}")
    return "\n".join(lines)


def families(results: dict[str, dict[str, dict[str, float]]]) -> dict[str, list[str]]:
    """Returns the cases of each set, as 'tiles grouped' has three."""
    found: dict[str, list[str]] = {}
    for case in results:
        found.setdefault(case.rsplit(" ", 1)[0], []).append(case)
    return found


def main() -> None:
    """Compares the recipes on every real set and prints the table."""
    parser = argparse.ArgumentParser(
        description="what each choice brings on synthetic and on real defects"
    )
    parser.add_argument("datasets", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", default="", help="cases whose name holds this text")
    given = parser.parse_args()
    MODELS.update(BASELINES)
    given.out.mkdir(parents=True, exist_ok=True)
    results = {}
    for case in cases(given.datasets, given.out, seeds=[0]):
        if given.only in case.name:
            path = given.out / f"{case.name.replace(' ', '-')}.json"
            if not path.exists():
                print(case.name, file=sys.stderr)
                path.write_text(json.dumps(run_case(case, RECIPES), indent=2))
            results[case.name] = json.loads(path.read_text())
    print(table(results))


if __name__ == "__main__":
    main()
