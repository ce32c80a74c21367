"""What an evaluation found, in words."""

from __future__ import annotations

from anomaly.files.numbers import between, count_text, good_text, percent
from anomaly.statistics.calibration import Calibration, Rate


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
        f"{flagged.flagged:,} of {good_text(flagged.n, what)} flagged ({percent(flagged.value)}; "
        f"95 %: {between(flagged.low, flagged.high)}{every}); {expected}"
    )
