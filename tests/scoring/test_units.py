"""A unit is judged by its worst view, the guarantee is one for units, and a unit that was not
wholly seen is never good.
"""

from __future__ import annotations

import csv
import json
import shutil
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from anomaly import Scorer
from anomaly.commands.main import main
from anomaly.detector.file import read_card
from anomaly.detector.unit_rule import UnitRule
from anomaly.errors import AnomalyError, CalibrationError, DatasetError
from anomaly.files.table import Row, encode_rows, join_chunks, read_table
from anomaly.inputs.dataset import Record
from anomaly.inputs.sources import list_sources, shard
from anomaly.quality.check import check
from anomaly.quality.evaluate import evaluate_labelled
from anomaly.quality.recalibrate import Asked, GoodImages, recalibrate_on
from anomaly.reporting.evaluation import figures_text
from anomaly.reporting.quality import check_text
from anomaly.reporting.scoring import summary_text
from anomaly.scoring.batch import RunOptions, score_table
from anomaly.scoring.units import (
    UnitRow,
    View,
    by_unit,
    judge_unit,
    units_table,
    whole_units,
    write_units,
)
from anomaly.statistics.calibration import calibrate
from anomaly.statistics.groups import worst_per_unit
from data.synthetic import make
from tests.scoring.test_watch import Line, until
from tests.support.serving import serving
from training.options import TrainOptions
from training.pipeline import train
from training.plan import dry_run

PATTERN = r"(\d+)_cam\d"
VIEWS = 3


def write_chunk(folder: Path, unit: int, views: int = VIEWS, defect: bool = False) -> None:
    """Writes synthetic discs as the views of a unit; with ``defect`` the last of them has one."""
    for view in range(views):
        pixels = make(
            "disc", 500 + 10 * unit + view, 64, "missing" if defect and view == views - 1 else None
        )[0]
        Image.fromarray(pixels).save(folder / f"{unit:03}_cam{view}.png")


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder of 24 good units of three views."""
    folder = tmp_path_factory.mktemp("good")
    for unit in range(24):
        write_chunk(folder, unit)
    return folder


@pytest.fixture(scope="module")
def per_unit(run: Path, good: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a detector whose threshold was set by these units, at 10 %."""
    out = tmp_path_factory.mktemp("per-part") / "detector.onnx"
    recalibrate_on(run, GoodImages(good, by_unit=PATTERN), out=out, asked=Asked(0.1))
    return out


def folds(table: Path) -> dict[str, dict[str, object]]:
    """Returns the rows of a table of units in JSON lines by the unit's name."""
    rows = [json.loads(line) for line in units_table(table).read_text().splitlines()]
    return {row["unit"]: row for row in rows}


# --- which images are a unit ----------------------------------------------------------------------
def record(name: str) -> Record:
    return Record(Path("photos") / name, None, "good", name, None)


def test_records_get_their_unit_as_their_group() -> None:
    records = [
        record(f"{unit}_cam{view}.png")
        for unit, views in ((1, 2), (2, 1), (3, 2))
        for view in range(views)
    ]
    named, left_out = by_unit(records, PATTERN)
    assert ([r.group for r in named], left_out) == (["1", "1", "2", "3", "3"], [])
    named, left_out = by_unit(records, PATTERN, views=2)
    assert ([r.group for r in named], left_out) == (
        ["1", "1", "3", "3"],
        ["unit 2: 1 of 2 views found"],
    )
    with pytest.raises(
        DatasetError, match=r"^no unit with 4 views found \(1 has 2\): check --by-unit and --views$"
    ):
        by_unit(records, PATTERN, views=4)
    with pytest.raises(
        DatasetError, match=r"does not match 'photos/a\.png': every path must name its unit$"
    ):
        by_unit([record("a.png")], PATTERN)


def test_a_unit_that_lost_a_view_is_left_out_whole() -> None:
    before, _ = by_unit(
        [record(f"{unit}_cam{view}.png") for unit in (1, 2) for view in range(2)], PATTERN
    )
    assert [r.group for r in whole_units(before[1:], before)] == ["2", "2"]


