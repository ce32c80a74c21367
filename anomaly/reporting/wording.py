"""How the numbers are said. Counts before percent, never one number alone, always of good images.

The p-value is said as how rare a score is among good images, never as a
chance that the part is bad.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING

from anomaly.detector.size_sensitivity import SizeSensitivity, cost_text
from anomaly.detector.training_facts import GuardFacts, TileFacts, TrainingFacts
from anomaly.files.numbers import count_text, one_in, percent, rounded_percent
from anomaly.statistics.calibration import (
    DEFAULT_RATE,
    Calibration,
    Rate,
    lowest_target_rate,
    needed,
)
from anomaly.statistics.prospect import Prospect, more_groups

if TYPE_CHECKING:
    from anomaly.detector.card import Card
    from anomaly.scoring.units import UnitRow

PREVIEW = "Preview: the guarantee returns when fresh good images confirm it."
OUTSIDE = "unlike the training images in brightness, contrast or sharpness"
NOT_A_CHANCE = "That is not the chance that this part is bad: you decide."
_COLUMN = 24


def guarantee_text(
    calibration: Calibration,
    good_images: int,
    *,
    highest: Sequence[str] = (),
    recall: Rate | None = None,
    grouped: bool = False,
    run: str = "RUN",
    views: str = "",
) -> str:
    """What a calibration guarantees, five lines; where there were too few images for the default
    rate, one.

    ``good_images``: all that were given, those for training included. ``highest``: names of the
    calibration images, the highest score first. ``recall``: of labelled defect images, if there
    were any. ``grouped``: one image of each group was drawn. ``run``: what the user calls the
    detector. ``views``: the guarantee is per unit of so many ("6 views").
    """
    what = "unit" if views else "image"
    if calibration.too_few:
        return too_few_text(calibration, good_images, what)
    n, images = calibration.n, _round_number(2 * calibration.n)
    up_to = calibration.ordinary_up_to(images)
    each = ", each by its worst view" if views else ", one of each group" if grouped else ""
    unlike = "not for a new lot, light or camera" + (
        "" if views else ", not per unit of several views"
    )
    unseen = "" if good_images == n else " that training did not see"
    lines = [
        (f"threshold {calibration.threshold:.4g}", f"set by {_good(n, what)}{unseen}{each}"),
        (
            f"good {what}s flagged",
            f"about {one_in(calibration.guaranteed_rate)} ({100 * calibration.guaranteed_rate:.3g} "
            f"%); 95 % confident: at most {_out_of(calibration.upper_bound)} in the long run",
        ),
        (
            "",
            f"in {_good(images, what)} expect {count_text(calibration.expected(images))}; up to "
            f"{up_to:,} is ordinary, {up_to + 1:,} or more: anomaly check",
        ),
        ("defects missed", _missed(recall, run)),
        (
            "holds for",
            f"good {what}s like these {n:,}{f', of {views}' if views else ''}: {unlike}",
        ),
    ]
    named = list(highest)[: min(calibration.k, 5)]
    if named:
        these = (
            f"the highest {len(named)}; if one is" if len(named) > 1 else "the highest; if it is"
        )
        lines.append(
            (
                "look at these first",
                f"{' '.join(named)}   ({these} a defect, the threshold is too high)",
            )
        )
    return "\n".join(f"{label:<{_COLUMN}}{text}" for label, text in lines)


def card_text(card: Card, run: str) -> str:
    """What a detector's card guarantees; ``run``: what the user calls the detector."""
    if card.calibration is None:
        return (
            f"{'rank only':<{_COLUMN}}orders images by score; there is no threshold, so nothing is "
            "guaranteed"
        )
    facts = card.training
    images = facts.recalibrated_on or facts.images or card.calibration.n
    rule = facts.by_unit
    text = preview_text(card.calibration, facts, run) or guarantee_text(
        card.calibration,
        images,
        highest=facts.highest or (),
        grouped=bool(facts.grouped),
        run=run,
        views="" if rule is None else rule.views,
    )
    tiles = tiles_said(facts.tiles, card.size)
    return "\n".join(
        [
            text,
            *_cost(card, run),
            *([f"{'tiles':<{_COLUMN}}{tiles}"] if tiles else []),
            *size_sensitivity_text(facts),
        ]
    )


