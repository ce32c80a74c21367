"""Two detectors on the same images: the paired test, and which one is better."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from scipy.stats import binomtest

from anomaly.inputs.dataset import Record
from anomaly.scorer import Result
from anomaly.scoring.comparison import Comparison, Pairs


def detector(version: str) -> Any:
    return SimpleNamespace(card=SimpleNamespace(identity=f"parts@{version}"))


def compared(good: Pairs, bad: Pairs) -> Comparison:
    """Returns a comparison of four images, of which the new detector flags b and passes c."""
    names = [Record(Path(f"{name}.png"), "test", None, name, None) for name in "abcd"]
    flags = [(False, False), (False, True), (True, False), (True, True)]
    results = [
        (Result("ok", 1.0, is_anomaly=old), Result("ok", 2.0, is_anomaly=new)) for old, new in flags
    ]
    every = Pairs(4, 2, 2, 1, 1)
    kinds = {"all images": every, "good images": good, "defective images": bad}
    return Comparison(detector("1"), detector("2"), names, results, kinds, 0)


@pytest.mark.parametrize(("only_new", "only_old"), [(0, 0), (5, 0), (3, 9), (8, 8)])
def test_the_paired_test_is_mcnemars(only_new: int, only_old: int) -> None:
    flips = only_new + only_old
    expected = 1.0 if flips == 0 else binomtest(only_new, flips).pvalue
    assert Pairs(100, 20, 20 + only_new - only_old, only_new, only_old).p_value == pytest.approx(
        expected
    )


def test_the_better_one_is_so_by_good_and_by_defective_images() -> None:
    same, fewer, more = Pairs(50, 5, 5, 0, 0), Pairs(50, 20, 5, 0, 15), Pairs(50, 5, 20, 15, 0)
    assert compared(fewer, same).better == "new"  # flags fewer good images
    assert compared(same, fewer).better == "old"  # finds fewer defects
    assert compared(more, more).better == compared(same, same).better == "neither"


def test_flips_are_those_on_which_they_disagree() -> None:
    found = compared(Pairs(2, 0, 0, 0, 0), Pairs(2, 0, 0, 0, 0))
    assert (found.flips(True), found.flips(False)) == ([1], [2])
