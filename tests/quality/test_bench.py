from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from PIL import Image

from anomaly.commands.main import main
from anomaly.errors import AnomalyError
from anomaly.inputs.sources import list_sources
from anomaly.quality.bench import bench, choose, rate
from anomaly.scorer import Scorer


def test_a_rate_counts_all_threads() -> None:
    threads = set()

    def work(item: int) -> None:
        threads.add(threading.get_ident())
        time.sleep(0.01)

    assert 100 < rate(work, [1, 2, 3], threads=4, seconds=0.3) < 400.0
    assert len(threads) == 4


def test_memory_that_was_held_once_counts() -> None:
    """In a process of its own: this one may have held more before."""
    code = (
        "from anomaly.quality.bench import peak_memory as peak; print(peak()); held = b'x' * "
        "300_000_000; del held; print(peak())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    before, after = map(float, done.stdout.split())
    assert 280 < after - before < 300


def test_images_are_spread_over_the_first_ones_and_broken_ones_left_out(
    run: Path, tmp_path: Path
) -> None:
    for number in range(130):
        Image.new("L", (8 + number, 8), 100).save(tmp_path / f"{number:03}.png")
    (tmp_path / "002.png").write_bytes(b"no image")
    sources, decoded = choose(Scorer(run, device="cpu"), list_sources([tmp_path]))
    expected = [n * 130 // 64 for n in range(64) if n != 1]
    assert [Path(source.name).stem for source in sources] == [f"{n:03}" for n in expected]
    assert [image.width for image in decoded] == [8 + n for n in expected]


def test_no_image_at_all_is_one_line(run: Path, tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"no image")
    with pytest.raises(
        AnomalyError, match=r"x\.png: .* found, images that can be decoded expected"
    ):
        bench(run, list_sources([tmp_path]))


def test_a_detector_is_measured(
    run: Path, parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "bench.json"
    assert (
        main(
            [
                "bench",
                str(run),
                str(parts / "train"),
                "--seconds",
                "1",
                "--json",
                str(file),
                "--device",
                "cpu",
            ]
        )
        == 0
    )
    assert capsys.readouterr().out.startswith("images                  64 of 64x64 PNG; ")
    found = json.loads(file.read_text())
    assert found["bound"] == pytest.approx(1 / (1 / found["decode"] + 1 / found["model"]))
    assert found["reached"] == pytest.approx(found["end_to_end"] / found["bound"])
    assert found["reached"] < 1.5  # nothing can be much faster than its parts
    alone = found["one_image"]
    assert 0 < alone["p50"] <= alone["p95"] <= alone["p99_9"] <= alone["max"]
    assert 20 < found["loaded"] <= found["peak"] < 1000
    assert 0.1 < found["start_up"] < 60
