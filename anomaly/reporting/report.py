"""The facts of a report: plain data, from which ``page`` makes one HTML file. Nothing is scored
here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.typing import ArrayLike

from anomaly.detector.card import Card
from anomaly.imaging.pillow import Pixels

NORMAL = "good"
PICTURES_A_GALLERY = 24
ROWS = 60  # of a table or a list at most


@dataclass(frozen=True)
class GalleryItem:
    """One picture of a gallery.

    ``original``: uint8 (H, W, 3). ``expected``: uint8 (h, w, 3), what the model expected to see,
    None where there is no such picture. ``heatmap``: float32 (h, w), None where the image was not
    judged; its colours go by ``median`` (a typical good image) and ``threshold`` alone.
    """

    path: str
    caption: str
    original: Pixels
    expected: Pixels | None
    heatmap: npt.NDArray[np.float32] | None
    median: float
    threshold: float


@dataclass(frozen=True)
class Report:
    """What the page shows; sections without data are left out.

    ``card``: the detector's. ``guarantee``: the lines of ``detector.card_text``. ``figures``: what
    ``Evaluation.to_json`` returns, ``figures_text``
    these or others in words. ``roc``: false-alarm rates and recalls, ascending. ``scores``: by
    label, ``good`` for normal images; ``threshold`` and ``median`` in their unit. ``p_values``: of
    good test images, one for each group. ``curves``: a value for each epoch, by name;
    ``terms``: the same of what the held-out loss is made of. ``notes``: what a reader must know
    first (attribution, warnings).
    """

    title: str
    card: Card
    guarantee: str
    figures: Mapping[str, Any] | None = None
    figures_text: str = ""
    roc: tuple[ArrayLike, ArrayLike] | None = None
    scores: Mapping[str, ArrayLike] = field(default_factory=dict)
    threshold: float | None = None
    median: float | None = None
    p_values: ArrayLike | None = None
    galleries: Mapping[str, Sequence[GalleryItem]] = field(default_factory=dict)
    curves: Mapping[str, Sequence[float]] = field(default_factory=dict)
    terms: Mapping[str, Sequence[float]] = field(default_factory=dict)
    notes: Sequence[str] = ()
