"""STATION.toml: what is read, and that whatever is wrong is said in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from anomaly.errors import AnomalyError
from anomaly.station.reading import read_station
from anomaly.station.settings import FolderSource, ModbusTrigger, Station, StdoutSink, VideoSource

WHOLE = """
detector = "run"
not_judged = "stop"
[unit]
views = ["left", "right"]
seconds = 2
[[source]]
kind = "folder"
name = "left"
path = "incoming"
[[source]]
kind = "video"
name = "right"
address = "clip.avi"
trigger = { kind = "modbus", address = "10.0.0.5", coil = 3 }
[[sink]]
kind = "stdout"
"""


def read(tmp_path: Path, text: str) -> Station:
    (tmp_path / "press.toml").write_text(text)
    return read_station(tmp_path / "press.toml")


def test_a_station_is_read_with_paths_from_its_folder(tmp_path: Path) -> None:
    station = read(tmp_path, WHOLE)
    assert station.sources == (
        FolderSource("left", tmp_path / "incoming"),
        VideoSource("right", str(tmp_path / "clip.avi"), ModbusTrigger("10.0.0.5", 3)),
    )
    assert station.sinks == (StdoutSink("stdout"),)
    facts = [getattr(station, name) for name in ("name", "state", "detector", "per", "not_judged")]
    assert facts == ["press", tmp_path / "press", tmp_path / "run", "unit", "stop"]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('detector = "run"', "", "no detector found"),
        ('not_judged = "stop"', 'not_judged = "good"', "one of 'reject', 'pass', 'stop' expected"),
        ('not_judged = "stop"', "notjudged = 1", "'notjudged' found, one of name, detector"),
        ('kind = "stdout"', 'kind = "plc"', "kind 'plc' found, one of stdout, table"),
        ('name = "left"', 'name = "right"', "name 'right' found"),
        ('name = "left"', 'name = "../x"', "name '../x' found"),
        ('path = "incoming"', "path = 3", "path is 3, a path expected"),
        ('kind = "stdout"', 'kind = "modbus"\nport = 99999', "modbus: port 99999 found"),
        ('kind = "stdout"', 'kind = ["stdout"]', r"kind \['stdout'\] found, one of stdout, table"),
        ('kind = "stdout"', 'kind = "folder"\npath = "x"\noutcomes = ["flaged"]', "flaged found"),
        (
            'detector = "run"',
            'detector = "run"\nwaiting = 0',
            "waiting is 0, a whole number from 1",
        ),
        ("coil = 3", 'coil = "3"', "coil is '3', a whole number from 0 on expected"),
        (", coil = 3", "", "no coil found"),
        ("seconds = 2", "seconds = 0", "seconds is 0, a number above 0 expected"),
        ('views = ["left", "right"]', 'views = ["left", "top"]', "views left, top found"),
        ('[[sink]]\nkind = "stdout"', "", r"no \[\[sink\]\] found"),
        ("[unit]", "[unit", "not a TOML file"),
        ('path = "incoming"', 'path = "incoming"\nserial = "("', "source left: serial: "),
    ],
)
def test_what_is_wrong_is_said_in_one_line(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in WHOLE
    with pytest.raises(AnomalyError, match=said) as error:
        read(tmp_path, WHOLE.replace(old, new))
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(str(tmp_path / "press.toml"))
