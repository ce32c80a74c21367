"""The review's commands, as a script calls them: score into a database, judge,
export, calibrate.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import sqlite3
import subprocess
from pathlib import Path

import pytest

from anomaly.commands.main import main, parser
from anomaly.commands.review import DATABASE
from anomaly.detector.file import read_card
from anomaly.errors import AnomalyError
from anomaly.review import Filters, Store


@pytest.fixture(scope="module")
def database(run: Path, parts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a review database that `anomaly score --review` filled."""
    folder = tmp_path_factory.mktemp("review")
    status = main(
        [
            "score",
            str(run),
            str(parts / "test"),
            "--out",
            str(folder / "scores.csv"),
            "--review",
            str(folder / "review.db"),
        ]
    )
    assert status in (0, 3)
    return folder / "review.db"


def give_verdict(database: Path, run: int = 1) -> tuple[int, int]:
    """Judges every image of the audit sample normal and every flagged one anomalous; returns how
    many of each.
    """
    with Store(database) as store:
        sampled = [f for f in store.findings(Filters(run=run), limit=1000) if f.sampled_as]
        for finding in sampled:
            verdict = "anomalous" if finding.is_anomaly else "normal"
            store.record("ann", finding.id, verdict, key=f"{finding.id}")
        return sum(bool(f.is_anomaly) for f in sampled), sum(not f.is_anomaly for f in sampled)


def test_the_table_is_there_and_a_second_import_adds_nothing(
    database: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        main(["review", "import", str(database.with_name("scores.csv")), "--db", str(database)])
        == 0
    )
    assert "(it was there already)" in capsys.readouterr().out
    with Store(database) as store:
        assert [run.images for run in store.runs()] == [30 + 4 * 6]


def test_a_second_import_adds_the_folders_that_it_names(database: Path, tmp_path: Path) -> None:
    table, copy = database.with_name("scores.csv"), tmp_path / "review.db"
    again = ["review", "import", str(table), "--db", str(copy)]
    assert main(again) == 0
    for _ in range(2):
        assert main([*again, "--root", str(tmp_path)]) == 0
    with Store(copy) as store:
        assert tmp_path in store.roots(1)
        assert [event.action for event in store.events(run=1)].count("root") == 1
    assert main([*again, "--root", str(tmp_path / "none")]) == 1


def test_from_score_to_a_new_threshold(
    database: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["review", "audit", "--db", str(database), "--images", "40"]) == 0
    flagged, passed = give_verdict(database)
    assert flagged > 0 and passed > 0
    assert main(["review", "stats", "--db", str(database), "--json"]) == 0
    stats = json.loads(capsys.readouterr().out.split("dashboard\n", 1)[-1])
    assert stats["team"]["inspectors"][0]["name"] == "ann"
    out = tmp_path / "new.onnx"
    given = [
        "calibrate",
        str(run),
        "--verdicts",
        str(database),
        "--out",
        str(out),
        "--false-alarm-rate",
        "0.3",
    ]
    assert main(given) == 1  # fewer images and a higher rate: not without a word
    *read, message = capsys.readouterr().err.splitlines()
    assert message.startswith("anomaly: the guarantee would get worse: guaranteed rate ")
    assert [line.partition(":")[0] for line in read] == ["read as good"]
    with Store(database) as store:
        assert not out.exists() and not store.events(actions=("threshold",))
    assert main([*given, "--accept-worse"]) == 0
    said = capsys.readouterr().out
    assert out.exists() and "set by" in said and "guaranteed rate         1.64 % (1 of 61)" in said
    with Store(database) as store:  # the version is known here too, wherever the file goes
        assert store.identities() == [("run", "1"), ("run", read_card(out).version)]


def test_exports(database: Path, tmp_path: Path) -> None:
    for name in ("findings.csv", "findings.jsonl", "coco.json", "folder"):
        assert main(["review", "export", "--db", str(database), str(tmp_path / name)]) == 0
    assert (
        main(["review", "export", "--db", str(database), "--log", str(tmp_path / "log.jsonl")]) == 0
    )
    assert len((tmp_path / "findings.jsonl").read_text().splitlines()) == 30 + 4 * 6
    assert set(json.loads((tmp_path / "coco.json").read_text())) >= {
        "images",
        "annotations",
        "categories",
    }


