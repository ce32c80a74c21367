from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anomaly.files.csv_cells import csv_cell, csv_text, guarded, unguarded
from anomaly.inputs.dataset import Record, read_dataset
from anomaly.inputs.manifests import manifest_sources
from anomaly.inputs.used_images import note_calibration

ROOT = Path(__file__).parents[2]
texts = st.text(
    st.characters(exclude_categories=("Cs",), exclude_characters="\0")
) | st.sampled_from(
    [
        "=1+1",
        "+1",
        "-1",
        "@a",
        "'",
        "''=",
        "\t=",
        "\r",
        "\n",
        "",
        "a;b",
        'a"b',
        "=HYPERLINK(\"http://x\",'y')",
        "1e5",
    ]
)


@given(texts)
def test_no_text_is_a_formula_and_each_comes_back(text: str) -> None:
    assert not re.match(r"[=+\-@\t\r\n]", guarded(text))
    assert unguarded(guarded(text)) == text


@given(st.lists(st.lists(texts, min_size=2, max_size=3), max_size=5))
def test_a_table_comes_back_as_it_was(rows: list[list[str]]) -> None:
    read = csv.reader(io.StringIO(csv_text(rows), newline=""), strict=True)
    assert [list(map(unguarded, row)) for row in read if row] == [row for row in rows if row]


def test_numbers_stay_numbers() -> None:
    assert csv_text([(-1.5, -2, True, None, 1e-9)]) == "-1.5,-2,true,,1e-09\n"
    assert csv_cell("-1.5") == "'-1.5"


@pytest.mark.parametrize("name", ["=cmd|calc", "+1", "-2", "@x", "'=y", "''z", "plain"])
def test_paths_and_groups_of_a_manifest_round_trip(tmp_path: Path, name: str) -> None:
    """Where the product reads a table back, the apostrophes are gone: in training and
    in scoring.
    """
    (tmp_path / f"{name}.png").touch()
    rows = [("path", "split", "label", "group"), (f"{name}.png", "train", "good", name)]
    (tmp_path / "m.csv").write_text(csv_text(rows), newline="")
    (record,) = read_dataset(tmp_path / "m.csv")
    assert (record.path, record.group) == (tmp_path / f"{name}.png", name)
    (source,) = manifest_sources(str(tmp_path / "m.csv"), 1000)
    assert source.name == str(tmp_path / f"{name}.png")


def test_groups_of_a_run_are_no_formulas(tmp_path: Path) -> None:
    """RUN/images.csv: the group is a cell of its own, and a lot may be called =1+1; read as a
    manifest it is that again.
    """
    pytest.importorskip("torch", reason="torch is not installed: training writes this table")
    from training.describe import list_images
    from training.sets import Sets

    (tmp_path / "a.png").write_bytes(b"x")
    list_images(
        tmp_path / "images.csv",
        Sets([Record(tmp_path / "a.png", None, None, "=1+1", None)], [], []),
    )
    assert (tmp_path / "images.csv").read_text().endswith(",fit,'=1+1\n")
    assert read_dataset(tmp_path / "images.csv")[0].group == "=1+1"
    note_calibration(tmp_path / "detector.onnx", tmp_path / "new.onnx", [])
    assert (tmp_path / "new.images.csv").read_bytes() == (tmp_path / "images.csv").read_bytes()


def test_every_table_is_written_by_the_one_writer() -> None:
    other = re.compile(r"csv\.(Dict)?[wW]riter\(|\.to_csv\(|st\.dataframe\(\s*+(?!cells\(|shown).*")
    found = [
        f"{path.relative_to(ROOT)}: {match[0]}"
        for folder in ("anomaly", "training", "dashboard", "data")
        for path in (ROOT / folder).rglob("*.py")
        for match in other.finditer(path.read_text(encoding="utf-8"))
    ]
    assert found == []
