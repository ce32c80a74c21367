"""The drawings of a report: what they count, and that odd scores are drawn."""

from __future__ import annotations

import re

import numpy as np
import pytest

from anomaly.reporting.page import page
from tests.reporting.test_report import Page, full, section


def test_scores_are_counted_at_the_threshold() -> None:
    scores = {"good": [0.1, 0.5, 0.5, 0.50001], "crack": [0.5, 9.0, np.inf, np.nan], "empty": []}
    source = page(full(scores=scores, threshold=0.5))
    labels = [
        a["aria-label"] for a in Page(source).all("svg") if str(a.get("class")).startswith("strip")
    ]
    assert labels == [
        "Scores of 4 images, good: 1 above the threshold",
        "Scores of 2 images, crack: 1 above the threshold",
    ]


@pytest.mark.parametrize("scores", [[0.5], [0.5, 0.5], [-1e30, 1e30], [0.0, 0.0], [1e-40, 2e-40]])
def test_odd_scores_are_drawn(scores: list[float]) -> None:
    source = page(full(scores={"good": scores}, threshold=scores[0]))
    drawn = re.search(r'<section id="scores".*?</section>', source, re.DOTALL)
    assert drawn is not None and not re.search(r"\b(nan|inf)\b", drawn[0])


def test_the_calibration_band_holds_uniform_p_values_and_not_others() -> None:
    kept = section(page(full(p_values=np.arange(1, 201) / 200)), "calibration")
    assert "the curve is outside at 0 (by chance alone" in kept
    broken = section(page(full(p_values=np.full(200, 1 / 200))), "calibration")
    assert int(re.search(r"outside at (\d+) ", broken)[1]) > 50  # type: ignore[index]
