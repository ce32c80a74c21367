"""Keep, recalibrate or retrain."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from anomaly.errors import CalibrationError
from anomaly.quality.check import check
from anomaly.reporting.quality import check_text
from anomaly.statistics.calibration import Calibration
from anomaly.statistics.check import LEVEL, decide
from data.synthetic import make
from tests.commands.test_main import Shell

RNG = np.random.default_rng(0)
OLD = Calibration(RNG.normal(1, 0.1, 200).astype(np.float32), 2)


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(capsys)


def new(mean: float, spread: float, count: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(mean, spread, count).astype(np.float32)


def test_of_draws_from_the_same_population_95_in_100_are_kept() -> None:
    advice_given = []
    for seed in range(400):
        pool = np.random.default_rng(seed).gamma(3, size=150).astype(np.float32)
        outside = int(np.random.default_rng(seed).binomial(50, 0.02))
        advice_given.append(decide(Calibration(pool[:100], 1), pool[100:], outside).advice)
    assert advice_given.count("keep") >= 0.95 * 400 - 2 * np.sqrt(0.95 * 0.05 * 400)


@pytest.mark.parametrize(
    ("scores", "outside", "advice"),
    [
        (new(1.2, 0.1, 40), 0, "recalibrate"),
        (new(0.8, 0.1, 40), 0, "recalibrate"),  # lower scores are a change too: defects may pass
        (new(1.3, 0.3, 40), 0, "retrain"),
        (new(1.0, 0.1, 40), 20, "retrain"),
        (new(1.0, 0.1, 40), 1, "keep"),
        (new(3.0, 0.1, 1), 0, "keep"),  # one image tells nothing
    ],
)
def test_the_advice_follows_from_what_changed(
    scores: np.ndarray, outside: int, advice: str
) -> None:
    found = decide(OLD, scores, outside)
    assert found.advice == advice and found.images == len(scores)
    said = check_text(found, "run", "new")
    assert said.startswith(f"advice                  {advice}: ")
    assert ("anomaly calibrate run --normal new" in said) == (advice == "recalibrate")
    assert ("show a large change only" in said) == (len(scores) < 20)


def test_more_flagged_than_is_ordinary_is_not_kept() -> None:
    """100 scores as widely spread as ever, of which 13 lie above a threshold that 1 in 100 should
    reach.
    """
    calibration = Calibration(np.linspace(0, 1, 99, dtype=np.float32), 1)
    usual = np.linspace(0, 0.99, 87, dtype=np.float32)
    found = decide(calibration, np.concatenate([usual, np.full(13, 1.01, np.float32)]), 0)
    assert (found.advice, found.flagged, found.p_value > LEVEL) == ("recalibrate", 13, True)
    assert check_text(found, "run", "new").startswith(
        "advice                  recalibrate: 13 of 100 good images are flagged: the guaranteed "
        "rate no longer holds\n"
    )
    few = decide(
        calibration, np.concatenate([usual, np.full(found.flagged_up_to, 1.01, np.float32)]), 0
    )
    assert (few.advice, few.flagged) == ("keep", found.flagged_up_to)


def test_the_exit_status_says_keep_or_not_where_asked(
    run: Path, tmp_path: Path, shell: Shell
) -> None:
    for folder in ("OK", "NG"):
        (tmp_path / folder).mkdir()
    for seed in range(30):
        image = Image.fromarray(make("disc", 7000 + seed, 64)[0])
        image.filter(ImageFilter.GaussianBlur(3)).save(tmp_path / "NG" / f"{seed}.png")
        image.save(tmp_path / "OK" / f"{seed}.png")
    kept = shell("check", run, tmp_path, "--fail-unless-keep")
    assert (
        kept.status,
        "read as good: OK (30)\nnot read as good, left out: NG (30)\n" in kept.err,
    ) == (0, True)
    bad = shell("check", run, tmp_path, "--good", "NG", "--fail-unless-keep")
    assert (bad.status, bad.fields["advice"].startswith("retrain: ")) == (4, True)
    assert shell("check", run, tmp_path, "--good", "NG").status == 0


def test_new_good_parts_are_kept_and_blurred_ones_are_not(
    run: Path, tmp_path: Path, shell: Shell
) -> None:
    good, blurred = tmp_path / "good", tmp_path / "blurred"
    for folder in (good, blurred):
        folder.mkdir()
    for seed in range(30):
        image = Image.fromarray(make("disc", 5000 + seed, 64)[0])
        image.save(good / f"{seed}.png")
        image.filter(ImageFilter.GaussianBlur(3)).save(blurred / f"{seed}.png")
    (good / "broken.png").write_text("no image")
    said = shell("check", run, good, "--json")
    found = json.loads(said.out)
    assert (
        said.status,
        found["advice"],
        found["images"],
        found["flagged"] <= found["ordinary_up_to"],
    ) == (
        0,
        "keep",
        30,
        True,
    )
    assert "left out: " in said.err and "broken.png" in said.err
    assert check(run, blurred).advice == "retrain"
    assert shell("check", run, blurred).fields["advice"].startswith("retrain: ")


def test_without_a_threshold_there_is_nothing_to_check(rank_only: Path, tmp_path: Path) -> None:
    with pytest.raises(
        CalibrationError,
        match="ranks only and has no threshold to check; set one first: anomaly calibrate",
    ):
        check(rank_only, tmp_path)
