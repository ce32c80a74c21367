"""How far the choice of a recipe by synthetic defects can be trusted.

    python -m training.experiments.ablation DATASETS --out ablation
        (resumable; a finished case is not done again)

Every recipe that `anomaly train` may choose is judged on each set twice: as the choice judges it,
on good training images and synthetic defects, and on the set's real defects, which nothing is
chosen by. The rank correlation of the two over the recipes of a set says how far the choice may be
trusted. The choice itself besides prefers what costs less, and keeps the default recipe unless
another one is better by a number that was fitted to three sets (training/choose.py).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from anomaly.inputs.dataset import labelled_test, normal_training, read_dataset
from anomaly.statistics.resampling import NORMAL
from training.choose import (
    Candidate,
    Pixels,
    draw_sample,
    frames_for,
    judge,
    mean_by_kind,
    pictures_of,
    raw_maps,
    told,
    views_for,
)
from training.experiments.benchmark import Case, cases
from training.folds import seeded_subset
from training.models.autoencoder import LinearAutoencoder
from training.options import TrainOptions
from training.reading import job_of
from training.scores import Heatmap
from training.sets import find_rule

MOST_LEARNT = 400  # good images that a recipe is fitted on


def run_case(case: Case, options: TrainOptions) -> dict[str, dict[str, float]]:
    """Returns the AUROC of each recipe on the synthetic and on the real defects of a case."""
    records = read_dataset(case.images)
    good, test = normal_training(records), labelled_test(records)
    good = [good[i] for i in seeded_subset(len(good), MOST_LEARNT).tolist()]
    rule = find_rule(good, False, None)
    job, sample = job_of(options, print), draw_sample(good, rule, case.seed)
    pictures = [[picture for _, picture in pictures_of(some, rule)] for some in (good, test)]
    labels = np.array([record.label != NORMAL for record, _ in pictures_of(test, rule)])
    groups = [record.group for record, _ in pictures_of(good, rule)]
    first = frames_for(job, sample, "auto")
    found = {}
    views = [view for one in first for view in views_for(job, sample, one)]
    for candidate in [Candidate(job.recipe), *views]:
        defects = told(*judge(candidate, sample, len(good)))
        found[str(candidate.recipe)] = {
            "synthetic": mean_by_kind(defects, sample.kinds)[0],
            "real": float(roc_auc_score(labels, scores_of(candidate, pictures, groups))),
        }
    return found


@torch.inference_mode()
def scores_of(
    candidate: Candidate, pictures: Sequence[Sequence[Pixels]], groups: Sequence[str]
) -> np.ndarray:
    """Returns the scores of the second pictures by a model of the first, (n,), whose ``groups`` are
    given.
    """
    space = candidate.recipe.make_space().eval()
    learnt, judged = (raw_maps(candidate, space, some) for some in pictures)
    assert space.whitening is not None
    space.whitening.fit(learnt.split(64))
    model = LinearAutoencoder(space.channels, *space.grid, pixels=False)
    model.groups = groups
    model.fit_maps(torch.cat([space.whitening(batch) for batch in learnt.split(64)]))
    to_heatmap = Heatmap()
    return np.concatenate(
        [
            to_heatmap.pool(to_heatmap(model(space.whitening(batch))[0])).numpy()
            for batch in judged.split(64)
        ]
    )


def table(results: dict[str, dict[str, dict[str, float]]]) -> str:
    """Returns a row for each case: the recipe that tells synthetic defects best, its AUROC on real
    defects, the best and the median of all recipes, and the rank correlation.
    """
    lines = [
        "| case | best on synthetic defects | its real AUROC | best | median | rank correlation |",
        "|---|---|---|---|---|---|",
    ]
    correlations = []
    for case, figures in results.items():
        made, real = (
            np.array([row[kind] for row in figures.values()]) for kind in ("synthetic", "real")
        )
        correlations.append(float(spearmanr(made, real).statistic))
        chosen = int(made.argmax())
        lines.append(
            f"| {case} | {list(figures)[chosen]} | {real[chosen]:.3f} | {real.max():.3f} | "
            f"{np.median(real):.3f} | {correlations[-1]:.2f} |"
        )
    return "\n".join([*lines, "", f"mean rank correlation {np.mean(correlations):.2f}"])


def main() -> None:
    """Runs the comparison and prints its table."""
    parser = argparse.ArgumentParser(description="judge every recipe of the choice on real sets")
    parser.add_argument("datasets", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", default="", help="cases whose name holds this text")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    results = {}
    for case in cases(given.datasets, given.out, [0]):
        if given.only in case.name:
            print(case.name, file=sys.stderr)
            path = given.out / f"{case.name.replace(' ', '-')}.json"
            if not path.exists():
                options = TrainOptions(case.images, given.out / "unused")
                path.write_text(json.dumps(run_case(case, options), indent=2))
            results[case.name] = json.loads(path.read_text())
    print(table(results))


if __name__ == "__main__":
    main()