# --- a unit's verdict -----------------------------------------------------------------------------
RULE = UnitRule(PATTERN, 2, 3)


def view(score: float | None, status: str = "ok", threshold: float = 1.0) -> View:
    flagged = None if status != "ok" or score is None else score > threshold
    said = {True: "flagged", False: "review" if (score or 0) > 0.8 else "not flagged"}
    return View(
        f"{score}.png",
        score,
        None if score is None else 1 / (1 + abs(score)),
        threshold,
        flagged,
        "not judged" if flagged is None else said[flagged],
        status,
    )


def test_a_unit_has_the_type_of_its_worst_view() -> None:
    views = [
        view(1.5)._replace(likely_type="dent", type_score=0.9),
        view(2.5)._replace(likely_type="scratch", type_score=0.6),
    ]
    found = judge_unit("7", views, RULE, "d")
    assert (found.defect_type, found.type_score) == ("scratch", 0.6)
    found = judge_unit("7", views, RULE, "d", more=9)  # too many: not judged
    assert (found.status, found.defect_type) == ("outside", None)


@pytest.mark.parametrize(
    ("views", "status", "is_anomaly", "score", "error"),
    [
        ([view(0.1), view(0.9), view(0.2)], "ok", False, 0.9, None),
        ([view(0.1), view(0.9)], "ok", False, 0.9, None),
        ([view(0.1), view(1.5), view(0.2)], "ok", True, 1.5, None),
        ([view(-3.0), view(-2.0)], "ok", False, -2.0, None),
        ([view(0.1)], "incomplete", None, 0.1, "1 of 2 to 3 views found"),
        ([view(1.5)], "ok", True, 1.5, None),  # flagged already: more views cannot make it good
        (
            [view(0.1), view(None, "error")],
            "error",
            None,
            0.1,
            "1 of 2 views could not be judged, the first: None.png",
        ),
        (
            [view(0.1), view(9.0, "outside")],
            "outside",
            None,
            0.1,
            "1 of 2 views could not be judged, the first: 9.0.png",
        ),
        ([view(1.5), view(None, "error")], "ok", True, 1.5, None),
        (
            [view(0.1)] * 4,
            "outside",
            None,
            None,
            "4 views found, 2 to 3 views in the units that set the threshold",
        ),
        (
            [view(1.5)] * 4,
            "outside",
            None,
            None,
            "4 views found, 2 to 3 views in the units that set the threshold",
        ),
        (
            [view(None, "error")] * 2,
            "error",
            None,
            None,
            "2 of 2 views could not be judged, the first: None.png",
        ),
    ],
)
def test_a_unit_is_as_bad_as_its_worst_view_and_never_good_unseen(
    views: list[View], status: str, is_anomaly: bool | None, score: float | None, error: str | None
) -> None:
    row = judge_unit("7", views, RULE, "d")
    assert (row.unit, row.views, row.status, row.is_anomaly, row.score, row.error) == (
        "7", len(views), status, is_anomaly, score, error,
    )  # fmt: skip
    assert row.worst == (None if score is None else f"{score}.png")
    if is_anomaly is None:
        assert row.result == "not judged"
    else:  # a view above 0.8 is for review
        assert row.result == (
            "flagged" if is_anomaly else "review" if score == 0.9 else "not flagged"
        )


@given(
    st.lists(
        st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=4), min_size=1, max_size=30
    )
)
def test_the_score_of_a_unit_is_the_highest_of_its_views_in_any_order(
    parts: list[list[float]],
) -> None:
    scores = [score for unit in parts for score in unit]
    names = [f"{i:02}" for i, unit in enumerate(parts) for _ in unit]
    order = np.random.default_rng(0).permutation(len(scores))
    values, index = worst_per_unit([scores[i] for i in order], [names[i] for i in order])
    assert values.tolist() == [max(unit) for unit in parts]
    assert [names[order[i]] for i in index] == sorted(set(names))


