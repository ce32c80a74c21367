"""The examples of docs/python.md run as they stand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from data.synthetic import write_dataset

PAGE = Path(__file__).parents[1] / "docs" / "python.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)
SMALL = "space='filters', size=64, "  # what makes an example quick, and changes nothing else


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder with `photos`, as the page has them: good images, and some to test."""
    folder = tmp_path_factory.mktemp("page")
    write_dataset(folder / "photos", kind="disc", train=40, good=20, per_defect=10, size=64)
    return folder


@pytest.mark.filterwarnings("ignore:.*images were not judged:UserWarning")  # of the digits
@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.splitlines()[0])
def test_an_example_runs(block, photos, monkeypatch, capsys):
    monkeypatch.chdir(photos)
    exec(compile(block.replace("seed=0", SMALL + "seed=0"), PAGE.name, "exec"), {})
    assert capsys.readouterr().out


def test_every_example_was_found():
    assert len(BLOCKS) == 3
