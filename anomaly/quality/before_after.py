"""What of a guarantee gets worse with a new threshold."""

from __future__ import annotations

from anomaly.detector.guarantee import Guarantee
from anomaly.errors import CalibrationError
from anomaly.files.numbers import exact_percent
from anomaly.statistics.calibration import DEFAULT_RATE, rate_word

# times the upper bound of before: what about half as many images make of it
WORSE_UPPER_BOUND_RATIO = 1.15


def worse(before: Guarantee, after: Guarantee) -> list[str]:
    """Returns what gets worse from ``before`` to ``after``, each in a few words; empty where
    nothing does.

    The first threshold of a detector that only ranked is no change for the worse. A preview is
    compared by the rate that its rank would have, so that a moved threshold is no way round. A rate
    that rises within the target rate, because as many or more images allow a higher rank, is what
    was asked for.
    """
    old, new = before.calibration, after.calibration
    if old is None:
        return []
    if new is None or not after.holds:
        return ["no guaranteed rate: a threshold moved after looking at results is a preview"]
    found = []
    if old.is_guaranteed and not new.is_guaranteed:
        found.append("the rate would be estimated, no longer guaranteed")
    if before.what == "unit" and after.what == "image":
        found.append(f"the rate would be {rate_word(new)} per image, no longer per unit")
    target = old.target_rate or DEFAULT_RATE
    as_asked = new.n >= old.n and new.rate <= target
    if new.k * (old.n + 1) > old.k * (new.n + 1) and not as_asked:
        found.append(
            f"{rate_word(new)} rate {exact_percent(new.rate)} instead of {exact_percent(old.rate)}"
        )
    if new.upper_bound > WORSE_UPPER_BOUND_RATIO * old.upper_bound and not as_asked:
        found.append(
            f"upper bound {exact_percent(new.upper_bound)} instead of "
            f"{exact_percent(old.upper_bound)}"
        )
    return (
        [*found, f"{new.n:,} calibration images instead of {old.n:,}"]
        if found and new.n < old.n
        else found
    )


def refuse_worse(before: Guarantee, after: Guarantee) -> None:
    """Raises CalibrationError where ``after`` is worse than ``before``."""
    found = worse(before, after)
    if found:
        raise CalibrationError(
            f"the guarantee would get worse: {'; '.join(found)}. Nothing was written: give more "
            "good images, or --accept-worse to write it all the same"
        )
