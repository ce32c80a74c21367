"""What two detectors disagree on, in words."""

from __future__ import annotations

from anomaly.reporting.comparison import comparison_text
from anomaly.scoring.comparison import Pairs
from tests.scoring.test_comparison import compared

PAIRED = "(paired test of independent images: p = 1)"


def test_counts_flips_and_the_better_one_are_said() -> None:
    found = compared(Pairs(2, 0, 1, 1, 0), Pairs(2, 2, 1, 0, 1))
    assert comparison_text(found).splitlines() == [
        "old                     parts@1",
        "new                     parts@2",
        "all images              2 of 4 flagged by the old, 2 by the new; 1 only by the new, 1 "
        f"only by the old {PAIRED}",
        "good images             0 of 2 flagged by the old, 1 by the new; 1 only by the new, 0 "
        f"only by the old {PAIRED}",
        "defective images        2 of 2 flagged by the old, 1 by the new; 0 only by the new, 1 "
        f"only by the old {PAIRED}",
        "better by the labels    neither",
        "now flagged             b.png",
        "now passed              c.png",
    ]
