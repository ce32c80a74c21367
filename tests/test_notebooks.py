"""The notebooks run from their first cell to their last, and hold what they claim (their own
``assert``).
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.notebooks import run_notebook

FOLDER = Path(__file__).parents[1] / "docs" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path, tmp_path: Path) -> None:
    kept = json.loads(path.read_text(encoding="utf-8"))
    ran = run_notebook(path, tmp_path)
    code = [cell for cell in ran["cells"] if cell["cell_type"] == "code"]
    assert any("assert " in line for cell in code for line in cell["source"])
    # what is kept in the file is from cells as they are: of the same kinds, in the same places
    for cell, before in zip(ran["cells"], kept["cells"], strict=True):
        kinds = [
            [output["output_type"] for output in one.get("outputs", [])] for one in (cell, before)
        ]
        assert kinds[0] == kinds[1], f"run python -m tests.support.notebooks {path}"


def test_every_notebook_has_its_line_on_the_page() -> None:
    page = (FOLDER / "index.md").read_text(encoding="utf-8")
    assert [path.name for path in NOTEBOOKS if f"]({path.name})" not in page] == []
    assert len(NOTEBOOKS) == 4
