"""The same verdicts everywhere: the programs of docs/embed, run by the real runtimes on the same 50
images.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from anomaly.detector.file import find_detector
from anomaly.imaging.find import find_images
from anomaly.quality.portable import write_portable
from tests.support.embedding import (
    PROGRAMS,
    RUNTIMES,
    Found,
    Missing,
    compare,
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
