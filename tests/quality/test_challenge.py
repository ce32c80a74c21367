"""Known bad parts, and the same part photographed many times."""

from __future__ import annotations

import shutil
from itertools import islice
from pathlib import Path

import pytest
from PIL import Image

from anomaly import Scorer
from anomaly.errors import CalibrationError, DatasetError
from anomaly.imaging.find import find_images
from anomaly.quality.challenge import challenge, repeat
from data.synthetic import make
from tests.commands.test_main import Shell


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(capsys)


@pytest.fixture(scope="module")
def bad(run: Path, parts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder of four parts that the detector flags."""
    folder, scorer = tmp_path_factory.mktemp("known-bad"), Scorer(run, device="cpu")
    flagged = (
        path
        for path in find_images(parts / "test")
        if scorer.score(path).is_anomaly and "good" not in path.parts
    )
    for number, path in enumerate(islice(flagged, 4)):
        shutil.copy(path, folder / f"{number}.png")
    return folder


def test_verify_succeeds_only_if_all_known_bad_parts_are_flagged(
    run: Path, bad: Path, tmp_path: Path, shell: Shell
) -> None:
    found = challenge(Scorer(run, device="cpu"), bad)
    assert (found.images, found.missed, found.not_judged) == (4, (), ())
    said = shell("verify", run, "--challenge", bad)
    assert (
        said.status == 0
        and said.fields["challenge parts"] == "0 of 4 missed; up to 53 % could be missed (95 %)"
    )
    good = tmp_path / "good.png"
    Image.fromarray(make("disc", 7001, 64)[0]).save(good)
    said = shell("verify", run, "--challenge", tmp_path)
    assert said.status == 1 and said.fields["missed"] == str(good)
    assert said.err.splitlines()[-1].startswith(
        "anomaly: 1 of 1 known bad parts were not flagged, all expected"
    )


def test_good_images_are_no_challenge(run: Path, parts: Path, tmp_path: Path) -> None:
    scorer = Scorer(run, device="cpu")
    assert challenge(scorer, parts).images == 24  # the defects of test/, and no good image
    manifest = tmp_path / "good.csv"
    manifest.write_text(f"path,label\n{parts}/test/good/0000.png,good\n")
    with pytest.raises(DatasetError, match="only good images found, known bad parts expected"):
        challenge(scorer, manifest)


def test_a_part_that_is_judged_both_ways_flips(
    run: Path, bad: Path, tmp_path: Path, shell: Shell
) -> None:
    for part, names in {
        "steady": ("1.png", "2.png"),
        "odd": ("1.png", "2.png", "bad.png"),
        "alone": ("1.png",),
    }.items():
        (tmp_path / part).mkdir()
        for name in names:
            picture = (
                Image.open(bad / "0.png")
                if name == "bad.png"
                else Image.fromarray(make("disc", 7001, 64)[0])
            )
            picture.save(tmp_path / part / name)
    found = repeat(Scorer(run, device="cpu"), tmp_path)
    assert (found.parts, found.images, found.odd, found.not_judged) == (2, 5, 1, 0)
    assert [Path(name).name for name in found.flipping] == ["odd"] and found.spread > 0.1
    by_name = repeat(Scorer(run, device="cpu"), tmp_path, group_by=r"(\d|bad)\.png")
    assert (by_name.parts, by_name.images, by_name.odd, by_name.spread) == (2, 5, 0, 0)
    said = shell("verify", run, "--repeat", tmp_path)
    assert (
        said.status == 0
        and said.fields["flips"] == "1 of 5 photographs differ from most of their part"
    )
    assert "no part with several photographs found" in shell_refuses(
        shell, "verify", run, "--repeat", bad.parent / "none"
    )


def shell_refuses(shell: Shell, *words: object) -> str:
    Path(words[-1]).mkdir()
    Image.fromarray(make("disc", 1, 64)[0]).save(Path(words[-1]) / "a.png")
    said = shell(*words)
    assert said.status == 1
    return said.err


def test_without_a_threshold_nothing_is_flagged(rank_only: Path, bad: Path) -> None:
    with pytest.raises(
        CalibrationError, match="it ranks only and flags nothing; set a threshold first"
    ):
        challenge(Scorer(rank_only, device="cpu"), bad)