def test_a_report_of_a_day_is_text_page_chart_and_table(
    database: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "plant.toml").write_text('zone = "UTC"\nline = "test"\n')
    report = ["review", "report", "--db", str(database), "--plant", str(tmp_path / "plant.toml")]
    with Store(database) as store:
        run = store.runs()[0]
        day = store.newest()
    assert main([*report, "--day", str(day)[:10]]) == 0
    assert f"images                  {run.images}" in capsys.readouterr().out
    begins = {".html": b"<!DOCTYPE html>", ".csv": b"day,shift", ".png": b"\x89PNG", ".json": b"{"}
    for suffix, begin in begins.items():
        for _ in range(2):  # cron writes the same name again
            out = tmp_path / f"day{suffix}"
            assert main([*report, "--day", str(day)[:10], "--days", "3", "--out", str(out)]) == 0
        assert out.read_bytes().startswith(begin)
    for wrong in (["--day", "monday"], ["--out", "day.pdf"], ["--days", "0"], ["--days", "9999"]):
        assert main([*report, *wrong]) == 1


def test_verdicts_without_an_audit_sample_set_no_threshold(
    run: Path, parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    database = tmp_path / "review.db"
    main(
        [
            "score",
            str(run),
            str(parts / "test" / "good"),
            "--out",
            str(tmp_path / "s.csv"),
            "--review",
            str(database),
        ]
    )
    assert main(["calibrate", str(run), "--verdicts", str(database)]) == 1
    assert "no image of an audit sample was judged normal" in capsys.readouterr().err


def test_calibrate_takes_one_source(
    run: Path, parts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["calibrate", str(run)]) == 1
    assert "give --normal DIR or --verdicts DB" in capsys.readouterr().err


def test_a_public_address_without_a_login_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["review", "--db", str(tmp_path / "review.db"), "--host", "0.0.0.0"]) == 1
    assert "nobody would have to log in" in capsys.readouterr().err


# ---- options before and after the action ----

ACTIONS = [
    ["types"],
    ["types", "--add", "burr"],
    ["stats"],
    ["verify"],
    ["audit", "--images", "5"],
    ["export", "OUT"],
    ["export", "--log", "LOG"],
    ["import", "TABLE", "--name", "again"],
]


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("action", ACTIONS, ids=" ".join)
def test_an_action_uses_the_database_that_is_named_before_or_after_it(
    database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, action: list[str], before: bool
) -> None:
    named, other, out = tmp_path / "x.db", tmp_path / "review.db", tmp_path / "out.csv"
    log = tmp_path / "log.jsonl"
    for copy in (named, other):
        with Store(copy) as store:
            store.import_table(database.with_name("scores.csv"))
    untouched = other.read_bytes()
    monkeypatch.chdir(tmp_path)
    table = str(database.with_name("scores.csv"))
    words = [{"OUT": str(out), "LOG": str(log), "TABLE": table}.get(word, word) for word in action]
    given = ["--db", str(named)]
    assert main(["review", *given, *words] if before else ["review", *words, *given]) == 0
    assert other.read_bytes() == untouched
    named.rename(tmp_path / "gone.db")
    # it makes one; all others must miss this one, though review.db is there
    if action[0] != "import":
        assert main(["review", *given, *words] if before else ["review", *words, *given]) == 1


@pytest.mark.parametrize("before", [True, False])
def test_import_takes_the_detector_named_before_or_after_it(
    database: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], before: bool
) -> None:
    named, words = (
        ["--db", str(tmp_path / "x.db"), "--detector", str(run)],
        ["import", str(database.with_name("scores.csv"))],
    )
    assert main(["review", *named, *words] if before else ["review", *words, *named]) == 0
    with Store(tmp_path / "x.db") as store:
        assert store.detectors()[0].card is not None
    assert main(["review", *named, *named, *words]) == 1
    assert "--detector: 2 found, the one that scored" in capsys.readouterr().err