def _cost(card: Card, run: str) -> list[str]:
    """What the images that set the threshold cost if they are defects, and where they are looked
    at; lines.
    """
    cost, calibration = card.training.cost, card.calibration
    said = "" if calibration is None else cost_text(cost, float(calibration.threshold))
    if not said or cost is None or card.training.threshold_moved:
        return []
    names, count = " ".join(cost.without), len(cost.without)
    label, these = (
        ("without it", "it shows a defect")
        if count == 1
        else (f"without these {count}", "they show defects")
    )
    first = (
        [("look at these first", names)] if calibration is not None and calibration.too_few else []
    )
    folder = PurePath(run).parent if run.endswith(".onnx") else PurePath(run)
    review = shlex.join(["anomaly", "review", "--detector", run])
    look = f"look before it is used: {folder / 'report.html'}, or {review}, page Calibration"
    rows = [
        *first,
        (label, f"if {these}: {said}"),
        *([] if card.training.recalibrated else [("", look)]),
    ]
    return [f"{left:<{_COLUMN}}{right}" for left, right in rows]


def preview_text(calibration: Calibration, training: TrainingFacts, run: str = "RUN") -> str:
    """What is said where a threshold was moved by hand, three lines; empty where it was not."""
    if training.threshold_moved is None:
        return ""
    by, when = training.threshold_moved_by or "somebody", training.threshold_moved[:10]
    place = f"the {calibration.k:,} highest of {_good(calibration.n)} reach it"
    lines = [
        (f"threshold {calibration.threshold:.4g}", f"moved by hand by {by} on {when}; {place}"),
        (
            "guaranteed rate",
            "none: a preview, since the threshold was chosen after results were seen",
        ),
        ("", f"new good images give one again: anomaly calibrate {run} --normal NEW_GOOD"),
    ]
    return rows_text(lines)


def tiles_said(tiles: TileFacts | None, size: int) -> str:
    """How a detector cuts large images, by what its card says of its tiles; empty where it does
    not.

    ``size``: pixels a side that the model sees of a tile, and of the whole image.
    """
    if tiles is None:
        return ""
    tile, down, across = tiles.tile, tiles.down, tiles.across
    seen = f"each seen at {size} x {size}; beside them the whole image at {size} x {size}"
    return (
        f"{down * across:,} ({across:,} across, {down:,} down) of {tile:,} pixels of yours a side, "
        f"{seen}"
    )


def size_sensitivity_text(training: TrainingFacts) -> list[str]:
    """Which synthetic defects a detector flagged by their size, and the least area that counts, by
    its card; lines.
    """
    found = training.size_sensitivity
    lines = _sizes(found) if found is not None and found.sizes else []
    if training.min_area and training.min_cells:
        lines.append(("least area", _least_area(training.min_area, training.min_cells)))
    return [f"{label:<{_COLUMN}}{said}" for label, said in lines]


def _sizes(size_sensitivity: SizeSensitivity) -> list[tuple[str, str]]:
    rows = size_sensitivity.sizes
    seen = [row.pixels for row in rows if 2 * row.flagged >= row.of]
    if not seen:
        least = f"defects up to {rows[-1].pixels:,} pixels are likely unseen"
    elif seen[0] > rows[0].pixels:
        least = f"defects smaller than {seen[0]:,} pixels are likely unseen"
    else:
        least = "most of the smallest that were tried are seen"
    flagged = ", ".join(f"{row.pixels:,}: {row.flagged} of {row.of}" for row in rows)
    return [
        (
            "smallest defects",
            f"one pixel of the model is {size_sensitivity.pixel:.3g} of yours a side; {least}",
        ),
        ("", f"synthetic ones flagged, by their diameter in pixels: {flagged}"),
    ]


def _least_area(pixels: int, cells: int) -> str:
    if cells == 1:
        return f"{pixels:,} pixels changes nothing: one cell of the heatmap is larger"
    return (
        f"what is high in less than {pixels:,} pixels ({cells} cells of the heatmap) does not count"
    )


def guard_text(guard: GuardFacts | None) -> str:
    """How well a detector's guard tells images that are unlike the training images; empty where the
    card does not say.
    """
    if not guard:
        return ""
    noticed = ", ".join(f"{change} {percent(share)}" for change, share in guard.noticed.items())
    return (
        f"on the training images, left out in turn: {percent(guard.refused)} of them not "
        f"judged; noticed: {noticed}"
    )


