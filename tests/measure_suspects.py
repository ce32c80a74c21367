"""Hides real defects among good training images: how many are listed, and what they cost in recall, before and after.

    python -m tests.measure_suspects LABELLED OUT --space filters

LABELLED is a data set with defects in its test split. 1, 2 and 5 % of the good training images are joined by so many
defective ones, which leave the test. "before": trained on all of them; "after": without those that the list names and that a
person would see are defective. No hidden defect and no good image is told from another by anything but the list.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np

from anomaly.dataset import Record, labelled_test, normal_training, read_dataset
from anomaly.labelled import evaluate_labelled
from anomaly.scorer import Scorer
from training.suspects import SUSPECTS
from training.train import TrainOptions, train


def main(labelled: Path, out: Path, space: str) -> None:
    records = read_dataset(labelled)
    good, test = normal_training(records), labelled_test(records)
    out.mkdir(parents=True, exist_ok=True)
    evaluated(good, test, [], out / "clean", space)
    for share in (0.01, 0.02, 0.05):
        hidden = hide(test, round(share * len(good)))
        left = [record for record in test if record not in hidden]
        run = out / f"{share:.2f}"
        evaluated(good + hidden, left, [], run, space)
        listed = (run / SUSPECTS).read_text(encoding="utf-8").splitlines()
        found = [record for record in hidden if any(str(record.path).endswith(name) for name in listed)]
        print(f"{share:.0%} hidden: {len(found)} of {len(hidden)} among the {len(listed)} listed", flush=True)
        evaluated(good + [r for r in hidden if r not in found], left, found, out / f"{share:.2f}-after", space)


def hide(test: list[Record], count: int) -> list[Record]:
    """Returns a seeded draw of defective images."""
    defective = [record for record in test if record.label != "good"]
    return [defective[i] for i in sorted(np.random.default_rng(0).permutation(len(defective))[:count])]


def evaluated(good: list[Record], test: list[Record], found: list[Record], run: Path, space: str) -> None:
    """Trains, evaluates on the same test images and prints a line."""
    manifest = run.with_suffix(".csv")
    with open(manifest, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "split", "label", "group"))
        writer.writerows((r.path.resolve(), "train", "good", r.group) for r in good)
        writer.writerows((r.path.resolve(), "test", r.label, r.group) for r in test)
    train(TrainOptions(images=manifest, out=run, space=space), lambda line: None)
    found_ = evaluate_labelled(Scorer(run), manifest, None).evaluation
    recall, auroc = found_.recall, found_.image_auroc
    assert recall is not None and auroc is not None
    stopped = f"defects stopped {recall.flagged} of {recall.n} ({len(found)} taken out)"
    print(f"{run.name:<12} AUROC {auroc.value:.3f}   {stopped}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("labelled", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--space", default="auto")
    main(**vars(parser.parse_args()))
