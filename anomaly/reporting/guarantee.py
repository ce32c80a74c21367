"""What a threshold guarantees, in words: how many good images are flagged, and how many images it
needs.
"""

from __future__ import annotations

from collections.abc import Sequence

from anomaly.detector.guarantee import Guarantee
from anomaly.detector.training_facts import TrainingFacts
from anomaly.files.numbers import (
    between,
    count_text,
    exact_percent,
    good_text,
    one_in,
    percent,
    rounded_percent,
)
from anomaly.reporting.lines import rows_text
from anomaly.statistics.calibration import (
    DEFAULT_RATE,
    Calibration,
    Rate,
    lowest_target_rate,
    needed,
)
from anomaly.statistics.prospect import Prospect, more_groups

Change = tuple[str, str, str]  # a label, the figure before and the figure after

BEFORE_WIDTH = 28  # characters
PREVIEW = "Preview: the guarantee returns when fresh good images confirm it."


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
    """Returns what a calibration guarantees, five lines; where there were too few images for the
    default rate, one.

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
        (f"threshold {calibration.threshold:.4g}", f"set by {good_text(n, what)}{unseen}{each}"),
        (
            f"good {what}s flagged",
            f"{_about(calibration.guaranteed_rate)}; 95 % confident: at most "
            f"{_out_of(calibration.upper_bound)} in the long run",
        ),
        (
            "",
            f"in {good_text(images, what)} expect {count_text(calibration.expected(images))}; "
            f"up to {up_to:,} is ordinary, {up_to + 1:,} or more: anomaly check",
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
    return rows_text(lines)


def preview_text(calibration: Calibration, training: TrainingFacts, run: str = "RUN") -> str:
    """Returns what holds where a threshold was moved by hand, three lines; empty where it was
    not.
    """
    if training.threshold_moved is None:
        return ""
    by, when = training.threshold_moved_by or "somebody", training.threshold_moved[:10]
    place = f"the {calibration.k:,} highest of {good_text(calibration.n)} reach it"
    lines = [
        (f"threshold {calibration.threshold:.4g}", f"moved by hand by {by} on {when}; {place}"),
        (
            "guaranteed rate",
            "none: a preview, since the threshold was chosen after results were seen",
        ),
        ("", f"new good images give one again: anomaly calibrate {run} --normal NEW_GOOD"),
    ]
    return rows_text(lines)


def too_few_text(calibration: Calibration, good_images: int, what: str = "image") -> str:
    """Returns what fewer good images than the default rate needs can guarantee, and what to do."""
    n = calibration.n
    # anomaly calibrate has it not
    rank_only = "" if good_images == n else ", or --rank-only (order, no guarantee)"
    number = f"{n:,}" if what == "image" else f"{n:,} {what}{'' if n == 1 else 's'}"
    return (
        f"{good_text(good_images)}: {number} set{'s' if n == 1 else ''} the threshold. "
        f"Lowest guaranteed rate {percent(calibration.guaranteed_rate)} (could be "
        f"{percent(calibration.upper_bound)}). {needs_text(DEFAULT_RATE)} "
        f"Add images, or --false-alarm-rate {lowest_target_rate(n)}{rank_only}."
    )


def needs_text(target_rate: float) -> str:
    """Returns how many good images (of different groups) must set the threshold for a false-alarm
    rate of ``target_rate``.
    """
    return f"{100 * target_rate:.6g} % needs {needed(target_rate):,} to set the threshold."


def enough_rows(prospect: Prospect, target_rate: float | None) -> list[tuple[str, str]]:
    """Returns what good images will guarantee before one is scored, and the lowest guaranteed rate;
    ``target_rate``: as asked for.
    """
    lowest, asked = (
        Prospect.lowest(prospect.groups),
        DEFAULT_RATE if target_rate is None else target_rate,
    )
    rows = [
        (
            "good images flagged",
            f"{_about(prospect.guaranteed_rate)}, set by {prospect.n:,} of {prospect.groups:,}; "
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
    """Returns what more good images (of different groups) than ``groups`` would bring: a row for
    each number worth asking about.

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


def place_text(calibration: Calibration, what: str = "image") -> str:
    """Returns where a threshold stands among the good images (or units: ``what``), and what that
    guarantees.
    """
    place = "highest" if calibration.k == 1 else f"{ordinal(calibration.k)} highest"
    return (
        f"Set by the {place} of {calibration.n:,} good {what}s: "
        f"{percent(calibration.guaranteed_rate)}; 95 % confident: at most "
        f"{percent(calibration.upper_bound)} in the long run."
    )


def change_rows(before: Guarantee, after: Guarantee) -> list[Change]:
    """Returns what a new threshold changes: rows of a label, the figure before and the figure
    after.
    """
    labels = ("threshold", "guaranteed rate", "upper bound (95 %)", "set by")
    return list(zip(labels, guarantee_figures(before), guarantee_figures(after), strict=True))


def guarantee_figures(guarantee: Guarantee) -> tuple[str, str, str, str]:
    """Returns threshold, guaranteed rate, upper bound, and what set the threshold, in words."""
    c = guarantee.calibration
    if c is None:
        return "none", "none: it only ranks", "none", "nothing"
    threshold, images = (
        f"{c.threshold:.4g}",
        good_text(c.n, guarantee.what),
    )
    if guarantee.preview:
        return threshold, "none: a preview", "none", f"by hand, on {images}"
    return (
        threshold,
        f"{exact_percent(c.guaranteed_rate)} ({c.k:,} of {c.n + 1:,})",
        exact_percent(c.upper_bound),
        images,
    )


def changes_text(changes: Sequence[Change]) -> str:
    """Returns rows as lines with a heading."""
    lines = [("", "before", "after"), *changes]
    return rows_text((label, f"{old:<{BEFORE_WIDTH}}{new}".rstrip()) for label, old, new in lines)


def _missed(recall: Rate | None, run: str) -> str:
    if recall is None:
        return f"unknown: no defect images were given -> anomaly evaluate {run} LABELLED"
    missed = recall.n - recall.flagged
    return (
        f"{missed:,} of {recall.n:,} defect image{'s' if recall.n != 1 else ''} "
        f"({percent(1 - recall.value)}; 95 %: {between(1 - recall.high, 1 - recall.low)})"
    )


def _about(rate: float) -> str:
    return f"about {one_in(rate)} ({exact_percent(rate)})"


def _could_be(prospect: Prospect) -> str:
    return (
        f"guarantee {100 * prospect.guaranteed_rate:.2g} %, could be "
        f"{percent(prospect.upper_bound)}"
    )


def _out_of(rate: float) -> str:
    base = 100
    while rate * base < 1:
        base *= 10
    return f"{rounded_percent(rate * base / 100)} in {base:,}"


def _round_number(value: int) -> int:
    size = int(10 ** (len(str(value)) - 1))
    return round(value / size) * size


def ordinal(number: int) -> str:
    """Returns 1st, 2nd, 3rd, 4th ... 11th."""
    ending = (
        "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    )
    return f"{number:,}{ending}"
