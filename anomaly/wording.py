"""How the numbers are said. Counts before percent, never one number alone, always of good images.

On screens the threshold is called the limit. The p-value is said as how rare a score is among good images, never as a
chance that the part is bad.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from anomaly.calibrate import DEFAULT_RATE, Calibration, Prospect, Rate, lowest_wish, more_groups, needed
from anomaly.part_rule import PartRule
from anomaly.sight import cost_text

if TYPE_CHECKING:
    from anomaly.detector import Card
    from anomaly.parts import PartRow

PREVIEW = "Preview: the promise returns when fresh good images confirm it."
OUTSIDE = "unlike the training images in brightness, contrast or sharpness"
NOT_A_CHANCE = "That is not the chance that this part is bad: you decide."
_COLUMN = 24


def promise_text(
    calibration: Calibration,
    good_images: int,
    *,
    highest: Sequence[str] = (),
    recall: Rate | None = None,
    grouped: bool = False,
    run: str = "RUN",
    views: str = "",
) -> str:
    """What a calibration promises, five lines; where there were too few images for the default rate, one.

    ``good_images``: all that were given, those for training included. ``highest``: names of the calibration images,
    the highest score first. ``recall``: of labelled defect images, if there were any. ``grouped``: one image of each
    group was drawn. ``run``: what the user calls the detector. ``views``: the promise is per part of so many ("6 views").
    """
    what = "part" if views else "image"
    if calibration.too_few:
        return too_few_text(calibration, good_images, what)
    n, images = calibration.n, _round_number(2 * calibration.n)
    up_to = calibration.ordinary_up_to(images)
    each = ", each by its worst view" if views else ", one of each group" if grouped else ""
    unlike = "not for a new lot, light or camera" + ("" if views else ", not per part of several views")
    unseen = "" if good_images == n else " that training did not see"
    lines = [
        (f"limit {calibration.threshold:.4g}", f"set by {_good(n, what)}{unseen}{each}"),
        (
            f"good {what}s stopped",
            f"about {one_in(calibration.promise)} ({100 * calibration.promise:.3g} %); "
            f"95 % confident: at most {_out_of(calibration.bound)} in the long run",
        ),
        (
            "",
            f"in {_good(images, what)} expect {_count(calibration.expected(images))}; up to {up_to:,} is ordinary, "
            f"{up_to + 1:,} or more: anomaly check",
        ),
        ("defects missed", _missed(recall, run)),
        (
            "holds for",
            f"good {what}s like these {n:,}{f', of {views}' if views else ''}: {unlike}",
        ),
    ]
    named = list(highest)[: min(calibration.k, 5)]
    if named:
        these = f"the highest {len(named)}; if one is" if len(named) > 1 else "the highest; if it is"
        lines.append(("look at these first", f"{' '.join(named)}   ({these} a defect, the limit is too high)"))
    return "\n".join(f"{label:<{_COLUMN}}{text}" for label, text in lines)


def card_text(card: Card, run: str) -> str:
    """What a detector's card promises; ``run``: what the user calls the detector."""
    if card.calibration is None:
        return f"{'rank only':<{_COLUMN}}orders images by score; there is no limit, so nothing is promised"
    facts = card.training
    images = facts.get("recalibrated_on", facts.get("images", card.calibration.n))
    rule = PartRule.of(facts)
    text = preview_text(card.calibration, facts, run) or promise_text(
        card.calibration, images, highest=facts.get("highest", []), grouped=bool(facts.get("grouped")), run=run,
        views="" if rule is None else rule.views,
    )  # fmt: skip
    tiles = tiles_said(facts.get("tiles"), card.size)
    return "\n".join([text, *_cost(card, run), *([f"{'tiles':<{_COLUMN}}{tiles}"] if tiles else []), *sight_text(facts)])


def _cost(card: Card, run: str) -> list[str]:
    """What the images that set the threshold cost if they are defects, and where they are looked at; lines."""
    cost, calibration = card.training.get("cost"), card.calibration
    said = "" if calibration is None else cost_text(cost, float(calibration.threshold))
    if not said or not isinstance(cost, Mapping) or card.training.get("limit_moved"):
        return []
    names = " ".join(str(name) for name in cost["without"])
    count = len(cost["without"])
    label, these = ("without it", "it shows a defect") if count == 1 else (f"without these {count}", "they show defects")
    first = [("look at these first", names)] if calibration is not None and calibration.too_few else []
    folder = PurePath(run).parent if run.endswith(".onnx") else PurePath(run)
    review = shlex.join(["anomaly", "review", "--detector", run])
    look = f"look before it is used: {folder / 'report.html'}, or {review}, page Calibration"
    rows = [*first, (label, f"if {these}: {said}"), *([] if card.training.get("recalibrated") else [("", look)])]
    return [f"{left:<{_COLUMN}}{right}" for left, right in rows]


