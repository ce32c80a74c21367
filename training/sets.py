"""What training knows of its images before torch is needed: which are read, how they are split,
which are alike.
"""

from __future__ import annotations

import contextlib
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from anomaly.errors import CalibrationError, DatasetError, ImageError
from anomaly.files.delimited import path_variants, read_lines
from anomaly.files.numbers import percent
from anomaly.files.regular_files import read_small
from anomaly.imaging.bit_depth import Scale, scale_of
from anomaly.imaging.decode import Decoded, DecodeRule, decode, has_depth, range_of
from anomaly.imaging.listing import Passed
from anomaly.inputs.copies import Copies, regrouped
from anomaly.inputs.dataset import Record, Say, normal_training, read_dataset
from anomaly.reporting.guarantee import needs_text
from anomaly.scoring.units import by_unit
from anomaly.statistics.calibration import lowest_target_rate, needed, rate_word
from anomaly.statistics.prospect import Calibrating, Prospect, fewest_groups, kind_for, set_aside
from training.options import TrainOptions

Item = TypeVar("Item")
IMAGES_AHEAD = 4  # images decoded before they are asked for: one may have a hundred megapixels
MIN_GROUPS = 5  # groups: two to fit on, one to validate on, two to calibrate on
PICTURE = 96  # pixels a side of the small copies that the picture decoder learns from


@dataclass(frozen=True)
class Sets:
    """Three disjoint sets of records; no group is in two of them.

    Choices are made on ``validation``; a model in closed form then learns from it too. Nothing is
    learnt from ``calibration``. ``outliers``: drawn to be learnt from, but too unlike all others.
    ``excluded``: how many images a list left out before the sets were drawn. ``cross``: all images
    calibrate, and ``calibration`` is empty.
    """

    fit: list[Record]
    validation: list[Record]
    calibration: list[Record]
    outliers: list[Record] = field(default_factory=list)
    excluded: int = 0
    cross: bool = False

    def by_name(self) -> dict[str, list[Record]]:
        sets = {"fit": self.fit, "validation": self.validation, "calibration": self.calibration}
        return sets | {"outliers": self.outliers} if self.outliers else sets

    @property
    def development(self) -> list[Record]:
        """All that may be looked at before the threshold is set."""
        return [*self.fit, *self.outliers, *self.validation]

    @property
    def calibrating(self) -> list[Record]:
        """The images that set the threshold."""
        return self.development if self.cross else self.calibration


def find_images(
    options: TrainOptions, say: Say | None = None, passed: Passed | None = None
) -> tuple[list[Record], Sets]:
    """Returns the normal images that training may use and the three sets drawn from them.

    ``say`` gets a line on what is read as good and what is not; ``passed`` counts, by kind, what
    folders hold besides.
    """
    if options.by_unit is not None and options.group_by is not None:
        raise DatasetError(
            "--by-unit and --group-by found, one of them expected: units are the groups"
        )
    records = normal_training(
        read_dataset(options.images, options.group_by, passed, options.good, say=say), say
    )
    found = len(records)
    if options.exclude:
        records = without_excluded(records, options.exclude, options.images, say)
    excluded = found - len(records)
    if options.by_unit is not None:
        records, _ = by_unit(records, options.by_unit, options.views)
    elif options.views is not None:
        raise DatasetError(
            f"--views {options.views} without --by-unit found: say how a path names its unit"
        )
    return records, replace(draw_sets(records, options), excluded=excluded)


def draw_sets(records: Sequence[Record], options: TrainOptions) -> Sets:
    """Returns the sets that ``options`` come to, resolved ones: see ``three_sets``."""
    groups = len({record.group for record in records})
    cross = kind_for(groups, options.calibrate) == "cross"
    prospect = Prospect.of(groups, options.false_alarm_rate, options.calibrate)
    prospect.check_review_rate(options.review_rate)
    return three_sets(records, options.seed, options.false_alarm_rate, options.rank_only, cross)


def excluded_text(options: TrainOptions, excluded: int) -> list[str]:
    """Says how many images a list left out, and what that asks of them; a line, or none where
    nothing was left out.
    """
    if not excluded:
        return []
    left = f"{excluded:,} good image{'s were' if excluded > 1 else ' was'} left out"
    if options.marked_by:
        return [f"{left}: marked as defects by {options.marked_by}, or of their groups"]
    return [
        f"{left} by --exclude {options.exclude}: the guarantee holds only if each of them shows a "
        "defect (or is a copy of one that stays); without unusual good images the threshold is "
        "too low, and more good ones are flagged than is said"
    ]