def too_few_text(calibration: Calibration, good_images: int, what: str = "image") -> str:
    """What fewer good images than the default rate needs can guarantee, and what to do."""
    n = calibration.n
    # anomaly calibrate has it not
    rank_only = "" if good_images == n else ", or --rank-only (order, no guarantee)"
    number = f"{n:,}" if what == "image" else f"{n:,} {what}{'' if n == 1 else 's'}"
    return (
        f"{_good(good_images)}: {number} "
        f"set{'s' if n == 1 else ''} the threshold. "
        f"Lowest guaranteed rate {percent(calibration.guaranteed_rate)} (could be "
        f"{percent(calibration.upper_bound)}). {needs_text(DEFAULT_RATE)} "
        f"Add images, or --false-alarm-rate {lowest_target_rate(n)}{rank_only}."
    )


def needs_text(target_rate: float) -> str:
    """How many good images (of different groups) must set the threshold for a false-alarm rate of
    ``target_rate``.
    """
    return f"{100 * target_rate:.6g} % needs {needed(target_rate):,} to set the threshold."


def enough_rows(prospect: Prospect, target_rate: float | None) -> list[tuple[str, str]]:
    """What good images will guarantee before one is scored, and the lowest guaranteed rate;
    ``target_rate``: as asked for.
    """
    lowest, asked = (
        Prospect.lowest(prospect.groups),
        DEFAULT_RATE if target_rate is None else target_rate,
    )
    rows = [
        (
            "good images flagged",
            f"about {one_in(prospect.guaranteed_rate)} ({100 * prospect.guaranteed_rate:.3g} %), "
            f"set by {prospect.n:,} of {prospect.groups:,}; "
            f"95 % confident: at most {_out_of(prospect.upper_bound)} in the long run",
        )
    ]
    if prospect.guaranteed_rate > asked:
        rows.append(("", f"{needs_text(asked)} That takes {2 * needed(asked):,} in all"))
    how = f"set by {lowest.n:,}, with --false-alarm-rate {lowest_target_rate(lowest.n)}"
    return [
        *rows,
        (
            "lowest guaranteed rate",
            f"{one_in(lowest.guaranteed_rate)} ({_could_be(lowest)}), {how}",
        ),
    ]


def more_rows(
    groups: int, target_rate: float | None, *, training: bool = True
) -> list[tuple[str, str]]:
    """What more good images (of different groups) than ``groups`` would bring: a row for each
    number worth asking about.

    In training some of them set the threshold; in recalibration (not ``training``) all do.
    """
    rows = []
    for number in more_groups(groups, target_rate, 2 if training else 1):
        prospect = Prospect.of(number, target_rate, None if training else number)
        rows.append(
            f"{number - groups:,} more: {_could_be(prospect)}; {prospect.n:,} of {number:,} set "
            "the threshold"
        )
    return [("" if index else "more good images", row) for index, row in enumerate(rows)]


def more_text(card: Card) -> list[str]:
    """What more good images would bring to a detector, a line each; none where its card does not
    say on how many it stands.
    """
    facts, calibration = card.training, card.calibration
    if calibration is None:
        return []
    trained = facts.recalibrated_on is None
    groups = facts.groups if trained else calibration.n
    if groups is None or not groups < 2**32:
        return []
    rows = more_rows(groups, calibration.target_rate, training=trained)
    return [f"{label:<{_COLUMN}}{said}" for label, said in rows]


def rows_text(rows: Sequence[tuple[str, str]]) -> str:
    """Rows of a label and what is said, a line each."""
    return "\n".join(f"{label:<{_COLUMN}}{said}" for label, said in rows)


def _could_be(prospect: Prospect) -> str:
    return (
        f"guarantee {100 * prospect.guaranteed_rate:.2g} %, could be "
        f"{percent(prospect.upper_bound)}"
    )


