"""What a detector's graph says of types of defects is one score for each name, or it is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from anomaly.detector.file import read_card
from anomaly.detector.outputs import check_types
from anomaly.detector.training_facts import KnownDefectFacts
from anomaly.errors import ImageError


@pytest.mark.parametrize("found", [[0.5], [0.5, 0.2, 0.1], [0.5, np.nan], [0.5, 1.5], [-0.1, 0.2]])
def test_type_scores_that_are_none_are_an_error(run: Path, found: list[float]) -> None:
    card = read_card(run)
    known = KnownDefectFacts({"dent": 6, "stain": 5}, ("dent", "stain"))
    card = replace(card, training=replace(card.training, known_defects=known))
    check_types(np.array([0.0, 1.0], np.float32), card)
    with pytest.raises(ImageError, match="for each of 2 types expected"):
        check_types(np.array(found, np.float32), card)
