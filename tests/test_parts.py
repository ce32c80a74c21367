"""A part is judged by its worst view, the promise is one for parts, and a part that was not wholly seen is never good."""

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
from anomaly.batch import score_table
from anomaly.calibrate import calibrate, worst_per_part
from anomaly.check import check
from anomaly.cli import main
from anomaly.dataset import Record
from anomaly.detector import read_card
from anomaly.errors import AnomalyError, CalibrationError, DatasetError
from anomaly.labelled import evaluate_labelled, figures_text
from anomaly.part_rule import PartRule
from anomaly.parts import PartRow, View, by_part, judge_part, parts_table, whole_parts, write_parts
from anomaly.recalibrate import recalibrate_on
from anomaly.sources import list_sources, shard
from anomaly.table import Row, encode_rows, join_parts, read_table
from data.made_up import make
from tests.serving import serving
from tests.test_watch import Line, until
from training.options import TrainOptions
from training.plan import dry_run
from training.train import train

PATTERN = r"(\d+)_cam\d"
VIEWS = 3


def write_part(folder: Path, part: int, views: int = VIEWS, defect: bool = False) -> None:
    """Writes made-up discs as the views of a part; with ``defect`` the last of them has one."""
    for view in range(views):
        pixels = make("disc", 500 + 10 * part + view, 64, "missing" if defect and view == views - 1 else None)[0]
        Image.fromarray(pixels).save(folder / f"{part:03}_cam{view}.png")


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder of 24 good parts of three views."""
    folder = tmp_path_factory.mktemp("good")
    for part in range(24):
        write_part(folder, part)
    return folder


@pytest.fixture(scope="module")
def per_part(run: Path, good: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a detector whose limit was set by these parts, at 10 %."""
    out = tmp_path_factory.mktemp("per-part") / "detector.onnx"
    recalibrate_on(run, good, out=out, wish=0.1, group_by=None, seed=0, by_part=PATTERN)
    return out


def parts_of(table: Path) -> dict[str, dict[str, object]]:
    """Returns the rows of a table of parts in JSON lines by the part's name."""
    rows = [json.loads(line) for line in parts_table(table).read_text().splitlines()]
    return {row["part"]: row for row in rows}


# --- which images are a part ------------------------------------------------------------------------------------------
def record(name: str) -> Record:
    return Record(Path("photos") / name, None, "good", name, None)


def test_records_get_their_part_as_their_group() -> None:
    records = [record(f"{part}_cam{view}.png") for part, views in ((1, 2), (2, 1), (3, 2)) for view in range(views)]
    named, left_out = by_part(records, PATTERN)
    assert ([r.group for r in named], left_out) == (["1", "1", "2", "3", "3"], [])
    named, left_out = by_part(records, PATTERN, views=2)
    assert ([r.group for r in named], left_out) == (["1", "1", "3", "3"], ["part 2: 1 of 2 views found"])
    with pytest.raises(DatasetError, match=r"^no part with 4 views found \(1 has 2\): check --by-part and --views$"):
        by_part(records, PATTERN, views=4)
    with pytest.raises(DatasetError, match=r"does not match 'photos/a\.png': every path must name its part$"):
        by_part([record("a.png")], PATTERN)


def test_a_part_that_lost_a_view_is_left_out_whole() -> None:
    before, _ = by_part([record(f"{part}_cam{view}.png") for part in (1, 2) for view in range(2)], PATTERN)
    assert [r.group for r in whole_parts(before[1:], before)] == ["2", "2"]


# --- a part's verdict -------------------------------------------------------------------------------------------------
RULE = PartRule(PATTERN, 2, 3)


def view(score: float | None, status: str = "ok", limit: float = 1.0) -> View:
    flagged = None if status != "ok" or score is None else score > limit
    return View(f"{score}.png", score, None if score is None else 1 / (1 + abs(score)), limit, flagged, status)