def preview_text(calibration: Calibration, training: Mapping[str, Any], run: str = "RUN") -> str:
    """What is said where a threshold was moved by hand, three lines; empty where it was not."""
    if not training.get("limit_moved"):
        return ""
    by, when = training.get("limit_moved_by") or "somebody", str(training["limit_moved"])[:10]
    place = f"the {calibration.k:,} highest of {_good(calibration.n)} reach it"
    lines = [
        (f"threshold {calibration.threshold:.4g}", f"moved by hand by {by} on {when}; {place}"),
        ("guaranteed rate", "none: a preview, since the threshold was chosen after results were seen"),
        ("", f"new good images give one again: anomaly calibrate {run} --normal NEW_GOOD"),
    ]
    return rows_text(lines)


def tiles_said(tiles: object, size: int) -> str:
    """How a detector cuts large images, by what its card says of its tiles; empty where it does not.

    ``size``: pixels a side that the model sees of a tile, and of the whole image.
    """
    try:
        tile, down, across = (int(tiles[name]) for name in ("tile", "down", "across"))  # type: ignore[index]
    except (KeyError, TypeError, ValueError):  # a card from elsewhere may hold anything
        return ""
    seen = f"each seen at {size} x {size}; beside them the whole image at {size} x {size}"
    return f"{down * across:,} ({across:,} across, {down:,} down) of {tile:,} pixels of yours a side, {seen}"


def sight_text(training: Mapping[str, Any]) -> list[str]:
    """Which made-up defects a detector stopped by their size, and the least area that counts, by its card; lines."""
    try:
        lines = _sizes(training["sight"]) if training.get("sight") else []
        if training.get("min_area"):
            lines.append(("least area", _least_area(training["min_area"], int(training["min_cells"]))))
    except (KeyError, TypeError, ValueError, IndexError):  # a card from elsewhere may hold anything
        return []
    return [f"{label:<{_COLUMN}}{said}" for label, said in lines]


def _sizes(sight: Mapping[str, Any]) -> list[tuple[str, str]]:
    rows = sight["sizes"]
    seen = [row["pixels"] for row in rows if 2 * row["stopped"] >= row["of"]]
    if not seen:
        least = f"defects up to {rows[-1]['pixels']:,} pixels are likely unseen"
    elif seen[0] > rows[0]["pixels"]:
        least = f"defects smaller than {seen[0]:,} pixels are likely unseen"
    else:
        least = "most of the smallest that were tried are seen"
    stopped = ", ".join(f"{row['pixels']:,}: {row['stopped']} of {row['of']}" for row in rows)
    return [
        ("smallest defects", f"one pixel of the model is {sight['pixel']:.3g} of yours a side; {least}"),
        ("", f"made-up ones stopped, by their diameter in pixels: {stopped}"),
    ]


def _least_area(pixels: int, cells: int) -> str:
    if cells == 1:
        return f"{pixels:,} pixels changes nothing: one cell of the heatmap is larger"
    return f"what is hot in less than {pixels:,} pixels ({cells} cells of the heatmap) does not count"


def guard_text(guard: dict[str, Any] | None) -> str:
    """How well a detector's guard tells images that are unlike the training images; empty where the card does not say."""
    if not guard:
        return ""
    noticed = ", ".join(f"{change} {percent(share)}" for change, share in guard["noticed"].items())
    return f"on the training images, left out in turn: {percent(guard['refused'])} of them not judged; noticed: {noticed}"


def too_few_text(calibration: Calibration, good_images: int, what: str = "image") -> str:
    """What fewer good images than the default rate needs can promise, and what to do."""
    n = calibration.n
    rank_only = "" if good_images == n else ", or --rank-only (order, no promise)"  # anomaly calibrate has it not
    number = f"{n:,}" if what == "image" else f"{n:,} {what}{'' if n == 1 else 's'}"
    return (
        f"{_good(good_images)}: {number} "
        f"set{'s' if n == 1 else ''} the limit. "
        f"Lowest promise {percent(calibration.promise)} (could be {percent(calibration.bound)}). "
        f"{needs_text(DEFAULT_RATE)} "
        f"Add images, or --false-alarm-rate {lowest_wish(n)}{rank_only}."
    )


