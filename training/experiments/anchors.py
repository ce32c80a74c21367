"""Published figures of the sets that benchmarks are run on, beside ours.

Each is the mean over the categories of the image AUROC, in percent, that the named source gives. A
method's own paper may have chosen its epoch on test images, and one model of all categories solves
a harder task: so each line says where its figure is from, and no figure is a limit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np


class Anchor(NamedTuple):
    """A published figure: the mean image AUROC in percent, of what, and the paper or page that it
    stands in; ``copied``: read in somebody else's copy of that table.
    """

    auroc: float
    method: str
    source: str
    copied: bool = False


_EFFICIENTAD = "Batzner et al., EfficientAD, WACV 2024"
_ADER = "Zhang et al., ADer, 2024, one model of all categories"
_DINOMALY = "Guo et al., Dinomaly, CVPR 2025, one model of all categories"
_PATCHCORE = "Roth et al., PatchCore, CVPR 2022"
_OTHERS = "run again by others than the authors"

ANCHORS = {
    "MVTec AD": (
        Anchor(42.1, "GANomaly", "README of anomalib"),
        Anchor(94.7, "FRE on WideResNet-50", "README of anomalib"),
        Anchor(95.3, "PaDiM", "Defard et al., PaDiM, ICPR 2021", copied=True),
        Anchor(97.2, "NSA, nothing pretrained", "Schlüter et al., NSA, ECCV 2022"),
        Anchor(98.5, "RD4AD", "Deng and Li, Reverse distillation, CVPR 2022", copied=True),
        Anchor(99.0, "PatchCore of 1 %", _PATCHCORE),
        Anchor(99.1, "EfficientAD-M", _EFFICIENTAD, copied=True),
        Anchor(99.6, "Dinomaly on DINOv2", _DINOMALY),
    ),
    "VisA": (
        Anchor(93.9, "FastFlow", f"run again by {_EFFICIENTAD}", copied=True),
        Anchor(94.3, "PatchCore", _OTHERS, copied=True),
        Anchor(98.1, "EfficientAD-M", _EFFICIENTAD, copied=True),
        Anchor(98.7, "Dinomaly on DINOv2", _DINOMALY),
        Anchor(98.8, "GLASS", "Chen et al., GLASS, ECCV 2024"),
    ),
    "BTAD": (
        Anchor(94.4, "PatchCore", _ADER),
        Anchor(94.8, "UniAD", _ADER),
        Anchor(96.1, "InvAD", _ADER),
        Anchor(96.1, "RealNet", "Zhang et al., RealNet, CVPR 2024"),
    ),
    "MVTec AD 2": (
        Anchor(68.6, "Dinomaly on DINOv2", _OTHERS, copied=True),
        Anchor(72.7, "AnomalyDINO, 4 images", _OTHERS, copied=True),
    ),
}


def beside_anchors(rows: Sequence[dict[str, Any]]) -> str:
    """Returns our mean over the categories of each such set beside the published ones, a line each;
    empty where there are none.
    """
    lines = []
    for name, anchors in ANCHORS.items():
        own = [row for row in rows if row["case"].rpartition(" ")[0] == name]
        if own:
            mean = 100 * np.mean([row["image_auroc"]["value"] for row in own])
            lines.append(f"{name}, mean image AUROC (%) of {len(own)} categories: {mean:.1f}")
            for one in anchors:
                source = f"{one.source}{', from a copy of the table' if one.copied else ''}"
                lines.append(f"    {one.auroc:.1f}  {one.method} ({source})")
    return "\n".join(lines)
