"""`anomaly reconstruct`: images beside what the model expected to see."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from anomaly.errors import DatasetError, ImageError
from anomaly.imaging.captions import captioned
from anomaly.imaging.overlay import grid, overlay
from anomaly.imaging.pillow import Pixels
from anomaly.inputs.dataset import Record, read_dataset
from anomaly.reporting.pictures import row_text
from anomaly.scorer import Scorer
from anomaly.scoring.pictures import colour_anchors

SIDE = 256  # pixels a side of a picture of `anomaly reconstruct`


def reconstructions(
    scorer: Scorer, images: Path, count: int
) -> tuple[npt.NDArray[np.uint8], int, list[str]]:
    """Returns one picture with a row for each image (original, expected, heatmap) under its name
    and result, how many, and the errors.
    """
    rows, errors = [], []
    for record in (
        read_dataset(images, plain=None)[:count]
        if images.is_dir() or images.suffix in (".csv", ".parquet")
        else [Record(images, None, None, "", None)]
    ):
        try:
            decoded = scorer.decode(record.path)
        except ImageError as error:
            errors.append(str(error))
            continue
        result, expected = scorer.judge(decoded), scorer.explain(decoded)
        if expected is None:
            raise DatasetError(
                f"{scorer.path}: what it expects is not available (explain.onnx is not beside it, "
                "or not its own; anomaly train --no-expected-picture leaves it out)"
            )
        original, expected = resized(decoded.pixels), resized(expected)
        picture = (
            original
            if result.heatmap is None
            else overlay(original, result.heatmap, *colour_anchors(scorer, result))
        )
        said = row_text(record.path.name, result)
        rows.append(captioned(grid([original, expected, picture], 3), [said]))
    if not rows:
        raise DatasetError(
            f"{images}: no image could be read, the first error: {(errors or ['none found'])[0]}"
        )
    return np.concatenate(rows), len(rows), errors


def resized(pixels: Pixels) -> Pixels:
    """Returns a picture of SIDE pixels a side; one that is smaller is enlarged pixel by pixel."""
    from PIL import Image

    small = max(pixels.shape[:2]) < SIDE
    how = Image.Resampling.NEAREST if small else Image.Resampling.BICUBIC
    return np.asarray(Image.fromarray(pixels).resize((SIDE, SIDE), how))
