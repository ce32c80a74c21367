"""The good images that RUN keeps, so that inspectors can compare others with them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from anomaly.detector.card import Card
from anomaly.imaging.decode import Decoded
from anomaly.imaging.good_images import FILE, MAX_IMAGES, SIDE, explained_share, write_good_images
from anomaly.inputs.dataset import Record
from anomaly.scorer import Scorer
from training.folds import seeded_subset
from training.options import TrainOptions
from training.sets import Sets, decode_all

EXPLAINED_IMAGES = 8  # images that the expected picture is compared with


def keep_good_images(options: TrainOptions, card: Card, sets: Sets) -> None:
    """Writes some of the good images, outliers left out, and how well the expected picture explains
    a few of them.
    """
    good = [*sets.fit, *sets.validation, *sets.calibration]
    chosen = [good[int(at)] for at in seeded_subset(len(good), MAX_IMAGES)]
    scorer = Scorer(options.out, device="cpu")
    shares = []
    for _, image in read_all((sets.calibrating or good)[:EXPLAINED_IMAGES], card):
        expected = scorer.explain(image)
        if expected is not None:
            shares.append(explained_share(image.pixels, expected))
    explained = float(np.median(shares)) if shares else None
    named = ((record.path.name, image.pixels) for record, image in read_all(chosen, card))
    write_good_images(options.out / FILE, named, explained)


def read_all(records: Sequence[Record], card: Card) -> Iterator[tuple[Record, Decoded]]:
    """Yields the records that can be read, with their pixels."""
    for record, image in decode_all(records, card.decode, max(card.size, SIDE)):
        if isinstance(image, Decoded):
            yield record, image
