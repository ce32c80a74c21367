"""`anomaly train --dry-run`: how many images are enough, before training. Reads every image, needs
no torch, writes nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from anomaly.errors import DatasetError
from anomaly.files.numbers import percent
from anomaly.files.progress import Progress
from anomaly.imaging.decode import Decoded
from anomaly.imaging.listing import passed_text
from anomaly.imaging.mask import read_mask
from anomaly.inputs.copies import digest, thumb
from anomaly.inputs.dataset import Record, Say
from anomaly.inputs.near_copies import THUMB
from anomaly.reporting.guarantee import enough_rows, more_rows
from anomaly.reporting.lines import rows_text
from anomaly.scoring.units import whole_units
from anomaly.statistics.calibration import FOLDS
from anomaly.statistics.prospect import Prospect, more_groups
from training.options import TrainOptions, check_out, chooses_recipe, resolve
from training.sets import (
    Sets,
    copies_text,
    decode_all,
    depths_text,
    excluded_text,
    file_ranges,
    find_images,
    find_rule,
    join_copies,
    sets_of_copies,
)

LEFT_OUT_SHOWN = 5


@dataclass(frozen=True)
class Plan:
    """What training would do with the images that can be read.

    ``options``: with every choice made but, with ``chooses_recipe``, that of the recipe.
    ``groups``: of images that are independent; ``told``: how many there were before copies were
    joined. ``largest``: images of the largest group. ``ranges``: of the files, as in the card.
    ``sides``: least and largest width, least and largest height. ``left_out`` and ``warnings``: a
    line each. ``passed_over``: what folders hold besides images, by kind.
    """

    options: TrainOptions
    images: int
    groups: int
    largest: int
    told: int
    sets: Sets
    ranges: dict[str, Any]
    sides: tuple[int, int, int, int]
    left_out: list[str]
    warnings: list[str]
    chooses_recipe: bool = False
    excluded: int = 0
    passed_over: dict[str, int] = field(default_factory=dict)

    @property
    def prospect(self) -> Prospect | None:
        """What the guarantee will be; None with --rank-only."""
        return (
            None
            if self.options.rank_only
            else Prospect.of(self.groups, self.options.false_alarm_rate, self.options.calibrate)
        )

    @property
    def more(self) -> list[Prospect]:
        """What more images would bring."""
        if self.options.rank_only:
            return []
        asked = (self.options.false_alarm_rate, self.options.calibrate)
        return [Prospect.of(groups, *asked) for groups in more_groups(self.groups, *asked)]

    def text(self) -> str:
        """The plan in words, one fact a line."""
        options = self.options
        tiles = (
            f", in tiles of {options.tile:,} pixels of yours beside the whole image"
            if options.tile
            else ""
        )
        rows = [
            (
                "good images",
                f"{self.images:,} read, {len(self.left_out):,} left out; {self._files()}",
            ),
            *(("left out", line) for line in self.left_out[:LEFT_OUT_SHOWN]),
            *(("left out", line) for line in excluded_text(self.options, self.excluded)),
            *([("passed over", passed_text(self.passed_over))] if self.passed_over else []),
            ("effective number", self._effective()),
            ("split", self._split()),
            ("model", f"{options.model}{self._view()}{tiles}"),
            *self._guarantee(),
            *(("warning", line) for line in self.warnings),
            ("nothing was trained", f"leave out --dry-run to train into {options.out}"),
        ]
        return rows_text(rows)

    def _view(self) -> str:
        if self.chooses_recipe:
            return "; training chooses frame, size and features for these images"
        options = self.options
        return f" on {options.space}, {options.size} x {options.size} pixels"

    def _guarantee(self) -> list[tuple[str, str]]:
        prospect = self.prospect
        asked = (self.options.false_alarm_rate, self.options.calibrate)
        if prospect is None:
            return [("good images flagged", "no guarantee: --rank-only orders images by score")]
        rows = [*enough_rows(prospect, *asked), *more_rows(self.groups, *asked)]
        if self.options.review_rate is not None:
            rate = percent(self.options.review_rate)
            rows.append(("flagged or review", f"at most {rate} of good images, as asked"))
        return rows

    def _split(self) -> str:
        sets = self.sets
        if sets.cross:
            return (
                f"none: all {self.images:,} images train and calibrate, in {FOLDS} folds by group; "
                f"choices are made on {len(sets.validation):,} of them"
            )
        return (
            f"{len(sets.fit):,} images to fit, {len(sets.validation):,} to validate, "
            f"{len(sets.calibration):,} to calibrate"
        )

    def counts(self) -> dict[str, int]:
        """How many images go into each set."""
        return {name: len(subset) for name, subset in self.sets.by_name().items()}

    def _files(self) -> str:
        narrow, wide, low, high = self.sides
        sides = (
            f"{narrow} x {low}"
            if (narrow, low) == (wide, high)
            else f"{narrow} to {wide} x {low} to {high}"
        )
        bits = " and ".join(str(bits) for bits in self.ranges["bits"])
        return f"{sides} pixels, {bits} bits, {'grey' if self.ranges['grey'] else 'colour'}"

    def _effective(self) -> str:
        if self.told > self.groups:
            told = (
                f"{self.groups:,}: copies and near-copies are in one group, {self.told:,} were "
                "told; a guarantee counts groups"
            )
        elif self.options.by_unit is not None:
            told = (
                f"{self.groups:,} units of up to {self.largest:,} views: a guarantee counts units, "
                "by the worst view of each"
            )
        elif self.groups < self.images:
            told = (
                f"{self.groups:,} groups of up to {self.largest:,} images: a guarantee counts "
                "groups, one image of each"
            )
        else:
            told = (
                f"{self.groups:,}: no groups were declared (--group-by), so every image counts as "
                "independent of the others"
            )
        return told

    def to_json(self) -> dict[str, Any]:
        """The plan as plain data."""
        options, prospect = self.options, self.prospect
        return {
            "images": self.images,
            "left_out": self.left_out,
            "excluded": self.excluded,
            "passed_over": self.passed_over,
            "groups": self.groups,
            "largest_group": self.largest,
            "groups_told": self.told,
            "sets": self.counts(),
            "ranges": self.ranges,
            "model": options.model,
            "space": options.space,
            "size": options.size,
            "chooses_recipe": self.chooses_recipe,
            "target_rate": options.false_alarm_rate,
            "guarantee": None if prospect is None else prospect.to_json(),
            "calibrate": "cross" if self.sets.cross else "split",
            "lowest": None
            if prospect is None
            else Prospect.lowest(self.groups, prospect.kind).to_json(),
            "more": [prospect.to_json() for prospect in self.more],
            "warnings": self.warnings,
        }


def dry_run(options: TrainOptions, say: Say | None = None) -> Plan:
    """Returns what `train` would do, and raises what it would raise before its fit: DatasetError,
    CalibrationError, ...

    ``say`` gets a line on what is read as good and what is not.
    """
    asked, options = options, resolve(options)
    if options.mask is not None:
        read_mask(options.mask)
    passed = Counter[str]()
    records, drawn = find_images(options, say, passed)
    check_out(options)
    kept, images, small, left_out = look(records, options)
    whole = kept if options.by_unit is None else whole_units(kept, records)
    index = (
        [i for i, record in enumerate(kept) if record in whole]
        if len(whole) < len(kept)
        else list(range(len(kept)))
    )
    thumbs, digests = np.stack([small[i][0] for i in index]), [small[i][1] for i in index]
    joined, copies = join_copies(whole, thumbs, digests, options)
    sets = sets_of_copies(whole, joined, copies, options)
    groups = Counter(record.group for record in joined)
    warning = copies_text(whole, joined, copies, options)
    widths, heights = [width for width, *_ in images], [height for _, height, *_ in images]
    return Plan(
        options,
        images=len(kept),
        groups=len(groups),
        largest=max(groups.values()),
        told=len({record.group for record in whole}),
        sets=sets,
        ranges=file_ranges(images),
        sides=(min(widths), max(widths), min(heights), max(heights)),
        left_out=left_out,
        warnings=[*depths_text(images), *([warning] if warning else [])],
        chooses_recipe=chooses_recipe(asked, len(kept)),
        excluded=drawn.excluded,
        passed_over=dict(passed),
    )


def look(
    records: Sequence[Record], options: TrainOptions
) -> tuple[
    list[Record],
    list[tuple[int, int, int, bool]],
    list[tuple[npt.NDArray[np.float32], str]],
    list[str],
]:
    """Returns the records that can be read, size, bits and greyness of each, small copies (64, 64)
    with the digests of the pixels, and what cannot be read."""
    rule = find_rule(records, options.decode == "reduced", options.depth)
    kept, facts, small, left_out = [], [], [], []
    with Progress(len(records), "looking at images") as progress:
        for record, image in decode_all(records, rule, options.size or 0):
            progress.advance()
            if isinstance(image, Decoded):
                kept.append(record)
                facts.append((image.width, image.height, image.bits, image.grey))
                small.append((thumb(image.pixels, options.size or THUMB), digest(image.pixels)))
            else:
                left_out.append(str(image))
    if not kept:
        raise DatasetError(f"none of {len(records)} images could be read, the first: {left_out[0]}")
    return kept, facts, small, left_out
