"""How small a defect a finished detector still flags: synthetic ones of known sizes, drawn into
good images at their own scale.

They are drawn into images that the model has never seen, once the threshold is set; nothing is
chosen by them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from anomaly.detector.session import available_cores, open_session
from anomaly.imaging.decode import Decoded, DecodeRule
from anomaly.imaging.mask import Mask
from anomaly.imaging.region import hottest_region
from anomaly.inputs.dataset import Record
from anomaly.statistics.calibration import Calibration
from training.export import DetectorGraph
from training.preprocess import stretched
from training.sets import decode_all
from training.synthetic_defects import add_defect

Box = tuple[int, int, int, int]
Judge = Callable[[NDArray[np.uint8]], tuple[np.float32, Box]]  # score and box of an image
# those that fill a blob, so that a diameter says how large they are
KINDS = ("blend", "texture", "stain", "pit")
DEFECTS_PER_SIZE = 6  # of a kind and a size
DEFECTS_PER_SIZE_SLOW = 3  # where an image takes a second
MODEL_PIXELS = (1, 2, 4, 8, 16, 32)  # diameters
CUT_SIDE_DIAMETERS = 8  # diameters a side of the square that a defect is drawn in: its surroundings
MAX_DIAMETER_SHARE = 0.25  # of an image's shorter side


def judge_by_file(model: onnx.ModelProto, typical: float) -> Judge:
    """Returns score and box as the graph of a detector's file gives them; ``typical``: what is
    hottest in a good image.
    """
    session, _ = open_session(model.SerializeToString(), "cpu", available_cores())

    def judge(image: NDArray[np.uint8]) -> tuple[np.float32, Box]:
        score, heatmap = session.run(["score", "heatmap"], {"images": image[None]})
        return score[0], hottest_region(heatmap[0], image.shape[1], image.shape[0], typical)[0]

    return judge


def judge_by_graph(graph: DetectorGraph, typical: float) -> Judge:
    """Returns score and box as a detector gives them that is in no file."""

    @torch.inference_mode()
    def judge(image: NDArray[np.uint8]) -> tuple[np.float32, Box]:
        score, _, heatmap, *_ = graph(torch.from_numpy(image)[None])
        found = heatmap.numpy()[0]
        return score.numpy()[0], hottest_region(found, image.shape[1], image.shape[0], typical)[0]

    return judge


def flagged_by_size(
    judge: Judge,
    calibration: Calibration,
    records: Sequence[Record],
    rule: DecodeRule,
    size: int,
    mask: Mask | None,
    seed: int,
    each: int = DEFECTS_PER_SIZE,
) -> dict[str, Any]:
    """Returns how many synthetic defects of each size are flagged, as the card has it.

    ``judge``: score and box of an image uint8 (H, W, 3), by a model that has not seen ``records``.

    ``pixel``: pixels of the median image to one pixel of the model, a side; ``sizes``: rows of
    ``pixels`` (diameter in the image), ``flagged``, ``of``, ``met``: flagged ones whose box meets
    the defect, and ``scores``, by which another threshold is tried (see
    anomaly.detector.size_sensitivity).
    """
    pictures = [
        image.pixels
        for _, image in decode_all(records[:each], rule, size)
        if isinstance(image, Decoded)
    ]
    pixel = float(np.median([math.sqrt(p.shape[0] * p.shape[1]) for p in pictures])) / size
    rng, rows = np.random.default_rng(seed), []
    for diameter in diameters(pixel, min(min(p.shape[:2]) for p in pictures)):
        flagged = met = of = 0
        scores = []
        for made, where in drawn(pictures, diameter, mask, rng, each):
            score, box = judge(made)
            is_flagged = bool(calibration.is_anomaly(score))
            scores.append(float(score) if math.isfinite(score) else None)
            of, flagged, met = (
                of + 1,
                flagged + is_flagged,
                met + (is_flagged and meets(box, where)),
            )
        rows.append(
            {"pixels": diameter, "flagged": flagged, "of": of, "met": met, "scores": scores}
        )
    return {"pixel": pixel, "sizes": [row for row in rows if row["of"]]}


def diameters(pixel: float, shorter: int) -> list[int]:
    """Returns the diameters to try, in pixels of the image, without those that would be a great
    part of it.
    """
    found = {max(2, round(factor * pixel)) for factor in MODEL_PIXELS}
    return sorted(diameter for diameter in found if diameter <= MAX_DIAMETER_SHARE * shorter)


def drawn(
    pictures: Sequence[NDArray[np.uint8]],
    diameter: int,
    mask: Mask | None,
    rng: np.random.Generator,
    each: int = DEFECTS_PER_SIZE,
) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.bool_]]]:
    """Yields pictures with one defect of about that diameter, and where; those that cannot be seen
    are left out.
    """
    for kind in KINDS:
        for number in range(each):
            picture, donor = (
                pictures[number % len(pictures)],
                pictures[(number + 1) % len(pictures)],
            )
            side = min(max(16, CUT_SIDE_DIAMETERS * diameter), *picture.shape[:2], *donor.shape[:2])
            top, left = (int(rng.integers(length - side + 1)) for length in picture.shape[:2])
            y, x = (int(rng.integers(length - side + 1)) for length in donor.shape[:2])
            here = (slice(top, top + side), slice(left, left + side))
            made, where = picture.copy(), np.zeros(picture.shape[:2], bool)
            donated = donor[y : y + side, x : x + side]
            made[here], where[here] = add_defect(
                picture[here], donated, kind, rng, radius=diameter / 2
            )
            whole = where.sum()
            if mask is not None:
                where &= stretched(torch.from_numpy(mask), *picture.shape[:2]).numpy()
            if where.sum() > whole / 2:  # of one that a mask cuts the diameter says nothing
                yield made, where


def meets(box: Box, where: NDArray[np.bool_]) -> bool:
    """Whether a box x, y, w, h holds a pixel of a defect."""
    x, y, w, h = box
    return bool(where[y : y + h, x : x + w].any())