@pytest.mark.parametrize(
    ("views", "status", "is_anomaly", "score", "error"),
    [
        ([view(0.1), view(0.9), view(0.2)], "ok", False, 0.9, None),
        ([view(0.1), view(0.9)], "ok", False, 0.9, None),
        ([view(0.1), view(1.5), view(0.2)], "ok", True, 1.5, None),
        ([view(-3.0), view(-2.0)], "ok", False, -2.0, None),
        ([view(0.1)], "incomplete", None, 0.1, "1 of 2 to 3 views found"),
        ([view(1.5)], "ok", True, 1.5, None),  # stopped already: more views cannot make it good
        ([view(0.1), view(None, "error")], "error", None, 0.1, "1 of 2 views could not be judged, the first: None.png"),
        ([view(0.1), view(9.0, "outside")], "outside", None, 0.1, "1 of 2 views could not be judged, the first: 9.0.png"),
        ([view(1.5), view(None, "error")], "ok", True, 1.5, None),
        ([view(0.1)] * 4, "outside", None, None, "4 views found, 2 to 3 views in the parts that set the limit"),
        ([view(1.5)] * 4, "outside", None, None, "4 views found, 2 to 3 views in the parts that set the limit"),
        ([view(None, "error")] * 2, "error", None, None, "2 of 2 views could not be judged, the first: None.png"),
    ],
)  # fmt: skip
def test_a_part_is_as_bad_as_its_worst_view_and_never_good_unseen(
    views: list[View], status: str, is_anomaly: bool | None, score: float | None, error: str | None
) -> None:
    row = judge_part("7", views, RULE, "d")
    assert (row.part, row.views, row.status, row.is_anomaly, row.score, row.error) == (
        "7", len(views), status, is_anomaly, score, error,
    )  # fmt: skip
    assert row.worst == (None if score is None else f"{score}.png")


@given(st.lists(st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=4), min_size=1, max_size=30))
def test_the_score_of_a_part_is_the_highest_of_its_views_in_any_order(parts: list[list[float]]) -> None:
    scores = [score for part in parts for score in part]
    names = [f"{i:02}" for i, part in enumerate(parts) for _ in part]
    order = np.random.default_rng(0).permutation(len(scores))
    values, index = worst_per_part([scores[i] for i in order], [names[i] for i in order])
    assert values.tolist() == [max(part) for part in parts]
    assert [names[order[i]] for i in index] == sorted(set(names))


def test_a_view_without_a_score_is_the_worst() -> None:
    values, index = worst_per_part([1.0, np.nan, 5.0, 2.0], ["a", "a", "a", "b"])
    assert np.isnan(values[0]) and (values[1], index.tolist()) == (2.0, [1, 3])


def test_the_promise_holds_for_exchangeable_parts_whatever_their_views_share() -> None:
    rng, stopped, of = np.random.default_rng(0), 0, 0
    for _ in range(400):
        scores = rng.normal(size=(40, 1)) + 0.3 * rng.normal(size=(40, 6))  # views of a part are alike
        parts = np.repeat(np.arange(40).astype(str), 6)
        values, _ = worst_per_part(scores.ravel(), parts)
        limit = calibrate(values[:39], 0.05)
        stopped, of = stopped + int(limit.is_anomaly(values[39])), of + 1
    assert stopped <= 32  # of 400 expect at most 20; 3 standard deviations more


# --- the limit --------------------------------------------------------------------------------------------------------
def test_the_limit_is_set_by_the_worst_view_of_each_part(run: Path, per_part: Path, good: Path) -> None:
    card, scorer = read_card(per_part), Scorer(run, device="cpu")
    scores = np.array([[scorer.score(good / f"{part:03}_cam{view}.png").score for view in range(3)] for part in range(24)])
    assert card.calibration == calibrate(scores.max(1), 0.1)
    assert PartRule.of(card.training) == PartRule(PATTERN, 3, 3)
    worst = int(scores.max(1).argmax())
    assert card.training["highest"][0] == f"{worst:03}_cam{scores[worst].argmax()}.png"


def test_without_a_rule_that_of_the_detector_stays_and_incomplete_parts_set_no_limit(
    per_part: Path, good: Path, tmp_path: Path
) -> None:
    shutil.copytree(good, tmp_path / "new")
    (tmp_path / "new" / "003_cam1.png").unlink()
    (tmp_path / "new" / "004_cam1.png").write_bytes(b"")
    card, _, left_out = recalibrate_on(per_part, tmp_path / "new", out=tmp_path / "n.onnx", wish=0.1, group_by=None, seed=0)
    assert (card.calibration.n, PartRule.of(card.training)) == (22, PartRule(PATTERN, 3, 3))
    assert left_out[0] == "part 003: 2 of 3 views found"
    assert sum("another view of its part is left out" in line for line in left_out) == 2
    with pytest.raises(CalibrationError, match="--by-part and --group-by found, one of them expected"):
        recalibrate_on(per_part, good, out=tmp_path / "m.onnx", wish=0.1, group_by="a", seed=0, by_part="b")


