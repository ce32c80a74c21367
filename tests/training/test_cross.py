"""Every good image trains and calibrates: what cross-calibration estimates, and what is said of
it.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from anomaly.detector.file import read_card
from anomaly.errors import CalibrationError, TrainingError
from anomaly.quality.recalibrate import Asked, GoodImages, recalibrate_on
from anomaly.reporting.guarantee import ESTIMATED
from anomaly.scorer import Scorer
from anomaly.statistics.calibration import Calibration
from anomaly.statistics.prospect import MOST_CROSS_GROUPS
from data.synthetic import write_dataset
from tests.benchmarks.measure_cross import draw, draw_maps, row_of, split_of
from tests.support.runs import Said
from training.cross import fit_without, out_of_fold
from training.folds import folds
from training.models import MODELS
from training.options import CLOSED_FORM, TrainOptions, resolve
from training.plan import dry_run
from training.scores import Heatmap
from training.sets import find_images

SIZE = 64
WHY = (
    "every good image trains and calibrates (cross-calibration, 5 folds); the rate is estimated, "
    "not guaranteed"
)


# --- what is estimated ----------------------------------------------------------------------------
@pytest.mark.parametrize(("groups", "each", "draws"), [(20, 1, 12), (50, 1, 8), (20, 3, 8)])
def test_no_more_is_flagged_than_chance_allows_at_the_estimated_rate(
    groups: int, each: int, draws: int
) -> None:
    drawn = [draw(groups, each, seed) for seed in range(draws)]
    for target_rate in (None, 0.1):
        flagged, up_to = row_of([one.at(target_rate) for one in drawn])
        assert 0 < flagged <= up_to


def test_scores_of_images_that_a_model_has_seen_would_break_the_rate() -> None:
    """The limit can be exceeded: the same images scored by the detector that learnt from them."""
    drawn = []
    for seed in range(6):
        rng = np.random.default_rng((20, 1, seed))
        good, one = draw_maps(20, 1, rng), draw(20, 1, seed)
        split = split_of(torch.cat([good, good]), [f"{i}" for i in range(40)])
        _, seen = fit_without(split, Heatmap(), split.records[:20], split.records[20:])
        drawn.append(replace(one, calibration=Calibration(seen[:, 0], 1, None, "cross")))
    flagged, up_to = row_of(drawn)
    assert flagged > up_to


def test_no_model_has_seen_the_group_that_it_scores() -> None:
    """An image that is changed changes its own score, and none of the other scores of its fold."""
    rng = np.random.default_rng(0)
    maps, names = draw_maps(10, 3, rng), [f"lot {i // 3}" for i in range(30)]
    split = split_of(maps, names)
    unseen = out_of_fold(split, split.records, Heatmap())
    records, before, first = unseen.records, unseen.scores, unseen.first
    number = folds(names)
    assert {names[i] for i in np.flatnonzero(number == 0)} == {r.group for r in first.records}
    assert all(len({int(f) for f, n in zip(number, names, strict=True) if n == m}) == 1
               for m in names)  # fmt: skip
    changed = maps.clone()
    changed[0] += 3.0 * torch.randn(maps[0].shape, generator=torch.Generator().manual_seed(0))
    split = split_of(changed, names)
    unseen = out_of_fold(split, split.records, Heatmap())
    after = unseen.scores
    assert [r.path for r in unseen.records] == [r.path for r in records]
    same = number == number[0]
    assert (after[0] > before[0]).all()
    np.testing.assert_array_equal(after[same][1:], before[same][1:])
    assert (after[~same] != before[~same]).mean() > 0.9


# --- the way that is taken ------------------------------------------------------------------------
def test_models_in_closed_form_are_known_without_torch() -> None:
    assert set(CLOSED_FORM) == {name for name, kind in MODELS.items() if kind.closed_form}


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({"model": "vae", "space": "pixels"}, "--model vae"),
        ({"tile": 64}, "--tile"),
        ({"score": "typicality"}, "--score typicality"),
        ({"rank_only": True}, "--rank-only"),
    ],
)
def test_what_cannot_be_fitted_again_for_each_fold_is_split(given: dict, found: str) -> None:
    options = TrainOptions(Path("a"), Path("b"), **given)
    assert resolve(options).calibrate == "split"
    with pytest.raises(
        TrainingError, match=rf"^--calibrate cross and {found} found, one of them expected"
    ):
        resolve(replace(options, calibrate="cross"))


def test_the_command_refuses_it_in_one_line(said: Said, tmp_path: Path) -> None:
    given = ("train", tmp_path, "--out", tmp_path / "run", "--model", "vae", "--calibrate", "cross")
    status, out, err = said(*given)
    assert (status, out) == (1, "") and err.count("\n") == 1
    assert err.startswith("anomaly: --calibrate cross and --model vae found, one of them expected")


@pytest.mark.parametrize(
    ("count", "calibrate", "cross"),
    [
        (MOST_CROSS_GROUPS, "auto", True),
        (MOST_CROSS_GROUPS + 1, "auto", False),
        (MOST_CROSS_GROUPS + 1, "cross", True),
        (30, "split", False),
    ],
)
def test_auto_takes_cross_where_groups_are_few(
    count: int, calibrate: str, cross: bool, tmp_path: Path
) -> None:
    for i in range(count):
        (tmp_path / f"{i}.png").touch()
    options = resolve(TrainOptions(tmp_path, tmp_path / "run", calibrate=calibrate))
    _, sets = find_images(options)
    assert sets.cross == cross and (len(sets.calibration) == 0) == cross
    assert len(sets.calibrating) == (count if cross else len(sets.calibration))
    assert len(sets.fit) + len(sets.validation) + len(sets.calibration) == count


@pytest.fixture(scope="module")
def discs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder of 30 good discs to train on, 40 good ones to test and a few defects."""
    folder = tmp_path_factory.mktemp("discs")
    write_dataset(folder, kind="disc", train=30, good=40, per_defect=2, size=SIZE)
    return folder


