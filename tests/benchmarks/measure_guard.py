"""How well a training range works: how many good test images are not judged, and how many changed
copies are.

    python -m tests.benchmarks.measure_guard RUN LABELLED

LABELLED is a data set whose good test images the detector has not seen. Copies are made of the
decoded pixels: neither noise nor compression is added again.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from anomaly.files.numbers import percent
from anomaly.inputs.dataset import labelled_test, read_dataset
from anomaly.scorer import Scorer
from anomaly.statistics.calibration import Rate
from training.guard import darker, turned

Pixels = np.ndarray


def blurred(sigma: float) -> Callable[[Pixels], Pixels]:
    return lambda pixels: np.asarray(
        Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(sigma))
    )


def deep(pixels: Pixels) -> Image.Image:
    """Returns grey pixels as 12 bits in a 16-bit image, as a camera writes them."""
    return Image.fromarray(pixels[..., 0].astype(np.uint16) * 16 + 8)


COPIES: dict[str, Callable[[Pixels], Pixels | Image.Image]] = {
    "as they are": lambda pixels: pixels,
    "two stops darker, in linear light": darker,
    "two stops darker, pixels / 4": lambda pixels: pixels // 4,
    "12 bits in a 16-bit file": deep,
    "12 bits scaled as 16 (pixels / 16)": lambda pixels: pixels // 16,
    "out of focus, Gaussian of 1 pixel": blurred(1),
    "out of focus, Gaussian of 2 pixels": blurred(2),
    "out of focus, Gaussian of 3 pixels": blurred(3),
    "turned by 90 degrees": turned,
    "turned by 90 degrees, the other way": lambda pixels: np.ascontiguousarray(
        np.rot90(pixels, -1)
    ),
}


def main(run: Path, labelled: Path) -> None:
    scorer, records = Scorer(run, device="cpu"), labelled_test(read_dataset(labelled))
    good = [scorer.decode(r.path).pixels for r in records if r.label == "good"]
    for name, change in COPIES.items():
        results = [scorer.score(change(pixels)) for pixels in good]
        print(f"{name:<40}{said([result.status == 'outside' for result in results])}", flush=True)
        assert all(result.is_anomaly is None for result in results if result.status == "outside")
    defective = [scorer.score(r.path) for r in records if r.label != "good"]
    print(f"{'defective images':<40}{said([result.status == 'outside' for result in defective])}")


def said(outside: list[bool]) -> str:
    rate = Rate.of(sum(outside), len(outside))
    return (
        f"{rate.flagged:>5} of {rate.n:<5} {percent(rate.value):>7}   (95 %: {percent(rate.low)} "
        f"to {percent(rate.high)})"
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