def test_training_promises_per_part(good: Path, tmp_path: Path) -> None:
    options = TrainOptions(good, tmp_path / "run", space="pixels", size=32, by_part=PATTERN, false_alarm_rate=0.1)
    plan, card = dry_run(options), train(options, lambda line: None)
    assert card is not None and card.calibration is not None
    assert (card.calibration.n, PartRule.of(card.training)) == (plan.prospect.n, PartRule(PATTERN, 3, 3))
    assert plan.text().splitlines()[1].startswith("effective number        24 parts of up to 3 views: a promise counts parts")
    assert card.training["sets"]["calibration"] == 3 * card.calibration.n
    scorer = Scorer(tmp_path / "run", device="cpu")
    with open(tmp_path / "run" / "images.csv") as file:
        used = [line.split(",")[0] for line in file if ",calibration," in line]
    scores = np.array([scorer.score(path).score for path in used], np.float32)
    assert card.calibration.scores.tolist() == sorted(worst_per_part(scores, [Path(p).name[:3] for p in used])[0].tolist())


def test_views_of_a_part_that_is_not_whole_are_not_used_nor_suspected(good: Path, tmp_path: Path) -> None:
    folder, said = tmp_path / "good", list[str]()
    shutil.copytree(good, folder)
    write_part(folder, 3, defect=True)  # cam2 is what is most unusual
    (folder / "003_cam0.png").write_bytes(b"no image")
    card = train(TrainOptions(folder, tmp_path / "run", space="pixels", size=32, by_part=PATTERN), said.append)
    assert card is not None and (card.training["images"], card.training["groups"]) == (69, 23)
    assert sum(card.training["sets"].values()) == 69
    assert "003_cam" not in (tmp_path / "run" / "suspects.txt").read_text()
    assert [line.removeprefix("left out: ") for line in said[1:3]] == [
        f"{folder / f'003_cam{view}.png'}: another view of its part could not be read" for view in (1, 2)
    ]


def test_without_one_whole_part_there_is_nothing_to_train_on(good: Path, tmp_path: Path) -> None:
    for part in range(5):
        shutil.copy(good / f"00{part}_cam0.png", tmp_path)
        (tmp_path / f"00{part}_cam1.png").write_bytes(b"no image")
    with pytest.raises(
        DatasetError, match=r"^no part found of which every view can be read, the first that cannot: .*000_cam1"
    ):
        train(TrainOptions(tmp_path, tmp_path / "run", space="pixels", size=32, by_part=PATTERN), lambda line: None)


