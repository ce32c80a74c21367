"""Two detectors on the same images."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from anomaly import Scorer
from anomaly.detector.file import CalibrationImages, read_card, recalibrate
from anomaly.errors import CalibrationError
from anomaly.files.table import Row, read_table
from anomaly.inputs.sources import list_sources
from anomaly.quality.compare import compare
from anomaly.scoring.batch import score_table
from anomaly.statistics.calibration import Calibration
from tests.commands.test_main import Shell
from tests.test_scorer import ROOT


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(capsys)


@pytest.fixture(scope="module")
def stricter(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the run's detector with a threshold below nearly all images."""
    out = tmp_path_factory.mktemp("stricter") / "detector.onnx"
    card = read_card(run)
    low = Calibration(np.linspace(0.01, 0.02, 60, dtype=np.float32), 1)
    recalibrate(
        run / "detector.onnx",
        low,
        out,
        CalibrationImages(highest=[], count=60, groups=60),
        version="2",
        parent=card.digest,
    )
    return out


def test_flips_are_counted_both_ways(
    run: Path, stricter: Path, parts: Path, tmp_path: Path, shell: Shell
) -> None:
    old, new = Scorer(run, device="cpu"), Scorer(stricter, device="cpu")
    there, back = compare(old, new, parts, report=tmp_path / "flips.html"), compare(new, old, parts)
    images = there.kinds["all images"]
    assert images.new == images.images == 54 - there.not_judged and images.now_passed == 0
    assert (images.now_flagged, images.now_passed) == (
        back.kinds["all images"].now_passed,
        back.kinds["all images"].now_flagged,
    )
    assert (
        there.flips(True) == back.flips(False) and len(there.flips(True)) == images.now_flagged > 0
    )
    assert (
        there.kinds["good images"].images + there.kinds["defective images"].images == images.images
    )
    assert there.better == back.better == "neither"  # it flags more defects and more good images
    assert f"Now flagged ({images.now_flagged})" in (tmp_path / "flips.html").read_text()
    said = shell("compare", run, stricter, parts, "--json")
    assert json.loads(said.out) == there.to_json()
    assert shell("compare", run, stricter, parts).fields["better by the labels"] == "neither"


def test_a_detector_against_itself_has_no_flips_bit_for_bit(
    run: Path, parts: Path, tmp_path: Path
) -> None:
    copied = tmp_path / "former.onnx"
    shutil.copy(run / "detector.onnx", copied)
    found = compare(Scorer(run, device="cpu"), Scorer(copied, device="cpu"), parts)
    assert found.flips(True) == found.flips(False) == []
    assert all(old.score == new.score and old.p_value == new.p_value for old, new in found.results)
    assert found.old.card.digest == found.new.card.digest


def test_without_labels_nobody_knows_which_is_better(
    run: Path, stricter: Path, parts: Path, shell: Shell
) -> None:
    said = shell("compare", run, stricter, parts / "test" / "crack", "--json")
    assert json.loads(said.out)["kinds"].keys() >= {"all images"}
    manifest = parts.parent / "unlabelled.csv"
    manifest.write_text(
        "path\n" + "\n".join(str(p) for p in sorted((parts / "test" / "crack").iterdir()))
    )
    assert (
        shell("compare", run, stricter, manifest).fields["better"].startswith("unknown: no labels")
    )


def test_a_detector_that_only_ranks_cannot_be_compared(
    run: Path, rank_only: Path, parts: Path
) -> None:
    with pytest.raises(CalibrationError, match="ranks only"):
        compare(Scorer(run, device="cpu"), Scorer(rank_only, device="cpu"), parts)


def rows_of(detector: Path, parts: Path, out: Path) -> list[Row]:
    score_table(Scorer(detector, device="cpu", threads=1), list_sources([parts / "test"]), out)
    return [row._replace(scored_at="") for row in read_table(out)]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_rolling_back_gives_the_former_verdicts_bit_for_bit(
    run: Path, stricter: Path, pixel_run: Path, parts: Path, tmp_path: Path, suffix: str
) -> None:
    """Also after other detectors have judged, in a folder and process of its own, and out of a copy
    of the file.
    """
    before = rows_of(run, parts, tmp_path / f"before{suffix}")
    others = [
        rows_of(other, parts, tmp_path / f"{i}{suffix}")
        for i, other in enumerate((stricter, pixel_run))
    ]
    kept = Path(shutil.copy(run / "detector.onnx", tmp_path / "kept.onnx"))
    assert rows_of(kept, parts, tmp_path / f"after{suffix}") == before
    words = ["score", kept, parts / "test", "--out", tmp_path / f"again{suffix}", "--device", "cpu"]
    done = subprocess.run(
        [sys.executable, "-m", "anomaly", *words], capture_output=True, cwd=ROOT, check=False
    )
    assert done.returncode in (0, 3)
    assert [row._replace(scored_at="") for row in read_table(tmp_path / f"again{suffix}")] == before
    assert all(other != before for other in others)
    for detector, rows in zip((run, stricter, pixel_run), (before, *others), strict=True):
        assert {row.detector for row in rows} == {read_card(detector).identity}


def test_every_report_names_its_detectors_with_version_and_digest(
    run: Path, stricter: Path, parts: Path, tmp_path: Path, shell: Shell
) -> None:
    old, new = read_card(run), read_card(stricter)
    assert (
        re.fullmatch(r"[^@]+@\S+ sha256:[0-9a-f]{64}", old.identity)
        and old.identity != new.identity
    )
    assert shell("compare", run, stricter, parts, "--report", tmp_path / "flips.html").status in (
        0,
        3,
    )
    assert shell("evaluate", stricter, parts, "--report", tmp_path / "report.html").status in (0, 3)
    flips, report = ((tmp_path / name).read_text() for name in ("flips.html", "report.html"))
    assert old.identity in flips and new.identity in flips and new.identity in report
    # figures of its own, no empty ones
    assert "0 good and 0 defective images" not in flips and "only by the new" in flips
    assert old.identity in (run / "report.html").read_text()
    assert old.identity in shell("show", run).out
