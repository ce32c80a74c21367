"""`anomaly reconstruct`: images beside what the model expected to see."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from anomaly.errors import DatasetError, ImageError
from anomaly.imaging.overlay import grid, overlay
from anomaly.inputs.dataset import Record, read_dataset
from anomaly.scorer import Scorer, colour_anchors

SIDE = 256  # pixels a side of a picture of `anomaly reconstruct`


def reconstructions(
    scorer: Scorer, images: Path, count: int
) -> tuple[npt.NDArray[np.uint8], int, list[str]]:
    """Returns one picture with a row for each image (original, expected, heatmap), how many, and
    the errors.
    """
    from PIL import Image

    tiles, errors = [], []
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
                "or not its own)"
            )
        original = np.asarray(Image.fromarray(decoded.pixels).resize((SIDE, SIDE)))
        picture = (
            original
            if result.heatmap is None
            else overlay(original, result.heatmap, *colour_anchors(scorer, result))
        )
        tiles += [original, np.asarray(Image.fromarray(expected).resize((SIDE, SIDE))), picture]
    if not tiles:
        raise DatasetError(
            f"{images}: no image could be read, the first error: {(errors or ['none found'])[0]}"
        )
    return grid(np.stack(tiles), columns=3), len(tiles) // 3, errors
