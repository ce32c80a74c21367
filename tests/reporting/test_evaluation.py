"""False alarms beside what was guaranteed."""

from __future__ import annotations

import numpy as np

from anomaly.reporting.evaluation import realised_text
from anomaly.statistics.calibration import Rate, calibrate


def test_realised_false_alarms():
    found = calibrate(np.arange(300.0))
    assert realised_text(Rate.of(5, 302), found) == (
        "5 of 302 good images flagged (1.7 %; 95 %: 0.54 to 3.8 %); expected 3, up to 8 is ordinary"
    )
    assert realised_text(Rate.of(9, 302), found) == (
        "9 of 302 good images flagged (3 %; 95 %: 1.4 to 6 %); expected 3, up to 8 is ordinary: "
        "more than chance explains, these good images are unlike the ones that set the threshold"
    )
    assert realised_text(Rate.of(5, 302), found, (5, 302)) == realised_text(Rate.of(5, 302), found)
    assert realised_text(Rate.of(5, 302), found, (14, 906)) == (
        "5 of 302 good images flagged (1.7 %; 95 %: 0.54 to 3.8 %, one of each group; 14 of 906 "
        "counting every image); expected 3, up to 8 is ordinary"
    )
    assert realised_text(Rate.of(0, 1), found) == (
        "0 of 1 good image flagged (0 %; 95 %: 0 to 98 %); expected 0.01, up to 0 is ordinary"
    )