def test_a_view_without_a_score_is_the_worst() -> None:
    values, index = worst_per_unit([1.0, np.nan, 5.0, 2.0], ["a", "a", "a", "b"])
    assert np.isnan(values[0]) and (values[1], index.tolist()) == (2.0, [1, 3])


def test_the_guarantee_holds_for_exchangeable_units_whatever_their_views_share() -> None:
    rng, flagged, of = np.random.default_rng(0), 0, 0
    for _ in range(400):
        # views of a unit are alike
        scores = rng.normal(size=(40, 1)) + 0.3 * rng.normal(size=(40, 6))
        parts = np.repeat(np.arange(40).astype(str), 6)
        values, _ = worst_per_unit(scores.ravel(), parts)
        threshold = calibrate(values[:39], 0.05)
        flagged, of = flagged + int(threshold.is_anomaly(values[39])), of + 1
    assert flagged <= 32  # of 400 expect at most 20; 3 standard deviations more


# --- the threshold --------------------------------------------------------------------------------
def test_the_threshold_is_set_by_the_worst_view_of_each_unit(
    run: Path, per_unit: Path, good: Path
) -> None:
    card, scorer = read_card(per_unit), Scorer(run, device="cpu")
    scores = np.array(
        [
            [scorer.score(good / f"{unit:03}_cam{view}.png").score for view in range(3)]
            for unit in range(24)
        ]
    )
    assert card.calibration == calibrate(scores.max(1), 0.1)
    assert card.training.by_unit == UnitRule(PATTERN, 3, 3)
    worst = int(scores.max(1).argmax())
    assert card.training.highest[0] == f"{worst:03}_cam{scores[worst].argmax()}.png"


def test_without_a_rule_that_of_the_detector_stays_and_incomplete_units_set_no_threshold(
    per_unit: Path, good: Path, tmp_path: Path
) -> None:
    shutil.copytree(good, tmp_path / "new")
    (tmp_path / "new" / "003_cam1.png").unlink()
    (tmp_path / "new" / "004_cam1.png").write_bytes(b"")
    card, _, left_out = recalibrate_on(
        per_unit, GoodImages(tmp_path / "new"), out=tmp_path / "n.onnx", asked=Asked(0.1)
    )
    assert (card.calibration.n, card.training.by_unit) == (22, UnitRule(PATTERN, 3, 3))
    assert left_out[0] == "unit 003: 2 of 3 views found"
    assert sum("another view of its unit is left out" in line for line in left_out) == 2
    with pytest.raises(
        CalibrationError, match="--by-unit and --group-by found, one of them expected"
    ):
        recalibrate_on(
            per_unit,
            GoodImages(good, group_by="a", by_unit="b"),
            out=tmp_path / "m.onnx",
            asked=Asked(0.1),
        )


def test_training_guarantees_per_unit(good: Path, tmp_path: Path) -> None:
    options = TrainOptions(
        good,
        tmp_path / "run",
        space="pixels",
        size=32,
        by_unit=PATTERN,
        false_alarm_rate=0.1,
        calibrate="split",
    )
    plan, card = dry_run(options), train(options, lambda line: None)
    assert card is not None and card.calibration is not None
    assert (card.calibration.n, card.training.by_unit) == (
        plan.prospect.n,
        UnitRule(PATTERN, 3, 3),
    )
    assert (
        plan.text()
        .splitlines()[1]
        .startswith("effective number        24 units of up to 3 views: a guarantee counts units")
    )
    assert card.training.sets["calibration"] == 3 * card.calibration.n
    scorer = Scorer(tmp_path / "run", device="cpu")
    with open(tmp_path / "run" / "images.csv") as file:
        used = [line.split(",")[0] for line in file if ",calibration," in line]
    scores = np.array([scorer.score(path).score for path in used], np.float32)
    assert card.calibration.scores.tolist() == sorted(
        worst_per_unit(scores, [Path(p).name[:3] for p in used])[0].tolist()
    )