def without_excluded(
    records: Sequence[Record], exclude: Path, images: Path, say: Say | None = None
) -> list[Record]:
    """Returns the records that no line of a list names, by their path or their name below
    ``images``; DatasetError.
    """
    unwanted = read_lines(read_small(exclude, LARGEST_LIST, DatasetError))
    variants = {variant for line in unwanted for variant in path_variants(line)}
    kept = [
        r for r in records if str(r.path) not in variants and name_of(r, images) not in variants
    ]
    if len(kept) == len(records):
        raise DatasetError(
            f"none of the {len(unwanted)} lines of {exclude} names an image of {images}"
        )
    names = {name for r in records for name in (str(r.path), name_of(r, images))}
    lost = [line for line in unwanted if not names & set(path_variants(line))]
    if say is not None:
        more = f"; {len(lost)} lines name none, such as {lost[0][:80]!r}" if lost else ""
        say(
            f"left out by {exclude.name}: {len(records) - len(kept)} images, by {len(unwanted)} "
            f"lines{more}"
        )
    return kept


def name_of(record: Record, images: Path) -> str:
    """Returns an image's path as the user knows it: relative to the folder that was given, else its
    last two parts.
    """
    root = images if images.is_dir() else images.parent
    return (
        str(record.path.relative_to(root))
        if record.path.is_relative_to(root)
        else str(Path(*record.path.parts[-2:]))
    )


def three_sets(
    records: Sequence[Record],
    seed: int,
    target_rate: float | None,
    rank_only: bool = False,
    cross: bool = False,
) -> Sets:
    """Returns fit, validation and calibration sets, drawn by group: about 65, 15 and 20 % of the
    groups.

    Calibration grows up to half of the groups where the false-alarm rate ``target_rate`` needs it
    (None: 1 %, as far as it goes), and up to a third where that keeps one image from setting the
    threshold. With ``cross`` it stays empty, since all groups calibrate, as with ``rank_only``.
    Raises CalibrationError where a rate asked for cannot be kept, DatasetError below five groups.
    """
    groups = sorted({record.group for record in records})
    count = len(groups)
    if count < MIN_GROUPS:
        raise DatasetError(
            f"{count} good image{'s' * (count != 1)} (or groups) found, at least {MIN_GROUPS} "
            "expected to train at all, about 200 for a 1 % false-alarm rate: add good images"
        )
    calibration = 0 if rank_only or cross else set_aside(count, target_rate)
    if not rank_only and target_rate is not None:
        check_enough(count, target_rate, cross)
    validation = max(1, round((count - calibration) * 15 / 80))
    order = [groups[i] for i in np.random.default_rng(seed).permutation(count)]
    subsets = (
        order[calibration + validation :],
        order[calibration : calibration + validation],
        order[:calibration],
    )
    by_group: dict[str, list[Record]] = {}
    for record in records:
        by_group.setdefault(record.group, []).append(record)
    fit, held_out, threshold = (
        [record for group in sorted(subset) for record in by_group[group]] for subset in subsets
    )
    return Sets(fit, held_out, threshold, cross=cross)


def check_enough(count: int, target_rate: float, cross: bool) -> None:
    """Raises CalibrationError where so many groups cannot keep a target rate."""
    kind: Calibrating = "cross" if cross else "split"
    lowest = Prospect.lowest(count, kind)
    if needed(target_rate) <= lowest.n:
        return
    raise CalibrationError(
        f"{count} good images (or groups) found: {lowest.n} of them can set the threshold, "
        f"so the lowest {rate_word(lowest.kind)} rate is {percent(lowest.rate)}. "
        f"{needs_text(target_rate)} That takes {fewest_groups(target_rate, kind)} in all: add "
        f"images, or --false-alarm-rate {lowest_target_rate(lowest.n)}, or --rank-only (order, no "
        "guarantee)"
    )


def decode_all(
    records: Sequence[Record], rule: DecodeRule, size: int
) -> Iterator[tuple[Record, Decoded | ImageError]]:
    """Yields each record with its pixels or the error, in order; a few images are decoded ahead in
    threads.
    """

    def one(record: Record) -> Decoded | ImageError:
        try:
            return decode(record.path, rule, reduce_to=size)
        except ImageError as error:
            return error

    with ThreadPoolExecutor(2) as pool:
        ahead: deque[tuple[Record, Future[Decoded | ImageError]]] = deque()
        for record in records:
            ahead.append((record, pool.submit(one, record)))
            if len(ahead) > IMAGES_AHEAD:
                first, image = ahead.popleft()
                yield first, image.result()
        for first, image in ahead:
            yield first, image.result()


def batched(items: Sequence[Item], count: int) -> Iterator[Sequence[Item]]:
    """Yields a sequence in parts of ``count``."""
    for start in range(0, len(items), count):
        yield items[start : start + count]


def find_rule(
    records: Sequence[Record], reduced: bool = False, depth: int | None = None
) -> DecodeRule:
    """Returns the decode rule for a set of images, one for all: an image alone may be dark, only
    the set shows its depth.

    The true depth of 16-bit files is ``depth``, else the largest found; the scale of float and
    32-bit files is that of all their values. Raises DatasetError where such files stand among
    others, which no rule would make alike.
    """
    rule = DecodeRule(reduced=reduced, bits=depth)
    deep = [record for record in records if has_depth(record.path)]
    if not deep:
        return rule
    ranges = _ranges([record.path for record in deep])
    if any(needs for _, needs in ranges.values()):
        if len(ranges) < len(records):
            _refuse_mixed([record for record in records if record.path not in ranges], len(ranges))
        low, high = (
            min(low for (low, _), _ in ranges.values()),
            max(high for (_, high), _ in ranges.values()),
        )
        return replace(rule, scale=scale_of(low, high))
    if depth is not None:
        return rule
    bits = max(
        (image.bits for _, image in decode_all(deep, rule, PICTURE) if isinstance(image, Decoded)),
        default=8,
    )
    return replace(rule, bits=bits) if bits > 8 else rule


