"""The pictures of a report."""

from __future__ import annotations

import numpy as np

from anomaly.imaging.overlay import stretched
from anomaly.reporting.page import page
from tests.reporting.test_report import full, item, section


def test_an_image_that_was_not_judged_has_no_heatmap() -> None:
    found = section(
        page(full(galleries={"not inspected": [item(heatmap=None, expected=None)]})), "pictures"
    )
    assert found.endswith("original not available heatmap test/crack/1.png crack. FLAGGED.")


def test_what_was_expected_has_the_shape_of_its_picture() -> None:
    tall = np.zeros((40, 20, 3), np.uint8)
    found = page(
        full(galleries={"misses": [item(original=tall, heatmap=np.zeros((4, 4), np.float32))]})
    )
    assert found.count('width="20" height="40"') == 3  # original, expected and heatmap
    ramp = np.repeat(np.arange(16, dtype=np.uint8)[:, None, None], 16, 1).repeat(3, 2)
    assert stretched(ramp, tall).shape == tall.shape
    assert stretched(ramp, tall)[0].max() == 0 and stretched(ramp, tall)[-1].min() == 15