def test_views_of_a_unit_that_is_not_whole_are_not_used_nor_suspected(
    good: Path, tmp_path: Path
) -> None:
    folder, said = tmp_path / "good", list[str]()
    shutil.copytree(good, folder)
    write_chunk(folder, 3, defect=True)  # cam2 is what is most unusual
    (folder / "003_cam0.png").write_bytes(b"no image")
    card = train(
        TrainOptions(folder, tmp_path / "run", space="pixels", size=32, by_unit=PATTERN),
        said.append,
    )
    assert card is not None and (card.training.images, card.training.groups) == (69, 23)
    assert sum(card.training.sets.values()) == 69
    assert "003_cam" not in (tmp_path / "run" / "suspects.txt").read_text()
    assert [line.removeprefix("left out: ") for line in said[1:3]] == [
        f"{folder / f'003_cam{view}.png'}: another view of its unit could not be read"
        for view in (1, 2)
    ]


def test_without_one_whole_unit_there_is_nothing_to_train_on(good: Path, tmp_path: Path) -> None:
    for unit in range(5):
        shutil.copy(good / f"00{unit}_cam0.png", tmp_path)
        (tmp_path / f"00{unit}_cam1.png").write_bytes(b"no image")
    with pytest.raises(
        DatasetError,
        match=r"^no unit found of which every view can be read, the first that cannot: .*000_cam1",
    ):
        train(
            TrainOptions(tmp_path, tmp_path / "run", space="pixels", size=32, by_unit=PATTERN),
            lambda line: None,
        )


# --- the tables -----------------------------------------------------------------------------------
@pytest.fixture
def line(good: Path, tmp_path: Path) -> Path:
    """Returns a folder with six units: good, defective, a view missing, one too many, one
    unreadable, and no part.
    """
    folder = tmp_path / "line"
    folder.mkdir()
    for view in range(3):
        shutil.copy(good / f"000_cam{view}.png", folder / f"100_cam{view}.png")
    write_chunk(folder, 101, defect=True)
    for unit, views in ((102, 2), (103, 4), (104, 3)):
        for view in range(views):
            shutil.copy(folder / "100_cam0.png", folder / f"{unit}_cam{view}.png")
    (folder / "104_cam2.png").write_bytes(b"no image")
    shutil.copy(folder / "100_cam0.png", folder / "stray.png")
    return folder


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_units_are_judged_and_what_is_not_wholly_seen_is_never_good(
    suffix: str, per_unit: Path, line: Path, tmp_path: Path
) -> None:
    table = tmp_path / f"t{suffix}"
    summary = score_table(Scorer(per_unit, device="cpu"), list_sources([line]), table)
    rows = {Path(row.path).name: row for row in read_table(table)}
    stray = rows["stray.png"]
    assert (stray.status, stray.is_anomaly, stray.score) == ("error", None, None)
    assert stray.error == f"its path names no unit: {PATTERN!r} (--by-unit) does not match it"
    assert summary.units is not None
    assert (
        summary.units.units,
        summary.units.ok,
        summary.units.flagged,
        summary.units.of_no_unit,
    ) == (5, 2, 1, 1)
    assert summary.units.others == {"incomplete": 1, "outside": 1, "error": 1}
    assert summary.units.not_judged == 4
    said = summary_text(summary).splitlines()
    assert said[1].endswith("images judged; the rate is per unit, not per image")
    assert said[-3].startswith(
        "units flagged           1 of 2 units judged (50 %); if all are good expect 0.16, up to "
    )
    assert said[-2] == (
        "units not judged        1 error, 1 incomplete, 1 outside, 1 image of no unit; treat "
        "as not OK"
    )
    assert said[-1] == f"units table             {tmp_path / f't-units{suffix}'}"
    if suffix == ".jsonl":
        parts = folds(table)
        assert {
            name: (row["views"], row["status"], row["is_anomaly"]) for name, row in parts.items()
        } == {
            "100": (3, "ok", False),
            "101": (3, "ok", True),
            "102": (2, "incomplete", None),
            "103": (4, "outside", None),
            "104": (3, "error", None),
        }
        worst = rows["101_cam2.png"]
        assert (parts["101"]["worst"], parts["101"]["score"]) == (worst.path, worst.score)
        assert (
            parts["101"]["p_value"] == worst.p_value and parts["101"]["detector"] == worst.detector
        )
        assert parts["100"]["score"] == max(rows[f"100_cam{view}.png"].score for view in range(3))
    if suffix == ".parquet":
        import pyarrow.parquet

        found = pyarrow.parquet.read_table(tmp_path / "t-units.parquet").to_pylist()
        assert [row["unit"] for row in found] == ["100", "101", "102", "103", "104"]
        assert tuple(found[0]) == UnitRow._fields