def verdict_text(
    status: str,
    score: float | None,
    calibration: Calibration | None,
    error: str | None = None,
    what: str = "image",
) -> str:
    """What is said of one image. ``status``: ``ok``, ``outside`` or ``error``; ``error``: why it
    was not judged.

    ``what``: ``unit`` where the threshold was set by units, each by its worst view.
    """
    if status == "outside":
        return f"NOT INSPECTED: {error or OUTSIDE}. Treat as not OK."
    if status != "ok" or score is None or not math.isfinite(score):
        return f"NOT INSPECTED: {error or 'the score is not a finite number'}. Treat as not OK."
    if calibration is None:
        return f"Score {score:.4g}. No threshold: this detector ranks only, without a guarantee."
    if not calibration.is_anomaly(score):
        return (
            f"Not flagged{' by this view' if what == 'unit' else ''}. This does not mean free of "
            "defects."
        )
    shown, threshold = _apart(score, float(calibration.threshold))
    return (
        f"FLAGGED. Score {shown}, threshold {threshold}. {_rarity(calibration, score, what)} "
        f"{NOT_A_CHANCE}"
    )


def unit_text(unit: UnitRow) -> str:
    """What is said of a unit of several views."""
    if unit.is_anomaly:
        return f"FLAGGED by its view {PurePath(unit.worst or '').name}, whatever the others show."
    if unit.status != "ok":
        return f"NOT JUDGED: {unit.error}. Treat as not OK."
    views = "Its one view was" if unit.views == 1 else f"All its {unit.views:,} views were"
    return f"{views} judged{', none flags it' if unit.is_anomaly is False else ''}."


def realised_text(
    flagged: Rate,
    calibration: Calibration,
    every_image: tuple[int, int] | None = None,
    what: str = "image",
) -> str:
    """Good test images (or units: ``what``) that were flagged, beside what was guaranteed.

    ``flagged`` counts one image of each group; ``every_image``, where groups have several, is
    (flagged, of) all.
    """
    if every_image is not None and every_image[1] != flagged.n:
        every = (
            f", one of each group; {every_image[0]:,} of {every_image[1]:,} counting every image"
        )
    else:
        every = ""
    up_to = calibration.ordinary_up_to(flagged.n)
    expected = (
        f"expected {count_text(calibration.expected(flagged.n))}, up to {up_to:,} is ordinary"
    )
    if flagged.flagged > up_to:
        expected += (
            f": more than chance explains, these good {what}s are unlike the ones that set the "
            "threshold"
        )
    return (
        f"{flagged.flagged:,} of {_good(flagged.n, what)} flagged ({percent(flagged.value)}; "
        f"95 %: {_between(flagged.low, flagged.high)}{every}); {expected}"
    )


def _rarity(calibration: Calibration, score: float, what: str) -> str:
    p = float(calibration.p_value(score))
    if round(p * (calibration.n + 1)) == 1:  # the floor: no calibration score is as high
        return (
            f"More unusual than {'all' if calibration.n > 1 else 'the'} "
            f"{_good(calibration.n, what)} checked."
        )
    return f"About {one_in(p)} good {what}s {'looks' if p <= 0.1 else 'look'} this unusual."


def _missed(recall: Rate | None, run: str) -> str:
    if recall is None:
        return f"unknown: no defect images were given -> anomaly evaluate {run} LABELLED"
    missed = recall.n - recall.flagged
    return (
        f"{missed:,} of {recall.n:,} defect image{'s' if recall.n != 1 else ''} "
        f"({percent(1 - recall.value)}; 95 %: {_between(1 - recall.high, 1 - recall.low)})"
    )


def _apart(score: float, threshold: float) -> tuple[str, str]:
    """A score above the threshold and the threshold, with two digits of it (at most five of the
    larger one) and one of their difference."""
    digits = math.floor(math.log10(max(abs(score), abs(threshold))))
    of_threshold = 1 - math.floor(math.log10(abs(threshold))) if threshold else 1 - digits
    decimals = max(0, min(of_threshold, 4 - digits), -math.floor(math.log10(score - threshold)))
    return f"{score:.{decimals}f}", f"{threshold:.{decimals}f}"


def _out_of(rate: float) -> str:
    base = 100
    while rate * base < 1:
        base *= 10
    return f"{rounded_percent(rate * base / 100)} in {base:,}"


def _between(low: float, high: float) -> str:
    return f"{rounded_percent(low)} to {percent(high)}"


def _good(count: int, what: str = "image") -> str:
    return f"{count:,} good {what}{'s' if count != 1 else ''}"


def _round_number(value: int) -> int:
    size = int(10 ** (len(str(value)) - 1))
    return round(value / size) * size