def test_no_option_of_an_action_replaces_one_that_was_given_before_it() -> None:
    """Of all commands: a default of an action would win over what the command was given."""
    for command in subparsers(parser()).values():
        own = {
            option.dest
            for option in command._actions
            if option.option_strings and option.dest != "help"
        }
        for name, action in subparsers(command).items():
            twice = [option for option in action._actions if option.dest in own]
            assert all(option.default is argparse.SUPPRESS for option in twice), (
                command.prog,
                name,
                twice,
            )
    assert "types" in subparsers(subparsers(parser())["review"])
    assert parser().parse_args(["review", "report"]).db == DATABASE


def subparsers(command: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    found = [
        action for action in command._actions if isinstance(action, argparse._SubParsersAction)
    ]
    return dict(found[0].choices) if found else {}


@pytest.mark.parametrize("option", ["--add", "--set"])
@pytest.mark.parametrize("name", ["", " ", "=#3a86ff", " #3a86ff", "a\nb"])
def test_a_defect_type_without_a_name_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, name: str
) -> None:
    with Store(tmp_path / "x.db") as store:
        before = store.defect_types()
    assert "expected: give it a name" in refused(
        ["review", "--db", str(tmp_path / "x.db"), "types", option, "burr", name], capsys
    )
    with Store(tmp_path / "x.db") as store:
        assert store.defect_types() == before


# ---- names that are mistyped ----

NO_FILE = "no such file (there: review.db); a review database expected"


def actions(database: Path, run: Path, out: Path) -> list[list[str]]:
    """Returns every command that reads a review database."""
    return [
        ["review", "stats", "--db", str(database)],
        ["review", "export", "--db", str(database), str(out)],
        ["review", "export", "--log", "--db", str(database), str(out)],
        ["review", "audit", "--db", str(database)],
        ["review", "types", "--db", str(database), "--add", "burr"],
        ["review", "--db", str(database)],
        ["calibrate", str(run), "--verdicts", str(database)],
    ]