# --- the tables -------------------------------------------------------------------------------------------------------
@pytest.fixture
def line(good: Path, tmp_path: Path) -> Path:
    """Returns a folder with six parts: good, defective, a view missing, one too many, one unreadable, and no part."""
    folder = tmp_path / "line"
    folder.mkdir()
    for view in range(3):
        shutil.copy(good / f"000_cam{view}.png", folder / f"100_cam{view}.png")
    write_part(folder, 101, defect=True)
    for part, views in ((102, 2), (103, 4), (104, 3)):
        for view in range(views):
            shutil.copy(folder / "100_cam0.png", folder / f"{part}_cam{view}.png")
    (folder / "104_cam2.png").write_bytes(b"no image")
    shutil.copy(folder / "100_cam0.png", folder / "stray.png")
    return folder


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_parts_are_judged_and_what_is_not_wholly_seen_is_never_good(
    suffix: str, per_part: Path, line: Path, tmp_path: Path
) -> None:
    table = tmp_path / f"t{suffix}"
    summary = score_table(Scorer(per_part, device="cpu"), list_sources([line]), table)
    rows = {Path(row.path).name: row for row in read_table(table)}
    stray = rows["stray.png"]
    assert (stray.status, stray.is_anomaly, stray.score) == ("error", None, None)
    assert stray.error == f"its path names no part: {PATTERN!r} (--by-part) does not match it"
    assert summary.parts is not None
    assert (summary.parts.parts, summary.parts.ok, summary.parts.stopped, summary.parts.of_no_part) == (5, 2, 1, 1)
    assert summary.parts.others == {"incomplete": 1, "outside": 1, "error": 1}
    assert summary.parts.not_judged == 4
    said = summary.text().splitlines()
    assert said[1].endswith("images judged; the promise is per part, not per image")
    assert said[-3].startswith("parts stopped           1 of 2 parts judged (50 %); if all are good expect 0.16, up to ")
    assert said[-2] == "parts not judged        1 error, 1 incomplete, 1 outside, 1 image of no part; treat as not OK"
    assert said[-1] == f"parts table             {tmp_path / f't-parts{suffix}'}"
    if suffix == ".jsonl":
        parts = parts_of(table)
        assert {name: (row["views"], row["status"], row["is_anomaly"]) for name, row in parts.items()} == {
            "100": (3, "ok", False),
            "101": (3, "ok", True),
            "102": (2, "incomplete", None),
            "103": (4, "outside", None),
            "104": (3, "error", None),
        }
        worst = rows["101_cam2.png"]
        assert (parts["101"]["worst"], parts["101"]["score"]) == (worst.path, worst.score)
        assert parts["101"]["p_value"] == worst.p_value and parts["101"]["detector"] == worst.detector
        assert parts["100"]["score"] == max(rows[f"100_cam{view}.png"].score for view in range(3))
    if suffix == ".parquet":
        import pyarrow.parquet

        found = pyarrow.parquet.read_table(tmp_path / "t-parts.parquet").to_pylist()
        assert [row["part"] for row in found] == ["100", "101", "102", "103", "104"]
        assert tuple(found[0]) == PartRow._fields


def test_a_killed_run_ends_with_the_same_parts(per_part: Path, line: Path, tmp_path: Path) -> None:
    scorer, whole, table = Scorer(per_part, device="cpu"), tmp_path / "whole.jsonl", tmp_path / "killed.jsonl"
    score_table(scorer, list_sources([line]), whole)

    def killed() -> Iterator[object]:
        for number, source in enumerate(list_sources([line])):
            if number == 7:
                raise KeyboardInterrupt
            yield source

    with pytest.raises(KeyboardInterrupt):
        score_table(scorer, killed(), table, part_rows=2)
    assert not parts_table(table).exists()
    score_table(scorer, list_sources([line]), table, part_rows=2)
    assert parts_of(table) == parts_of(whole)
    assert not (tmp_path / "killed.jsonl.parts").exists()
    with pytest.raises(AnomalyError, match=r"killed.jsonl: a finished table found"):
        score_table(scorer, list_sources([line]), table)
    table.unlink()
    with pytest.raises(AnomalyError, match=r"killed-parts.jsonl: a finished table found"):
        score_table(scorer, list_sources([line]), table)


def test_a_path_given_twice_is_one_view_and_the_order_does_not_matter(per_part: Path, line: Path, tmp_path: Path) -> None:
    scorer, images = Scorer(per_part, device="cpu"), sorted(line.glob("10[01]*"))
    score_table(scorer, images, tmp_path / "a.jsonl")
    score_table(scorer, [*images[::-1], *images], tmp_path / "b.jsonl")
    assert parts_of(tmp_path / "a.jsonl") == parts_of(tmp_path / "b.jsonl")


def test_shards_hold_whole_parts(per_part: Path, good: Path) -> None:
    rule = PartRule(PATTERN, 3, 3)
    shards = [[Path(s.name).name for s in shard(list_sources([good]), i, 3, rule.part_of)] for i in (1, 2, 3)]
    assert sorted(name for names in shards for name in names) == sorted(path.name for path in good.iterdir())
    parts = [{name[:3] for name in names} for names in shards]
    assert all(parts) and not (parts[0] & parts[1] or parts[0] & parts[2] or parts[1] & parts[2])


