"""Choices without real defects: candidates are ranked by how well they tell synthetic defects on
held-out good images.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from torch import Tensor

from anomaly.imaging.decode import Decoded, DecodeRule
from anomaly.inputs.dataset import Record
from training.fit import fit
from training.foreground import foreground
from training.models import MODELS
from training.options import FitOptions
from training.pixels import to_levels, to_unit
from training.preprocess import Preprocess
from training.protocols import Space
from training.scores import Heatmap
from training.sets import decode_all
from training.spaces import BothSpace, make_space
from training.synthetic_defects import add_defect, kinds_for
from training.tensors import one_thread_each

HELD_OUT = 48  # validation images that defects are made on, at most
DEFECTS_PER_KIND = 20  # synthetic defects of a kind
TRIES = 50  # to make a defect that a mask does not hide


def choose_space(
    space: BothSpace,
    maps: Tensor,
    validation: Sequence[Record],
    rule: DecodeRule,
    prepare: Preprocess,
    seed: int,
) -> dict[str, float]:
    """Returns the AUROC on synthetic defects of ``features`` and of ``both``, by the linear model
    on the fit set.

    ``maps``: raw maps of the fit set in ``both`` (n, C, h, w), whose first channels are the
    features. The defects are made on validation images; real ones are never seen.
    """
    pictures = prepared(validation[:HELD_OUT], rule, prepare)
    coverage = prepare.coverage(prepare.size)
    made, kinds = make_defects(
        pictures, DEFECTS_PER_KIND, seed, None if coverage is None else (coverage > 0).numpy()
    )
    to_heatmap = Heatmap(prepare.coverage(space.grid))
    raw = [maps, *(raw_maps(space, some) for some in (pictures, made))]
    found = {}
    for name, channels in (("both", maps.shape[1]), ("features", space.features.inputs)):
        own = make_space(name, prepare.size, backbone=space.features.backbone)
        whitened = whiten(own, [some[:, :channels] for some in raw])
        good, bad = (
            to_heatmap.pool(heatmap).numpy()
            for heatmap in heatmaps_of("linear", *whitened, to_heatmap=to_heatmap)
        )
        found[name] = auroc_by_kind(good, bad, kinds)
    return found


def prepared(records: Sequence[Record], rule: DecodeRule, prepare: Preprocess) -> Tensor:
    """Returns the pixels that a model sees, uint8 (n, 3, s, s)."""
    decoded = (
        image for _, image in decode_all(records, rule, prepare.size) if isinstance(image, Decoded)
    )
    with torch.inference_mode():
        return torch.cat(
            [to_levels(prepare(torch.from_numpy(image.pixels)[None])) for image in decoded]
        )


def make_defects(
    pictures: Tensor, each: int, seed: int, inside: NDArray[np.bool_] | None = None
) -> tuple[Tensor, list[str]]:
    """Returns pictures with ``each`` synthetic defects of a kind, uint8 (n, 3, s, s), and their
    kinds.

    ``inside``: bool (s, s), where they may be; None: anywhere.
    """
    rng, normal = np.random.default_rng(seed), list(pictures.permute(0, 2, 3, 1).numpy())
    parts = [foreground(picture) for picture in normal]
    if any(part is None for part in parts):  # then what was found in some may be no part
        parts = [None] * len(parts)
    kinds = [kind for kind in kinds_for(parts[0]) for _ in range(each)]
    made = []
    for kind in kinds:
        of, other = (int(rng.integers(len(normal))) for _ in range(2))
        made.append(defect_inside(normal[of], normal[other], kind, rng, inside, parts[of]))
    return torch.from_numpy(np.stack(made)).permute(0, 3, 1, 2), kinds


def defect_inside(
    picture: NDArray[np.uint8],
    donor: NDArray[np.uint8],
    kind: str,
    rng: np.random.Generator,
    inside: NDArray[np.bool_] | None,
    part: NDArray[np.bool_] | None = None,
) -> NDArray[np.uint8]:
    """Returns a picture with a defect of which something lies inside; what lies outside is taken
    away.
    """
    for _ in range(TRIES):
        made, mask = add_defect(picture, donor, kind, rng, part=part)
        if inside is None or (mask & inside).any():
            break
    return made if inside is None else np.where(inside[..., None], made, picture)


@torch.inference_mode()
def raw_maps(space: Space, pictures: Tensor) -> Tensor:
    """Returns the maps before whitening, float32 (n, C, h, w), of pictures uint8 (n, 3, s, s)."""
    with one_thread_each():
        return torch.cat([space.raw(to_unit(batch)) for batch in pictures.split(8)])


@torch.inference_mode()
def whiten(space: Space, raw: Sequence[Tensor]) -> list[Tensor]:
    """Returns maps whitened by the statistics of the first of them; pixels as they are."""
    whitening = space.whitening
    if whitening is None:
        return list(raw)
    whitening.fit(raw[0].split(64))
    return [torch.cat([whitening(batch) for batch in some.split(64)]) for some in raw]


def heatmaps_of(
    model: str,
    maps: Tensor,
    *others: Tensor,
    to_heatmap: Heatmap | None = None,
    groups: Sequence[str] | None = None,
) -> list[Tensor]:
    """Returns the smoothed heatmaps (n, h, w) of ``others`` by a model fitted on maps, whose
    ``groups`` may be told.
    """
    torch.manual_seed(0)
    _, channels, height, width = maps.shape
    made = MODELS[model](channels, height, width, pixels=False)
    made.groups = groups
    with tempfile.TemporaryDirectory() as scratch:
        fit(
            made,
            maps,
            others[0],
            FitOptions(seed=0),
            Path(scratch) / "c.safetensors",
            say=lambda line: None,
        )
    to_heatmap = to_heatmap or Heatmap()
    with torch.inference_mode():
        return [
            to_heatmap(torch.cat([made.eval()(batch)[0] for batch in part.split(64)]))
            for part in others
        ]


def auroc_by_kind(good: np.ndarray, bad: np.ndarray, kinds: Sequence[str]) -> float:
    """Returns the mean over the kinds of defects of the AUROC against the same good images."""
    rows = [bad[np.array(kinds) == kind] for kind in dict.fromkeys(kinds)]
    return float(
        np.mean(
            [
                roc_auc_score(np.repeat((0, 1), (len(good), len(row))), np.concatenate([good, row]))
                for row in rows
            ]
        )
    )
