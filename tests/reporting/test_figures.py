"""The figures of a report: counts first, the worst class first."""

from __future__ import annotations

import dataclasses

from anomaly.reporting.page import page
from tests.reporting.test_report import CARD, FIGURES, full, section


def test_the_figures_say_counts_first() -> None:
    assert section(page(full()), "figures") == (
        "What it does "
        "Good images flagged 4 of 302 expected 3, up to 8 is ordinary ✓ as guaranteed "
        "Defects flagged 87 of 120 72 %; 95 %: 64 to 80 % 33 missed "
        "Ranking (AUROC) 0.941 95 %: 0.920 to 0.960 1 is perfect, 0.5 is chance "
        "Average precision 0.900 95 %: 0.800 to 0.950 1 is perfect "
        "Where it is (AUPRO) 0.880 pixel AUROC 0.970 "
        "302 good and 120 defective images were judged. "
        "The same in words ranking (AUROC) 0.941"
    )


def test_a_broken_guarantee_is_said() -> None:
    alarms = FIGURES["false_alarms"] | {"flagged": 9}
    said = section(page(full(figures=FIGURES | {"false_alarms": alarms})), "figures")
    assert (
        "9 of 302 expected 3, up to 8 is ordinary ✗ more than chance explains: these are "
        "unlike the images"
    ) in said


def test_without_a_threshold_nothing_is_claimed() -> None:
    card = dataclasses.replace(CARD, calibration=None)
    figures = FIGURES | {"false_alarms": None, "recall": None}
    source = page(full(card=card, figures=figures, threshold=None, median=None, p_values=None))
    assert (
        "Good images flagged \N{EN DASH} no threshold, or no good images Defects flagged "
        "unknown no threshold"
    ) in section(source, "figures")
    assert 'id="calibration"' not in source
    assert "above the threshold" not in source and "threshold none: rank only" in section(
        source, "detector"
    )


def test_the_worst_class_comes_first() -> None:
    assert section(page(full()), "classes").split("Flagged ", 1)[1] == (
        "crack 61 0.910 95 %: 0.800 to 0.950 37 of 60 62 %; 95 %: 48 to 74 %; "
        "23 of 60 missed; at most 50 % (95 %) "
        "blowhole 60 0.970 95 %: 0.900 to 0.990 50 of 60 83 %; 95 %: 71 to 92 %; "
        "10 of 60 missed; at most 27 % (95 %) "
        "fray 0 \N{EN DASH} \N{EN DASH}"
    )


def test_a_rate_that_is_estimated_is_not_called_guaranteed() -> None:
    alarms = FIGURES["false_alarms"] | {"guaranteed_rate": None, "estimated_rate": 0.01}
    shown = page(dataclasses.replace(full(), figures=FIGURES | {"false_alarms": alarms}))
    assert "up to 8 is ordinary ✓ as estimated" in section(shown, "figures")
