"""Parquet that unpacks to gigabytes is refused in little memory; ordinary tables are read as they
were.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from anomaly.errors import DatasetError
from anomaly.inputs.dataset import read_dataset
from anomaly.inputs.manifests import manifest_sources


def rows_of_nothing(path: Path, column: str) -> None:
    pq.write_table(
        pa.table({column: pa.array([None] * 5_000_000, pa.string())}), path, compression="zstd"
    )


def one_long_text(path: Path, column: str) -> None:
    rows = pa.DictionaryArray.from_arrays(
        pa.array([0] * 20_000, pa.int32()), pa.array(["x" * 200_000])
    )
    pq.write_table(pa.table({column: rows}), path, compression="zstd")


def one_long_image(path: Path, column: str) -> None:
    """A gigabyte of one byte, packed: its page alone takes all of it."""
    rows = pa.DictionaryArray.from_arrays(
        pa.array([0] * 2_000, pa.int32()), pa.array([b"x" * (300 << 20)])
    )
    pq.write_table(pa.table({column: rows}), path, compression="brotli")


BOMBS = {"rows of nothing": rows_of_nothing, "one long text": one_long_text}


@pytest.mark.parametrize("what", BOMBS)
def test_a_parquet_that_unpacks_to_gigabytes_is_refused_in_little_memory(
    what: str, tmp_path: Path
) -> None:
    path = tmp_path / "table.parquet"
    BOMBS[what](path, "path")
    assert path.stat().st_size < 100_000
    program = (
        "import sys, resource, pathlib\n"
        "from anomaly.inputs.dataset import read_dataset\n"
        "from anomaly.inputs.manifests import manifest_sources\n"
        "from anomaly.files.table import read_table\n"
        "import pyarrow.parquet\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "path = pathlib.Path(sys.argv[1])\n"
        "for read in (read_dataset, lambda p: list(manifest_sources(str(p), 1 << 20)), lambda p: "
        "list(read_table(p))):\n"
        "    try: print('accepted', len(read(path)))\n"
        "    except Exception as error: print(type(error).__name__, str(error).count(chr(10)))\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, path], capture_output=True, text=True, timeout=300
    )
    *said, grown = done.stdout.split("\n")[:-1]
    assert said == ["DatasetError 0", "DatasetError 0", "AnomalyError 0"], done.stdout + done.stderr
    assert int(grown) < 300_000  # KiB


def test_an_image_repeated_in_a_parquet_is_held_a_few_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    one_long_image(path, "image")
    with pytest.raises(DatasetError, match=r"a column image of 31\d,\d{3},\d{3} bytes packed into"):
        next(manifest_sources(str(path), 1 << 30))


def test_ordinary_parquet_manifests_are_read_as_before(tmp_path: Path) -> None:
    names = [f"lot/{number:06}.png" for number in range(50_000)]
    pq.write_table(
        pa.table({"path": names, "label": ["good"] * 50_000, "group": list(range(50_000))}),
        tmp_path / "a.parquet",
    )
    records = read_dataset(tmp_path / "a.parquet")
    assert [r.path for r in records] == [tmp_path / name for name in names]
    assert {r.label for r in records} == {"good"} and records[7].group == "7"
    pq.write_table(
        pa.table({"image": [b"a", None, b"b" * 1000], "path": [None, "x.png", None]}),
        tmp_path / "b.parquet",
    )
    assert [source.name for source in manifest_sources(str(tmp_path / "b.parquet"), 1 << 20)] == [
        f"{tmp_path / 'b.parquet'}#1", str(tmp_path / "x.png"), f"{tmp_path / 'b.parquet'}#3",
    ]  # fmt: skip