def needs_text(wish: float) -> str:
    """How many good images (of different groups) must set the limit for a false-alarm rate of ``wish``."""
    return f"{100 * wish:.6g} % needs {needed(wish):,} to set the limit."


def enough_rows(prospect: Prospect, wish: float | None) -> list[tuple[str, str]]:
    """What good images will promise before one is scored, and the lowest promise there is; ``wish``: what was asked for."""
    lowest, asked = Prospect.lowest(prospect.groups), DEFAULT_RATE if wish is None else wish
    rows = [
        (
            "good images stopped",
            f"about {one_in(prospect.promise)} ({100 * prospect.promise:.3g} %), set by {prospect.n:,} of {prospect.groups:,}; "
            f"95 % confident: at most {_out_of(prospect.bound)} in the long run",
        )
    ]
    if prospect.promise > asked:
        rows.append(("", f"{needs_text(asked)} That takes {2 * needed(asked):,} in all"))
    how = f"set by {lowest.n:,}, with --false-alarm-rate {lowest_wish(lowest.n)}"
    return [*rows, ("lowest promise", f"{one_in(lowest.promise)} ({_could_be(lowest)}), {how}")]


def more_rows(groups: int, wish: float | None, *, training: bool = True) -> list[tuple[str, str]]:
    """What more good images (of different groups) than ``groups`` would bring: a row for each number worth asking about.

    In training some of them set the limit; in recalibration (not ``training``) all do.
    """
    rows = []
    for number in more_groups(groups, wish, 2 if training else 1):
        prospect = Prospect.of(number, wish, None if training else number)
        rows.append(f"{number - groups:,} more: {_could_be(prospect)}; {prospect.n:,} of {number:,} set the limit")
    return [("" if index else "more good images", row) for index, row in enumerate(rows)]


def more_text(card: Card) -> list[str]:
    """What more good images would bring to a detector, a line each; none where its card does not say on how many it stands."""
    facts, calibration = card.training, card.calibration
    groups = facts.get("groups") if "recalibrated_on" not in facts else calibration and calibration.n
    if calibration is None or not isinstance(groups, int) or not 0 < groups < 2**32:
        return []
    rows = more_rows(groups, calibration.wish, training="recalibrated_on" not in facts)
    return [f"{label:<{_COLUMN}}{said}" for label, said in rows]


def rows_text(rows: Sequence[tuple[str, str]]) -> str:
    """Rows of a label and what is said, a line each."""
    return "\n".join(f"{label:<{_COLUMN}}{said}" for label, said in rows)


def _could_be(prospect: Prospect) -> str:
    return f"promise {100 * prospect.promise:.2g} %, could be {percent(prospect.bound)}"


def verdict_text(
    status: str, score: float | None, calibration: Calibration | None, error: str | None = None, what: str = "image"
) -> str:
    """What is said of one image. ``status``: ``ok``, ``outside`` or ``error``; ``error``: why it was not judged.

    ``what``: ``part`` where the limit was set by parts, each by its worst view.
    """
    if status == "outside":
        return f"NOT INSPECTED: {error or OUTSIDE}. Treat as not OK."
    if status != "ok" or score is None or not math.isfinite(score):
        return f"NOT INSPECTED: {error or 'the score is not a finite number'}. Treat as not OK."
    if calibration is None:
        return f"Score {score:.4g}. No limit: this detector ranks only, without a promise."
    if not calibration.is_anomaly(score):
        return f"Not stopped{' by this view' if what == 'part' else ''}. This does not mean free of defects."
    shown, limit = _apart(score, float(calibration.threshold))
    return f"STOPPED. Score {shown}, limit {limit}. {_rarity(calibration, score, what)} {NOT_A_CHANCE}"


def part_text(part: PartRow) -> str:
    """What is said of a part of several views."""
    if part.is_anomaly:
        return f"STOPPED by its view {PurePath(part.worst or '').name}, whatever the others show."
    if part.status != "ok":
        return f"NOT JUDGED: {part.error}. Treat as not OK."
    views = "Its one view was" if part.views == 1 else f"All its {part.views:,} views were"
    return f"{views} judged{', none stops it' if part.is_anomaly is False else ''}."


