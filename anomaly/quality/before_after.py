"""What of a guarantee gets worse with a new threshold."""

from __future__ import annotations

from anomaly.detector.guarantee import Guarantee
from anomaly.errors import CalibrationError
from anomaly.files.numbers import exact_percent
from anomaly.statistics.calibration import DEFAULT_RATE

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
    if before.what == "unit" and after.what == "image":
        found.append("the rate would be guaranteed per image, no longer per unit")
    target = old.target_rate or DEFAULT_RATE
    as_asked = new.n >= old.n and new.guaranteed_rate <= target
    if new.k * (old.n + 1) > old.k * (new.n + 1) and not as_asked:
        found.append(
            f"guaranteed rate {exact_percent(new.guaranteed_rate)} instead of "
            f"{exact_percent(old.guaranteed_rate)}"
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
