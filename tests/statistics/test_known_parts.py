"""How many bad parts may be missed."""

from __future__ import annotations

import pytest

from anomaly.statistics.known_parts import Challenge


def test_the_bound_is_clopper_pearsons() -> None:
    assert Challenge(12, (), ()).upper_bound == pytest.approx(1 - 0.05 ** (1 / 12))
    assert Challenge(3, ("a", "b", "c"), ()).upper_bound == 1
    assert Challenge(2, (), ("a", "b")).upper_bound == 1  # none was judged: nothing is known
