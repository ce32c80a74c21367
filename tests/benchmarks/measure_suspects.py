"""Hides real defects among good training images: how many of them are listed, and what they cost
before and after.

    python -m tests.benchmarks.measure_suspects LABELLED... [--space both] [--draws 3]

LABELLED is a data set with defects in its test split. So many of them that they are 1, 2 and 5 % of
the good images join these, each as a group of its own, and leave the test; labels only say
afterwards what was found. Each image is looked at once (the features), then everything is computed
as `anomaly train` does it, but for the picture decoder: the three sets, the whitening, the linear
Gaussian without an outlier ("all learnt": with it), the threshold at the default rate, and the
list. "cleaned": without the hidden defects that the list names, as a person would see them;
"unread": without the whole list, which nobody should do. Recall and AUROC are those of all defects
that were never hidden, false alarms of one good test image of each group.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from anomaly.inputs.dataset import Record, labelled_test, normal_training, read_dataset
from anomaly.statistics.calibration import calibrate
from anomaly.statistics.groups import one_per_group
from anomaly.statistics.resampling import NORMAL
from training.models import MODELS
from training.options import DEFAULT_SIZE
from training.preprocess import Preprocess
from training.scores import Heatmap
from training.sets import find_rule, three_sets
from training.spaces import make_space
from training.suspects import find_suspects, outliers
from training.tensors import Extracted, extract

SHARES = (0.0, 0.01, 0.02, 0.05)
HEATMAP = Heatmap()


@dataclass(frozen=True)
class Detector:
    """What training makes of some good images."""

    space: nn.Module
    model: nn.Module
    threshold: float

    @staticmethod
    def of(
        seen: Extracted, training: Sequence[Record], name: str, size: int, robust: bool = True
    ) -> Detector:
        sets, space = three_sets(training, 0, None), make_space(name, size).eval()
        calibration = seen.subset(sets.calibration)
        # a model in closed form learns from both
        learnt = seen.subset([*sets.fit, *sets.validation]).maps
        if robust:
            space.whitening.fit(learnt.split(64))
            learnt = learnt[~outliers(learnt, space, HEATMAP)]
        space.whitening.fit(learnt.split(64))
        fit_on, threshold_on = (
            torch.cat([space.whitening(batch) for batch in maps.split(64)])
            for maps in (learnt, calibration.maps)
        )
        model = MODELS["linear"](*fit_on.shape[1:], pixels=False)
        model.fit_maps(fit_on)
        groups, paths = zip(
            *((record.group, str(record.path)) for record in calibration.records), strict=True
        )
        threshold = calibrate(
            one_per_group(scores_of(model, threshold_on), groups, 0, paths)[0], None
        ).threshold
        return Detector(space, model, float(threshold))

    @torch.inference_mode()
    def figures(self, seen: Extracted) -> dict[str, float]:
        """Returns AUROC, the share of defects that are flagged, and of good images, one of each
        group.
        """
        maps = torch.cat([self.space.whitening(part) for part in seen.maps.split(64)])
        scores, bad = (
            scores_of(self.model, maps),
            np.array([record.label != NORMAL for record in seen.records]),
        )
        good = [record for record in seen.records if record.label == NORMAL]
        names = [record.group for record in good], 0, [str(record.path) for record in good]
        one_each, _ = one_per_group(scores[~bad], *names)
        flagged = {"defects": scores[bad] > self.threshold, "good": one_each > self.threshold}
        return {
            "auroc": roc_auc_score(bad, scores),
            **{kind: float(flags.mean()) for kind, flags in flagged.items()},
        }


@torch.inference_mode()
def scores_of(model: nn.Module, maps: Tensor) -> NDArray[np.float32]:
    return torch.cat([HEATMAP.pool(HEATMAP(model(part)[0])) for part in maps.split(64)]).numpy()


def contaminated(
    seen: Extracted, share: float, draw: int, name: str, size: int
) -> dict[str, float]:
    """Returns the figures of one draw of hidden defects."""
    good, test = normal_training(seen.records), labelled_test(seen.records)
    defective = [record for record in test if record.label != NORMAL]
    order = np.random.default_rng(draw).permutation(len(defective))[: round(share * len(good))]
    hidden = [defective[i] for i in order]
    left, given = (
        seen.subset([record for record in test if record not in hidden]),
        seen.subset([*good, *hidden]),
    )
    before, naive = (
        Detector.of(seen, given.records, name, size, robust) for robust in (True, False)
    )
    began = time.perf_counter()
    listed = [
        suspect.record
        for suspect in find_suspects(given.records, given.maps, before.space, HEATMAP)
    ]
    row = {"seconds": time.perf_counter() - began, "listed": len(listed), "hidden": len(hidden)}
    found = [record for record in listed if record in hidden]
    row |= {f"naive {kind}": value for kind, value in naive.figures(left).items()}
    without = {"before": [], "cleaned": found, "unread": listed}
    for called, excluded in without.items():
        kept = [record for record in given.records if record not in excluded]
        made = Detector.of(seen, kept, name, size) if excluded else before
        row |= {f"{called} {kind}": value for kind, value in made.figures(left).items()}
    return row | {"found": len(found)}


def look(sets: Sequence[Sequence[Record]], name: str, size: int) -> list[Extracted]:
    """Returns what is seen of each set; an image that is in several of them is looked at once."""
    once = list({record.path: record for records in sets for record in records}.values())
    seen = extract(
        once,
        find_rule(once[:3]),
        Preprocess(size),
        make_space(name, size).eval(),
        "cpu",
        lambda: None,
    )
    found = []
    for part, records in (
        (seen.subset(records), {record.path: record for record in records}) for records in sets
    ):
        found.append(replace(part, records=[records[record.path] for record in part.records]))
    return found


def main(labelled: list[Path], space: str, draws: int) -> None:
    torch.set_num_threads(1)
    size, began = DEFAULT_SIZE[space], time.perf_counter()
    sets = look([read_dataset(place) for place in labelled], space, size)
    print(f"looking at the images took {time.perf_counter() - began:.0f} s")
    print(
        (
            "| set | hidden | listed | found | AUROC all learnt, before, cleaned, unread | defects "
            "flagged | good flagged | s |\n"
        )
        + "|---" * 8
        + "|"
    )
    for place, seen in zip(labelled, sets, strict=True):
        for share in SHARES:
            rows = [
                contaminated(seen, share, draw, space, size)
                for draw in range(draws if share else 1)
            ]
            mean = {key: np.mean([row[key] for row in rows]) for key in rows[0]}
            found = (
                ", ".join(f"{row['found']} of {row['hidden']}" for row in rows) if share else "-"
            )
            figures = [
                ", ".join(
                    f"{mean[f'{called} {figure}']:.3f}"
                    for called in ("naive", "before", "cleaned", "unread")
                )
                for figure in ("auroc", "defects", "good")
            ]
            told = " | ".join(
                [
                    place.stem,
                    f"{share:.0%}",
                    f"{mean['listed']:.0f}",
                    found,
                    *figures,
                    f"{mean['seconds']:.1f}",
                ]
            )
            print(f"| {told} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("labelled", type=Path, nargs="+")
    parser.add_argument("--space", default="both", choices=("both", "filters", "features"))
    parser.add_argument("--draws", type=int, default=3)
    main(**vars(parser.parse_args()))
