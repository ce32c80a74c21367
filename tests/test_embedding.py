"""The same verdicts everywhere: the programs of docs/embed, run by the real runtimes on the same 50
images.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from anomaly.detector.file import find_detector
from anomaly.imaging.find import find_images
from anomaly.quality.portable import write_portable
from anomaly.scorer import Scorer
from tests.support.embedding import (
    PROGRAMS,
    RUNTIMES,
    Found,
    Missing,
    compare,
    in_python,
    in_scorer,
    write_images,
)


@pytest.fixture(scope="module")
def images(session_folder: Path, parts: Path) -> list[Path]:
    (session_folder / "ppm").mkdir()
    return write_images(session_folder / "ppm", find_images(parts / "test"))


@pytest.fixture(scope="module")
def forms(session_folder: Path, run: Path) -> dict[str, Path]:
    portable = session_folder / "portable.onnx"
    write_portable(find_detector(run), portable)
    return {"ort": find_detector(run), "portable": portable}


@pytest.fixture(scope="module")
def expected(run: Path, images: list[Path]) -> Found:
    found = in_scorer(find_detector(run), images)
    assert len(found) == 50 and {verdict for _, verdict in found.values()} == {
        "outside",
        "flagged",
        "passed",
    }
    return found


@pytest.mark.parametrize("form", ["ort", "portable"])
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_the_verdicts_are_the_same(
    runtime: str, form: str, forms: dict[str, Path], images: list[Path], expected: Found
) -> None:
    try:
        # it would shrink images without antialiasing: found, not silent
        if (runtime, form) == ("OpenVINO", "ort"):
            with pytest.raises(
                RuntimeError, match=r"a golden sample scores .* calibrate with --target portable"
            ):
                RUNTIMES[runtime](forms[form], images)
            return
        difference = compare(forms[form], images, RUNTIMES[runtime](forms[form], images), expected)
    except Missing as missing:
        pytest.skip(str(missing))
    assert difference.flips == 0
    assert difference.largest < 1e-3


@pytest.mark.parametrize("program", sorted(path.name for path in PROGRAMS.glob("score*")))
def test_each_program_is_short(program: str) -> None:
    assert (
        15
        <= sum(bool(line.strip()) for line in (PROGRAMS / program).read_text().splitlines())
        <= 40
    )


def test_the_python_program_reads_files_as_the_scorer_does(
    run: Path, parts: Path, tmp_path: Path
) -> None:
    photo = Image.open(next((parts / "test/good").glob("*.png"))).convert("RGB")
    turned = Image.Exif()
    turned[0x0112] = 6  # orientation: turned by 90 degrees
    photo.crop((0, 0, 60, 40)).save(tmp_path / "turned.jpg", exif=turned, quality=95)
    photo.save(tmp_path / "plain.png")
    half = photo.convert("RGBA")
    half.putalpha(128)
    half.save(tmp_path / "half.png")
    paths, scorer = sorted(tmp_path.iterdir()), Scorer(run, device="cpu")
    found = in_python(find_detector(run), paths)
    for path in paths:
        assert found[path.name][0] == pytest.approx(scorer.score(path).score, rel=1e-5)
    used = subprocess.run([sys.executable, PROGRAMS / "score.py"], capture_output=True, text=True)
    assert (used.returncode, used.stderr) == (1, "use: python score.py detector.onnx IMAGE...\n")
