"""What a detector's card says of its training: every fact that is read anywhere, with its type and
its check.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from anomaly.detector.card_checks import (
    MAX_INTEGER,
    MAX_MASK_CHARACTERS,
    by_name,
    every,
    is_date,
    is_digest,
    is_flag,
    is_line,
    is_name,
    is_text,
    number,
    or_none,
    span,
    whole,
)
from anomaly.detector.card_facts import Facts, fact, object_of
from anomaly.detector.size_sensitivity import SCORE, Cost, SizeSensitivity
from anomaly.detector.unit_rule import UnitRule
from anomaly.imaging.mask import Mask, mask_of


def _are_bits(value: Any) -> bool:
    return every(whole(1, 64), 64)(value) and bool(value) and list(value) == sorted(set(value))


def _is_png(value: Any) -> bool:
    """Whether it begins as one; what it shows is asked of ``MaskFacts.mask``."""
    if not is_text(value, MAX_MASK_CHARACTERS):
        return False
    try:
        data = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return False
    return data.startswith(b"\x89PNG\r\n\x1a\n")


@dataclass(frozen=True)
class Ranges(Facts):
    """What the files of the training images were: width : height, pixels and bits a channel from
    least to most; whether all were grey.
    """

    place: ClassVar[str] = "training.ranges."
    aspect: tuple[float, float] | None = fact(span(number(1e-9, 1e9)))
    pixels: tuple[int, int] | None = fact(span(whole(1)))
    bits: tuple[int, ...] | None = fact(_are_bits)
    grey: bool | None = fact(is_flag)


@dataclass(frozen=True)
class MaskFacts(Facts):
    """What is inspected of an image: the mask's file and digest, the share that is inspected, the
    mask as a PNG in base 64.
    """

    place: ClassVar[str] = "training.mask."
    file: str = field(metadata={"check": is_text})
    sha256: str = field(metadata={"check": is_digest})
    share: float = field(metadata={"check": number(0, 1)})
    png: str = field(metadata={"check": _is_png})

    @property
    def mask(self) -> Mask:
        """The mask itself; DetectorError if it is damaged."""
        return mask_of(self.png, self.share)


@dataclass(frozen=True)
class GuardFacts(Facts):
    """How well the guard tells images that are unlike the training images: the share of training
    images that it does not judge, and that of each change that it notices.
    """

    place: ClassVar[str] = "training.guard."
    refused: float = field(metadata={"check": number(0, 1)})
    noticed: Mapping[str, float] = field(metadata={"check": by_name(number(0, 1))})


@dataclass(frozen=True)
class TileFacts(Facts):
    """How large images are cut: pixels of a tile's side, tiles in each direction, and the size of
    the images that they cover.
    """

    place: ClassVar[str] = "training.tiles."
    tile: int = field(metadata={"check": whole(1)})
    down: int = field(metadata={"check": whole(1)})
    across: int = field(metadata={"check": whole(1)})
    height: int | None = fact(whole(1))
    width: int | None = fact(whole(1))


@dataclass(frozen=True)
class BackboneFacts(Facts):
    """The frozen network whose features are modelled, where the user chose one: its name as
    --backbone takes it, the stages that are read, the sha256 of the file of its weights and their
    licence.
    """

    place: ClassVar[str] = "training.backbone."
    name: str = field(metadata={"check": is_line})
    stages: tuple[str, ...] = field(metadata={"check": every(is_line, 1000)})
    sha256: str = field(metadata={"check": is_digest})
    licence: str = field(metadata={"check": is_line})


@dataclass(frozen=True)
class RecipeFacts(Facts):
    """How images are looked at: in which frame (the whole image, or the part: cropped to it, with
    its axis level, or turned to match the others), of how many pixels and cells; whether exposure
    is normalised.
    """

    place: ClassVar[str] = "training.recipe."
    frame: str = field(metadata={"check": is_name})
    height: int = field(metadata={"check": whole(1)})
    width: int = field(metadata={"check": whole(1)})
    rows: int = field(metadata={"check": whole(1)})
    columns: int = field(metadata={"check": whole(1)})
    normalised: bool = field(metadata={"check": is_flag})


@dataclass(frozen=True)
class KnownDefectFacts(Facts):
    """The known defects that were learnt from: how many of each type; the types that get a name, in
    the order of the output ``type_scores``; below which type score a type is called unknown; and of
    each type how many were not flagged by a detector that had not learnt from them, ``of`` how many
    independent ones (one of each group), where they were found without a detector.
    """

    place: ClassVar[str] = "training.known_defects."
    types: Mapping[str, int] = field(metadata={"check": by_name(whole(1))})
    named: tuple[str, ...] = field(metadata={"check": every(is_line, 1000)})
    unknown_below: float | None = fact(or_none(number(0, 1)))
    missed: Mapping[str, int] | None = fact(or_none(by_name(whole(0))))
    of: Mapping[str, int] | None = fact(or_none(by_name(whole(1))))


@dataclass(frozen=True)
class Options(Facts):
    """What training was asked for, by which it is repeated; the names are those of `anomaly
    train`.
    """

    place: ClassVar[str] = "training.options."
    images: str | None = fact(is_text)
    expected_picture: bool | None = fact(is_flag)
    model: str | None = fact(is_text)
    space: str | None = fact(is_text)
    backbone: str | None = fact(or_none(is_text))
    frame: str | None = fact(is_text)
    stages: tuple[str, ...] | None = fact(or_none(every(is_text)))
    quality: str | None = fact(is_text)
    size: int | None = fact(or_none(whole(0)))
    error: str | None = fact(or_none(is_text))
    dropout: float | None = fact(or_none(number(0, 1)))
    score: str | None = fact(or_none(is_text))
    epochs: int | None = fact(or_none(whole(0)))
    seed: int | None = fact(whole(-MAX_INTEGER))
    false_alarm_rate: float | None = fact(or_none(number(0, 0.5)))
    review_rate: float | None = fact(or_none(number(0, 0.5)))
    calibrate: str | None = fact(is_text)
    device: str | None = fact(is_text)
    group_by: str | None = fact(or_none(is_text))
    by_unit: str | None = fact(or_none(is_text))
    views: int | None = fact(or_none(whole(0)))
    good: tuple[str, ...] | None = fact(every(is_text))
    independent: bool | None = fact(is_flag)
    exclude: str | None = fact(or_none(is_text))
    defects: str | None = fact(or_none(is_text))
    independent_defects: bool | None = fact(is_flag)
    tile: int | None = fact(or_none(whole(0)))
    mask: str | None = fact(or_none(is_text))
    min_area: int | None = fact(or_none(whole(0)))
    rank_only: bool | None = fact(is_flag)
    target: str | None = fact(is_text)
    decode: str | None = fact(is_text)
    depth: int | None = fact(or_none(whole(0)))
    resume: bool | None = fact(is_flag)
    command: str | None = fact(is_text)
    marked_by: str | None = fact(is_text)


@dataclass(frozen=True)
class TrainingFacts(Facts):
    """What a card says of its training, and of what set the threshold since.

    ``images``, ``groups``, ``sets``: how many were there, and in each set. ``grouped``: whether
    fewer scores than images set the threshold. ``highest``: the names of the images with the
    highest of these scores. ``choice``: the AUROC of each recipe on synthetic defects, where one
    was chosen. ``recipe``: how images are looked at. ``backbone``: the network of features, where
    the user chose one. ``cost``: what the highest images cost if they are defects. ``by_unit``: the
    rule of a guarantee per unit. ``parity``: the largest difference from torch's scores, as a share
    of (threshold - typical). ``min_area``: pixels below which a region does not count
    (``min_cells`` of the heatmap). ``recalibrated``, ``threshold_moved``: when, by whom and on or
    from what.
    """

    place: ClassVar[str] = "training."
    images: int | None = fact(whole(1))
    groups: int | None = fact(whole(1))
    grouped: bool | None = fact(is_flag)
    group_by: str | None = fact(or_none(is_text))
    sets: Mapping[str, int] | None = fact(by_name(whole(0)))
    digest: str | None = fact(is_digest)
    ranges: Ranges | None = field(default=None, metadata=object_of(Ranges, null=False))
    seed: int | None = fact(whole(-MAX_INTEGER))
    versions: Mapping[str, str] | None = fact(by_name(is_text))
    command: str | None = fact(is_text)
    created: str | None = fact(is_date)
    by: str | None = fact(is_name)
    warnings: tuple[str, ...] | None = fact(every(is_text))
    target: str | None = fact(is_text)
    target_rate: float | None = fact(or_none(number(0, 0.5)))
    highest: tuple[str, ...] | None = fact(every(is_text))
    choice: Mapping[str, float] | None = fact(or_none(by_name(number(0, 1))))
    recipe: RecipeFacts | None = field(default=None, metadata=object_of(RecipeFacts))
    backbone: BackboneFacts | None = field(default=None, metadata=object_of(BackboneFacts))
    mask: MaskFacts | None = field(default=None, metadata=object_of(MaskFacts))
    min_area: int | None = fact(or_none(whole(0)))
    min_cells: int | None = fact(whole(1))
    known_defects: KnownDefectFacts | None = field(
        default=None, metadata=object_of(KnownDefectFacts)
    )
    size_sensitivity: SizeSensitivity | None = field(
        default=None, metadata=object_of(SizeSensitivity)
    )
    cost: Cost | None = field(default=None, metadata=object_of(Cost))
    options: Options | None = field(default=None, metadata=object_of(Options))
    guard: GuardFacts | None = field(default=None, metadata=object_of(GuardFacts))
    parity: float | None = fact(number(0))
    tiles: TileFacts | None = field(default=None, metadata=object_of(TileFacts))
    by_unit: UnitRule | None = field(default=None, metadata=object_of(UnitRule))
    recalibrated: str | None = fact(is_date)
    recalibrated_by: str | None = fact(is_name)
    recalibrated_on: int | None = fact(whole(1))
    accepted_worse: tuple[str, ...] | None = fact(every(is_text))
    threshold_moved: str | None = fact(or_none(is_date))
    threshold_moved_by: str | None = fact(or_none(is_name))
    threshold_moved_from: float | None = fact(or_none(SCORE))
