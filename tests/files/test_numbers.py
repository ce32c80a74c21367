"""Numbers as text."""

from __future__ import annotations

import pytest

from anomaly.files.numbers import one_in, percent


@pytest.mark.parametrize(
    ("rate", "text"),
    [
        (0.00995, "1 %"),
        (0.0234, "2.3 %"),
        (0.0909, "9 %"),
        (0.259, "26 %"),
        (0, "0 %"),
        (0.00016, "0.016 %"),
    ],
)
def test_percent(rate, text):
    assert percent(rate) == text


@pytest.mark.parametrize(
    ("rate", "text"), [(2 / 201, "1 in 100"), (1 / 2000, "1 in 2,000"), (10 / 41, "24 in 100")]
)
def test_one_in(rate, text):
    assert one_in(rate) == text
