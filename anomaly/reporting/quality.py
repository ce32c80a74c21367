"""Whether a detector is still right and how fast it is, in words."""

from __future__ import annotations

from anomaly.files.numbers import percent
from anomaly.imaging.listing import passed_text
from anomaly.reporting.lines import names_text, rows_text
from anomaly.scoring.speed import Bench
from anomaly.statistics.calibration import needed, rate_word
from anomaly.statistics.check import Check
from anomaly.statistics.known_parts import Challenge, Repeat

SMALL_SAMPLE_IMAGES = 20  # images, below which only a large change can be seen


def check_text(check: Check, run: str, normal: str) -> str:
    """Returns the advice, why, and the command to give next."""
    lines = [("advice", f"{check.advice}: {_why(check)}"), ("next", _next(check, run, normal))]
    lines.append(
        (
            f"good {check.what}s flagged",
            f"{check.flagged} of {check.images}; expect {check.expected:.2g}, up to "
            f"{check.ordinary_up_to} is ordinary (of three tests: up to {check.flagged_up_to})",
        )
    )
    lines.append(
        (
            "unlike the training",
            f"{check.outside} of {check.images}; up to {check.outside_up_to} is ordinary",
        )
    )
    lines.append(
        (
            "scores",
            f"p = {check.p_value:.2g} that they are distributed as before; "
            f"{check.spread:.2f} times as widely spread",
        )
    )
    if check.images < SMALL_SAMPLE_IMAGES:
        lines.append(
            (
                "note",
                f"{check.images} good {check.what}s show a large change only; "
                f"{SMALL_SAMPLE_IMAGES} or more are better",
            )
        )
    return rows_text(lines)


def _why(check: Check) -> str:
    scores = f"the scores of good {check.what}s"
    if check.outside > check.outside_up_to:
        causes = "light, focus, camera, another product"
        return (
            f"{check.outside} of {check.images} good {check.what}s are unlike those of the "
            f"training: {causes}"
        )
    if check.advice == "retrain":
        return (
            f"{scores} are {check.spread:.1f} times as widely spread: a new threshold would let "
            "defects pass"
        )
    if check.advice == "recalibrate" and check.flagged > check.flagged_up_to:
        return (
            f"{check.flagged} of {check.images} good {check.what}s are flagged: the "
            f"{rate_word(check.kind)} rate no longer holds"
        )
    if check.advice == "recalibrate":
        return (
            f"{scores} changed, so the {rate_word(check.kind)} rate no longer holds; they are "
            "spread about as before"
        )
    return f"no sign that good {check.what}s look different from those that set the threshold"


def _next(check: Check, run: str, normal: str) -> str:
    if check.advice == "keep":
        return "nothing to do"
    if check.advice == "retrain":
        return (
            "mend light, focus or camera if that is the cause, else  anomaly train ALL_GOOD "
            f"--out NEW  with {normal} in it"
        )
    few = check.images < needed(check.target_rate)
    more = (
        (
            f" (the guarantee of {percent(check.target_rate)} needs {needed(check.target_rate)} "
            f"of them, {check.images} found)"
        )
        if few
        else ""
    )
    return f"anomaly calibrate {run} --normal {normal}{more}"


def challenge_text(challenge: Challenge) -> str:
    """Returns how many known bad parts were missed, and how many could be."""
    lines = [
        (
            "challenge parts",
            f"{len(challenge.missed)} of {challenge.judged} missed; up to "
            f"{percent(challenge.upper_bound)} could be missed (95 %)",
        )
    ]
    if challenge.missed:
        lines.append(("missed", names_text(challenge.missed)))
    if challenge.not_judged:
        lines.append(("not judged", f"{names_text(challenge.not_judged)}: treat as not OK"))
    if challenge.passed_over:
        lines.append(("passed over", passed_text(challenge.passed_over)))
    return rows_text(lines)


def repeat_text(repeat: Repeat) -> str:
    """Returns how far the results of photographs of one part agree."""
    lines = [
        (
            "repeated parts",
            f"{repeat.parts} parts, {repeat.images} photographs; {len(repeat.flipping)} parts flip",
        ),
        ("flips", f"{repeat.odd} of {repeat.images} photographs differ from most of their part"),
        (
            "spread of one part",
            f"{repeat.spread:.2f} of (threshold - typical), standard deviation",
        ),
    ]
    if repeat.flipping:
        lines.insert(1, ("flipping", names_text(repeat.flipping)))
    if repeat.not_judged:
        lines.append(("not judged", f"{repeat.not_judged} photographs: treat as not OK"))
    if repeat.passed_over:
        lines.append(("passed over", passed_text(repeat.passed_over)))
    return rows_text(lines)


def bench_text(bench: Bench) -> str:
    """Returns the figures in words, one a line."""
    per_image = ", ".join(
        f"{name.replace('_', '.')} {value:.1f} ms" for name, value in bench.one_image.items()
    )
    lines = {
        "images": f"{bench.images} of {bench.sizes}; {bench.threads} threads, {bench.device}",
        "decode alone": _rate(bench.decode),
        "model alone": _rate(bench.model),
        "end to end": (
            f"{_rate(bench.end_to_end)}: {bench.reached:.2f} of the {bench.bound:,.1f} that both "
            f"allow; {bench.bounded_by} bounds it"
        ),
        "one image": f"{per_image} (alone, of {bench.calls:,} calls)",
        "start-up": f"{bench.start_up:.2f} s from a cold start to a table of one image",
        "memory": (
            f"{bench.peak:.0f} MB at most, {bench.loaded:.0f} MB of it before the first image"
        ),
    }
    return rows_text(lines.items())


def _rate(images_per_second: float) -> str:
    return f"{images_per_second:,.1f} a second ({1000 / images_per_second:.2f} ms each)"
