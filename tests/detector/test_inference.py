"""Outputs of a graph that are not what it declares."""

from __future__ import annotations

import numpy as np
import pytest

from anomaly.detector.inference import check_shape
from anomaly.errors import ImageError


@pytest.mark.parametrize(("shape", "dimensions"), [((2,), 1), ((2, 8, 8), 3), ((2, 8, 8, 3), 4)])
def test_an_output_has_a_row_for_each_image(shape: tuple[int, ...], dimensions: int) -> None:
    check_shape("score", np.zeros(shape, np.float32), 2, dimensions)


@pytest.mark.parametrize(
    ("shape", "dimensions"),
    [((1,), 1), ((2, 1), 1), ((2, 0, 8), 3), ((2, 8, 8, 4), 4), ((2, 1 << 13, 1 << 13), 3)],
)
def test_any_other_output_is_an_error(shape: tuple[int, ...], dimensions: int) -> None:
    output = np.broadcast_to(np.float32(0), shape)
    with pytest.raises(ImageError, match="the detector is damaged"):
        check_shape("score", output, 2, dimensions)