def test_a_killed_run_ends_with_the_same_units(per_unit: Path, line: Path, tmp_path: Path) -> None:
    scorer, whole, table = (
        Scorer(per_unit, device="cpu"),
        tmp_path / "whole.jsonl",
        tmp_path / "killed.jsonl",
    )
    score_table(scorer, list_sources([line]), whole)

    def killed() -> Iterator[object]:
        for number, source in enumerate(list_sources([line])):
            if number == 7:
                raise KeyboardInterrupt
            yield source

    with pytest.raises(KeyboardInterrupt):
        score_table(scorer, killed(), table, options=RunOptions(chunk_rows=2))
    assert not units_table(table).exists()
    score_table(scorer, list_sources([line]), table, options=RunOptions(chunk_rows=2))
    assert folds(table) == folds(whole)
    assert not (tmp_path / "killed.jsonl.chunks").exists()
    with pytest.raises(AnomalyError, match=r"killed.jsonl: a finished table found"):
        score_table(scorer, list_sources([line]), table)
    table.unlink()
    with pytest.raises(AnomalyError, match=r"killed-units.jsonl: a finished table found"):
        score_table(scorer, list_sources([line]), table)


def test_a_path_given_twice_is_one_view_and_the_order_does_not_matter(
    per_unit: Path, line: Path, tmp_path: Path
) -> None:
    scorer, images = Scorer(per_unit, device="cpu"), sorted(line.glob("10[01]*"))
    score_table(scorer, images, tmp_path / "a.jsonl")
    score_table(scorer, [*images[::-1], *images], tmp_path / "b.jsonl")
    assert folds(tmp_path / "a.jsonl") == folds(tmp_path / "b.jsonl")


def test_shards_hold_whole_units(per_unit: Path, good: Path) -> None:
    rule = UnitRule(PATTERN, 3, 3)
    shards = [
        [Path(s.name).name for s in shard(list_sources([good]), i, 3, rule.unit_of)]
        for i in (1, 2, 3)
    ]
    assert sorted(name for names in shards for name in names) == sorted(
        path.name for path in good.iterdir()
    )
    parts = [{name[:3] for name in names} for names in shards]
    assert all(parts) and not (parts[0] & parts[1] or parts[0] & parts[2] or parts[1] & parts[2])


def row(path: str, score: float) -> Row:
    values = dict.fromkeys(Row._fields) | {
        "path": path,
        "score": score,
        "is_anomaly": score > 1,
        "status": "ok",
    }
    return Row(
        **values | {"threshold": 1.0, "detector": "d", "scored_at": "2026-01-01T00:00:00.000Z"}
    )


