"""The comparison of recipes on synthetic and on real defects."""

from __future__ import annotations

from pathlib import Path

from training.experiments.ablation import run_case, table
from training.experiments.benchmark import Case
from training.options import TrainOptions


def test_a_case_is_judged_on_synthetic_and_on_real_defects(parts: Path) -> None:
    options = TrainOptions(parts, parts / "unused", space="filters", size=64, quality="default")
    found = run_case(Case("discs 0", parts, 0, True), options)
    assert len(found) >= 3  # the whole image, coarse and fine, and the part
    assert all(
        0.4 < figures[kind] <= 1 for figures in found.values() for kind in ("synthetic", "real")
    )


def test_the_table_names_what_is_chosen_by_synthetic_defects() -> None:
    def figures(made: float, real: float) -> dict[str, float]:
        return {"synthetic": made, "real": real}

    results = {
        "tiles": {"a": figures(0.8, 0.9), "b": figures(0.7, 0.8), "c": figures(0.6, 0.7)},
        "cells": {"a": figures(0.8, 0.7), "b": figures(0.7, 0.8), "c": figures(0.6, 0.9)},
    }
    said = table(results)
    assert "| tiles | a | 0.900 | 0.900 | 0.800 | 1.00 |" in said
    assert "| cells | a | 0.700 | 0.900 | 0.800 | -1.00 |" in said
    assert said.endswith("mean rank correlation 0.00")
