"""The review's commands, as a script calls them: score into a database, judge, export, calibrate."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from anomaly.cli import main
from anomaly.review import Filters, Store


@pytest.fixture(scope="module")
def database(run: Path, parts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a review database that `anomaly score --review` filled."""
    folder = tmp_path_factory.mktemp("review")
    status = main(
        ["score", str(run), str(parts / "test"), "--out", str(folder / "scores.csv"), "--review", str(folder / "review.db")]
    )
    assert status in (0, 3)
    return folder / "review.db"


def judge(database: Path, run: int = 1) -> tuple[int, int]:
    """Judges every image of the audit sample normal and every stopped one anomalous; returns how many of each."""
    with Store(database) as store:
        sampled = [f for f in store.findings(Filters(run=run), limit=1000) if f.sampled_as]
        for finding in sampled:
            verdict = "anomalous" if finding.is_anomaly else "normal"
            store.record("ann", finding.id, verdict, key=f"{finding.id}")
        return sum(bool(f.is_anomaly) for f in sampled), sum(not f.is_anomaly for f in sampled)


def test_the_table_is_there_and_a_second_import_adds_nothing(database: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["review", "import", str(database.with_name("scores.csv")), "--db", str(database)]) == 0
    assert "(it was there already)" in capsys.readouterr().out
    with Store(database) as store:
        assert [run.images for run in store.runs()] == [30 + 4 * 6]


def test_from_score_to_a_new_limit(database: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["review", "audit", "--db", str(database), "--images", "40"]) == 0
    stopped, passed = judge(database)
    assert stopped > 0 and passed > 0
    assert main(["review", "stats", "--db", str(database), "--json"]) == 0
    stats = json.loads(capsys.readouterr().out.split("dashboard\n", 1)[-1])
    assert stats["team"]["inspectors"][0]["name"] == "ann"
    out = tmp_path / "new.onnx"
    given = ["calibrate", str(run), "--verdicts", str(database), "--out", str(out), "--false-alarm-rate", "0.3"]
    assert main(given) == 0
    assert out.exists() and "set by" in capsys.readouterr().out


def test_exports(database: Path, tmp_path: Path) -> None:
    for name in ("findings.csv", "findings.jsonl", "coco.json", "folder"):
        assert main(["review", "export", "--db", str(database), str(tmp_path / name)]) == 0
    assert main(["review", "export", "--db", str(database), "--log", str(tmp_path / "log.jsonl")]) == 0
    assert len((tmp_path / "findings.jsonl").read_text().splitlines()) == 30 + 4 * 6
    assert set(json.loads((tmp_path / "coco.json").read_text())) >= {"images", "annotations", "categories"}


def test_verdicts_without_an_audit_sample_set_no_limit(
    run: Path, parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    database = tmp_path / "review.db"
    main(["score", str(run), str(parts / "test" / "good"), "--out", str(tmp_path / "s.csv"), "--review", str(database)])
    assert main(["calibrate", str(run), "--verdicts", str(database)]) == 1
    assert "no image of an audit sample was judged normal" in capsys.readouterr().err


def test_calibrate_takes_one_source(run: Path, parts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calibrate", str(run)]) == 1
    assert "give --normal DIR or --verdicts DB" in capsys.readouterr().err


def test_a_public_address_without_a_login_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["review", "--db", str(tmp_path / "review.db"), "--host", "0.0.0.0"]) == 1
    assert "nobody would have to log in" in capsys.readouterr().err