def test_many_images_take_a_few_megabytes(tmp_path: Path) -> None:
    table, count = tmp_path / "t.jsonl", 20_000
    scores = np.random.default_rng(0).uniform(0, 1.0001, count)
    with open(tmp_path / "unit", "wb") as file:
        # cameras after each other: the views of a unit lie far apart
        for start in range(0, count, 5000):
            numbers = [(i // 5000, i % 5000, float(scores[i])) for i in range(start, start + 5000)]
            rows = [
                row(f"cam{view}/{unit:05}_cam{view}.png", score) for view, unit, score in numbers
            ]
            file.write(encode_rows(rows, ".jsonl"))
    with open(table, "wb") as file:
        join_chunks([tmp_path / "unit"], ".jsonl", file)
    threshold = calibrate(np.linspace(0, 1, 99), 0.01)
    tracemalloc.start()
    summary = write_units(table, {"d": (UnitRule(PATTERN, 4, 4), threshold)}, tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (summary.units, summary.ok, summary.flagged) == (
        5000,
        5000,
        int((scores.reshape(4, -1) > 1).any(0).sum()),
    )
    assert peak < 8 << 20
    assert {path.name for path in tmp_path.iterdir()} == {"unit", "t.jsonl", "t-units.jsonl"}


def test_a_pattern_that_makes_one_unit_of_everything_is_said_and_not_held(tmp_path: Path) -> None:
    table = tmp_path / "t.jsonl"
    table.write_bytes(encode_rows([row(f"{i:05}_cam1.png", 0.5) for i in range(5000)], ".jsonl"))
    summary = write_units(table, {"d": (UnitRule(r"cam\d", 1, 3), None)}, tmp_path)
    assert (summary.units, summary.others) == (1, {"outside": 1})
    assert (
        folds(table)["cam1"]["error"]
        == "5,000 views found, 1 to 3 views in the units that set the threshold"
    )


# --- images as they come --------------------------------------------------------------------------
def test_a_watch_says_what_it_guarantees_and_joins_units_when_it_ends(
    per_unit: Path, line: Path, tmp_path: Path
) -> None:
    (tmp_path / "watch").mkdir()
    watched = Line(per_unit, tmp_path / "watch")
    table = units_table(watched.out)
    try:
        watched.start()
        assert (
            "the rate is per unit of 3 views, not per image: an image above the threshold "
            "flags its unit at once"
        ) in watched.said()
        assert (
            f"no unit is good before {table} says so, which is written when this ends"
            in watched.said()
        )
        for image in sorted(line.glob("*.png")):
            if image.name != "100_cam2.png":
                shutil.copy(image, watched.folder)
        watched.row("stray.png")
        until(lambda: len(watched.rows()) == 15)
        assert watched.stop() == 3
        assert "units flagged           1 of 1 unit judged" in watched.said()
        found = {
            row["unit"]: row["status"] for row in csv.DictReader(table.read_text().splitlines())
        }
        assert found == {
            "100": "incomplete",
            "101": "ok",
            "102": "incomplete",
            "103": "outside",
            "104": "error",
        }

        watched.start("--fail-on-anomaly")
        assert not table.exists()  # it would not know what arrives now
        shutil.copy(line / "100_cam2.png", watched.folder)
        watched.row("100_cam2.png")
        assert watched.stop() == 4
        judged = {
            row["unit"]: (row["status"], row["is_anomaly"])
            for row in csv.DictReader(table.read_text().splitlines())
        }
        assert (judged["100"], judged["101"]) == (("ok", "false"), ("ok", "true"))

        watched.out.unlink()
        watched.start(ready=False)
        assert watched.process is not None and watched.process.wait(30) == 1
        assert (
            f"{table}: a table of units found, but not {watched.out}: choose another --out, or "
            "--force"
        ) in watched.said()
    finally:
        if watched.process is not None and watched.process.poll() is None:
            watched.process.kill()
            watched.process.wait()


def test_the_service_says_that_it_judges_images(per_unit: Path, good: Path, tmp_path: Path) -> None:
    pytest.importorskip("fastapi")
    with serving(tmp_path / "log.txt", per_unit) as service:
        answer = service.post("/score", (good / "000_cam0.png").read_bytes())
        assert (answer.status, answer.json["guaranteed_per"], answer.json["is_anomaly"]) == (
            200,
            "unit",
            False,
        )
    first = json.loads((tmp_path / "log.txt").read_text().splitlines()[0])
    assert (first["level"], first["detector"]) == ("warning", "detector")
    assert first["message"].startswith(
        "the false-alarm rate of this detector is per unit of 3 views, and images are judged here "
        "one by one"
    )


# --- the other commands ---------------------------------------------------------------------------
def test_figures_count_units(per_unit: Path, good: Path, tmp_path: Path) -> None:
    for label in ("good", "hole"):
        (tmp_path / label).mkdir()
    for unit in range(300, 310):
        write_chunk(tmp_path / "good", unit)
    for unit in (200, 201, 202):
        write_chunk(tmp_path / "hole", unit, defect=True)
    # this unit set the threshold: it is left out, all its views
    shutil.copy(sorted(good.iterdir())[0], tmp_path / "good")
    judged = evaluate_labelled(Scorer(per_unit, device="cpu"), tmp_path)
    assert (judged.evaluation.n_normal, judged.evaluation.n_anomalous) == (10, 3)
    assert len(judged.used) == 1
    assert judged.evaluation.recall.flagged == 3
    assert (
        f"good units flagged      {judged.evaluation.false_alarms.flagged.flagged} of 10 good "
        "units flagged"
    ) in figures_text(judged)


def test_check_judges_units(per_unit: Path, good: Path, tmp_path: Path) -> None:
    found = check(per_unit, good)
    assert (found.images, found.advice, found.flagged) == (24, "keep", 1)
    assert "good units flagged      1 of 24" in check_text(found, "run", "good")
    with pytest.raises(CalibrationError, match="is per unit and it knows its units: leave it out"):
        check(per_unit, good, group_by="a")


def test_the_commands(
    run: Path,
    per_unit: Path,
    good: Path,
    line: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def said(*arguments: object) -> tuple[int, str, str]:
        status = main([str(argument) for argument in arguments])
        return status, *capsys.readouterr()

    status, out, err = said(
        "calibrate",
        run,
        "--normal",
        good,
        "--by-unit",
        PATTERN,
        "--out",
        tmp_path / "new.onnx",
        "--false-alarm-rate",
        "10%",
        "--accept-worse",
    )
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[1].endswith(
        "set by 24 good units that training did not see, each by its worst view"
    )
    assert lines[2].startswith(
        "good units flagged      about 1 in 12 (8 %); 95 % confident: at most "
    )
    assert lines[3].strip().startswith("in 50 good units expect 4")
    assert lines[5] == (
        "holds for               good units like these 24, of 3 views: not for a new lot, "
        "light or camera"
    )
    assert lines[-3].endswith("8 % (2 of 25)") and lines[-1].split()[-3:] == ["24", "good", "units"]
    status, out, _ = said("score", tmp_path / "new.onnx", line, "--out", tmp_path / "a.csv")
    assert status == 3 and "units flagged           1 of 2 units judged" in out
    assert (
        said(
            "score", tmp_path / "new.onnx", line, "--out", tmp_path / "b.csv", "--fail-on-anomaly"
        )[0]
        == 4
    )
    fine = sorted(line.glob("100*"))
    assert (
        said(
            "score", tmp_path / "new.onnx", *fine, "--out", tmp_path / "c.csv", "--fail-on-anomaly"
        )[0]
        == 0
    )
    status, _, err = said("score", tmp_path / "new.onnx", line, "--out", "-")
    assert status == 1 and err.startswith(
        "anomaly: --out - found, but the rate of this detector is per unit, and units need a table"
    )
    status, _, err = said("score", per_unit, "--watch", line, "--out", "-")
    assert status == 1 and err.startswith(
        "anomaly: --out - found, but the rate of this detector is per unit"
    )
    status, _, err = said("calibrate", per_unit, "--verdicts", "none.db")
    assert status == 1 and err.startswith(
        "anomaly: --verdicts and units found: an audit sample draws images"
    )
    status, _, err = said("train", good, "--out", tmp_path / "x", "--dry-run", "--views", "3")
    assert (status, err) == (
        1,
        "anomaly: --views 3 without --by-unit found: say how a path names its unit\n",
    )
    assert sys.exc_info() == (None, None, None)


def test_a_page_shows_the_unit_that_its_file_names() -> None:
    rule = UnitRule(r"(\d+)", 1, 2)
    assert [
        rule.unit_of(path) for path in ("p07.tif", "p07.tif#2", "p07.tif#11", "list.csv#3")
    ] == ["07", "07", "07", "3"]
