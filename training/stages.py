"""What each stage of a training hands to the next (see training/pipeline.py)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from torch import Tensor, nn

from anomaly.detector.card import Card
from anomaly.imaging.decode import DecodeRule
from anomaly.imaging.mask import Mask
from anomaly.inputs.dataset import Record
from anomaly.statistics.calibration import Calibration
from training.export import DetectorGraph
from training.fine_heatmap import FineHeatmap
from training.guard import Guard
from training.known_defects import Good, KnownDefects
from training.options import TrainOptions
from training.own_backbone import OpenedBackbone
from training.pose import Pose
from training.preprocess import Preprocess
from training.processes import rank
from training.protocols import Model, Space
from training.recipes import Recipe
from training.scores import Heatmap, ImageScore
from training.sets import Sets
from training.suspects import Suspect
from training.tensors import Extracted
from training.tiles import Tiles, Tiling


@dataclass(frozen=True)
class Job:
    """What was asked for, and what it comes to. ``options``: with every choice made."""

    asked: TrainOptions
    options: TrainOptions
    size: int  # pixels a side of the prepared image
    score: str  # a name of training.scores.image_scores, or typicality
    device: str
    mask: Mask | None
    say: Callable[[str], None]
    recipe: Recipe  # how images are looked at
    backbone: OpenedBackbone | None = None  # of the features, where the user chose one

    @property
    def features(self) -> nn.Module | None:
        """The network that the user chose, None: EfficientNet-Lite."""
        return None if self.backbone is None else self.backbone.module

    def tell(self, lines: Iterable[str]) -> None:
        """Says lines once, however many processes there are."""
        for line in lines if rank() == 0 else ():
            self.say(line)


@dataclass(frozen=True)
class Found:
    """Which files there are. ``passed``: what folders hold besides images, by kind; ``excluded``:
    how many images a list left out.
    """

    job: Job
    records: list[Record]
    excluded: int
    passed: Counter[str]
    rule: DecodeRule


@dataclass(frozen=True)
class Represented:
    """What was seen of the images that can be read, each decoded once."""

    found: Found
    prepare: Preprocess
    space: Space
    seen: Extracted


@dataclass(frozen=True)
class Split:
    """Three disjoint sets. ``records``: with copies of each other in one group; ``warnings``: what
    the user must know of the images.
    """

    job: Job
    rule: DecodeRule
    prepare: Preprocess
    space: Space
    seen: Extracted
    records: list[Record]
    sets: Sets
    warnings: list[str]
    pose: Pose | None = None  # of the parts, where these are looked at in a frame of their own

    @property
    def groups(self) -> dict[Path, str]:
        """The group of each image once copies were joined."""
        return {record.path: record.group for record in self.records}


@dataclass(frozen=True)
class Chosen:
    """What the model learns from, in a space that is whitened by it.

    ``choice``: the AUROC on synthetic defects by which the recipe was chosen, if it was.
    ``tiling``: the grid of tiles, None where there are none.
    """

    split: Split
    choice: dict[str, float] | None
    learnt: Extracted
    held_out: Extracted
    tiling: Tiling | None
    to_heatmap: Heatmap


@dataclass(frozen=True)
class Trained:
    """The parts of a detector before they are joined and written. ``distances``: in
    cross-calibration, what makes the heatmap of each image fine (h, w), by its path.
    """

    prepare: Preprocess
    space: Space
    model: Model
    to_heatmap: Heatmap
    score: ImageScore
    decoder: nn.Module | None
    history: list[dict[str, Any]]
    recipe: Recipe
    warnings: list[str] = field(default_factory=list)
    tiles: Tiles | None = None
    pose: Pose | None = None
    fine: FineHeatmap | None = None
    distances: Mapping[Path, Tensor] = field(default_factory=dict)

    @property
    def pooled(self) -> bool:
        """Whether the score is the mean of the heatmap's hottest places: both have one unit."""
        if self.fine is not None or self.score.known is not None:
            return False
        return self.tiles is not None or self.score.name == "hottest"

    def map_of(self, images: Tensor) -> Tensor:
        """Returns the heatmap of whole images, (N, g, g)."""
        heatmap: Tensor = self.to_heatmap(self.model(self.space(self.prepare(images)))[0])
        return heatmap


@dataclass(frozen=True)
class LearntDefects:
    """Known defects that were learnt from: their records, the types with a name in the order of
    type_scores, the score of each by a detector that has not learnt from it, and below which type
    score a type is called unknown.
    """

    records: list[Record]
    named: list[str]
    scores: tuple[float, ...]
    unknown_below: float | None


@dataclass(frozen=True)
class Fold:
    """What was fitted to all images but those of one fold, and these (see training/cross.py)."""

    space: Space
    model: Model
    records: list[Record]
    known: KnownDefects | None = None


@dataclass(frozen=True)
class Unseen:
    """Images judged by models that were fitted without them, a fold after the other.

    ``scores``: score and largest heatmap value of each, float32 (n, 2), higher = more anomalous.
    ``fold``: the fold of each, (n,). ``first``: the first fold. ``described``: the descriptors of
    the images, (n, d), only where known defects are told from them.
    """

    records: list[Record]
    scores: npt.NDArray[np.float32]
    fold: npt.NDArray[np.int64]
    first: Fold
    described: npt.NDArray[np.float64] | None = None

    @property
    def good(self) -> Good:
        """The images as good ones, to tell known defects from."""
        assert self.described is not None
        return Good(self.described, self.scores[:, 0].astype(np.float64), self.fold)


@dataclass(frozen=True)
class Fitted:
    """The parts of a detector, and what they were fitted on. ``defects``: known ones that it has
    learnt from; ``unseen``: of cross-calibration, what sets the threshold, where it is known
    already.
    """

    chosen: Chosen
    trained: Trained
    defects: LearntDefects | None = None
    unseen: Unseen | None = None


@dataclass(frozen=True)
class Calibrated:
    """A detector in one graph, with the threshold that its own scores set.

    ``explain``: draws what the model expected, None where nothing does. ``calibration``: None with
    --rank-only. ``heatmap``: where it has a unit of its own, the largest
    value of each calibration image. ``highest``: the images that set the threshold and those next
    to it, the highest first. ``fold``: of cross-calibration, the first one.
    """

    fitted: Fitted
    suspects: list[Suspect]
    guard: Guard
    graph: DetectorGraph
    model: onnx.ModelProto
    explain: onnx.ModelProto | None
    calibration: Calibration | None
    highest: list[Record]
    fold: Fold | None = None
    heatmap: Calibration | None = None


@dataclass(frozen=True)
class Exported:
    """A detector whose file is written."""

    calibrated: Calibrated
    card: Card