def row(path: str, score: float) -> Row:
    values = dict.fromkeys(Row._fields) | {"path": path, "score": score, "is_anomaly": score > 1, "status": "ok"}
    return Row(**values | {"threshold": 1.0, "detector": "d", "scored_at": "2026-01-01T00:00:00.000Z"})


def test_many_images_take_a_few_megabytes(tmp_path: Path) -> None:
    table, count = tmp_path / "t.jsonl", 20_000
    scores = np.random.default_rng(0).uniform(0, 1.0001, count)
    with open(tmp_path / "part", "wb") as file:
        for start in range(0, count, 5000):  # cameras after each other: the views of a part lie far apart
            numbers = [(i // 5000, i % 5000, float(scores[i])) for i in range(start, start + 5000)]
            rows = [row(f"cam{view}/{part:05}_cam{view}.png", score) for view, part, score in numbers]
            file.write(encode_rows(rows, ".jsonl"))
    with open(table, "wb") as file:
        join_parts([tmp_path / "part"], ".jsonl", file)
    limit = calibrate(np.linspace(0, 1, 99), 0.01)
    tracemalloc.start()
    summary = write_parts(table, {"d": (PartRule(PATTERN, 4, 4), limit)}, tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (summary.parts, summary.ok, summary.stopped) == (5000, 5000, int((scores.reshape(4, -1) > 1).any(0).sum()))
    assert peak < 8 << 20
    assert {path.name for path in tmp_path.iterdir()} == {"part", "t.jsonl", "t-parts.jsonl"}


def test_a_pattern_that_makes_one_part_of_everything_is_said_and_not_held(tmp_path: Path) -> None:
    table = tmp_path / "t.jsonl"
    table.write_bytes(encode_rows([row(f"{i:05}_cam1.png", 0.5) for i in range(5000)], ".jsonl"))
    summary = write_parts(table, {"d": (PartRule(r"cam\d", 1, 3), None)}, tmp_path)
    assert (summary.parts, summary.others) == (1, {"outside": 1})
    assert parts_of(table)["cam1"]["error"] == "5,000 views found, 1 to 3 views in the parts that set the limit"


# --- images as they come ----------------------------------------------------------------------------------------------
def test_a_watch_says_what_it_promises_and_joins_parts_when_it_ends(per_part: Path, line: Path, tmp_path: Path) -> None:
    (tmp_path / "watch").mkdir()
    watched = Line(per_part, tmp_path / "watch")
    table = parts_table(watched.out)
    try:
        watched.start()
        assert (
            "the promise is per part of 3 views, not per image: an image above the limit stops its part at once"
            in watched.said()
        )
        assert f"no part is good before {table} says so, which is written when this ends" in watched.said()
        for image in sorted(line.glob("*.png")):
            if image.name != "100_cam2.png":
                shutil.copy(image, watched.folder)
        watched.row("stray.png")
        until(lambda: len(watched.rows()) == 15)
        assert watched.stop() == 3
        assert "parts stopped           1 of 1 part judged" in watched.said()
        found = {row["part"]: row["status"] for row in csv.DictReader(table.read_text().splitlines())}
        assert found == {"100": "incomplete", "101": "ok", "102": "incomplete", "103": "outside", "104": "error"}

        watched.start("--fail-on-anomaly")
        assert not table.exists()  # it would not know what arrives now
        shutil.copy(line / "100_cam2.png", watched.folder)
        watched.row("100_cam2.png")
        assert watched.stop() == 4
        judged = {row["part"]: (row["status"], row["is_anomaly"]) for row in csv.DictReader(table.read_text().splitlines())}
        assert (judged["100"], judged["101"]) == (("ok", "false"), ("ok", "true"))

        watched.out.unlink()
        watched.start(ready=False)
        assert watched.process is not None and watched.process.wait(30) == 1
        assert f"{table}: a table of parts found, but not {watched.out}: choose another --out, or --force" in watched.said()
    finally:
        if watched.process is not None and watched.process.poll() is None:
            watched.process.kill()
            watched.process.wait()


def test_the_service_says_that_it_judges_images(per_part: Path, good: Path, tmp_path: Path) -> None:
    pytest.importorskip("fastapi")
    with serving(tmp_path / "log.txt", per_part) as service:
        answer = service.post("/score", (good / "000_cam0.png").read_bytes())
        assert (answer.status, answer.json["promised_per"], answer.json["is_anomaly"]) == (200, "part", False)
    first = json.loads((tmp_path / "log.txt").read_text().splitlines()[0])
    assert (first["level"], first["detector"]) == ("warning", "detector")
    assert first["message"].startswith("this detector promises per part of 3 views, and images are judged here one by one")


# --- the other commands -----------------------------------------------------------------------------------------------
def test_figures_count_parts(per_part: Path, good: Path, tmp_path: Path) -> None:
    for label in ("good", "hole"):
        (tmp_path / label).mkdir()
    for part in range(300, 310):
        write_part(tmp_path / "good", part)
    for part in (200, 201, 202):
        write_part(tmp_path / "hole", part, defect=True)
    shutil.copy(sorted(good.iterdir())[0], tmp_path / "good")  # this part set the threshold: it is left out, all its views
    judged = evaluate_labelled(Scorer(per_part, device="cpu"), tmp_path)
    assert (judged.evaluation.n_normal, judged.evaluation.n_anomalous) == (10, 3)
    assert len(judged.used) == 1
    assert judged.evaluation.recall.flagged == 3
    assert f"good parts stopped      {judged.evaluation.false_alarms.stopped.flagged} of 10 good parts stopped" in figures_text(
        judged
    )


def test_check_judges_parts(per_part: Path, good: Path, tmp_path: Path) -> None:
    found = check(per_part, good)
    assert (found.images, found.verdict, found.stopped) == (24, "keep", 1)
    assert "good parts stopped      1 of 24" in found.text("run", "good")
    with pytest.raises(CalibrationError, match="promises per part and knows its parts: leave it out"):
        check(per_part, good, group_by="a")


def test_the_commands(
    run: Path, per_part: Path, good: Path, line: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(*arguments: object) -> tuple[int, str, str]:
        status = main([str(argument) for argument in arguments])
        return status, *capsys.readouterr()

    status, out, err = said("calibrate", run, "--normal", good, "--by-part", PATTERN, "--out", tmp_path / "new.onnx",
                            "--false-alarm-rate", "10%", "--accept-worse")  # fmt: skip
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[1].endswith("set by 24 good parts that training did not see, each by its worst view")
    assert lines[2].startswith("good parts stopped      about 1 in 12 (8 %); 95 % confident: at most ")
    assert lines[3].strip().startswith("in 50 good parts expect 4")
    assert lines[5] == "holds for               good parts like these 24, of 3 views: not for a new lot, light or camera"
    assert lines[-3].endswith("8 % (2 of 25)") and lines[-1].split()[-3:] == ["24", "good", "units"]
    status, out, _ = said("score", tmp_path / "new.onnx", line, "--out", tmp_path / "a.csv")
    assert status == 3 and "parts stopped           1 of 2 parts judged" in out
    assert said("score", tmp_path / "new.onnx", line, "--out", tmp_path / "b.csv", "--fail-on-anomaly")[0] == 4
    fine = sorted(line.glob("100*"))
    assert said("score", tmp_path / "new.onnx", *fine, "--out", tmp_path / "c.csv", "--fail-on-anomaly")[0] == 0
    status, _, err = said("score", tmp_path / "new.onnx", line, "--out", "-")
    assert status == 1 and err.startswith("anomaly: --out - found, but this detector promises per part, and parts need a table")
    status, _, err = said("score", per_part, "--watch", line, "--out", "-")
    assert status == 1 and err.startswith("anomaly: --out - found, but this detector promises per part")
    status, _, err = said("calibrate", per_part, "--verdicts", "none.db")
    assert status == 1 and err.startswith("anomaly: --verdicts and parts found: an audit sample draws images")
    status, _, err = said("train", good, "--out", tmp_path / "x", "--dry-run", "--views", "3")
    assert (status, err) == (1, "anomaly: --views 3 without --by-part found: say how a path names its part\n")
    assert sys.exc_info() == (None, None, None)


def test_a_page_shows_the_unit_that_its_file_names() -> None:
    rule = PartRule(r"(\d+)", 1, 2)
    assert [rule.part_of(path) for path in ("p07.tif", "p07.tif#2", "p07.tif#11", "list.csv#3")] == ["07", "07", "07", "3"]
