"""What a threshold guarantees or, by cross-calibration, what is estimated, in words: how many good
images are flagged, and how many images it needs.
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
from anomaly.reporting.lines import lines_of, rows_text
from anomaly.statistics.calibration import (
    DEFAULT_RATE,
    FOLDS,
    Calibration,
    Kind,
    Rate,
    lowest_target_rate,
    needed,
    rate_word,
)
from anomaly.statistics.prospect import Calibrating, Prospect, fewest_groups, more_groups

Change = tuple[str, str, str]  # a label, the figure before and the figure after

BEFORE_WIDTH = 28  # characters, at least
PREVIEW = "Preview: the guarantee returns when fresh good images confirm it."
ESTIMATED = (  # why, in one sentence
    f"every good image trains and calibrates (cross-calibration, {FOLDS} folds); the rate is "
    "estimated, not guaranteed"
)


def guarantee_text(
    calibration: Calibration,
    good_images: int,
    *,
    highest: Sequence[str] = (),
    recall: Rate | None = None,
    grouped: bool = False,
    run: str = "RUN",
    views: str = "",
    known_defects: bool = False,
) -> str:
    """Returns what a calibration guarantees, five lines; where there were too few images for the
    default rate, one. Where the rate is estimated one line more says why.

    ``good_images``: all that were given, those for training included. ``highest``: names of the
    calibration images, the highest score first. ``recall``: of labelled defect images, if there
    were any. ``grouped``: one image of each group was drawn. ``run``: what the user calls the
    detector. ``views``: the guarantee is per unit of so many ("6 views"). ``known_defects``:
    lines of their own say how many are missed.
    """
    what = "unit" if views else "image"
    if calibration.too_few:
        return "\n".join([too_few_text(calibration, good_images, what), *why(calibration.kind)])
    n, images = calibration.n, _round_number(2 * calibration.n)
    up_to = calibration.ordinary_up_to(images)
    each = ", each by its worst view" if views else ", one of each group" if grouped else ""
    unlike = "not for a new lot, light or camera" + (
        "" if views else ", not per unit of several views"
    )
    unseen = _seen_by(calibration, good_images)
    lines = [
        (f"threshold {calibration.threshold:.4g}", f"set by {good_text(n, what)}{unseen}{each}"),
        (f"good {what}s flagged", _rate_text(calibration.rate, calibration)),
        *([] if calibration.is_guaranteed else [("", ESTIMATED)]),
        (
            "",
            f"in {good_text(images, what)} expect {count_text(calibration.expected(images))}; "
            f"up to {up_to:,} is ordinary, {up_to + 1:,} or more: anomaly check",
        ),
        *([] if known_defects else [("defects missed", _missed(recall, run))]),
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
            f"{rate_word(calibration)} rate",
            "none: a preview, since the threshold was chosen after results were seen",
        ),
        ("", f"new good images give one again: anomaly calibrate {run} --normal NEW_GOOD"),
    ]
    return rows_text(lines)


def review_lines(guarantee: Guarantee) -> list[str]:
    """Returns what the second threshold guarantees, or estimates, as lines."""
    return lines_of(review_rows(guarantee))


def review_rows(guarantee: Guarantee) -> list[tuple[str, str]]:
    """Returns what the second threshold guarantees, or estimates: rows of a label, empty where one
    goes on, and what is said; none where there is one threshold only.
    """
    review = None if guarantee.calibration is None else guarantee.calibration.review
    if review is None:
        return []
    what = guarantee.what
    named = "" if review.target_rate is not None else "; chosen as a score, not by a rate"
    between = f"a person looks at scores from here to the threshold{named}"
    rows = [(f"review above {review.threshold:.4g}", between)]
    if guarantee.preview:
        return [*rows, ("flagged or review", "rate: none, as for the threshold")]
    word = "" if review.is_guaranteed else "estimated "
    images = _round_number(2 * review.n)
    return [
        *rows,
        (
            "flagged or review",
            f"{word}about {one_in(review.rate)} good {what}s ({exact_percent(review.rate)}; "
            f"{review.k:,} of {review.n + 1:,}); 95 % confident: at most "
            f"{_out_of(review.upper_bound)} in the long run",
        ),
        (
            "",
            f"in {good_text(images, what)} expect {count_text(review.expected(images))}; up to "
            f"{review.ordinary_up_to(images):,} is ordinary",
        ),
    ]


def too_few_text(calibration: Calibration, good_images: int, what: str = "image") -> str:
    """Returns which rate fewer good images than the default one needs allow, and what to do."""
    n, cross = calibration.n, not calibration.is_guaranteed
    # anomaly calibrate has it not
    fresh = good_images == n and not cross
    rank_only = "" if fresh else ", or --rank-only (order, no guarantee)"
    number = f"{n:,}" if what == "image" else f"{n:,} {what}{'' if n == 1 else 's'}"
    return (
        f"{good_text(good_images)}: {number} set{'s' if n == 1 else ''} the threshold. "
        f"Lowest {rate_word(calibration)} rate {percent(calibration.rate)} (could be "
        f"{percent(calibration.upper_bound)}{', estimated too' if cross else ''}). "
        f"{needs_text(DEFAULT_RATE)} "
        f"Add images, or --false-alarm-rate {lowest_target_rate(n)}{rank_only}."
    )


def needs_text(target_rate: float) -> str:
    """Returns how many good images (of different groups) must set the threshold for a false-alarm
    rate of ``target_rate``.
    """
    return f"{100 * target_rate:.6g} % needs {needed(target_rate):,} to set the threshold."


def enough_rows(
    prospect: Prospect, target_rate: float | None, calibrating: Calibrating = "split"
) -> list[tuple[str, str]]:
    """Returns the rate that good images will have before one is scored, and the lowest one;
    ``target_rate`` and ``calibrating``: as asked for.
    """
    lowest, asked = (
        Prospect.lowest(prospect.groups, prospect.kind),
        DEFAULT_RATE if target_rate is None else target_rate,
    )
    set_by = f", set by {prospect.n:,} of {prospect.groups:,}"
    rows = [("good images flagged", _rate_text(prospect.rate, prospect, set_by))]
    if prospect.kind == "cross":
        rows.append(("", ESTIMATED))
    if prospect.rate > asked:
        in_all = fewest_groups(asked, calibrating)
        rows.append(("", f"{needs_text(asked)} That takes {in_all:,} in all"))
    how = f"set by {lowest.n:,}, with --false-alarm-rate {lowest_target_rate(lowest.n)}"
    return [
        *rows,
        (
            f"lowest {rate_word(lowest.kind)} rate",
            f"{one_in(lowest.rate)} ({_could_be(lowest)}), {how}",
        ),
    ]


def more_rows(
    groups: int, target_rate: float | None, calibrating: Calibrating = "split"
) -> list[tuple[str, str]]:
    """Returns what more good images (of different groups) than ``groups`` would bring: a row for
    each number worth asking about.
    """
    rows = []
    for number in more_groups(groups, target_rate, calibrating):
        prospect = Prospect.of(number, target_rate, calibrating)
        who = (
            f"all {number:,} train and set"
            if prospect.kind == "cross"
            else f"{prospect.n:,} of {number:,} set"
        )
        rows.append(f"{number - groups:,} more: {_could_be(prospect)}; {who} the threshold")
    return [("" if index else "more good images", row) for index, row in enumerate(rows)]


def place_text(calibration: Calibration, what: str = "image") -> str:
    """Returns where a threshold stands among the good images (or units: ``what``), and which rate
    that is.
    """
    sure = "95 % confident" if calibration.is_guaranteed else "estimated too, 95 % confident"
    of = "" if calibration.is_guaranteed else " estimated"
    place = "highest" if calibration.k == 1 else f"{ordinal(calibration.k)} highest"
    return (
        f"Set by the {place} of {calibration.n:,} good {what}s: "
        f"{percent(calibration.rate)}{of}; {sure}: at most "
        f"{percent(calibration.upper_bound)} in the long run."
    )


def change_rows(before: Guarantee, after: Guarantee) -> list[Change]:
    """Returns what a new threshold changes: rows of a label, the figure before and the figure
    after.
    """
    kinds = {g.calibration.kind for g in (before, after) if g.calibration is not None}
    word = "guaranteed rate" if kinds <= {"split"} else "false-alarm rate"
    labels = ("threshold", word, "upper bound (95 %)", "set by")
    rows = list(zip(labels, guarantee_figures(before), guarantee_figures(after), strict=True))
    if any(g.calibration is not None and g.calibration.review for g in (before, after)):
        second = ("review threshold", "flagged or review", "upper bound (95 %)")
        rows += zip(second, review_figures(before), review_figures(after), strict=True)
    return rows


def review_figures(guarantee: Guarantee) -> tuple[str, str, str]:
    """Returns the review threshold, its rate and its upper bound, in words."""
    review = None if guarantee.calibration is None else guarantee.calibration.review
    if review is None:
        return "none", "none", "none"
    if guarantee.preview:
        return f"{review.threshold:.4g}", "none: a preview", "none"
    estimated = "" if review.is_guaranteed else ", estimated"
    return (
        f"{review.threshold:.4g}",
        f"{exact_percent(review.rate)} ({review.k:,} of {review.n + 1:,}){estimated}",
        f"{exact_percent(review.upper_bound)}{estimated}",
    )


def guarantee_figures(guarantee: Guarantee) -> tuple[str, str, str, str]:
    """Returns threshold, rate, upper bound, and what set the threshold, in words."""
    c = guarantee.calibration
    if c is None:
        return "none", "none: it only ranks", "none", "nothing"
    threshold, images = (
        f"{c.threshold:.4g}",
        good_text(c.n, guarantee.what),
    )
    estimated = "" if c.is_guaranteed else ", estimated"
    if guarantee.preview:
        return threshold, "none: a preview", "none", f"by hand, on {images}"
    return (
        threshold,
        f"{exact_percent(c.rate)} ({c.k:,} of {c.n + 1:,}){estimated}",
        f"{exact_percent(c.upper_bound)}{estimated}",
        images,
    )


def changes_text(changes: Sequence[Change]) -> str:
    """Returns rows as lines with a heading."""
    lines = [("", "before", "after"), *changes]
    width = max(BEFORE_WIDTH, *(len(old) + 2 for _, old, _ in lines))
    return rows_text((label, f"{old:<{width}}{new}".rstrip()) for label, old, new in lines)


def _missed(recall: Rate | None, run: str) -> str:
    if recall is None:
        return f"unknown: no defect images were given -> anomaly evaluate {run} LABELLED"
    missed = recall.n - recall.flagged
    return (
        f"{missed:,} of {recall.n:,} defect image{'s' if recall.n != 1 else ''} "
        f"({percent(1 - recall.value)}; 95 %: {between(1 - recall.high, 1 - recall.low)})"
    )


def _rate_text(rate: float, of: Calibration | Prospect, set_by: str = "") -> str:
    bound = f"95 % confident: at most {_out_of(of.upper_bound)} in the long run"
    about = f"about {one_in(rate)} ({exact_percent(rate)})"
    if of.kind == "split":
        return f"{about}{set_by}; {bound}"
    return f"estimated {about}{set_by}; estimated too, {bound}"


def _seen_by(calibration: Calibration, good_images: int) -> str:
    """Returns what training made of the images that set a threshold."""
    if not calibration.is_guaranteed:
        return ", each scored by a model that did not see it"
    return "" if good_images == calibration.n else " that training did not see"


def why(kind: Kind) -> list[str]:
    """Returns why a rate is estimated, a line; none where it is guaranteed."""
    return [] if kind == "split" else [f"{ESTIMATED[0].upper()}{ESTIMATED[1:]}."]


def _could_be(prospect: Prospect) -> str:
    word = "guarantee" if prospect.kind == "split" else "estimate"
    return f"{word} {100 * prospect.rate:.2g} %, could be {percent(prospect.upper_bound)}"


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
