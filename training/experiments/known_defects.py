"""What known defects add: the same detector with and without labels, on labelled images that
nothing was learnt from.

    python -m training.experiments.known_defects DATASETS --out FOLDER
        (DATASETS: as data/README.md describes them)

For each set the images are looked at once, by the recipe of `anomaly train`. Then labelled defects
are drawn several times; AUROC and the share of the other defects above the threshold are compared
with those of the detector without labels, on the same images. Of sets with several types also: each
type left out of learning (does the detector go blind to it?), and the names that ten of each type
give.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from anomaly.inputs.dataset import Record, labelled_test, read_dataset
from anomaly.inputs.labels import GOOD
from anomaly.statistics.calibration import Calibration
from training.cross import fit_without, out_of_fold, with_evidence
from training.detector import calibrate_on
from training.experiments.benchmark import Case, cases
from training.known_defects import (
    FEWEST_IMAGES,
    Defects,
    KnownDefects,
    fit_known,
    held_out,
    judged_by,
)
from training.labelled_maps import LabelledMaps, describe_maps
from training.learnt import choose
from training.options import TrainOptions
from training.reading import read, represent, split
from training.stages import Split, Unseen
from training.tensors import extract

Floats = npt.NDArray[np.float64]
CERTAIN = {"solar cells": "defective"}  # of sets whose labels doubt themselves: what is certain


@dataclass(frozen=True)
class Looked:
    """A set, looked at once: descriptors and scores of good images that set the threshold, of good
    test images and of the defects, by the model of all images that are learnt from.
    """

    split: Split
    unseen: Unseen
    calibrating: tuple[Floats, Floats]
    records: list[Record]
    good: tuple[Floats, Floats]
    defects: Defects


def look(case: Case, out: Path) -> Looked:
    """Returns a set as its models see it."""
    options = TrainOptions(images=case.images, out=out, seed=case.seed)
    chosen = choose(split(represent(read(options, lambda line: print(f"  {line}")))))
    divided, to_heatmap = chosen.split, chosen.to_heatmap
    sets = divided.sets
    parts = (divided.rule, divided.prepare, divided.space, divided.job.device, lambda: None)
    seen_bad, seen_good = (extract(some, *parts, divided.pose) for some in tested(case))
    labelled = LabelledMaps.unmarked(seen_bad)
    learnt = sets.calibrating if sets.cross else chosen.learnt.records
    unseen = out_of_fold(divided, learnt, to_heatmap, describe=True)
    fold, _ = fit_without(divided, to_heatmap, chosen.learnt.records, [])
    records = divided.seen.subset(sets.calibration).records
    held = divided.seen.subset(records).maps
    described = [
        describe_maps(fold.space, fold.model, to_heatmap, maps)
        for maps in (held, seen_good.maps)
        if len(maps)
    ]
    calibrating = described[0] if len(held) else (np.zeros((0, 1)), np.zeros(0))
    defects = labelled.judged_by(fold.space, fold.model, to_heatmap)
    return Looked(divided, unseen, calibrating, records, described[-1], defects)


def tested(case: Case) -> tuple[list[Record], list[Record]]:
    """Returns the defective and the good test images of a set."""
    certain = next((kind for name, kind in CERTAIN.items() if case.name.startswith(name)), None)
    records = labelled_test(read_dataset(case.images))
    bad = [r for r in records if r.label != GOOD and certain in (None, r.label)]
    return bad, [r for r in records if r.label == GOOD]


def figures(looked: Looked, learnt: npt.NDArray[np.bool_], left: npt.NDArray[np.bool_]) -> Any:
    """Returns AUROC, recall and flagged good images on the defects ``left``, without and with what
    is learnt from those ``learnt``.
    """
    known = fit_known(looked.unseen.good, looked.defects.subset(learnt))
    return {
        "without": judged(looked, None, learnt, left),
        "with": judged(looked, known, learnt, left),
    }


def judged(
    looked: Looked,
    known: KnownDefects | None,
    learnt: npt.NDArray[np.bool_],
    left: npt.NDArray[np.bool_],
) -> dict[str, float]:
    """Returns AUROC, and recall and flagged good images at the rate of `anomaly train` and at 3 %,
    with (or without) what is learnt.
    """

    good = raised(known, *looked.good)
    bad = raised(known, looked.defects.described, looked.defects.scores)[left]
    labels = np.arange(len(good) + len(bad)) >= len(good)
    found = {"auroc": float(roc_auc_score(labels, np.concatenate([good, bad]))), "good": len(good)}
    for suffix, rate in (("", None), (" at 3 %", 0.03)):
        calibration = calibrated(looked, known, learnt, rate)
        threshold = float(calibration.threshold)
        found |= {
            f"recall{suffix}": float((bad > threshold).mean()),
            f"flagged good{suffix}": int((good > threshold).sum()),
            f"rate{suffix}": float(calibration.k / (calibration.n + 1)),
        }
    return found


def raised(known: KnownDefects | None, described: Floats, scores: Floats) -> Floats:
    """Returns scores with what known defects add to them."""
    return scores if known is None else scores + judged_by(known, described)[0]


def calibrated(
    looked: Looked, known: KnownDefects | None, learnt: npt.NDArray[np.bool_], rate: float | None
) -> Calibration:
    """Returns the calibration of a detector with (or without) what is learnt."""
    asked, unseen = replace(looked.split.job.options, false_alarm_rate=rate), looked.unseen
    groups = looked.split.groups
    if not looked.split.sets.cross:
        values = raised(known, *looked.calibrating).astype(np.float32)
        return calibrate_on(looked.records, np.stack([values] * 2, 1), asked, groups, "split")[0]
    if known is not None:
        unseen = with_evidence(unseen, looked.defects.subset(learnt))
    return calibrate_on(unseen.records, unseen.scores, asked, groups, "cross")[0]


def run_case(case: Case, labels: list[int], draws: int) -> dict[str, Any]:
    """Returns all figures of a set."""
    with tempfile.TemporaryDirectory() as folder:
        looked = look(case, Path(folder))
    types = np.array(looked.defects.types)
    found: dict[str, Any] = {"case": case.name, "recipe": str(looked.split.job.recipe)}
    for count in labels:
        rows = []
        for draw in range(draws):
            learnt = np.zeros(len(types), bool)
            chosen = np.random.default_rng(draw).choice(len(types), count, replace=False)
            learnt[chosen] = True
            rows.append(figures(looked, learnt, ~learnt))
        found[f"{count} labelled"] = changes(rows)
        print(case.name, count, found[f"{count} labelled"], flush=True)
    kinds = sorted(set(looked.defects.types))
    if len(kinds) > 1:
        found["type left out"] = left_out(looked, types, kinds, labels[0], draws)
        print(case.name, "left out", found["type left out"], flush=True)
        found["names"] = names(looked, types, kinds, draws)
        print(case.name, "names", found["names"], flush=True)
    return found


def changes(rows: list[Any]) -> dict[str, Any]:
    """Returns means and standard deviations over draws: without labels, and the differences."""
    said: dict[str, Any] = {}
    for name in ("auroc", "recall", "recall at 3 %"):
        before = np.array([row["without"][name] for row in rows])
        gain = np.array([row["with"][name] for row in rows]) - before
        said[name] = round(float(before.mean()), 4)
        said[f"{name} gain"] = [round(float(x), 4) for x in (gain.mean(), gain.std())]
    for suffix in ("", " at 3 %"):
        for kind in ("without", "with"):
            said[f"flagged good{suffix} {kind}"] = [
                row[kind][f"flagged good{suffix}"] for row in rows
            ]
        said[f"rate{suffix}"] = round(rows[0]["with"][f"rate{suffix}"], 4)
    return said | {"good": rows[0]["with"]["good"]}


def left_out(
    looked: Looked, types: npt.NDArray[Any], kinds: list[str], count: int, draws: int
) -> dict[str, Any]:
    """Returns, for each type, what learning from ``count`` defects of the others changes on it."""
    by_type: dict[str, Any] = {}
    means = []
    for kind in kinds:
        rows = []
        for draw in range(draws):
            others = np.flatnonzero(types != kind)
            learnt = np.zeros(len(types), bool)
            learnt[np.random.default_rng(draw).choice(others, count, replace=False)] = True
            rows.append(figures(looked, learnt, types == kind))
        by_type[kind] = changes(rows)
        means.append([by_type[kind][f"recall{end} gain"][0] for end in ("", " at 3 %")])
    mean = [round(float(x), 4) for x in np.mean(means, 0)]
    return {"mean recall gain, at 3 % too": mean, "by type": by_type}


def names(
    looked: Looked, types: npt.NDArray[Any], kinds: list[str], draws: int, each: int = 10
) -> dict[str, Any]:
    """Returns the balanced accuracy of the names that ``each`` examples of a type give, and the
    share of known types that is called unknown.
    """
    found, unknown = [], []
    for draw in range(draws):
        rng, learnt = np.random.default_rng(draw), np.zeros(len(types), bool)
        for kind in kinds:
            examples = np.flatnonzero(types == kind)
            learnt[
                rng.choice(examples, min(each, len(examples) - FEWEST_IMAGES), replace=False)
            ] = True
        subset = looked.defects.subset(learnt)
        known = fit_known(looked.unseen.good, subset)
        scores = judged_by(known, looked.defects.described[~learnt])[1]
        said = np.array(subset.named)[scores.argmax(1)]
        found.append(balanced_accuracy_score(types[~learnt], said))
        below = held_out(looked.unseen.good, subset).unknown_below or 0.0
        unknown.append(float((scores.max(1) < below).mean()))
    spread = [round(float(x), 3) for x in (np.mean(found), np.std(found))]
    return {"balanced accuracy": spread, "known called unknown": round(float(np.mean(unknown)), 3)}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m training.experiments.known_defects", description=__doc__.splitlines()[0]
    )
    parser.add_argument("datasets", type=Path, help="folder of the sets")
    parser.add_argument("--out", type=Path, required=True, help="folder of the figures")
    parser.add_argument("--only", default="", help="cases whose name holds this text")
    parser.add_argument("--labels", type=int, nargs="+", default=[30, 100], help="labelled defects")
    parser.add_argument("--draws", type=int, default=5, help="of labelled defects")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for case in cases(options.datasets, options.out, [0]):
        if options.only not in case.name:
            continue
        found = run_case(case, options.labels, options.draws)
        file = options.out / f"{case.name.replace(' ', '-')}.json"
        file.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
