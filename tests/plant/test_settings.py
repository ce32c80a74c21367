from __future__ import annotations

from datetime import time
from pathlib import Path

import pytest

pytest.importorskip("sqlalchemy")

from anomaly.errors import AnomalyError
from anomaly.plant.settings import Plant, read_plant


def test_a_plant_is_what_its_file_says(tmp_path: Path) -> None:
    file = tmp_path / "plant.toml"
    file.write_text('shifts = ["06:00", "18:00"]\nzone = "Asia/Tokyo"\norder = "order-(\\\\d+)"\n')
    plant = read_plant(file)
    assert plant.calendar.starts == (time(6), time(18))
    assert str(plant.calendar.zone) == "Asia/Tokyo" and plant.names.order == r"order-(\d+)"
    assert read_plant(None) == Plant()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("shifts = [", "not a TOML file"),
        ("shift = []", "'shift' found, one of shifts"),
        ('shifts = ["25:00"]', "times such as 06:00"),
        ("zone = 1", "text expected"),
        ('zone = "Mars/Base"', "Europe/Berlin expected"),
        ('line = "("', "line '(' found, a regular expression expected"),
    ],
)
def test_what_is_wrong_is_said_in_one_line_with_the_file(
    content: str, said: str, tmp_path: Path
) -> None:
    file = tmp_path / "plant.toml"
    file.write_text(content)
    with pytest.raises(AnomalyError) as found:
        read_plant(file)
    assert said in str(found.value) and str(file) in str(found.value)
    assert "\n" not in str(found.value)
