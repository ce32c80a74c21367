"""`--engine ray` on a local Ray of two workers."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from anomaly.commands.main import main
from anomaly.errors import AnomalyError, RuntimeMissing
from anomaly.files.table import Row, read_table
from anomaly.inputs.source import File, Held, Source
from anomaly.inputs.sources import list_sources
from anomaly.scorer import Scorer
from anomaly.scoring.batch import RunOptions, score_table
from anomaly.scoring.cluster import import_ray, score_on_ray, windows
from tests.support.failing_sources import Deadly, Gone

# Ray warns of its own settings while it makes its defaults.
pytestmark = pytest.mark.filterwarnings("ignore:.*is deprecated:DeprecationWarning:ray")


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    ray = import_ray()
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=100_000_000,
        log_to_driver=False,
        logging_level="ERROR",
    )
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def images(parts: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Source]:
    """90 images, one of which is none."""
    broken = tmp_path_factory.mktemp("broken") / "broken.png"
    broken.write_bytes(b"no image")
    good = list(list_sources([parts / "train"]))[:89]
    return [*good[:20], File(str(broken)), *good[20:]]


@pytest.fixture(scope="module")
def scorer(run: Path) -> Scorer:
    return Scorer(run, device="cpu", threads=1)


def undated(table: Path) -> list[Row]:
    return [row._replace(scored_at="") for row in read_table(table)]


def test_a_killed_worker_does_not_show(
    local_ray: None, scorer: Scorer, images: list[Source], tmp_path: Path
) -> None:
    score_table(scorer, images, tmp_path / "threads.csv")
    (tmp_path / "killed").mkdir()
    sources = [*images[:40], Deadly(images[40].name, tmp_path / "killed"), *images[41:]]
    summary = score_table(
        scorer, sources, tmp_path / "ray.csv", options=RunOptions(engine=score_on_ray)
    )
    assert len(list((tmp_path / "killed").iterdir())) == 1
    assert undated(tmp_path / "ray.csv") == undated(tmp_path / "threads.csv")
    assert (summary.images, summary.errors) == (90, {"not an image": 1})
    assert summary.reading > 0 < summary.judging


def test_an_unfinished_run_goes_on_with_either_engine(
    local_ray: None, scorer: Scorer, images: list[Source], tmp_path: Path
) -> None:
    gone = [*images[:30], Gone("s3://bucket/1.png"), *images[31:]]
    out = tmp_path / "t.jsonl"
    with pytest.raises(AnomalyError, match=r"s3://bucket: cannot be reached"):
        score_table(scorer, gone, out, options=RunOptions(engine=score_on_ray, chunk_rows=10))
    summary = score_table(scorer, images, out, options=RunOptions(engine=score_on_ray))
    assert summary.resumed == 30
    score_table(scorer, images, tmp_path / "threads.jsonl")
    assert undated(out) == undated(tmp_path / "threads.jsonl")


def test_the_command_scores_on_ray(local_ray: None, run: Path, parts: Path, tmp_path: Path) -> None:
    for engine in ("ray", "threads"):
        out, heatmaps = str(tmp_path / f"{engine}.csv"), str(tmp_path / engine)
        words = ["--out", out, "--engine", engine, "--device", "cpu", "--heatmaps", heatmaps]
        assert main(["score", str(run), str(parts / "train" / "good"), *words]) in (0, 3)
    assert undated(tmp_path / "ray.csv") == undated(tmp_path / "threads.csv")
    ray, threads = (
        {path.name: path.read_bytes() for path in (tmp_path / name).glob("0*")}
        for name in ("ray", "threads")
    )
    assert ray == threads and len(ray) == 120


def test_a_window_ends_at_so_many_sources_or_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("anomaly.scoring.cluster.WINDOW", 3)
    monkeypatch.setattr("anomaly.scoring.cluster.WINDOW_BYTES", 10)
    sources: list[Source] = [
        *(File(str(n)) for n in range(4)),
        *(Held(str(n), b"12345678") for n in range(3)),
    ]
    found = list(windows(enumerate(sources)))
    assert [[number for number, _ in window] for window in found] == [[0, 1, 2], [3, 4, 5], [6]]
    assert list(windows([])) == []


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(RuntimeMissing, match=r"anomaly\[ray\]"):
        import_ray()


def test_ray_is_imported_by_its_engine_only(run: Path, parts: Path, tmp_path: Path) -> None:
    words = ["score", str(run), str(parts / "train"), "--out", str(tmp_path / "t.csv")]
    code = (
        f"import sys; from anomaly.commands.main import main; main({words!r}); print([m for m in "
        "sys.modules if m.startswith('ray')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