def test_a_dry_run_says_what_cross_calibration_allows(discs: Path) -> None:
    options = TrainOptions(discs, Path("run"), space="filters", size=SIZE)
    plan, halves = dry_run(options), dry_run(replace(options, calibrate="split"))
    assert (plan.prospect.n, plan.prospect.rate, halves.prospect.rate) == (30, 1 / 31, 1 / 16)
    lines = plan.text().splitlines()
    assert (
        lines[2]
        .split(maxsplit=1)[1]
        .startswith("none: all 30 images train and calibrate, in 5 folds by group")
    )
    assert "estimated about 1 in 31 (3.23 %), set by 30 of 30; estimated too, 95 %" in lines[4]
    assert lines[5].strip() == WHY == ESTIMATED
    assert lines[6].strip() == "1 % needs 99 to set the threshold. That takes 99 in all"
    assert lines[7].startswith("lowest estimated rate   1 in 31 (estimate 3.2 %, could be 10 %)")
    assert "all 99 train and set the threshold" in plan.text()
    assert "guarantee" not in plan.text().replace(WHY, "")
    found = json.loads(json.dumps(plan.to_json()))
    assert found["calibrate"] == found["guarantee"]["kind"] == "cross"
    assert (found["guarantee"]["guaranteed_rate"], found["lowest"]["estimated_rate"]) == (
        None,
        1 / 31,
    )


def test_a_rate_below_that_of_all_images_is_refused(discs: Path) -> None:
    options = TrainOptions(discs, Path("run"), space="filters", false_alarm_rate=0.02)
    with pytest.raises(
        CalibrationError,
        match=r"^30 good images \(or groups\) found: 30 of them can set the threshold, so the "
        r"lowest estimated rate is 3.2 %\. 2 % needs 49 .* That takes 49 in all",
    ):
        dry_run(options)


# --- the detector ---------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def run(discs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from training.pipeline import train

    folder = tmp_path_factory.mktemp("cross") / "run"
    options = TrainOptions(
        discs, folder, space="filters", size=SIZE, false_alarm_rate=0.1, expected_picture=False
    )
    train(options, lambda line: None)
    return folder


def test_card_and_texts_say_that_the_rate_is_estimated(run: Path, discs: Path, said: Said) -> None:
    card = read_card(run)
    calibration = card.calibration
    assert (calibration.kind, calibration.n, calibration.k) == ("cross", 30, 3)
    stated = card.to_json()["calibration"]
    assert (stated["kind"], stated["guaranteed_rate"], stated["estimated_rate"]) == (
        "cross",
        None,
        3 / 31,
    )
    assert card.training.sets["calibration"] == 0 and sum(card.training.sets.values()) == 30
    assert card.training.options.calibrate == "auto"
    shown = said("show", run)[1]
    assert "set by 30 good images, each scored by a model that did not see it" in shown
    assert "good images flagged     estimated about 1 in 10 (9.68 %); estimated too, 95 %" in shown
    figures = run.parent / "figures.json"
    status, out, _ = said("evaluate", run, discs, "--json", figures, "--report", run / "e.html")
    alarms = json.loads(figures.read_text())["false_alarms"]
    assert status == 0 and "by the estimated rate" in out
    assert (alarms["guaranteed_rate"], alarms["estimated_rate"]) == (None, 3 / 31)
    assert alarms["flagged"] <= alarms["ordinary_up_to"]
    for page in (run / "report.html", run / "e.html"):
        text = page.read_text()
        assert WHY in text and "What is estimated" in text
        assert "guarante" not in _visible(text).replace(WHY, "")
    assert WHY in shown and "guarante" not in shown.replace(WHY, "")


def _visible(page: str) -> str:
    """Returns a page without names of its styles and sections."""
    body = page.split("</style>", 1)[1]
    for name in ('"guarantee"', '"#guarantee"', '"guarantee-h"'):
        body = body.replace(name, "")
    return body


def test_scores_are_on_the_scale_of_the_file(run: Path, discs: Path) -> None:
    """The file's own scores of images that it has learnt from are lower; those of new images lie
    among the calibration scores.
    """
    scorer = Scorer(run, device="cpu")
    calibration = scorer.card.calibration
    learnt, new = (
        np.array([scorer.score(path).score for path in sorted((discs / part / "good").iterdir())])
        for part in ("train", "test")
    )
    assert np.median(learnt) < np.quantile(calibration.scores, 0.25)
    assert 0.3 < np.median(calibration.p_value(new)) < 0.8


def test_new_good_images_give_a_guarantee_again(run: Path, discs: Path, tmp_path: Path) -> None:
    card, path, left_out = recalibrate_on(
        run, GoodImages(discs / "test" / "good"), out=tmp_path / "new.onnx", asked=Asked()
    )
    assert (card.calibration.kind, card.calibration.n) == ("split", 40 - len(left_out))
    assert read_card(path).to_json()["calibration"]["estimated_rate"] is None
    with pytest.raises(CalibrationError, match="can be used"):  # all images were learnt from
        recalibrate_on(
            run, GoodImages(discs / "train" / "good"), out=tmp_path / "x.onnx", asked=Asked()
        )