def refused(command: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Runs a command that has to fail and returns the one line that it says."""
    assert main(command) == 1, command
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def test_a_mistyped_database_is_refused_and_not_made(
    database: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    typo, out = database.with_name("reviev.db"), tmp_path / "out.csv"
    for command in actions(typo, run, out):
        assert NO_FILE in refused(command, capsys)
        assert not typo.exists() and not out.exists()


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("empty", "an empty file found"),
        ("folder", "is a folder"),
        ("text", "not an SQLite database"),
        ("fifo", "is a pipe or a device"),
        ("foreign", "table 'notes' found, a review database or an empty one expected"),
        ("no tables", "a database without a review in it found"),
    ],
)
def test_what_is_no_review_database_is_refused_and_stays_as_it_is(
    kind: str, said: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    named, out = tmp_path / "named.db", tmp_path / "out.csv"
    make(kind, named)
    before = named.read_bytes() if named.is_file() else None
    for command in actions(named, run, out):
        assert said in refused(command, capsys)
        assert not out.exists()
    assert before == (named.read_bytes() if named.is_file() else None)


def make(kind: str, path: Path) -> None:
    if kind == "empty":
        path.touch()
    elif kind == "folder":
        path.mkdir()
    elif kind == "text":
        path.write_text("a,b\n1,2\n" * 200)
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA user_version = 7")
            if kind == "foreign":
                connection.execute("CREATE TABLE notes (a)")
            connection.commit()


def test_a_database_that_can_only_be_read_is_refused_in_one_line(
    database: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "review.db"
    with (
        contextlib.closing(sqlite3.connect(database)) as source,
        contextlib.closing(sqlite3.connect(copy)) as target,
    ):
        source.backup(target)
        target.execute("PRAGMA journal_mode = DELETE")
    done = subprocess.run(["chattr", "+i", str(copy)], capture_output=True, text=True, check=False)
    if done.returncode:  # root may write to any other file
        pytest.skip(f"no file can be made immutable here: {done.stderr.strip()}")
    try:
        with pytest.raises(AnomalyError, match="it can only be read here") as caught:
            Store(copy, create=False)
        assert "\n" not in str(caught.value)
    finally:
        subprocess.run(["chattr", "-i", str(copy)], check=True)


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://[half/db",
        "postgresql://u:secret@h:port/db",
        "://",
        "sqlite://",
        "sqlite:///x?a=1",
    ],
)
def test_an_address_that_is_none_is_one_line_without_its_password(
    address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "secret" not in refused(["review", "stats", "--db", address], capsys)


def test_a_mistyped_run_is_refused_naming_those_there_are(
    database: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in (["stats"], ["export", str(tmp_path / "out.csv")], ["audit"]):
        said = refused(["review", *command, "--db", str(database), "--run", "99"], capsys)
        assert "--run 99: no such run" in said and said.endswith("there: 1 scores")
    assert not (tmp_path / "out.csv").exists()


def test_a_mistyped_detector_is_refused_naming_those_there_are(
    database: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    card = read_card(run)
    said = refused(
        ["review", "--db", str(database), "--detector", str(run.with_name(run.name + "x"))], capsys
    )
    assert "no detector found there" in said and str(run) in said
    assert f"{card.name}@{card.version} ({card.digest[:8]})" in said
    (tmp_path / "model.onnx").write_bytes(b"no model")
    assert "--detector" in refused(
        ["review", "--db", str(database), "--detector", str(tmp_path / "model.onnx")], capsys
    )


def test_a_file_that_is_taken_away_is_not_made_anew(database: Path, tmp_path: Path) -> None:
    shutil.copy(database, tmp_path / "copy.db")
    with Store(tmp_path / "copy.db", create=False) as store:
        store._db._engine.dispose()  # as a pool does with connections that have grown old
        (tmp_path / "copy.db").unlink()
        with pytest.raises(AnomalyError, match="unable to open"):
            store.runs()
    assert not (tmp_path / "copy.db").exists()


# ---- defect types ----


def types_in(
    database: Path, capsys: pytest.CaptureFixture[str], *change: str
) -> list[tuple[int | None, str, str]]:
    """Runs `review types` and returns what it lists: key, name, colour."""
    capsys.readouterr()
    assert main(["review", "types", "--db", str(database), "--json", *change]) == 0
    return [
        (kind["key"], kind["name"], kind["colour"]) for kind in json.loads(capsys.readouterr().out)
    ]


def test_a_fresh_database_has_defect_types_that_are_edited_by_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    database = tmp_path / "review.db"
    Store(database).close()
    first = types_in(database, capsys)
    assert [key for key, *_ in first] == list(range(1, 10))
    assert {
        "scratch",
        "dent",
        "crack",
        "stain",
        "contamination",
        "missing part",
        "deformation",
        "other",
    } < {n for _, n, _ in first}
    assert len({colour for *_, colour in first}) == 9
    assert types_in(database, capsys, "--add", "burr", "loose wire=#3a86ff") == [
        *first, (None, "burr", "#e4572e"), (None, "loose wire", "#3a86ff")
    ]  # fmt: skip
    assert [name for _, name, _ in types_in(database, capsys, "--remove", "dent", "other")][
        -2:
    ] == ["burr", "loose wire"]
    few = types_in(
        database, capsys, "--set", "loose wire", "Kratzer", "欠け", "missing part=#00ff00"
    )
    assert [(key, name) for key, name, _ in few] == [
        (1, "loose wire"),
        (2, "Kratzer"),
        (3, "欠け"),
        (4, "missing part"),
    ]
    assert (
        few[0][2] == "#3a86ff"
        and few[3][2] == "#00ff00"
        and len({colour for *_, colour in few}) == 4
    )
    assert types_in(database, capsys) == few


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (["--remove", "dents"], "defect type 'dents' found; on the list: "),
        (["--add", "good"], "not good or normal"),
        (["--add", "a/b"], "without / "),
        (["--add", "dent"], "two defect types with the same name"),
        (["--add", "burr=#12"], "#rrggbb expected"),
        (["--set", " "], "defect type ' ' found, a name like burr"),
        (["--set", "x" * 61], "1 to 60 printable characters"),
    ],
)
def test_a_list_of_types_that_cannot_be_is_refused(
    change: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    database = tmp_path / "review.db"
    Store(database).close()
    before = types_in(database, capsys)
    assert said in refused(["review", "types", "--db", str(database), *change], capsys)
    assert types_in(database, capsys) == before