def realised_text(
    stopped: Rate, calibration: Calibration, every_image: tuple[int, int] | None = None, what: str = "image"
) -> str:
    """Good test images (or parts: ``what``) that were stopped, beside what was promised.

    ``stopped`` counts one image of each group; ``every_image``, where groups have several, is (stopped, of) all.
    """
    if every_image is not None and every_image[1] != stopped.n:
        every = f", one of each group; {every_image[0]:,} of {every_image[1]:,} counting every image"
    else:
        every = ""
    up_to = calibration.ordinary_up_to(stopped.n)
    expected = f"expected {_count(calibration.expected(stopped.n))}, up to {up_to:,} is ordinary"
    if stopped.flagged > up_to:
        expected += f": more than chance explains, these good {what}s are unlike the ones that set the limit"
    return (
        f"{stopped.flagged:,} of {_good(stopped.n, what)} stopped ({percent(stopped.value)}; "
        f"95 %: {_between(stopped.low, stopped.high)}{every}); {expected}"
    )


def ordinary_text(stopped: int, judged: int, expected: float, up_to: int, what: str = "image") -> str:
    """How many of the images or parts judged were stopped, beside how many would be if all were good."""
    count = f"{judged:,} {what}{'' if judged == 1 else 's'} judged"
    if not judged:
        return f"0 of {count}"
    return (
        f"{stopped:,} of {count} ({percent(stopped / judged)}); if all are good expect {_count(expected)}, "
        f"up to {up_to:,} is ordinary, {up_to + 1:,} or more: anomaly check"
    )


def percent(rate: float) -> str:
    """A rate as a reader wants it: whole percent from 5 % on, two digits below."""
    return f"{_percent(rate)} %"


def one_in(rate: float) -> str:
    """``1 in 100`` for 0.00995; rates above 0.1, where the rounding would show, out of 100."""
    return f"1 in {round(1 / rate):,}" if rate <= 0.1 else f"{100 * rate:.0f} in 100"


def _rarity(calibration: Calibration, score: float, what: str) -> str:
    p = float(calibration.p_value(score))
    if round(p * (calibration.n + 1)) == 1:  # the floor: no calibration score is as high
        return f"More unusual than {'all' if calibration.n > 1 else 'the'} {_good(calibration.n, what)} checked."
    return f"About {one_in(p)} good {what}s {'looks' if p <= 0.1 else 'look'} this unusual."


def _missed(recall: Rate | None, run: str) -> str:
    if recall is None:
        return f"unknown: no defect images were given -> anomaly evaluate {run} LABELLED"
    missed = recall.n - recall.flagged
    return (
        f"{missed:,} of {recall.n:,} defect image{'s' if recall.n != 1 else ''} ({percent(1 - recall.value)}; "
        f"95 %: {_between(1 - recall.high, 1 - recall.low)})"
    )


def _apart(score: float, limit: float) -> tuple[str, str]:
    """A score above the limit and the limit, with two digits of the limit (at most five of the larger one) and one of
    their difference."""
    digits = math.floor(math.log10(max(abs(score), abs(limit))))
    of_limit = 1 - math.floor(math.log10(abs(limit))) if limit else 1 - digits
    decimals = max(0, min(of_limit, 4 - digits), -math.floor(math.log10(score - limit)))
    return f"{score:.{decimals}f}", f"{limit:.{decimals}f}"


def _out_of(rate: float) -> str:
    base = 100
    while rate * base < 1:
        base *= 10
    return f"{_percent(rate * base / 100)} in {base:,}"


def _percent(rate: float) -> str:
    return f"{100 * rate:.0f}" if 100 * rate >= 5 else f"{100 * rate:.2g}"


def _between(low: float, high: float) -> str:
    return f"{_percent(low)} to {percent(high)}"


def _count(expected: float) -> str:
    return f"{expected:,.0f}" if expected >= 3 else f"{expected:.2g}"


def _good(count: int, what: str = "image") -> str:
    return f"{count:,} good {what}{'s' if count != 1 else ''}"


def _round_number(value: int) -> int:
    size = int(10 ** (len(str(value)) - 1))
    return round(value / size) * size