def _ranges(paths: Sequence[Path]) -> dict[Path, tuple[Scale, bool]]:
    """Returns the range of each float or 32-bit file that can be read, and whether it needs a
    scale.
    """
    found = {}
    for path in paths:
        with contextlib.suppress(ImageError):  # said where it is decoded
            if (values := range_of(path)) is not None:
                found[path] = values
    return found


def _refuse_mixed(others: Sequence[Record], wide: int) -> None:
    """Raises DatasetError where some of these other images can be read."""
    readable = [
        r for r, image in decode_all(others, DecodeRule(), PICTURE) if isinstance(image, Decoded)
    ]
    if readable:
        raise DatasetError(
            f"{wide} images of float or 32-bit values and {len(readable)} of 8 or 16 bits found "
            f"(such as {readable[0].path}), one kind expected: no rule makes their brightness "
            "alike; train each kind by itself, or save all alike"
        )


def depths_text(facts: Sequence[tuple[int, int, int, bool]]) -> list[str]:
    """Says that images have several depths; a line, or none."""
    counts = Counter(bits for _, _, bits, _ in facts)
    if len(counts) < 2:
        return []
    said = " and ".join(f"{count:,} of {bits} bits" for bits, count in sorted(counts.items()))
    return [
        f"mixed depths: images of several depths a channel ({said}), each brought to 8 bits by its "
        "own depth: a part is as bright in all of them only if the cameras are set alike; save "
        "all alike, or train each kind by itself"
    ]


def file_ranges(facts: Sequence[tuple[int, int, int, bool]]) -> dict[str, object]:
    """Returns the ranges of size, aspect, depth and colour of the training images' files, for the
    card.
    """
    aspects = [width / height for width, height, _, _ in facts]
    pixels = [width * height for width, height, _, _ in facts]
    return {
        "aspect": [min(aspects), max(aspects)],
        "pixels": [min(pixels), max(pixels)],
        "bits": sorted({bits for _, _, bits, _ in facts}),
        "grey": all(grey for _, _, _, grey in facts),
    }


LARGEST_LIST = 1 << 26  # bytes of a list of images to exclude


def join_copies(
    records: Sequence[Record],
    thumbs: npt.NDArray[np.float32],
    digests: Sequence[str],
    options: TrainOptions,
) -> tuple[list[Record], Copies]:
    """Returns the records with images that are copies of each other in one group, and what was
    found.

    With ``--independent`` only images of the same pixels are joined. With ``--by-unit`` two units
    are joined where each view of one has its copy in the other.
    """
    groups = [record.group for record in records]
    copies = Copies.of(thumbs, groups, digests, same_only=options.independent)
    return regrouped(records, copies, whole=options.by_unit is not None), copies


def sets_of_copies(
    before: Sequence[Record], joined: Sequence[Record], copies: Copies, options: TrainOptions
) -> Sets:
    """Returns the three sets drawn by joined groups; where copies leave too few groups, the error
    says so.

    With ``--by-unit`` the records keep the names of their units, of which a joined group holds
    several.
    """
    try:
        sets = draw_sets(joined, options)
    except (CalibrationError, DatasetError) as error:
        said = copies_text(before, joined, copies, options)
        raise type(error)(f"{error}; {said}" if said else str(error)) from error
    if options.by_unit is None:
        return sets
    own = {record.path: record for record in before}
    fit, validation, calibration = (
        [own[record.path] for record in subset]
        for subset in (sets.fit, sets.validation, sets.calibration)
    )
    return replace(sets, fit=fit, validation=validation, calibration=calibration)


def copies_text(
    before: Sequence[Record], joined: Sequence[Record], copies: Copies, options: TrainOptions
) -> str:
    """Returns what was joined, in one line, or nothing."""
    groups, left = (len({record.group for record in subset}) for subset in (before, joined))
    if groups == left:
        return ""
    i, j, alike = copies.pairs[0]
    first, second = (name_of(before[index], options.images) for index in (i, j))
    what = (
        "units" if options.by_unit is not None else "groups" if groups < len(before) else "images"
    )
    certain = (
        ""
        if not copies.near
        else (
            ". If they show different parts that only look alike, say so by --independent; if they "
            "are more or fewer groups, tell them by --group-by or a manifest's group column"
        )
    )
    return (
        f"copies: {copies.images} of {len(before)} good images are copies or near-copies of "
        f"another one (such as {first} and {second}, correlation {alike:.2f}), so {groups} {what} "
        f"count as {left} group{'s' * (left > 1)}, and the rate is stated by these{certain}"
    )
