"""What a heatmap and an expected picture look like, on every page and in every report the same.

Colours depend on t = (v - m) / (threshold - m) alone, where m is a typical good image and the
threshold flags one: never on the other pixels of the image. So the same colour is the same evidence
everywhere, and a normal image stays calm.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]

# (t, red, green, blue, opacity). Clear up to half way to the threshold, yellow at it, red at twice
# and violet at four times the distance; darker where it is worse, so that it reads without colour
# vision too.
STOPS = np.array(
    [
        (0.5, 255, 240, 120, 0.0),
        (1.0, 255, 221, 51, 0.6),
        (2.0, 230, 60, 30, 0.9),
        (4.0, 120, 10, 100, 1.0),
    ]
)
GAIN = 3  # of the difference: a fault of 85 grey levels is white


def heatmap_scale(
    heatmap: npt.NDArray[np.float32], median: float, threshold: float
) -> npt.NDArray[np.float32]:
    """Returns t of each cell, float32 (h, w): 0 is a typical good image, 1 the threshold; higher is
    more anomalous.

    A cell that is not a number counts as infinitely high.
    """
    # calibration scores that are all equal
    span = max(threshold - median, float(np.finfo(np.float32).tiny))
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = (heatmap.astype(np.float64) - median) / span
    finite: npt.NDArray[np.float64] = np.nan_to_num(
        scaled, nan=np.inf, posinf=np.inf, neginf=-np.inf
    )
    return finite.clip(-1e9, 1e9).astype(np.float32)


def heatmap_colours(heatmap: npt.NDArray[np.float32], median: float, threshold: float) -> Pixels:
    """Returns the overlay of a heatmap (h, w), RGBA uint8 (h, w, 4)."""
    t = heatmap_scale(heatmap, median, threshold)
    places, colours = STOPS[:, 0], STOPS[:, 1:] * (1, 1, 1, 255)
    return (
        np.stack([np.interp(t, places, colour) for colour in colours.T], axis=-1)
        .round()
        .astype(np.uint8)
    )


def over(picture: Pixels, overlay: Pixels, opacity: float = 1.0) -> Pixels:
    """Returns RGBA ``overlay`` (h, w, 4) laid over ``picture`` (h, w, 3), uint8 (h, w, 3)."""
    share = overlay[..., 3:].astype(np.float32) * (opacity / 255)
    return (picture * (1 - share) + overlay[..., :3] * share).round().astype(np.uint8)


def difference(picture: Pixels, expected: Pixels) -> Pixels:
    """Returns how far ``picture`` (H, W, 3) is from what the model ``expected`` (h, w, 3), uint8
    (h, w), brighter is farther.

    The largest of the three channels, times a gain that is the same for all images, at the model's
    size.
    """
    from PIL import Image

    height, width = expected.shape[:2]
    small = np.asarray(
        Image.fromarray(picture).resize((width, height), Image.Resampling.BILINEAR), np.int16
    )
    apart = np.abs(small - expected.astype(np.int16)).max(axis=-1)
    shown: Pixels = np.minimum(apart * GAIN, 255).astype(np.uint8)
    return shown
